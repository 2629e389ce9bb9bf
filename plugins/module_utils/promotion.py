# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of a promotion: which gates are closed, and the steps in the order that keeps one writer at a time.

Pure: `plan(observed, wanted)` decides from what was observed alone (HAZARDS: RDS promotion; runbook 1, steps 1 to 4).
"""

from __future__ import annotations

from . import rds
from .errors import Refusal, Unreachable
from .replica_lag import possible_loss, replication_lag
from .verb import Plan, Step


def plan(observed, wanted):
    """Steps from the observed state to "the replica is the primary, and nothing else takes writes".

    Args:
        observed: {replica, source: `rds.instance()` dicts (source may be None or Unreachable), replica_facts, source_facts:
            `Database.facts()` or the exception that says why not, lag_metric, alive_metric, quarantined, unknown_groups (of
            fence_security_groups), was_promoted, now, ids}.
        wanted: the module's parameters.

    Raises:
        Refusal: a gate is closed; the message names the override, where there is one.
    """
    replica, source = observed["replica"], observed["source"]
    endpoint = {"host": replica["host"], "port": replica["port"]}
    if replica["source"] is None:
        return _finish(observed, wanted, endpoint)
    _refuse_other_source(observed)
    if replica["status"] not in rds.SERVING:
        rds.is_available(replica)
        return Plan(
            (
                Step(
                    "settle",
                    f"wait until {replica['id']} is available ({replica['status']} cannot be promoted)",
                    replica["status"],
                    "available",
                    look_again=True,
                    waits=True,
                ),
            ),
            {"status": "available"},
            returned={"endpoint": endpoint},
        )
    mode, loss, notes = _gate(observed, wanted)
    unfenced = mode == "failover"
    steps = []
    if mode == "switchover":
        steps.append(
            Step("fence", f"fence {source['id']}: read-only, and end its sessions", "takes writes", "read-only")
        )
        by = "drain" if isinstance(observed["replica_facts"], dict) else "drain_by_metric"
        steps.append(
            Step(by, f"let {replica['id']} replay everything that {source['id']} has written", "behind", "lag 0")
        )
    else:
        steps += _quarantine(observed, wanted)
    source_arn = replica["source"]
    steps += [
        Step(
            "mark",
            f"note on {replica['id']} what it is promoted from",
            None,
            source_arn,
            {"arn": replica["arn"], "source_arn": source_arn},
        ),
        Step(
            "promote",
            f"promote {replica['id']}, backups kept {wanted['backup_retention_days']} days",
            "replica",
            "primary",
            {"retention": wanted["backup_retention_days"]},
        ),
        Step(
            "await_promotion",
            f"wait until {replica['id']} is no replica any more"
            + (", available and takes a write" if wanted["write_probe"] else " and available"),
            "modifying",
            "available",
            waits=True,
        ),
    ]
    if mode == "switchover":
        steps += _quarantine(observed, wanted)
    steps += _adjust(observed, wanted)
    siblings = (
        [other for other in source["replicas"] if not rds.same_instance(other, replica)]
        if isinstance(source, dict)
        else []
    )
    if siblings:
        notes.append(f"{', '.join(siblings)} will go on following {source['id']}: re-create them from {replica['id']}")
    notes.append(
        "a promotion cannot be undone: the way back is sre.runbooks.rds_recreate_replica, then this verb the other way"
    )
    primary = "fenced" if mode == "switchover" else "does not answer"
    return Plan(
        tuple(steps),
        {
            "role": "primary",
            "status": "available",
            "source": None,
            "primary": primary,
            "backup_retention_days": wanted["backup_retention_days"],
        },
        tuple(notes),
        {"mode": mode, "unfenced": unfenced, "possible_loss_seconds": loss, "endpoint": endpoint},
    )


def _refuse_other_source(observed):
    replica, source, ids = observed["replica"], observed["source"], observed["ids"]
    follows = replica["source"].rpartition(":")[2]
    same = rds.same_instance(replica["source"], source) if isinstance(source, dict) else follows == ids["source"]
    if not same:
        raise Refusal(
            f"{replica['id']} is a replica of {follows}, not of {ids['source']}: nothing was changed; check "
            f"db_instance of this host and of its peer in the inventory"
        )


def _gate(observed, wanted):
    """(mode, possible loss in seconds, notes) where the gates are open."""
    replica, ids = observed["replica"], observed["ids"]
    source_facts, replica_facts = observed["source_facts"], observed["replica_facts"]
    for facts in (source_facts, replica_facts):
        if isinstance(facts, Exception) and not isinstance(facts, Unreachable):
            raise Refusal(f"{facts}; nothing was changed")
    if isinstance(replica_facts, Unreachable) and wanted["write_probe"]:
        raise Refusal(
            f"{replica['id']} cannot be asked whether it takes writes ({replica_facts}): give login_user and a way "
            f"to it, or set write_probe: false; nothing was changed"
        )
    if isinstance(source_facts, dict) and not source_facts["in_recovery"]:
        lag = replication_lag(_facts(replica_facts), source_facts, observed["lag_metric"], observed["now"])
        if lag.seconds is None:
            raise Refusal(
                f"the lag of {replica['id']} is unknown ({lag.why}) while {ids['source']} answers: repair replication "
                f"first; nothing was changed"
            )
        if lag.seconds > wanted["max_lag_seconds"]:
            raise Refusal(
                f"{replica['id']} is {lag.seconds:.0f} s behind {ids['source']} (limit {wanted['max_lag_seconds']:.0f} s): "
                f"writers would be stopped that long; wait, or raise max_lag_seconds; nothing was changed"
            )
        return "switchover", 0.0, []
    if isinstance(source_facts, dict):
        raise Refusal(f"{ids['source']} is itself in recovery: it is not the primary; nothing was changed")
    return _gate_failover(observed, wanted)


def _gate_failover(observed, wanted):
    replica, ids, alive = observed["replica"], observed["ids"], observed["alive_metric"]
    seen = alive[-1][0] if isinstance(alive, list) and alive else None
    loss = possible_loss(_facts(observed["replica_facts"]), observed["lag_metric"], seen, observed["now"])
    silent = f"the primary {ids['source']} does not answer ({observed['source_facts']})"
    accepted = wanted["accept_data_loss_seconds"]
    notes = [
        f"UNFENCED: {ids['source']} does not answer and may still take writes when it comes back: run this again then, "
        f"or db_reprotect"
    ]
    if loss.seconds is None:
        if not wanted["accept_unknown_loss"]:
            raise Refusal(
                f"{silent} and nothing tells how far {replica['id']} is behind ({loss.why}): "
                f"accept that with -e accept_unknown_loss=true; nothing was changed"
            )
        return "failover", None, [*notes, "override accept_unknown_loss: the loss has no known bound"]
    if loss.seconds > accepted:
        raise Refusal(
            f"{silent}: at most {loss.seconds:.0f} s of acknowledged writes would be lost ({loss.why}), accepted are "
            f"{accepted:.0f} s: accept more with -e accept_data_loss_seconds={int(loss.seconds) + 30}; nothing was changed"
        )
    return (
        "failover",
        round(loss.seconds, 1),
        [*notes, f"accepted a loss of up to {accepted:.0f} s; at most {loss.seconds:.0f} s are lost ({loss.why})"],
    )


def _finish(observed, wanted, endpoint):
    """The instance is no replica: a promotion of ours to complete, or one that must not be taken for it."""
    replica, source, ids = observed["replica"], observed["source"], observed["ids"]
    facts, source_facts = observed["replica_facts"], observed["source_facts"]
    came_from = (replica["promoted_from"] or "").rpartition(":")[2]
    if (
        isinstance(source, dict)
        and source["promoted_from"]
        and source["promoted_at"] > replica["promoted_at"]
        and rds.same_instance(source["promoted_from"], replica)
    ):
        raise Refusal(
            f"{source['id']} was itself promoted from {replica['id']} and is the primary now: run "
            f"playbooks/db_reprotect.yml first to make {replica['id']} its replica; nothing was changed"
        )
    if came_from != ids["source"] and not observed["was_promoted"] and not wanted["accept_standalone"]:
        raise Refusal(
            f"{replica['id']} is not a replica, and nothing says that it was promoted from {ids['source']}: check "
            f"db_instance in the inventory, or take it as it is with -e accept_standalone=true; nothing was changed"
        )
    alive = isinstance(source_facts, dict) and not source_facts["in_recovery"]
    takes_writes = alive and not source_facts["read_only"]
    # Ours were fenced first, or silent; of one by a person, in a drill or by mistake, the primary may know nothing.
    if takes_writes and came_from != ids["source"] and not wanted["accept_standalone"]:
        raise Refusal(
            f"{replica['id']} was promoted by hand, and {ids['source']} still takes writes, which {replica['id']} does not get: "
            f"make it a replica again with playbooks/db_reprotect.yml, or give up what was written since with "
            f"-e accept_standalone=true; nothing was changed"
        )
    steps, notes = [], []
    if replica["status"] not in rds.SERVING:
        rds.is_available(replica)
        steps.append(
            Step("settle", f"wait until {replica['id']} is available", replica["status"], "available", waits=True)
        )
    if isinstance(facts, dict) and (facts["read_only"] or facts["in_recovery"]):
        steps.append(Step("open_for_writes", f"let {replica['id']} take writes", "read-only", "writable"))
    if takes_writes:
        steps.append(
            Step(
                "fence",
                f"fence {source['id']}, which is back: read-only, and end its sessions",
                "takes writes",
                "read-only",
            )
        )
    fenced = isinstance(source_facts, dict) or source is None or (isinstance(source, dict) and source["fenced"])
    if not rds.same_instance(source["source"], replica) if isinstance(source, dict) else False:
        steps += _quarantine(observed, wanted)
    steps += _adjust(observed, wanted)
    if not fenced:
        notes.append(f"UNFENCED: {ids['source']} does not answer ({source_facts}); run this again when it is back")
    after = {"role": "primary", "status": "available", "source": None}
    if alive:
        after["primary"] = "fenced"
    return Plan(
        tuple(steps),
        after,
        tuple(notes),
        {"mode": "done", "unfenced": not fenced, "possible_loss_seconds": None, "endpoint": endpoint},
    )


def _quarantine(observed, wanted):
    source, groups = observed["source"], wanted["fence_security_groups"]
    if not groups or observed["quarantined"] or not isinstance(source, dict) or source["status"] not in rds.SERVING:
        return []
    if unknown := observed["unknown_groups"]:
        # After the promotion is too late to find that out: the run would stop half way.
        raise Refusal(
            f"{observed['ids']['source_region']} has no security group {', '.join(unknown)} to fence {source['id']} with: mend "
            f"db_fence_security_groups in the inventory, or leave it out; nothing was changed"
        )
    return [
        Step(
            "quarantine",
            f"let nothing new connect to {source['id']}",
            source["security_groups"],
            groups,
            {"groups": groups},
        )
    ]


def _adjust(observed, wanted):
    """Settings that the promoted instance takes over, where they differ."""
    replica, source = observed["replica"], observed["source"]
    multi_az = wanted["multi_az"]
    if multi_az is None and isinstance(source, dict):
        multi_az = source["multi_az"] or replica["multi_az"]
    settings = {}
    if multi_az is not None and multi_az != replica["multi_az"]:
        settings["MultiAZ"] = multi_az
    if replica["source"] is None and replica["backup_retention"] != wanted["backup_retention_days"]:
        settings["BackupRetentionPeriod"] = wanted["backup_retention_days"]
    if not settings:
        return []
    shown = ", ".join(f"{key} {value}" for key, value in settings.items())
    return [Step("adjust", f"set {shown} on {replica['id']} (not waited for)", None, settings, {"settings": settings})]


def _facts(facts):
    return facts if isinstance(facts, dict) else None

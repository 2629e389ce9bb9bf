# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that makes an old primary a replica of the one promoted in its place.

RDS cannot demote an instance: a new replica takes its name, and the old one is kept beside it under another, since it may
hold acknowledged writes that the promoted one never got. Renaming takes minutes and may stop half way; each state between
is recognised by what exists under which name. (HAZARDS: RDS promotion 4, Restore 2)
"""

from __future__ import annotations

import time

from . import rds
from .errors import Refusal
from .verb import Plan, Step


def plan(observed, wanted):
    """Steps from the observed state to "db_instance is a replica of source_instance, and close behind it".

    Args:
        observed: {old, source: `rds.instance()` or None, damaged: the instance that the source was restored from, or None,
            retired: [instances kept by earlier runs], old_facts, lag, now, ids}.
        wanted: the module's parameters.
    """
    old, source, ids = observed["old"], observed["source"], observed["ids"]
    if source["source"] is not None:
        raise Refusal(
            f"{source['id']} is itself a replica (of {source['source'].rpartition(':')[2]}): promote it first with "
            f"playbooks/db_failover.yml; nothing was changed"
        )
    steps, notes = [], []
    if old is None:
        steps.append(_create(observed, wanted))
    elif old["status"] == "renaming":
        steps.append(
            Step(
                "await_renamed",
                f"wait until {old['id']} is renamed",
                "renaming",
                "renamed",
                look_again=True,
                waits=True,
            )
        )
    elif rds.same_instance(old["source"], source):
        if old["status"] not in rds.SERVING:
            rds.is_available(old)
            steps.append(Step("settle", f"wait until {old['id']} is available", old["status"], "available", waits=True))
    elif old["source"] is not None and not _follows_damaged(observed):
        raise Refusal(
            f"{old['id']} is a replica of {old['source'].rpartition(':')[2]}, not of {source['id']}: nothing was changed"
        )
    else:
        steps += _retire(observed, wanted)
        steps.append(_create(observed, wanted))
    if steps or observed["lag"] is None or observed["lag"] > wanted["max_lag_seconds"]:
        steps.append(
            Step(
                "catch_up",
                f"wait until {ids['old']} follows {source['id']} within {wanted['max_lag_seconds']:.0f} s",
                observed["lag"],
                "following",
                waits=True,
            )
        )
    kept = [instance["id"] for instance in observed["retired"]]
    kept += [step.after for step in steps if step.do == "rename"]
    if kept:
        notes.append(
            f"{', '.join(kept)} still holds what was never replicated: compare, then delete it by hand; it costs until then"
        )
    return Plan(tuple(steps), {"source": source["arn"], "status": "available"}, tuple(notes))


def _follows_damaged(observed):
    """Whether it is a replica of the damaged instance whose place the source has taken: it stays with that one for ever."""
    return rds.same_instance(observed["old"]["source"], observed["damaged"])


def _retire(observed, wanted):
    old, source = observed["old"], observed["source"]
    is_known = rds.same_instance(source["promoted_from"], old) or _follows_damaged(observed)
    if not is_known and not wanted["accept_standalone"]:
        raise Refusal(
            f"nothing says that {source['id']} was promoted from {old['id']}: {old['id']} may hold the only copy of its "
            f"data; if it is the old primary all the same, say -e accept_standalone=true; nothing was changed"
        )
    if old["status"] not in rds.SERVING and old["status"] in rds.PASSING:
        return [
            Step(
                "settle",
                f"wait until {old['id']} is available",
                old["status"],
                "available",
                look_again=True,
                waits=True,
            )
        ]
    steps = []
    facts = observed["old_facts"]
    if isinstance(facts, dict) and not facts["read_only"] and not facts["in_recovery"]:
        steps.append(Step("fence", f"fence {old['id']}: read-only, and end its sessions", "takes writes", "read-only"))
    name = f"{old['id']}-retired-{time.strftime('%Y%m%d%H%M%S', time.gmtime(observed['now']))}"
    steps.append(Step("rename", f"keep {old['id']} as {name}", old["id"], name, {"name": name}))
    return steps


def _create(observed, wanted):
    """The replica takes what the retired instance had; what is nowhere to be read comes from the source or the options."""
    ids, source = observed["ids"], observed["source"]
    retired = sorted(observed["retired"], key=lambda instance: instance["id"])
    model = observed["old"] or (retired[-1] if retired else None)
    settings = {
        "DBInstanceIdentifier": ids["old"],
        "SourceDBInstanceIdentifier": source["arn"],
        "SourceRegion": ids["source_region"],
        "DBInstanceClass": (model or source)["instance_class"],
    }
    groups = wanted["security_groups"]
    if groups:
        settings["VpcSecurityGroupIds"] = groups
    if model:
        settings["PubliclyAccessible"] = model["public"]
        settings["Tags"] = [{"Key": key, "Value": value} for key, value in model["tags"].items()]
        for key, name in (("subnet_group", "DBSubnetGroupName"), ("kms_key", "KmsKeyId")):
            if model[key]:
                settings[name] = model[key]
        if not groups:
            settings["VpcSecurityGroupIds"] = model["security_groups"]
    return Step(
        "create_replica",
        f"create {ids['old']} as a replica of {source['id']}",
        None,
        source["arn"],
        {"settings": settings},
    )

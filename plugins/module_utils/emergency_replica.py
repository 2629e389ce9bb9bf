# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that gives a database a read replica in a hurry, and takes it away again. Pure.

https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_ReadRepl.Create.html
"""

from __future__ import annotations

from . import rds
from .errors import Refusal
from .verb import Plan, Step

# Written on a replica of ours: only such a one is deleted again.
MARK = "sre.runbooks/emergency-replica-of"
# So many replicas an instance of PostgreSQL may have.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_PostgreSQL.Replication.ReadReplicas.html
MOST_REPLICAS = 15


def plan(observed, wanted):
    """Steps from the observed state to `state` of the replica.

    Args:
        observed: {source, replica: `rds.instance()` or None; lag: seconds, or None where it is not known}.
        wanted: the module's parameters.
    """
    return _absent(observed, wanted) if wanted["state"] == "absent" else _present(observed, wanted)


def _present(observed, wanted):
    source, replica, name = observed["source"], observed["replica"], wanted["replica"]
    limit = wanted["max_lag_seconds"]
    steps, notes = [], []
    if replica is None:
        steps.append(_create(source, wanted))
        notes.append(f"{name} costs as much as {source['id']} until it is deleted: the same task with state=absent")
        if not source["multi_az"]:
            notes.append(
                f"{source['id']} is in one zone: its disk may stand still for about a minute while the snapshot is taken"
            )
    else:
        _refuse_other(replica, source)
        if replica["status"] == "deleting":
            raise Refusal(f"{name} is being deleted: the same command again when it is gone")
        if not rds.is_available(replica):
            steps.append(Step("settle", f"wait until {name} is available", replica["status"], "available", waits=True))
    if steps or observed["lag"] is None or observed["lag"] > limit:
        what = f"wait until {name} follows {source['id']} within {limit:.0f} s"
        steps.append(Step("catch_up", what, observed["lag"], "following", waits=True))
    return Plan(tuple(steps), {"status": "available", "source": source["id"]}, tuple(notes))


def _create(source, wanted):
    if source["source"]:
        raise Refusal(f"{source['id']} is a replica itself: name the instance that it follows as db_instance")
    if source["status"] not in rds.SERVING:
        raise Refusal(
            f"{source['id']} is {source['status']}, and only an instance that is available gets a replica: if it is gone for "
            f"good, playbooks/db_failover.yml; nothing was changed"
        )
    if not source["backup_retention"]:
        raise Refusal(
            f"{source['id']} has no automated backups, which a replica begins with: turning them on "
            f"(aws rds modify-db-instance --backup-retention-period 7) makes one at once; nothing was changed"
        )
    if len(source["replicas"]) >= MOST_REPLICAS:
        raise Refusal(f"{source['id']} has {len(source['replicas'])} replicas, and may have no more: use one of them")
    settings = {
        "DBInstanceIdentifier": wanted["replica"],
        "SourceDBInstanceIdentifier": source["id"],
        "DBInstanceClass": wanted["instance_class"] or source["instance_class"],
        # Without them it would get the default group of the VPC, through which the application does not come. Its parameter
        # group is the source's by itself.
        "VpcSecurityGroupIds": source["security_groups"],
        "PubliclyAccessible": False,
        "CopyTagsToSnapshot": True,
        "Tags": [{"Key": key, "Value": value} for key, value in dict(source["tags"], **{MARK: source["id"]}).items()],
    }
    what = f"create {wanted['replica']}, a {settings['DBInstanceClass']}, as a replica of {source['id']}"
    return Step("create", what, None, source["id"], {"settings": settings})


def _absent(observed, wanted):
    source, replica, name = observed["source"], observed["replica"], wanted["replica"]
    if replica is None:
        return Plan()
    gone = Step("await_gone", f"wait until {name} is gone", replica["status"], None, waits=True)
    if replica["status"] == "deleting":
        return Plan((gone,), {"status": None, "source": None})
    _refuse_other(replica, source)
    if replica["tags"].get(MARK) != source["id"]:
        raise Refusal(f"{name} was not made by this verb (it has no tag {MARK}): delete it by hand if it is to go")
    if replica["deletion_protection"]:
        raise Refusal(f"{name} is protected from deletion: somebody wants it kept; take that back first")
    return Plan(
        (Step("delete", f"delete {name}, of which nothing is kept", replica["status"], None), gone),
        {"status": None, "source": None},
    )


def _refuse_other(replica, source):
    """Raises Refusal where `replica` does not follow `source`: it may hold what nobody else has."""
    if not rds.same_instance(replica["source"], source):
        what = f"follows {replica['source'].rpartition(':')[2]}" if replica["source"] else "follows nobody"
        raise Refusal(
            f"there is an instance {replica['id']} already, which {what} and not {source['id']}: choose another name "
            f"(replica); nothing was changed"
        )

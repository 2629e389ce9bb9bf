#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_restore
version_added: 0.1.0
short_description: Restore an RDS instance beside itself, from a snapshot or to a point in time
description:
  - Takes a safety snapshot of what is there, makes a new instance from a snapshot or from any second of the log, and waits
    until it is available. The damaged instance is not touched, and nothing is ever deleted.
  - "The new instance is like its source where AWS would give it defaults: class, zones, subnet group, security groups, parameter
    and option group, deletion protection, backups and their window, maintenance window, IAM logins, log exports, storage,
    monitoring, tags. It is never public."
  - A time that the log has not reached yet is waited for, since AWS uploads the log every five minutes.
  - What it was restored from, and to, is written in its tags. The same task again recognises it, goes on where an earlier run
    was stopped, and knows it also when it has taken the place of its source (M(sre.runbooks.rds_swap_names)).
options:
  db_instance:
    description: The damaged instance, in O(region).
    type: str
    required: true
  restored_instance:
    description: Name of the new instance.
    type: str
    required: true
  snapshot:
    description: Id of the snapshot to restore, as M(sre.runbooks.rds_restore_points) lists them.
    type: str
  restore_time:
    description:
      - The last moment whose commits are wanted, with its zone, such as V(2026-03-01T14:30:00Z). What was committed later is not
        there.
    type: str
  safety_snapshot:
    description:
      - Take a snapshot of the damaged instance first. One that an earlier try took within a day counts.
      - AWS takes none of an instance that is not available; V(false) goes on without.
    type: bool
    default: true
  accept_other_source:
    description:
      - Restore O(snapshot) although it was taken of another instance. B(Risk:) the data of another database.
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.database_login
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - With a login a restored database that has the fence of its source (M(sre.runbooks.rds_promote_replica)) is let take writes.
  - Needs C(rds:DescribeDBInstances), C(rds:DescribeDBSnapshots), C(rds:DescribeDBInstanceAutomatedBackups),
    C(rds:CreateDBSnapshot), C(rds:RestoreDBInstanceFromDBSnapshot), C(rds:RestoreDBInstanceToPointInTime),
    C(rds:ModifyDBInstance) and C(rds:AddTagsToResource).
seealso:
  - module: sre.runbooks.rds_restore_points
  - module: sre.runbooks.pg_check_data
  - module: sre.runbooks.rds_swap_names
"""

EXAMPLES = r"""
- name: Everything that was committed up to that second
  sre.runbooks.rds_restore:
    db_instance: regami-db-primary
    region: us-east-1
    restored_instance: regami-db-restored
    restore_time: "2024-01-15T14:30:00Z"
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    lease: "{{ lock.lease }}"

- name: What this night's snapshot holds
  sre.runbooks.rds_restore:
    db_instance: regami-db-primary
    region: us-east-1
    restored_instance: regami-db-restored
    snapshot: rds:regami-db-primary-2024-01-15-03-00
"""

RETURN = r"""
restored:
  description: The name that the restored instance has, or will have.
  returned: success
  type: str
  sample: regami-db-restored
source:
  description: The name that the damaged instance has by now; null where it is gone.
  returned: success
  type: str
  sample: regami-db-primary
exists:
  description: Whether the restored instance is there; in check mode of a first run it is not.
  returned: success
  type: bool
  sample: true
switched:
  description: Whether it has taken the name of its source already.
  returned: success
  type: bool
  sample: false
endpoint:
  description: Where the restored instance is, as predicted while it is not there.
  returned: success
  type: dict
  sample: {host: regami-db-restored.cxyz.us-east-1.rds.amazonaws.com, port: 5432}
safety_snapshot:
  description: The snapshot of the damaged instance, null where none was taken.
  returned: success
  type: str
  sample: regami-db-primary-before-regami-db-restored-20260301143512
before:
  description: The restored instance as found; empty where there was none.
  returned: unless refused
  type: dict
  sample: {}
after:
  description: The restored instance at the end.
  returned: success
  type: dict
  sample: {restored: regami-db-restored, status: available, restored_to: "2026-03-01T14:30:00Z"}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: restore, what: "restore regami-db-primary to 2026-03-01T14:30:00Z as regami-db-restored", before: null, after: regami-db-restored}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "restore regami-db-primary to 2026-03-01T14:30:00Z as regami-db-restored"
      instead: "it costs until somebody deletes it: aws rds delete-db-instance"
notes:
  description: What is different there, and what a person has to do in the end.
  returned: success
  type: list
  elements: str
  sample: ["regami-db-restored knows the passwords of 2026-03-01T14:30:00Z: one that was rotated since is the old one there"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 940.5
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import rds, restore_points, restored_settings, restoring
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Seconds that a restore usually takes (regami runbook 5 says 10 to 30 minutes), a snapshot, and a part of the log.
USUAL_RESTORE = 1200
USUAL_SNAPSHOT = 300
USUAL_LOG = 300

SERVICES = ("rds", "dynamodb", "secretsmanager")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    restored_instance=dict(type="str", required=True),
    snapshot=dict(type="str"),
    restore_time=dict(type="str"),
    safety_snapshot=dict(type="bool", default=True),
    accept_other_source=dict(type="bool", default=False),
    **LOGIN_ARGUMENTS,
)


class RdsRestore(Verb):
    """Make an instance beside the damaged one, with the data of an earlier moment."""

    INSTEAD = "it costs until somebody deletes it: aws rds delete-db-instance"

    plan = staticmethod(restoring.plan)

    def __init__(self, module):
        super().__init__(module)
        self.login, self.region = Login(self.params, self.aws), self.aws.region
        self.id, self.target = self.params["db_instance"], self.params["restored_instance"]
        self.point = restore_points.point(self.params["snapshot"], self.params["restore_time"])
        self.seen, self.safety, self.adjusted = {}, None, False

    def observe(self):
        raws = {
            raw["DBInstanceIdentifier"]: raw
            for raw in rds.pages(self.aws, "describe_db_instances", "DBInstances", self.region)
        }
        instances = {name: rds.instance(raw) for name, raw in raws.items()}
        where = restoring.place(instances, self.id, self.target, self.point.text)
        source, restored = where.source, where.restored
        if source is None and restored is None:
            raise rds.not_found(self.aws, self.id, self.region)
        self.seen = {"place": where, "point": self.point, "now": time.time(), "left": {}, "facts": None}
        if source is not None:
            self.seen |= together(**self._data_of(source))
            self.safety = self.safety or self._safety()
            self.seen["settings"] = restored_settings.carried(
                raws[source["id"]], source["resource_id"], self.point.text
            )
        if restored is not None:
            # Once: what AWS then shows in other words is no difference.
            if source is not None and not self.adjusted:
                self.seen["left"] = restored_settings.left(raws[source["id"]], raws[restored["id"]])
            if restored["status"] in rds.SERVING and self.login.given:
                self.seen["facts"] = rds.ask(restored, self.login)
        return self.seen

    def _data_of(self, source):
        name = self.point.snapshot
        return {
            "snapshots": lambda: restore_points.snapshots(self.aws, source, self.region),
            "window": lambda: restore_points.window(self.aws, source, self.region),
            "named": lambda: restore_points.named(self.aws, name, self.region) if name else None,
        }

    def _safety(self):
        """The newest snapshot that a try to make this target has taken."""
        mine = f"-before-{self.target}-"
        return next((each["id"] for each in self.seen["snapshots"] if mine in each["id"]), None)

    # The steps, named as in the plan.

    def settle(self, name):
        self.wait(
            lambda: rds.describe(self.aws, name, self.region),
            rds.is_available,
            f"{name} becomes available",
            usual=USUAL_RESTORE,
            state=lambda seen: seen["status"] if seen else "gone",
        )

    def snapshot(self, name):
        source = self.seen["place"].source["id"]
        self.aws.change(
            "rds", "create_db_snapshot", region=self.region, DBInstanceIdentifier=source, DBSnapshotIdentifier=name
        )
        self.safety = name

    def await_snapshot(self, name):
        def is_whole(seen):
            if seen is None or seen["status"] not in ("creating", "available"):
                raise Stop(f"the snapshot {name} is {seen['status'] if seen else 'gone'}: look at its RDS events")
            return seen["status"] == "available"

        self.wait(
            lambda: restore_points.named(self.aws, name, self.region),
            is_whole,
            f"the snapshot {name} is whole",
            usual=USUAL_SNAPSHOT,
            state=lambda seen: seen["status"] if seen else "gone",
        )

    def await_log(self):
        source = self.seen["place"].source
        self.wait(
            lambda: restore_points.window(self.aws, source, self.region),
            lambda seen: seen is not None and seen.latest >= self.point.time,
            f"the log of {source['id']} reaches {self.point.text}",
            usual=USUAL_LOG,
            state=lambda seen: f"at {restore_points.moment(seen.latest)}" if seen else "no log",
        )

    def restore(self, settings):
        if self.point.snapshot:
            operation, target = "restore_db_instance_from_db_snapshot", "DBInstanceIdentifier"
            what = {"DBSnapshotIdentifier": self.point.snapshot}
        else:
            operation, target = "restore_db_instance_to_point_in_time", "TargetDBInstanceIdentifier"
            what = {
                "SourceDBInstanceIdentifier": self.seen["place"].source["id"],
                "RestoreTime": restore_points.moment(self.point.time),
            }
        self.aws.change("rds", operation, region=self.region, **{target: self.target}, **what, **settings)

    def adjust(self, settings):
        self.adjusted = True
        self.aws.change(
            "rds",
            "modify_db_instance",
            region=self.region,
            DBInstanceIdentifier=self.target,
            ApplyImmediately=True,
            **settings,
        )

    def unfence(self):
        rds.database(self.seen["place"].restored, self.login).unfence()

    def view(self, observed):
        restored = observed["place"].restored
        if restored is None:
            return {}
        return {"restored": restored["id"], "status": restored["status"], "restored_to": restored["restored_to"]}

    def returned(self):
        where = self.seen.get("place")
        if where is None:
            return {}
        restored, source = where.restored, where.source
        return {
            "restored": restored["id"] if restored else self.target,
            "source": source and source["id"],
            "exists": restored is not None,
            "switched": where.switched,
            "endpoint": _endpoint(restored) if restored else _predicted(source, self.target),
            "safety_snapshot": self.safety,
        }


def _endpoint(instance):
    return {"host": instance["host"], "port": instance["port"]}


def _predicted(source, target):
    """An endpoint begins with the name of its instance; all else is of the account and the region."""
    name, _dot, rest = (source["host"] or "").partition(".")
    return {"host": f"{target}.{rest}" if name == source["id"] else target, "port": source["port"]}


def main():
    run(
        verb_module(
            ARGUMENTS,
            required_one_of=[("snapshot", "restore_time")],
            mutually_exclusive=[("snapshot", "restore_time"), PASSWORD_SOURCES],
            required_by={"login_user": ["login_db"]},
        ),
        RdsRestore,
    )


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_swap_names
version_added: 0.1.0
short_description: Let a restored RDS instance take the name and the endpoint of the damaged one
description:
  - Renames the damaged instance to O(kept_instance), then the restored one to O(db_instance). Applications need no new address,
    since an endpoint goes with its name. The damaged instance is kept, with all that it holds.
  - O(state=original) is the way back, from the end or from half way.
  - The two are recognised by their resource ids and by the tag that M(sre.runbooks.rds_restore) wrote, under whatever name they
    have by now. Each step can be interrupted; the same task again goes on from there.
  - "B(Risk:) nobody reaches the database while it has no name, which takes AWS some minutes for each of the two, and both restart.
    Stop the application first."
options:
  db_instance:
    description: The name that the application knows, in O(region).
    type: str
    required: true
  restored_instance:
    description: The name that the restored instance has until it takes O(db_instance), and has again after O(state=original).
    type: str
    required: true
  kept_instance:
    description: The name that the damaged instance gets. Default is O(db_instance) with C(-old).
    type: str
  state:
    description: V(swapped), the restored instance in the place of the damaged one, or V(original), both as they were.
    type: str
    choices: [swapped, original]
    default: swapped
  accept_sessions:
    description:
      - Go on although sessions are open on the instance that gives its name up. B(Risk:) what they write until then is in that
        instance only.
      - Without a login nobody looks.
    type: bool
    default: false
  restoring:
    description:
      - In check mode, plan as though the tasks before this one had been carried out, that restore beside and stop the application.
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
  - Read replicas go on following the instance that they follow, whatever it is called. RV(notes) names them.
  - Metrics and alarms of AWS/RDS go by the name, so they show the restored instance from then on.
seealso:
  - module: sre.runbooks.rds_restore
  - module: sre.runbooks.rds_recreate_replica
"""

EXAMPLES = r"""
- name: The restored database in the place of the damaged one
  sre.runbooks.rds_swap_names:
    db_instance: regami-db-primary
    region: us-east-1
    restored_instance: regami-db-restored
    restoring: true
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    lease: "{{ lock.lease }}"

- name: The damaged one back in its place
  sre.runbooks.rds_swap_names:
    db_instance: regami-db-primary
    region: us-east-1
    restored_instance: regami-db-restored
    kept_instance: regami-db-primary-old
    state: original
"""

RETURN = r"""
swapped:
  description: Whether the restored instance has the name O(db_instance) at the end.
  returned: success
  type: bool
  sample: true
replicas:
  description: Read replicas that follow the damaged instance.
  returned: success
  type: list
  elements: str
  sample: ["arn:aws:rds:us-west-2:123456789012:db:regami-db-replica"]
before:
  description: Which of the two had which name.
  returned: unless refused
  type: dict
  sample: {names: {regami-db-primary: damaged, regami-db-restored: restored}}
after:
  description: Which of the two has which name at the end.
  returned: success
  type: dict
  sample: {names: {regami-db-primary: restored, regami-db-primary-old: damaged}}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: rename, what: "rename regami-db-primary to regami-db-primary-old, which restarts it", before: regami-db-primary,
       after: regami-db-primary-old}
    - {do: rename, what: "rename regami-db-restored to regami-db-primary, which restarts it", before: regami-db-restored,
       after: regami-db-primary}
undo:
  description: The same verb with the other O(state), also for a swap that was stopped half way.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.rds_swap_names
      arguments:
        db_instance: regami-db-primary
        region: us-east-1
        restored_instance: regami-db-restored
        kept_instance: regami-db-primary-old
        state: original
notes:
  description: Replicas that have to be made anew, and what else is applied with the names.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 610.3
"""

from ansible_collections.sre.runbooks.plugins.module_utils import name_swap, rds
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Seconds until a new name is in effect, as AWS says.
USUAL_RENAME = 600

SERVICES = ("rds", "dynamodb", "secretsmanager")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    restored_instance=dict(type="str", required=True),
    kept_instance=dict(type="str"),
    state=dict(type="str", choices=["swapped", "original"], default="swapped"),
    accept_sessions=dict(type="bool", default=False),
    restoring=dict(type="bool", default=False),
    **LOGIN_ARGUMENTS,
)


class RdsSwapNames(Verb):
    """Exchange the names of a damaged instance and of the one restored from it."""

    plan = staticmethod(name_swap.plan)

    def __init__(self, module):
        super().__init__(module)
        self.params["kept_instance"] = self.params["kept_instance"] or f"{self.params['db_instance']}-old"
        self.login, self.region = Login(self.params, self.aws), self.aws.region
        self.ahead = self.check_mode and self.params["restoring"]

    def observe(self):
        instances = rds.every(self.aws, self.region)
        both = name_swap.pair(instances, self.params, self.ahead)
        giving_up = both.damaged if self.params["state"] == "swapped" else both.fresh
        return {"instances": instances, "pair": both, "sessions": self._sessions(giving_up)}

    def _sessions(self, instance):
        """Of the instance, as long as it has the name that the application knows."""
        if self.ahead or instance["id"] != self.params["db_instance"]:
            return None
        facts = rds.ask(instance, self.login)
        return facts["sessions"] if isinstance(facts, dict) else None

    # The steps, named as in the plan.

    def rename(self, name, to, resource_id):
        self.aws.change(
            "rds",
            "modify_db_instance",
            region=self.region,
            DBInstanceIdentifier=name,
            NewDBInstanceIdentifier=to,
            ApplyImmediately=True,
        )
        self.settle(resource_id, to)

    def settle(self, resource_id, name):
        """Until the instance is available, and has that name if one is given."""

        def is_there(seen):
            if seen is None:  # between two names
                return False
            return rds.is_available(seen) and name in (None, seen["id"])

        self.wait(
            lambda: self._find(resource_id),
            is_there,
            f"{name} becomes available" if name else "it becomes available",
            usual=USUAL_RENAME,
            state=lambda seen: f"{seen['id']} is {seen['status']}" if seen else "without a name",
        )

    def _find(self, resource_id):
        there = rds.every(self.aws, self.region).values()
        return next((each for each in there if each["resource_id"] == resource_id), None)

    def undo(self, before, done):
        other = "original" if self.params["state"] == "swapped" else "swapped"
        names = ("db_instance", "restored_instance", "kept_instance")
        arguments = {name: self.params[name] for name in names} | {"region": self.region, "state": other}
        return [{"verb": "sre.runbooks.rds_swap_names", "arguments": arguments}]

    def view(self, observed):
        return {"names": name_swap.shown(observed["pair"])}


def main():
    run(
        verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES], required_by={"login_user": ["login_db"]}),
        RdsSwapNames,
    )


if __name__ == "__main__":
    main()

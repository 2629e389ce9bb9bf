#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_instance_class
version_added: 0.1.0
short_description: Give an RDS instance another instance class, at once
description:
  - Changes the class of an instance without waiting for the maintenance window, and waits until it serves with the new one.
  - Says what becomes of C(max_connections). A number in the parameter group stays what it is, however large the class; AWS's
    own default follows the memory.
  - It is refused where AWS does not offer the class, where the number of connections is too large for its memory, and where
    other changes wait for the maintenance window, since they would be applied too.
  - B(Risk:) an outage of some minutes, with Multi-AZ of a failover. The new class is billed from then on.
options:
  db_instance:
    description: The instance, in O(region).
    type: str
    required: true
  instance_class:
    description: The class that it is to have.
    type: str
    required: true
  accept_pending:
    description: Apply what else waits for the maintenance window as well. B(Risk:) that may be an upgrade of the engine.
    type: bool
    default: false
  accept_memory_risk:
    description:
      - Accept a class with less memory than C(max_connections) asks for as AWS reckons. B(Risk:) PostgreSQL may run out of
        memory, or not start.
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.rds_max_connections
  - name: Modifying an Amazon RDS DB instance
    description: AWS documentation.
    link: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/Overview.DBInstance.Modifying.html
"""

EXAMPLES = r"""
- name: More memory for the database
  sre.runbooks.rds_instance_class:
    db_instance: regami-db-primary
    region: us-east-1
    instance_class: db.r5.xlarge
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
before:
  description: The class, its memory in GiB (null where EC2 does not tell), and the connections that the instance may have.
  returned: unless refused
  type: dict
  sample: {instance_class: db.t3.medium, memory_gib: 4, max_connections: 450, pending: []}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {instance_class: db.r5.xlarge, memory_gib: 32, max_connections: 3604, pending: []}
steps:
  description: What was done, or would be done in check mode, in order, with what it costs.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: change, what: "make regami-db-primary a db.r5.xlarge, billed as such from now on: ends all its sessions, and nobody is
         let in for some minutes", before: db.t3.medium, after: db.r5.xlarge}
    - {do: settle, what: wait until regami-db-primary serves as a db.r5.xlarge, before: null, after: null}
undo:
  description: The same verb with the former class; another outage.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.rds_instance_class
      arguments: {db_instance: regami-db-primary, region: us-east-1, instance_class: db.t3.medium}
notes:
  description: What becomes of max_connections, risks, and overrides that were used.
  returned: success
  type: list
  elements: str
  sample: ["max_connections goes from 450 to 3604 with the memory"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 410.2
"""

from ansible_collections.sre.runbooks.plugins.module_utils import rds, rds_parameters
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, near
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds.
USUAL = 600

SERVICES = ("rds", "ec2", "dynamodb")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    instance_class=dict(type="str", required=True),
    accept_pending=dict(type="bool", default=False),
    accept_memory_risk=dict(type="bool", default=False),
)


class RdsInstanceClass(Verb):
    """Another class, now."""

    def __init__(self, module):
        super().__init__(module)
        self.id, self.wanted = self.params["db_instance"], self.params["instance_class"]

    def observe(self):
        region = self.aws.region
        instance = rds.describe(self.aws, self.id, region)
        if instance is None:
            raise rds.not_found(self.aws, self.id, region)
        seen = together(
            value=lambda: rds_parameters.parameter(self.aws, instance["parameter_group"], "max_connections", region),
            memory=lambda: rds_parameters.memory_of(self.aws, instance["instance_class"], region),
            new_memory=lambda: rds_parameters.memory_of(self.aws, self.wanted, region),
            offered=lambda: self._offered(instance, DBInstanceClass=self.wanted),
        )
        # The whole list is long, and only a typo needs it.
        seen["others"] = [] if seen["offered"] else self._offered(instance)
        return {"instance": instance, **seen}

    def _offered(self, instance, **only):
        listed = rds.pages(
            self.aws,
            "describe_orderable_db_instance_options",
            "OrderableDBInstanceOptions",
            self.aws.region,
            Engine=instance["engine"],
            EngineVersion=instance["engine_version"],
            **only,
        )
        return sorted({raw["DBInstanceClass"] for raw in listed})

    @staticmethod
    def plan(observed, wanted):
        instance, new = observed["instance"], wanted["instance_class"]
        name, status = instance["id"], instance["status"]
        settle = Step("settle", f"wait until {name} serves as a {new}", waits=True)
        passing = status in rds.PASSING and status not in rds.SERVING
        if not passing and status not in rds.SERVING:
            raise Refusal(f"{name} is {status}, so that its class cannot be changed: look at its RDS events")
        if passing and new in (instance["instance_class"], instance["pending"].get("DBInstanceClass")):
            return Plan((settle,), _view(observed, new))
        if instance["instance_class"] == new:
            return Plan()
        if not observed["offered"]:
            raise Refusal(
                f"AWS offers no {new} for {instance['engine']} {instance['engine_version']} in {instance['region']} "
                f"({near(new, observed['others'])}): check instance_class"
            )
        steps, notes = [], []
        if passing:
            steps.append(Step("await_rest", f"wait until {name} is available", status, waits=True, look_again=True))
        others = sorted(set(instance["pending"]) - {"DBInstanceClass"})
        if others and not wanted["accept_pending"]:
            raise Refusal(
                f"{', '.join(others)} of {name} waits for the maintenance window and would be applied at once too: look at "
                f"PendingModifiedValues, then say accept_pending=true or take it back"
            )
        if others:
            notes.append(f"accepted: {', '.join(others)} of {name} is applied too")
        notes += _connections(observed, wanted)
        outage = (
            "ends all its sessions by a failover of a minute or two"
            if instance["multi_az"]
            else "ends all its sessions, and nobody is let in for some minutes"
        )
        steps.append(
            Step(
                "change",
                f"make {name} a {new}, billed as such from now on: {outage}",
                instance["instance_class"],
                new,
            )
        )
        return Plan((*steps, settle), _view(observed, new), tuple(notes))

    # The steps, named as in the plan.

    def await_rest(self):
        self._await(rds.is_available, f"{self.id} becomes available")

    def change(self):
        self.aws.change(
            "rds",
            "modify_db_instance",
            DBInstanceIdentifier=self.id,
            DBInstanceClass=self.wanted,
            ApplyImmediately=True,
        )

    def settle(self):
        self._await(
            lambda seen: rds.is_available(seen) and seen["instance_class"] == self.wanted,
            f"{self.id} becomes a {self.wanted}",
        )

    def _await(self, done, what):
        self.wait(
            lambda: rds.describe(self.aws, self.id, self.aws.region),
            done,
            what,
            usual=USUAL,
            state=lambda seen: f"{seen['status']}, {seen['instance_class']}" if seen else "gone",
        )

    def undo(self, before, done):
        arguments = {
            "db_instance": self.id,
            "region": self.aws.region,
            "instance_class": before["instance_class"],
        }
        return [{"verb": "sre.runbooks.rds_instance_class", "arguments": arguments}]

    def view(self, observed):
        return _view(observed)


def _view(observed, new=None):
    """With the class that the instance has, or with the `new` one."""
    instance = observed["instance"]
    memory = observed["new_memory"] if new else observed["memory"]
    return {
        "instance_class": new or instance["instance_class"],
        "memory_gib": memory and round(memory / 2**30, 1),
        "max_connections": rds_parameters.number(observed["value"], memory),
        "pending": [] if new else sorted(instance["pending"]),
    }


def _connections(observed, wanted):
    """Yields what becomes of max_connections; refuses a class that has not the memory for it."""
    name, memory = wanted["instance_class"], observed["new_memory"]
    before = rds_parameters.number(observed["value"], observed["memory"])
    after = rds_parameters.number(observed["value"], memory)
    if memory is None or after is None:
        yield f"what becomes of max_connections ({observed['value']}) is not known, nor whether {name} has the memory for it"
        return
    most = rds_parameters.most_connections(memory)
    told = f"a {name} has memory for some {most} connections as AWS reckons, and max_connections is {after}"
    if after > most:
        if not wanted["accept_memory_risk"]:
            raise Refusal(
                f"{told}: lower it first (sre.runbooks.rds_max_connections), take a larger class, or say "
                f"accept_memory_risk=true"
            )
        yield f"accepted: {told}"
    if before == after:
        yield (
            f"max_connections stays {after}, which is a number in {observed['instance']['parameter_group']}: the class alone "
            f"gives no connection more, sre.runbooks.rds_max_connections does"
        )
    else:
        yield f"max_connections goes from {'an unknown number' if before is None else before} to {after} with the memory"


def main():
    run(verb_module(ARGUMENTS), RdsInstanceClass)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_max_connections
version_added: 0.1.0
short_description: Let an RDS PostgreSQL instance take more connections, or fewer
description:
  - Writes C(max_connections) into the DB parameter group of an instance and reboots the instance, without failover, so that it
    takes effect. The parameter is static. AWS refuses to apply it immediately, and nothing changes before the reboot.
  - Replicas are raised first, each in its own group and region, and rebooted too. A replica with fewer connections than what
    it replicates stops replaying.
  - The plan says of each step what it costs. It waits until each instance knows of the change before it is rebooted, and
    until PostgreSQL itself runs with the new number where O(login_user) is given.
  - B(Risk:) a reboot ends all sessions, and nobody is let in for about a minute. Each connection takes memory.
options:
  db_instance:
    description: The instance, in O(region).
    type: str
    required: true
  max_connections:
    description:
      - How many connections, the reserved ones included. A formula of RDS is taken as well, for example
        V(LEAST({DBInstanceClassMemory/9531392},5000\)), the default of AWS.
    type: str
    required: true
  parameter_group:
    description:
      - The DB parameter group to write it into, by default the one that the instance has. Another one is attached. One that
        does not exist is made, if the instance has one of AWS's own groups, which cannot be changed.
    type: str
  reboot:
    description: Whether to reboot at once. With V(false) the number takes effect at the next reboot, whoever asks for it.
    type: bool
    default: true
  accept_memory_risk:
    description:
      - Accept more connections than AWS's own default gives the class, which reckons with 9 MiB for each. B(Risk:) PostgreSQL
        may run out of memory, or not start.
    type: bool
    default: false
  accept_replicas_stop:
    description:
      - Go on although a replica is in a region that does not answer. B(Risk:) if it has fewer connections it stops replaying
        until it is raised too, and falls behind.
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
seealso:
  - module: sre.runbooks.rds_instance_class
  - module: sre.runbooks.pg_role_limit
  - name: Working with parameter groups
    description: AWS documentation.
    link: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_WorkingWithParamGroups.html
"""

EXAMPLES = r"""
- name: Twice as many connections, after a reboot
  sre.runbooks.rds_max_connections:
    db_instance: regami-db-primary
    region: us-east-1
    max_connections: 200
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    lease: "{{ lock.lease }}"

- name: Into a group of its own, in force at the next reboot
  sre.runbooks.rds_max_connections:
    db_instance: regami-db-replica
    region: us-west-2
    max_connections: 200
    reboot: false
"""

RETURN = r"""
before:
  description:
    - What the instance runs with, what is in its group, whether it runs that (C(in-sync)) or a reboot is needed
      (C(pending-reboot)), and the same of its replicas. C(max_connections) is null where nothing tells.
  returned: unless refused
  type: dict
  sample:
    max_connections: 100
    in_group: "100"
    group: regami-postgres16
    applied: in-sync
    replicas: {regami-db-replica: {max_connections: 100, in_group: "100"}}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample:
    max_connections: 200
    in_group: "200"
    group: regami-postgres16
    applied: in-sync
    replicas: {regami-db-replica: {max_connections: 200, in_group: "200"}}
steps:
  description: What was done, or would be done in check mode, in order, with what it costs.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: write, what: "write max_connections 200 into regami-postgres16 (us-east-1): no outage, and no effect before a reboot",
       before: "100", after: "200"}
    - {do: await_notice, what: wait until regami-db-primary knows of it (pending-reboot), before: null, after: null}
    - {do: reboot, what: "reboot regami-db-primary: ends all its sessions, and nobody is let in for about a minute",
       before: 100, after: 200}
undo:
  description: The same verb with what was in the groups before, the primary first. It reboots too.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.rds_max_connections
      arguments: {db_instance: regami-db-primary, region: us-east-1, max_connections: "100", parameter_group: regami-postgres16}
notes:
  description: Risks, and overrides that were used.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 84.2
"""

from ansible_collections.sre.runbooks.plugins.module_utils import connection_limit, rds, rds_parameters
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Throttled, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Seconds.
USUAL_NOTICE = 60
USUAL_REBOOT = 60

SERVICES = ("rds", "ec2", "secretsmanager", "dynamodb")
ARGUMENTS = dict(
    db_instance=dict(type="str", required=True),
    max_connections=dict(type="str", required=True),
    parameter_group=dict(type="str"),
    reboot=dict(type="bool", default=True),
    accept_memory_risk=dict(type="bool", default=False),
    accept_replicas_stop=dict(type="bool", default=False),
    **LOGIN_ARGUMENTS,
)


class RdsMaxConnections(Verb):
    """Write max_connections where it belongs, and let it take effect."""

    plan = staticmethod(connection_limit.plan)

    def __init__(self, module):
        super().__init__(module)
        self.id, self.login = self.params["db_instance"], Login(self.params, self.aws)
        self.first = None  # what was observed before anything was done

    def observe(self):
        region = self.aws.region
        there = rds.every(self.aws, region)
        if self.id not in there:
            raise rds.not_found(self.aws, self.id, region)
        known, silent = self._family_of(there[self.id], {region: there})
        source = self._source_of(there[self.id], there)
        main, *replicas = known
        facts = together(
            target=lambda: self._target(main),
            groups=lambda: rds_parameters.names(self.aws, region),
            **{
                f"{each['region']} {each['id']}": (lambda each=each: self._instance(each))
                for each in (*known, *([source] if source else []))
            },
        )
        seen = {
            "main": facts[f"{region} {self.id}"],
            "replicas": [facts[f"{each['region']} {each['id']}"] for each in reversed(replicas)],
            "silent": silent,
            "source": facts[f"{source['region']} {source['id']}"] if source else None,
            "target": facts["target"],
            "groups": facts["groups"],
        }
        self.first = self.first or seen
        return seen

    def _family_of(self, main, regions):
        """The instance and all that replicate it, near ones first; and {replica: why nothing is known of it}."""
        known, silent, to_ask = [], {}, [main]
        while to_ask:
            each = to_ask.pop(0)
            known.append(self._with_sharing(each, regions[each["region"]]))
            for name in each["replicas"]:
                region = name.split(":")[3] if name.startswith("arn:") else each["region"]
                if region not in regions:
                    regions[region] = attempt(lambda region=region: rds.every(self.aws, region), Unreachable, Throttled)
                there, replica = regions[region], name.rpartition(":")[2]
                if isinstance(there, Stop):
                    silent[replica] = str(there)
                elif replica in there:
                    to_ask.append(there[replica])
        return known, silent

    def _source_of(self, main, there):
        """What the instance replicates, where that can be asked."""
        name = main["source"]
        if name is None:
            return None
        if not name.startswith("arn:"):
            return self._with_sharing(there[name], there) if name in there else None
        region = name.split(":")[3]
        found = attempt(lambda: rds.describe(self.aws, name.rpartition(":")[2], region), Unreachable, Throttled)
        return self._with_sharing(found, {}) if isinstance(found, dict) else None

    @staticmethod
    def _with_sharing(instance, there):
        return {
            **instance,
            "sharing": tuple(
                sorted(
                    name
                    for name, other in there.items()
                    if other["parameter_group"] == instance["parameter_group"] and name != instance["id"]
                )
            ),
        }

    def _instance(self, seen):
        region, group = seen["region"], seen["parameter_group"]
        facts = together(
            value=lambda: rds_parameters.parameter(self.aws, group, "max_connections", region),
            family=lambda: rds_parameters.family(self.aws, group, region),
            memory=lambda: rds_parameters.memory_of(self.aws, seen["instance_class"], region),
            running=lambda: self._running(seen),
        )
        return connection_limit.Instance(
            id=seen["id"],
            region=region,
            status=seen["status"],
            instance_class=seen["instance_class"],
            group=group,
            applied=seen["parameters_applied"],
            sharing=seen["sharing"],
            **facts,
        )

    def _running(self, seen):
        """What PostgreSQL says; None where it cannot be asked now, be it that it has no slot left."""
        if not self.login.given or not seen["host"] or seen["status"] not in rds.SERVING:
            return None
        found = attempt(lambda: rds.database(seen, self.login).setting("max_connections"), Stop)
        return None if isinstance(found, Stop) else int(found)

    def _target(self, main):
        name = self.params["parameter_group"] or main["parameter_group"]
        value = rds_parameters.parameter(self.aws, name, "max_connections", main["region"])
        return connection_limit.Group(name, value)

    # The steps, named as in the plan.

    def settle(self, id, region):
        self._await(id, region, rds.is_available, f"{id} becomes available", USUAL_REBOOT)

    def create(self, group, family, region):
        try:
            self.aws.change(
                "rds",
                "create_db_parameter_group",
                region=region,
                DBParameterGroupName=group,
                DBParameterGroupFamily=family,
                Description="made by sre.runbooks for max_connections",
            )
        except Exception as error:
            if code_of(error) != "DBParameterGroupAlreadyExists":
                raise

    def write(self, group, value, region):
        self.aws.change(
            "rds",
            "modify_db_parameter_group",
            region=region,
            DBParameterGroupName=group,
            Parameters=[{"ParameterName": "max_connections", "ParameterValue": value, "ApplyMethod": "pending-reboot"}],
        )

    def attach(self, id, region, group):
        # Without ApplyImmediately, which would also apply whatever else waits for the maintenance window.
        self.aws.change("rds", "modify_db_instance", region=region, DBInstanceIdentifier=id, DBParameterGroupName=group)

    def await_notice(self, id, region):
        def noticed(seen):
            if seen and seen["parameters_applied"] == "failed-to-apply":
                raise Stop(f"{seen['parameter_group']} cannot be applied to {id}: look at its RDS events")
            return rds.is_available(seen) and seen["parameters_applied"] == "pending-reboot"

        self._await(id, region, noticed, f"{id} knows of its parameters", USUAL_NOTICE)

    def reboot(self, id, region, number):
        self.aws.change("rds", "reboot_db_instance", region=region, DBInstanceIdentifier=id)
        seen = self._await(
            id,
            region,
            lambda seen: rds.is_available(seen) and seen["parameters_applied"] == "in-sync",
            f"{id} reboots",
            USUAL_REBOOT,
        )
        if self.login.given:
            self.wait(
                lambda: int(rds.database(seen, self.login).setting("max_connections")),
                lambda found: found == number,
                f"{id} has {number} connections",
                usual=5,
            )

    def _await(self, id, region, done, what, usual):
        return self.wait(
            lambda: rds.describe(self.aws, id, region),
            done,
            what,
            usual=usual,
            state=lambda seen: f"{seen['status']}, parameters {seen['parameters_applied']}" if seen else "gone",
        )

    def view(self, observed):
        return connection_limit.view(observed)

    def undo(self, before, done):
        if not any(step["do"] in ("write", "attach") for step in done):
            return []
        return [
            {"verb": "sre.runbooks.rds_max_connections", "arguments": arguments}
            for arguments in connection_limit.way_back(self.first, self.params)
        ]


def main():
    run(
        verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES]),
        RdsMaxConnections,
    )


if __name__ == "__main__":
    main()

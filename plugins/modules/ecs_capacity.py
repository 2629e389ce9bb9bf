#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_capacity
version_added: 0.1.0
short_description: Give an ECS service more tasks, or fewer, for as long as an emergency lasts
description:
  - Sets the desired count of a service and the bounds in which Application Auto Scaling moves it, and waits until that many
    tasks serve. A larger capacity lifts the minimum to it, a smaller one lowers the maximum to it as well, or the next
    scaling activity would undo it.
  - Before more is promised, the vCPU quota of Fargate, the free addresses of the subnets and the connections of the database
    are looked at. Too little refuses before any change and says how many would fit.
  - "What there was before is written on the service, as the tag C(sre.runbooks/scaled). O(restore) goes back to it, hours
    later and from any machine; O(give_back_after) has Application Auto Scaling give the bounds back by itself."
  - The wait ends early when tasks fail again and again, when the account may have no more, or when something else changes the
    count, with the reasons of stopped tasks, the last events and the health of the targets.
  - "B(Risk:) fewer tasks carry less load; V(0) takes the service off the air."
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service.
    type: str
    required: true
  give_back_after:
    description:
      - Minutes after which a scheduled action gives the former bounds back. The count follows when the service's scaling
        policies take it, and at once where it is outside of them. The same task again does not put that off.
      - Without it, and where nothing scales the service, the capacity stays until O(restore).
    type: int
  recovery_api:
    description:
      - The recovery API that the service brings along, which sets the count then. Bounds, checks and waits stay the same.
        Where it does not answer or does not do it, AWS is told directly, and RV(notes) says so.
    type: dict
    suboptions:
      url:
        description: Where the API is, without C(/api/v1).
        type: str
        required: true
      token:
        description: Bearer token for it. Never shown. Over V(http) it can be read on the way.
        type: str
      request_timeout:
        description: Seconds that one answer of the API may take.
        type: float
        default: 15
      dns_servers:
        description: DNS servers to ask for the host of the URL, as V(host) or V(host:port).
        type: list
        elements: str
        default: []
extends_documentation_fragment:
  - sre.runbooks.temporary_capacity
  - sre.runbooks.database_login
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(ecs:DescribeServices), C(ecs:UpdateService), C(ecs:TagResource), C(ecs:UntagResource),
    C(ecs:DescribeTaskDefinition), C(ecs:ListTasks), C(ecs:DescribeTasks), the scalable targets and scheduled actions of
    C(application-autoscaling), C(elasticloadbalancing:DescribeTargetHealth), C(servicequotas:GetServiceQuota),
    C(servicequotas:GetAWSDefaultServiceQuota), C(cloudwatch:GetMetricStatistics), C(ec2:DescribeSubnets) and
    C(rds:DescribeDBInstances). A quota or a subnet that may not be read is noted and does not refuse.
seealso:
  - module: sre.runbooks.ecs_scale
    description: Sets a count for good.
"""

EXAMPLES = r"""
- name: Half as many tasks again, for two hours
  sre.runbooks.ecs_capacity:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    capacity: +50%
    give_back_after: 120
    db_instance: regami-db-primary
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    connections_each: 2
    lease: "{{ lock.lease }}"

- name: Four tasks, set by the service's own recovery API
  sre.runbooks.ecs_capacity:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    capacity: 4
    recovery_api:
      url: https://recovery.regami.test
      token: "{{ recovery_api_token }}"

- name: What the service had before
  sre.runbooks.ecs_capacity:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    restore: true
"""

RETURN = r"""
before:
  description:
    - The service as found. C(floor) and C(ceiling) are null where nothing scales it, C(scaled) is what it remembers of a
      capacity that was given for a while.
  returned: unless refused
  type: dict
  sample: {desired: 2, running: 2, floor: 2, ceiling: 10, scaled: null}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {desired: 3, running: 3, floor: 3, ceiling: 10, scaled: 2 in 2-10 to 3 in 3-10 until 2026-03-01T14:00:00Z}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: keep, what: write down on regami-service what it had, before: null, after: 2 in 2-10 to 3 in 3-10}
    - {do: bound, what: let scaling keep regami-service at 3 to 10 tasks, before: 2 to 10 tasks, after: 3 to 10 tasks}
    - {do: update, what: set the desired count of regami-service to 3, before: 2, after: 3}
    - {do: settle, what: wait until regami-service serves with 3 tasks, before: null, after: null}
undo:
  description:
    - The same verb, restoring, or with the former count where that was one for a while, too. Empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.ecs_capacity
      arguments: {cluster: regami-cluster, service: regami-service, region: us-east-1, restore: true}
notes:
  description: What a person should know, for example until when the capacity lasts, and what could not be checked.
  returned: success
  type: list
  elements: str
  sample: ["regami-service keeps this until it is given back: playbooks/emergency_scale.yml --tags restore (restore=true)"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 41.7
"""

import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import dns, ecs, room, scaling
from ansible_collections.sre.runbooks.plugins.module_utils import temporary_capacity as temporary
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.recovery_api import RecoveryApi, reason_of, state_of
from ansible_collections.sre.runbooks.plugins.module_utils.temporary_capacity import Size
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds that tasks usually take to start and turn healthy, and to drain.
USUAL = 90
SERVICES = (
    "ecs",
    "application-autoscaling",
    "elbv2",
    "service-quotas",
    "cloudwatch",
    "ec2",
    "rds",
    "secretsmanager",
    "dynamodb",
)
ARGUMENTS = dict(
    temporary.ARGUMENTS,
    **LOGIN_ARGUMENTS,
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    give_back_after=dict(type="int"),
    recovery_api=dict(
        type="dict",
        options=dict(
            url=dict(type="str", required=True),
            token=dict(type="str", no_log=True),
            request_timeout=dict(type="float", default=15),
            dns_servers=dict(type="list", elements="str", default=[]),
        ),
    ),
)


class EcsCapacity(Verb):
    """Another capacity, and the bounds that let it last, until it is given back."""

    def __init__(self, module):
        super().__init__(module)
        self.names = {"cluster": self.params["cluster"], "service": self.params["service"]}
        self.service = ecs.Service(self.aws, **self.names)
        self.api = _api(self.params["recovery_api"], self.names)
        self.groups, self.arn, self.suspended, self.events = (), None, [], None

    def observe(self):
        seen = together(
            service=lambda: self.service.describe(include=["TAGS"]),
            bounds=lambda: scaling.describe(self.aws, **self.names),
            schedules=lambda: scaling.schedules(self.aws, **self.names),
        )
        service = seen["service"]
        self.groups, self.arn = ecs.target_groups(service), service["serviceArn"]
        self.suspended = (seen["bounds"] or {}).get("suspended", [])
        if self.events is None:
            self.events = {event["id"] for event in service.get("events", [])}
        seen["now"] = time.time()
        more = together(
            targets=lambda: self.service.targets(self.groups),
            rooms=lambda: self._rooms(seen),
        )
        return dict(seen, **more)

    def _rooms(self, seen):
        """What more tasks take some of, as far as it is known where they run."""
        service = seen["service"]
        if temporary.growth(self.params["capacity"], _size(seen), _kept(service), seen["now"]) <= 0:
            return []
        asked, network = {}, (service.get("networkConfiguration") or {}).get("awsvpcConfiguration")
        if room.fargate_kinds(service):
            definition = self.service.definition(service["taskDefinition"])["taskDefinition"]
            asked |= room.fargate(self.aws, service, int(definition["cpu"]) / room.CPU_UNITS)
        if network:
            asked["addresses"] = lambda: room.addresses(self.aws, network["subnets"])
        if self.params["connections_each"]:
            asked["connections"] = lambda: room.connections(
                self.aws,
                self.params["db_instance"],
                Login(self.params, self.aws),
                self.params["connections_each"],
                service["desiredCount"],
            )
        return list(together(**asked).values())

    @staticmethod
    def plan(observed, wanted):
        service = observed["service"]
        name, present, kept = service["serviceName"], _size(observed), _kept(service)
        if service.get("schedulingStrategy") == "DAEMON":
            raise Refusal(f"{name} runs one task on each container instance (DAEMON): it has no count to change")
        if wanted["restore"]:
            if kept is None:
                return Plan(notes=(f"{name} was not given any capacity for a while: there is nothing to give back",))
            goal, notes = temporary.restored(name, present, kept)
            line, action = None, None
        else:
            goal, line, notes = temporary.changed(
                name, present, kept, wanted["capacity"], wanted["give_back_after"], observed["now"]
            )
            action = _give_back(line)
            more = goal.count - present.count
            notes += room.check(f"tasks of {name}", more, observed["rooms"], wanted["accept_shortage"])
            notes.append(temporary.lasting(name, present, line, wanted["give_back_after"]))
        notes += _others(name, observed["schedules"])
        steps = _steps(name, present, goal, kept, line, observed["schedules"].get(scaling.GIVE_BACK), action)
        if steps or not _is_settled(observed, goal.count):
            what = f"serves with {ecs.tasks(goal.count)}" if goal.count else "has no task and no target left"
            steps.append(Step("settle", f"wait until {name} {what}", arguments={"count": goal.count}, waits=True))
        if line is None:
            steps.append(Step("forget", f"forget what {name} had before", kept.text(), None))
        after = {"desired": goal.count, "running": goal.count, "floor": goal.floor, "ceiling": goal.ceiling}
        return Plan(tuple(steps), dict(after, scaled=line and line.text()), tuple(notes))

    # The steps, named as in the plan.

    def keep(self, line):
        self.aws.change("ecs", "tag_resource", resourceArn=self.arn, tags=[{"key": temporary.MARK, "value": line}])

    def forget(self):
        self.aws.change("ecs", "untag_resource", resourceArn=self.arn, tagKeys=[temporary.MARK])

    def bound(self, floor, ceiling):
        bounds = {"floor": floor, "ceiling": ceiling, "suspended": self.suspended}
        scaling.register(self.aws, bounds=bounds, **self.names)

    def schedule(self, action):
        scaling.schedule(self.aws, action=action, **self.names)

    def unschedule(self):
        scaling.unschedule(self.aws, **self.names)

    def update(self, count):
        if self.api is None or not self._told_api(count):
            self.aws.change("ecs", "update_service", **self.names, desiredCount=count)

    def _told_api(self, count):
        """Has the recovery API done it? Raises LostAnswer where ECS must be asked first."""
        api, self.api = self.api, None  # once: what it did not do then is done through AWS
        try:
            answer = api.scale(count, f"sre.runbooks: {ecs.tasks(count)}")
        except LostAnswer:
            raise
        except Stop as error:
            self.notes.append(f"through AWS, since the recovery API did not do it: {error}")
            return False
        if state_of(answer) == "failed":
            self.notes.append(f"through AWS, since the recovery API did not do it: {reason_of(answer)}")
            return False
        return True

    def settle(self, count):
        name, new_stops = ecs.short(self.names["service"]), ecs.new_stops(self.service)

        def look():
            seen = together(service=self.service.describe, targets=lambda: self.service.targets(self.groups))
            return dict(seen, stops=[] if _is_settled(seen, count) else new_stops())

        ecs.watch(
            self.wait,
            look,
            lambda seen: _is_settled(seen, count),
            lambda seen: ecs.beyond_quota(seen["service"], self.events) or ecs.scaling_failure(seen, count),
            f"{name} serves with {ecs.tasks(count)}" if count else f"{name} drains",
            USUAL,
        )

    def undo(self, before, done):
        arguments = dict(
            self.names, region=self.aws.region, **temporary.back(before["desired"], before["scaled"], self.params)
        )
        return [{"verb": "sre.runbooks.ecs_capacity", "arguments": arguments}]

    def view(self, observed):
        service, size, kept = observed["service"], _size(observed), _kept(observed["service"])
        return {
            "desired": size.count,
            "running": service["runningCount"],
            "floor": size.floor,
            "ceiling": size.ceiling,
            "scaled": kept and kept.text(),
        }


def _api(given, names):
    if not given:
        return None
    cluster, service = (ecs.short(name) for name in names.values())
    return RecoveryApi(given["url"], given["token"], cluster, service, given["request_timeout"], given["dns_servers"])


def _size(observed):
    bounds = observed["bounds"] or {}
    return Size(observed["service"]["desiredCount"], bounds.get("floor"), bounds.get("ceiling"))


def _kept(service):
    """What the service remembers, or None."""
    return temporary.parse(
        next((tag["value"] for tag in service.get("tags", []) if tag["key"] == temporary.MARK), None)
    )


def _give_back(line):
    """The scheduled action that brings the former bounds back, or None."""
    if line.until is None:
        return None
    at = f"at({temporary.moment(line.until).rstrip('Z')})"
    return {"at": at, "floor": line.before.floor, "ceiling": line.before.ceiling}


def _others(name, schedules):
    """Who else moves the bounds."""
    return [
        f"the scheduled action {other} sets the bounds of {name} too: {action['at']}"
        for other, action in sorted(schedules.items())
        if other != scaling.GIVE_BACK and not action["at"].startswith("at(")
    ]


def _steps(name, present, goal, kept, line, scheduled, action):
    """Pure: what is left to do to be at `goal`, with `line` written down and `action` scheduled (None: neither)."""
    steps = []
    if line is not None and line != kept:
        what = f"write down on {name} what it had"
        steps.append(Step("keep", what, kept and kept.text(), line.text(), {"line": line.text()}))
    if goal.bounds != present.bounds:
        limits, were = ({"floor": size.floor, "ceiling": size.ceiling} for size in (goal, present))
        text = _bounds_text(limits)
        steps.append(Step("bound", f"let scaling keep {name} at {text}", _bounds_text(were), text, limits))
    if action is not None and action != scheduled:
        what = f"schedule the return to {_bounds_text(action)} of {name}"
        steps.append(Step("schedule", what, scheduled and scheduled["at"], action["at"], {"action": action}))
    if action is None and scheduled is not None:
        steps.append(Step("unschedule", f"cancel the scheduled return of {name}", scheduled["at"], None))
    if goal.count != present.count:
        what = f"set the desired count of {name} to {goal.count}"
        steps.append(Step("update", what, present.count, goal.count, {"count": goal.count}))
    return steps


def _bounds_text(bounds):
    return scaling.text(dict(bounds, suspended=[]))


def _is_settled(seen, count):
    return ecs.is_serving(seen, count) if count else ecs.is_idle(seen)


def main():
    module = verb_module(ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES], **temporary.CONDITIONS)
    api = module.params["recovery_api"]
    if api and api["dns_servers"] and not dns.HAS_DNSPYTHON:
        module.fail_json(msg=missing_required_lib("dnspython"))
    run(module, EcsCapacity)


if __name__ == "__main__":
    main()

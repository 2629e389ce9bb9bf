#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_api_rollback
version_added: 0.1.0
short_description: Roll an ECS service back through its own recovery API
description:
  - For services that bring a recovery API along, with snapshots and an orchestration of their own, as the courtcase runbook
    has it. Chooses a snapshot, has the API roll back to it, and waits until ECS says that this very rollout is complete;
    the API's own C(completed) only means that it was begun.
  - A snapshot is chosen by what it holds, as the API's own dry run tells, not by its age. The API takes one of the present
    state before each rollback, so the newest may be that of the state to be left. Where the service came back to what it
    runs now after the newest other snapshot, nothing is changed; so the same task can be repeated.
  - A dry run is a POST, and the only one that check mode sends.
  - A rollback whose answer was lost is not sent again before ECS was asked whether it was applied.
  - Where the API does not answer, or only with errors of the server, the verb fails with RV(answered=false); then go another
    way, for example M(sre.runbooks.ecs_rollback). The API may run in the very service that is broken.
  - Redirects are not followed, since the token would go along. TLS certificates are verified; C(SSL_CERT_FILE) in the
    environment names other authorities to trust.
  - B(Risk:) the API sets the desired count of the snapshot too, and network settings where the snapshot has some.
options:
  url:
    description: Where the API is, without C(/api/v1).
    type: str
    required: true
  token:
    description: Bearer token for it. Never shown. Over V(http) it can be read on the way.
    type: str
  cluster:
    description: ECS cluster of the service, as the API and ECS in O(region) know it.
    type: str
    required: true
  service:
    description: Name of the ECS service.
    type: str
    required: true
  snapshot_id:
    description: Snapshot to go back to, instead of finding one. RV(undo) uses it to bring back what was left.
    type: str
  recovery_plan:
    description:
      - Recovery plan of the API to execute where it answers that the rollback itself failed, V(service_rollback) in the
        runbook. Its operation is waited for.
    type: str
  accept_fewer_tasks:
    description:
      - Go back to a snapshot although it has fewer tasks than the service wants now, which the API would set.
    type: bool
    default: false
  request_timeout:
    description: Seconds that one answer of the API may take.
    type: float
    default: 15
  dns_servers:
    description:
      - DNS servers to ask for the host of O(url), as V(host) or V(host:port). Default is the resolver of the machine.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(ecs:DescribeServices), C(ecs:ListTasks) and C(ecs:DescribeTasks).
seealso:
  - module: sre.runbooks.ecs_rollback
"""

EXAMPLES = r"""
- name: Back to the last other snapshot
  sre.runbooks.recovery_api_rollback:
    url: https://recovery.regami.test
    token: "{{ recovery_api_token }}"
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Back to a snapshot that a person knows to be good, by a recovery plan if need be
  sre.runbooks.recovery_api_rollback:
    url: https://recovery.regami.test
    token: "{{ recovery_api_token }}"
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    snapshot_id: "20240112_143000"
    recovery_plan: service_rollback
"""

RETURN = r"""
answered:
  description: Whether the API answered. RV(notes) says whether it may have taken a rollback all the same.
  returned: always, unless the task failed for another reason
  type: bool
  sample: true
snapshot_id:
  description: The snapshot that the service went back to, null where nothing was to do.
  returned: unless refused
  type: str
  sample: "20240112_143000"
before:
  description: The service as found.
  returned: unless refused
  type: dict
  sample: {task_definition: "regami-api:42", desired: 3, running: 3}
after:
  description: The service at the end; in check mode as predicted.
  returned: success
  type: dict
  sample: {task_definition: "regami-api:41", desired: 3, running: 3}
steps:
  description: What was done, in order; in check mode what would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: roll_back
      what: roll regami-service back to snapshot 20240112_143000 (regami-api:41) through its recovery API
      before: "regami-api:42"
      after: "regami-api:41"
undo:
  description: The same verb with the snapshot that the API took before it rolled back; empty in check mode.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.recovery_api_rollback
      arguments: {url: "https://recovery.regami.test", cluster: regami-cluster, service: regami-service, region: us-east-1,
                  snapshot_id: "20240112_150200"}
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: ["snapshot 20240112_143000 sets the desired count from 2 to 3"]
waited_seconds:
  description: Time spent waiting.
  returned: unless refused
  type: float
  sample: 94.2
"""

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import dns, ecs
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal, Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.recovery_api import (
    RecoveryApi,
    last_good,
    reason_of,
    state_of,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds that a rolling deployment of a few tasks behind a load balancer usually takes.
USUAL_ROLLOUT = 180
# Times that a rollback is sent whose answer is lost and which ECS does not see; then the API counts as not answering.
TRIES = 2

SERVICES = ("ecs", "dynamodb")
ARGUMENTS = dict(
    url=dict(type="str", required=True),
    token=dict(type="str", no_log=True),
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    snapshot_id=dict(type="str"),
    recovery_plan=dict(type="str"),
    accept_fewer_tasks=dict(type="bool", default=False),
    request_timeout=dict(type="float", default=15),
    dns_servers=dict(type="list", elements="str", default=[]),
)


class RecoveryApiRollback(Verb):
    """Choose a snapshot, have the API roll back to it, wait for ECS."""

    def __init__(self, module):
        super().__init__(module)
        self.api = RecoveryApi(
            self.params["url"],
            self.params["token"],
            ecs.short(self.params["cluster"]),
            ecs.short(self.params["service"]),
            self.params["request_timeout"],
            self.params["dns_servers"],
        )
        self.service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        self.kept = None  # the snapshot of what was left
        self.wanted = None  # the task definition that the API was asked for
        self.lost = 0  # rollbacks sent whose answer was lost

    def observe(self):
        try:
            found = together(service=self.service.describe, status=self.api.status, snapshots=self.api.snapshots)
        except Unreachable as error:
            raise self._elsewhere(error) from error
        return found

    @staticmethod
    def plan(observed, wanted):
        service, snapshots = observed["service"], observed["snapshots"]
        name, running = service["serviceName"], service["taskDefinition"]
        if ecs.controller(service) != "ECS":
            raise Refusal(
                f"{name} is deployed by {ecs.controller(service)}, and ECS refuses what this API would do: "
                f"use the strategy of that controller"
            )
        target = _target(name, running, snapshots, wanted["snapshot_id"])
        going = target is not None and target["task_definition"] != running
        steps, notes, after = [], [], {}
        if going:
            notes = _capacity(name, service["desiredCount"], target, wanted["accept_fewer_tasks"])
            before, then = ecs.short(running), ecs.short(target["task_definition"])
            what = f"roll {name} back to snapshot {target['snapshot_id']} ({then}) through its recovery API"
            steps.append(Step("roll_back", what, before, then, {"target": target}))
            after = {"task_definition": then, "desired": target["desired_count"], "running": target["desired_count"]}
        if steps or not ecs.is_rolled_out(service, ecs.primary(service)):
            steps.append(Step("settle", f"wait until {name} has rolled out"))
        returned = {"snapshot_id": target["snapshot_id"] if going else None, "answered": True}
        return Plan(tuple(steps), after, tuple(notes), returned)

    def roll_back(self, target):
        """Raises LostAnswer where ECS must be asked first, Unreachable where that led nowhere."""
        self.wanted = target["task_definition"]
        try:
            answer = self.api.roll_back(target["snapshot_id"])
            if state_of(answer) == "failed" and self.params["recovery_plan"]:
                answer = self._execute(target["snapshot_id"], reason_of(answer))
        except Unreachable as error:
            raise self._elsewhere(error) from error
        except LostAnswer as error:
            self.lost += 1
            if self.lost < TRIES:
                raise
            raise self._elsewhere(error) from error
        if state_of(answer) == "failed":
            raise Stop(
                f"the recovery API could not roll back to snapshot {target['snapshot_id']}: {reason_of(answer)}: "
                f"go another way (ecs_rollback)"
            )
        self.kept = answer.get("current_snapshot_id")

    def _execute(self, snapshot_id, why):
        """The recovery plan, to its own end; returns how its operation ended."""
        plan = self.params["recovery_plan"]
        started = self.api.execute(plan, snapshot_id)
        operation_id = started.get("operation_id")
        if operation_id is None:
            return started
        return self.wait(
            lambda: self.api.operation(operation_id),
            lambda operation: state_of(operation) != "in progress",
            f"recovery plan {plan}, since the rollback failed ({why})",
            state=state_of,
        )

    def settle(self):
        """Wait for the deployment that goes on, whoever began it: it goes where this run wants to be."""
        service = self.service.describe()
        deployment = ecs.primary(service)
        if self.wanted not in (None, service["taskDefinition"]):
            there = ecs.short(service["taskDefinition"])
            raise Stop(f"somebody else is rolling {service['serviceName']} out to {there}")
        what = f"{ecs.short(self.params['service'])} rolls out {ecs.short(deployment['taskDefinition'])}"
        ecs.follow_deployment(self.wait, self.service, deployment["id"], what, USUAL_ROLLOUT)

    def undo(self, before, done):
        if self.check_mode or not any(step["do"] == "roll_back" for step in done):
            return []
        # Without the answer the newest snapshot is that of the state before, unless somebody took one since: no guesses.
        if self.kept is None:
            cluster, service = self.params["cluster"], self.params["service"]
            arguments = dict(cluster=cluster, service=service, task_definition=before["task_definition"])
            return [{"verb": "sre.runbooks.ecs_rollback", "arguments": dict(arguments, region=self.aws.region)}]
        kept = {name: self.params[name] for name in ("url", "cluster", "service")}
        return [
            {
                "verb": "sre.runbooks.recovery_api_rollback",
                "arguments": dict(kept, region=self.aws.region, snapshot_id=self.kept),
            }
        ]

    def is_change(self, steps):
        return any(step["do"] != "settle" for step in steps)

    def view(self, observed):
        service = observed["service"]
        return {
            "task_definition": ecs.short(service["taskDefinition"]),
            "desired": service["desiredCount"],
            "running": service["runningCount"],
        }

    def _elsewhere(self, error):
        done = "it may have taken the rollback all the same" if self.lost else "nothing was changed through it"
        note = f"UNREACHABLE: {error}; {done}"
        return Unreachable(f"{error}; {done}: go another way (ecs_rollback)", answered=False, notes=[note])


def _target(name, running, snapshots, given):
    """The snapshot to be at; None where the service is there. Raises Refusal."""
    if given is not None:
        target = next((each for each in snapshots if each["snapshot_id"] == given), None)
        if target is None:
            there = ", ".join(each["snapshot_id"] for each in snapshots) or "none"
            raise Refusal(f"{name} has no snapshot {given} (there are: {there}): give one of these as snapshot_id")
        if not target["task_definition"]:
            raise Refusal(f"the recovery API does not say what snapshot {given} of {name} would set: choose another")
        return target
    if not any(each["task_definition"] not in (None, running) for each in snapshots):
        raise Refusal(
            f"none of the {len(snapshots)} snapshots of {name} holds anything else than {ecs.short(running)}, which runs "
            f"now: go another way (ecs_rollback)"
        )
    return last_good(snapshots, running)


def _capacity(name, desired, target, accept_fewer):
    """What to say of the desired count that the API sets with a snapshot. Raises Refusal."""
    count, snapshot_id = target["desired_count"], target["snapshot_id"]
    if count is None or count == desired:
        return []
    if count < desired and not accept_fewer:
        raise Refusal(
            f"snapshot {snapshot_id} has {ecs.tasks(count)} and {name} wants {desired} now, and the recovery API would set "
            f"that too: give accept_fewer_tasks=true, or go another way (ecs_rollback)"
        )
    return [f"snapshot {snapshot_id} sets the desired count of {name} from {desired} to {count}"]


def main():
    module = verb_module(ARGUMENTS)
    if module.params["dns_servers"] and not dns.HAS_DNSPYTHON:
        module.fail_json(msg=missing_required_lib("dnspython"))
    run(module, RecoveryApiRollback)


if __name__ == "__main__":
    main()

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One-off ECS tasks as a service has them: its network, image and secrets, another command; once each, and heard to the end.

A task is found again by `startedBy`, which ECS keeps for about an hour after it stopped. RunTask under the same client
token starts nothing for as long. https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html
"""

from __future__ import annotations

import json
import time

from . import ecs
from .aws import code_of, explain, is_denied, together
from .errors import Overtaken, Refusal, Stop, near

# Of all overrides as JSON. https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html
LONGEST_OVERRIDES = 8192
# Seconds that ECS may take to tell of a task that it has started (eventual consistency).
UNKNOWN_SECONDS = 60
# Seconds that the last lines of a task may take to reach its log.
LOG_SECONDS = 15
# Seconds that Fargate usually takes to start a task.
USUAL = 60
# Entry points that take the command as the text of a script.
_SHELLS = {("sh", "-c"), ("bash", "-c"), ("/bin/sh", "-c"), ("/bin/bash", "-c")}


def deployed(service):
    """What the service runs now: the primary task set where CodeDeploy or another controller deploys it, else itself."""
    task_set = next((each for each in service.get("taskSets", []) if each.get("status") == "PRIMARY"), {})
    return dict(service, **{key: value for key, value in task_set.items() if key in _PLACED and value})


# What of a service RunTask takes as well.
_PLACED = ("taskDefinition", "launchType", "capacityProviderStrategy", "platformVersion", "networkConfiguration")


def container(definition, service, name=None):
    """The container definition to run a command in: `name`, else the one behind the load balancer, else the only one.

    Raises:
        Refusal: there is none of that name, nothing tells which, or its end would not end the task.
    """
    there = {each["name"]: each for each in definition["containerDefinitions"]}
    name = name or next(
        (each["containerName"] for each in service.get("loadBalancers", []) if each.get("containerName")), None
    )
    family = ecs.short(definition["taskDefinitionArn"])
    if name is None and len(there) > 1:
        raise Refusal(f"{family} has the containers {', '.join(there)}: say which one has the code, as container")
    if name is not None and name not in there:
        raise Refusal(f"{family} has no container {name} ({near(name, list(there))}): check the container option")
    found = there[name or next(iter(there))]
    if not found.get("essential", True):
        raise Refusal(
            f"container {found['name']} of {family} is not essential, so its task would go on without it: give another as container"
        )
    return found


def request(service, definition, chosen, argv, environment, started_by):
    """RunTask's arguments, the client token aside.

    Raises:
        Refusal: the overrides are longer than ECS takes.
    """
    if tuple(chosen.get("entryPoint") or ()) in _SHELLS:
        argv = [_quoted(argv)]
    override = {
        "name": chosen["name"],
        "command": argv,
        "environment": [{"name": name, "value": value} for name, value in environment.items()],
    }
    overrides = {"containerOverrides": [override]}
    length = len(json.dumps(overrides, separators=(",", ":")))
    if length > LONGEST_OVERRIDES:
        raise Refusal(
            f"ECS takes {LONGEST_OVERRIDES} characters of overrides, and this makes {length}, compressed: split the file into some "
            f"that each stand alone"
        )
    placed = {key: service[key] for key in _PLACED if service.get(key)}
    if "capacityProviderStrategy" in placed:
        placed.pop("launchType", None)
    return dict(
        placed,
        cluster=service["clusterArn"],
        taskDefinition=definition["taskDefinitionArn"],
        overrides=overrides,
        startedBy=started_by,
        count=1,
        propagateTags="TASK_DEFINITION",
    )


def _quoted(argv):
    return " ".join("'" + word.replace("'", "'\\''") + "'" for word in argv)


class OneOff:
    """The one-off tasks of one purpose.

    Args:
        aws: the Aws to ask.
        service: ecs.Service in whose cluster they run.
        started_by: what they are found by: letters, digits, - / and _, at most 128.
    """

    def __init__(self, aws, service, started_by):
        self._aws, self._service, self.started_by = aws, service, started_by

    def tasks(self, family):
        """Those that ECS still tells of, oldest first."""
        # startedBy is the only filter where it is one, and finds what runs; what has stopped is found by its family.
        found = together(
            running=lambda: self._service.task_arns(startedBy=self.started_by),
            stopped=lambda: self._service.task_arns(family=family, desiredStatus="STOPPED"),
        )
        described = self._service.describe_tasks(sorted({*found["running"], *found["stopped"]}))
        ours = [task for task in described if task.get("startedBy") == self.started_by]
        return sorted(ours, key=lambda task: (str(task.get("createdAt", "")), task["taskArn"]))

    def start(self, arguments, token):
        """ARN of the task that runs for `token`, started now or by an earlier request.

        Raises:
            LostAnswer; Overtaken: another request has started one for the token meanwhile. Stop: ECS starts none.
        """
        try:
            answer = self._aws.change("ecs", "run_task", clientToken=token, **arguments)
        except Exception as error:
            if code_of(error) == "ConflictException":
                raise Overtaken(explain(error)) from error
            raise
        if answer["tasks"]:
            return answer["tasks"][0]["taskArn"]
        why = (
            "; ".join(each.get("reason", "no reason given") for each in answer.get("failures", [])) or "no reason given"
        )
        raise Stop(f"ECS started no task: {why}")

    def follow(self, wait, arn, what):
        """The task, as DescribeTasks has it when it has stopped."""
        begun = time.monotonic()

        def look():
            return next(iter(self._service.describe_tasks([arn])), None)

        def done(task):
            if task is None and time.monotonic() - begun > UNKNOWN_SECONDS:
                raise Stop(f"{what}: ECS knows nothing of task {ecs.short(arn)} any more: look for what it did")
            return task is not None and task["lastStatus"] in ("STOPPED", "DELETED")

        return wait(look, done, what, usual=USUAL, state=lambda task: task["lastStatus"].lower() if task else "unknown")

    def lines(self, chosen, arn, is_last=None):
        """What a container has written, oldest first; None where its log cannot be read, which is told in words instead.

        Args:
            chosen: its container definition; arn: of its task.
            is_last: predicate on a line; where none is there yet, lines are waited for.
        """
        log = chosen.get("logConfiguration") or {}
        options = log.get("options") or {}
        if log.get("logDriver") != "awslogs" or not options.get("awslogs-stream-prefix"):
            return None
        deadline = time.monotonic() + LOG_SECONDS
        while True:
            try:
                found = self._events(options, f"{options['awslogs-stream-prefix']}/{chosen['name']}/{ecs.short(arn)}")
            except Exception as error:
                if is_denied(error):
                    self._aws.do_without(error)
                    return None
                if code_of(error) != "ResourceNotFoundException":
                    raise
                found = []  # it has written nothing yet
            if is_last is None or any(is_last(line) for line in found) or time.monotonic() > deadline:
                return found
            time.sleep(0.5)

    def _events(self, options, stream):
        lines, more = [], {}
        while True:
            answer = self._aws.read(
                "logs",
                "get_log_events",
                region=options.get("awslogs-region"),
                logGroupName=options["awslogs-group"],
                logStreamName=stream,
                startFromHead=True,
                **more,
            )
            lines += [event["message"] for event in answer["events"]]
            # The end of a stream is where the token stays the same.
            if answer.get("nextForwardToken") in (None, more.get("nextToken")):
                return lines
            more = {"nextToken": answer["nextForwardToken"]}


def exit_code(task, name):
    """Of the container, None where it never ran."""
    return next((each.get("exitCode") for each in task.get("containers", []) if each["name"] == name), None)

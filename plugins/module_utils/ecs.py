# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ECS services: what they say of themselves, when they are where they should be, and when they never will be."""

from __future__ import annotations

import time

from . import elbv2
from .aws import code_of, together
from .errors import Refusal, Stop, WaitTimeout, near

# So many failed tasks mean that the next ones fail too: waiting for the deadline would only cost time.
STOPPED_TOO_OFTEN = 3
# A task in one of these takes no more work and does none. Before them come DEACTIVATING and STOPPING, in which
# runningCount no longer has it while it still writes.
# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html
ENDED = ("DEPROVISIONING", "STOPPED", "DELETED")
# Stops that are nobody's wish. A scale-in or a replaced deployment stops tasks too.
FAILED_STOPS = ("TaskFailedToStart", "EssentialContainerExited")
# DescribeTasks and DescribeContainerInstances take so many at once.
TASKS_A_CALL = INSTANCES_A_CALL = 100
# Seconds between two looks at a service's tasks and targets while it rolls out. Two calls of a look share a quota that
# refills at 20 a second for an account and region: 50 services at once take half of it.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
CLOSER_LOOK_SECONDS = 10.0
# How many revisions of a family are named to a person.
REVISIONS_SHOWN = 5


def short(name):
    """The name at the end of an ARN (a name stays itself)."""
    return name.rpartition("/")[2]


class Service:
    """One service of a cluster, read again at each look.

    Args:
        aws: the Aws to ask.
        cluster, service: names or ARNs.
    """

    def __init__(self, aws, cluster, service):
        self._aws, self.cluster, self.name = aws, cluster, service
        self._stops = {}

    def describe(self, **more):
        """The DescribeServices entry; `more` is for that call.

        Raises:
            Refusal: there is no such cluster, or no such active service in it; the line lists near names.
        """
        try:
            answer = self._aws.read("ecs", "describe_services", cluster=self.cluster, services=[self.name], **more)
        except Exception as error:
            if code_of(error) == "ClusterNotFoundException":
                raise self._no_cluster() from error
            raise
        service = next(iter(answer["services"]), None)
        if service is None or service.get("status", "ACTIVE") == "INACTIVE":
            raise self._no_service(deleted=service is not None)
        return service

    def targets(self, groups):
        """The targets registered now, for each entry of `target_groups`: [(name, [{target, state, reason}])]."""
        if not groups:
            return []
        answers = together(
            **{
                arn: lambda arn=arn: elbv2.target_health(self._aws, arn, self._aws.region)
                for arns in groups
                for arn in arns
            }
        )
        return [
            (" + ".join(arn.split("/")[-2] for arn in arns), [target for arn in arns for target in answers[arn]])
            for arns in groups
        ]

    def stops(self):
        """{task ARN: (deployment id, why)} of the tasks that failed, as far back as ECS remembers (about an hour)."""
        self._describe_new([arn for arn in self._tasks("STOPPED") if arn not in self._stops])
        return {arn: stop for arn, stop in self._stops.items() if stop}

    def failures(self):
        """[(second of the epoch, why, deployment id)] of the tasks that failed, newest first, as far back as ECS remembers."""
        failures = [task for task in self.describe_tasks(self._tasks("STOPPED")) if failed(task)]
        return sorted(
            ((_stopped(task), stop_reason(task), task.get("startedBy", "")) for task in failures), reverse=True
        )

    def unfinished(self):
        """ARNs of the tasks that may still do work, those that are stopping included."""
        found = together(running=lambda: self._tasks("RUNNING"), stopped=lambda: self._tasks("STOPPED"))
        arns = found["running"] + found["stopped"]
        return [task["taskArn"] for task in self.describe_tasks(arns) if task["lastStatus"] not in ENDED]

    def definition(self, name, **more):
        """DescribeTaskDefinition, None where there is none of that name (a family alone: its newest ACTIVE revision)."""
        try:
            return self._aws.read("ecs", "describe_task_definition", taskDefinition=name, **more)
        except Exception as error:
            if code_of(error) == "ClientException":  # how ECS says "there is none"
                return None
            raise

    def family(self, name):
        """ARNs of the newest ACTIVE revisions of a family."""
        return self._aws.read(
            "ecs",
            "list_task_definitions",
            familyPrefix=name,
            status="ACTIVE",
            sort="DESC",
            maxResults=REVISIONS_SHOWN,
        )["taskDefinitionArns"]

    def memory_left(self):
        """{instance id: MiB that tasks may still take} of the container instances of its cluster that take tasks."""
        arns, more = [], {}
        while True:
            answer = self._aws.read("ecs", "list_container_instances", cluster=self.cluster, status="ACTIVE", **more)
            arns += answer["containerInstanceArns"]
            if not answer.get("nextToken"):
                break
            more = {"nextToken": answer["nextToken"]}
        return {
            each["ec2InstanceId"]: next(r["integerValue"] for r in each["remainingResources"] if r["name"] == "MEMORY")
            for start in range(0, len(arns), INSTANCES_A_CALL)
            for each in self._aws.read(
                "ecs",
                "describe_container_instances",
                cluster=self.cluster,
                containerInstances=arns[start : start + INSTANCES_A_CALL],
            )["containerInstances"]
        }

    def definitions(self):
        """{deployment id: task definition ARN} of its tasks, those included that stopped in the last hour or so."""
        found = together(running=lambda: self._tasks("RUNNING"), stopped=lambda: self._tasks("STOPPED"))
        described = self.describe_tasks(found["running"] + found["stopped"])
        return {task.get("startedBy", ""): task["taskDefinitionArn"] for task in described}

    def _tasks(self, desired_status):
        return self.task_arns(serviceName=self.name, desiredStatus=desired_status)

    def task_arns(self, **filters):
        """ListTasks of its cluster, all pages."""
        arns, more = [], {}
        while True:
            answer = self._aws.read("ecs", "list_tasks", cluster=self.cluster, **filters, **more)
            arns += answer["taskArns"]
            if not answer.get("nextToken"):
                return arns
            more = {"nextToken": answer["nextToken"]}

    def describe_tasks(self, arns):
        """DescribeTasks of any number; what ECS has forgotten is left out."""
        return [
            task
            for start in range(0, len(arns), TASKS_A_CALL)
            for task in self._aws.read(
                "ecs", "describe_tasks", cluster=self.cluster, tasks=arns[start : start + TASKS_A_CALL]
            )["tasks"]
        ]

    def _describe_new(self, arns):
        for task in self.describe_tasks(arns):
            self._stops[task["taskArn"]] = (task.get("startedBy", ""), stop_reason(task)) if failed(task) else None

    def _no_cluster(self):
        there = [short(arn) for arn in self._aws.read("ecs", "list_clusters")["clusterArns"]]
        return Refusal(
            f"there is no ECS cluster {short(self.cluster)} in {self._aws.region} "
            f"({near(short(self.cluster), there)}): check the cluster and the region of this host in the inventory"
        )

    def _no_service(self, deleted):
        there = [
            short(arn)
            for arn in self._aws.read("ecs", "list_services", cluster=self.cluster, maxResults=100)["serviceArns"]
        ]
        what = (
            f"the ECS service {short(self.name)} was deleted from"
            if deleted
            else f"there is no ECS service {short(self.name)} in"
        )
        return Refusal(
            f"{what} cluster {short(self.cluster)} in {self._aws.region} ({near(short(self.name), there)}): "
            f"check the service and the region of this host in the inventory"
        )


def tasks(count):
    """A count of tasks, for people."""
    return f"{count} task{'' if count == 1 else 's'}"


def controller(service):
    """Who rolls the service out: ECS, CODE_DEPLOY or EXTERNAL."""
    return service.get("deploymentController", {}).get("type", "ECS")


def primary(service):
    """The deployment that the service is to end in, or None (a service under another controller has none)."""
    return next((each for each in service.get("deployments", []) if each["status"] == "PRIMARY"), None)


def target_groups(service):
    """The target groups of the tasks, a tuple for each load balancer (blue/green has two groups, tasks are in one)."""
    task_set = next((each for each in service.get("taskSets", []) if each.get("status") == "PRIMARY"), {})
    return [
        tuple(
            arn
            for arn in (each["targetGroupArn"], each.get("advancedConfiguration", {}).get("alternateTargetGroupArn"))
            if arn
        )
        for each in task_set.get("loadBalancers") or service.get("loadBalancers", [])
        if each.get("targetGroupArn")
    ]


def is_rolled_out(service, deployment):
    """Has `deployment` (an entry of the service's deployments) ended well? With no task wanted that is at once."""
    if deployment is None or deployment["status"] != "PRIMARY":
        return False
    if "rolloutState" in deployment:
        return deployment["rolloutState"] == "COMPLETED"
    return len(service["deployments"]) == 1 and service["runningCount"] == service["desiredCount"]


def is_complete(service, deployment_id):
    """Has this very deployment ended well, and is it still what the service goes to?"""
    ours = primary(service)
    return ours is not None and ours["id"] == deployment_id and is_rolled_out(service, ours)


def is_serving(seen, count):
    """Do at least `count` tasks run, all that are wanted, rolled out, and as many healthy targets in each group?"""
    service = seen["service"]
    return (
        service["desiredCount"] >= count
        and service["runningCount"] == service["desiredCount"]
        and (not service.get("deployments") or is_rolled_out(service, primary(service)))
        and all(healthy(targets) >= count for _name, targets in seen["targets"])
    )


def is_idle(seen):
    """Does no task run or start, and is no target left? (A draining target still answers requests.)"""
    service = seen["service"]
    return not (
        service["desiredCount"]
        or service["runningCount"]
        or service["pendingCount"]
        or any(targets for _name, targets in seen["targets"])
    )


def healthy(targets):
    return sum(target["state"] == "healthy" for target in targets)


def failed(task):
    """Did this stopped task fail? One that the service took away did not, unless a health check was why."""
    return task.get("stopCode") in FAILED_STOPS or "failed" in task.get("stoppedReason", "").lower()


def _stopped(task):
    """When it began to stop: that it has stopped comes later, and is not always told."""
    return next((task[key].timestamp() for key in ("stoppingAt", "stoppedAt", "createdAt") if key in task), 0.0)


def stop_reason(task):
    """Why a task stopped, with what its containers say of it."""
    reason, details = " ".join((task.get("stoppedReason") or task.get("stopCode") or "no reason given").split()), []
    for container in task.get("containers", []):
        said = [f"exit code {container['exitCode']}"] if container.get("exitCode") else []
        why = " ".join(container.get("reason", "").split())
        # An image that cannot be pulled is the reason of the task and of its container, in the same words.
        said += [why] if why and why not in reason else []
        details += [f"{container['name']}: {', '.join(said)}"] if said else []
    return reason + (f" ({'; '.join(details)})" if details else "")


def rollout_failure(seen, deployment_id):
    """Why the deployment that this run waits for will not end well, or None while it may. A circuit breaker that rolled
    back for us is a failure: the service ends stable, but in what was to be left."""
    service = seen["service"]
    ours = next((each for each in service.get("deployments", []) if each["id"] == deployment_id), None)
    if ours is not None and ours.get("rolloutState") == "FAILED":
        return _rollout_failed(ours)
    if ours is None or ours["status"] != "PRIMARY":
        now = short(service["taskDefinition"])
        return f"the deployment of this run was replaced: {service['serviceName']} now goes to {now}"
    return too_many(seen)


def scaling_failure(seen, count):
    """Why a service will not come to serve with `count` tasks (0: to drain), or None while it may."""
    service, deployment = seen["service"], primary(seen["service"])
    if service["desiredCount"] < count or (service["desiredCount"] and not count):
        return f"something else set its desired count to {service['desiredCount']}"
    if count and deployment is not None and deployment.get("rolloutState") == "FAILED":
        return _rollout_failed(deployment)
    return too_many(seen)


def beyond_quota(service, known_events):
    """The event in which ECS says that the account may have no more, or None. Events of before are `known_events` (ids).

    Other reasons for which a task is not placed may pass by themselves.
    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html
    """
    for event in service.get("events", []):
        if event["id"] not in known_events and "reached the limit" in event["message"]:
            return " ".join(event["message"].split())
    return None


def _rollout_failed(deployment):
    reason = deployment.get("rolloutStateReason") or "no reason given"
    return f"the rollout of {short(deployment['taskDefinition'])} failed: {reason}"


def too_many(seen):
    """Why more of the same would fail too, or None while it may not."""
    stops = len(seen["stops"])
    return f"{stops} of its tasks failed one after the other" if stops >= STOPPED_TOO_OFTEN else None


def watch(wait, look, reached, failure, what, usual, pace=None, state=None):
    """Wait for a state of a service, and say why when it fails or does not come.

    Args:
        wait: `Verb.wait`.
        look: returns {service, targets, stops}: DescribeServices entry, `Service.targets`, reasons of failed tasks.
        reached: pure predicate on what was seen.
        failure: pure; why it never will be reached, or None.
        what, usual, pace, state: as for `wait`; `state` is `progress` by default.

    Raises:
        Stop, WaitTimeout: with the reasons of stopped tasks, the targets' health and the last events.
    """
    last = {}

    def keep():
        last.update(look())
        return last

    def done(seen):
        if reached(seen):
            return True
        why = failure(seen)
        if why:
            raise Stop(f"{what}: {why}. {findings(seen)}")
        return False

    try:
        return wait(keep, done, what, usual=usual, state=state or progress, pace=pace)
    except WaitTimeout as error:
        raise WaitTimeout(f"{error}. {findings(last)}" if last else str(error)) from error


def follow(wait, service, reached, failure, what, usual, pace=None, state=None, ours=None, also=None, since_now=False):
    """`watch` a service roll out; its tasks and targets are looked at now and then, and when something went wrong.

    Args:
        wait, reached, failure, what, usual, pace, state: as for `watch`.
        service: Service.
        ours: the id of the deployment whose failed tasks count, of the DescribeServices entry; default the primary one.
        also: more to look at, {name: seen} for the DescribeServices entry.
        since_now: failures that were there before do not count.
    """
    ours = ours or (lambda entry: (primary(entry) or {}).get("id"))
    closer, looked_at, known = {"targets": [], "stops": []}, None, None if since_now else set()

    def look():
        nonlocal closer, looked_at, known
        entry = service.describe()
        seen = {"service": entry, **closer, **(also(entry) if also else {})}
        is_due = looked_at is None or time.monotonic() - looked_at >= CLOSER_LOOK_SECONDS
        if not reached(seen) and (is_due or failure(seen)):
            found = together(stops=service.stops, targets=lambda: service.targets(target_groups(entry)))
            looked_at, known = time.monotonic(), set(found["stops"]) if known is None else known
            stops = [why for arn, (by, why) in found["stops"].items() if by == ours(entry) and arn not in known]
            closer = {"targets": found["targets"], "stops": stops}
        return dict(seen, **closer)

    return watch(wait, look, reached, failure, what, usual, pace, state)


def follow_deployment(wait, service, deployment, what, usual):
    """`follow` one deployment, given by its id, until it is complete; another's failed tasks are not its own."""
    follow(
        wait,
        service,
        lambda seen: is_complete(seen["service"], deployment),
        lambda seen: rollout_failure(seen, deployment),
        what,
        usual,
        ours=lambda _service: deployment,
    )


def new_stops(service):
    """A function that tells why tasks failed since it was called first: [reason]."""
    known = None

    def look():
        nonlocal known
        stops = service.stops()
        known = set(stops) if known is None else known
        return [why for arn, (_deployment, why) in stops.items() if arn not in known]

    return look


def progress(seen):
    """What was seen, in a few words."""
    service = seen["service"]
    parts = [f"{service['runningCount']} of {service['desiredCount']} running"]
    parts += [f"{name}: {states(targets)}" for name, targets in seen["targets"]]
    rollout = (primary(service) or {}).get("rolloutState", "COMPLETED")
    parts += [f"rollout {rollout.lower().replace('_', ' ')}"] if rollout != "COMPLETED" else []
    parts += [f"{tasks(len(seen['stops']))} failed"] if seen["stops"] else []
    parts += [f"{tasks(len(seen['unfinished']))} stopping"] if seen.get("unfinished") else []
    return ", ".join(parts)


def states(targets):
    """How many targets are in which state, for people."""
    states = sorted({target["state"] for target in targets})
    return (
        " and ".join(f"{sum(target['state'] == state for target in targets)} {state}" for state in states)
        or "no targets"
    )


def findings(seen):
    """What a person looks at first: why tasks stopped, which targets are not healthy, the service's last events."""
    targets = [line for _name, targets in seen["targets"] for line in elbv2.troubles(targets)]
    events = [" ".join(event["message"].split()).rstrip(".") for event in seen["service"].get("events", [])[:3]]
    said = (("stopped tasks", dict.fromkeys(seen["stops"])), ("targets", targets), ("last events", events))
    return ". ".join(f"{what}: {'; '.join(lines)}" for what, lines in said if lines) or "ECS gives no reason"

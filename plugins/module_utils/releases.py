# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an ECS service was deployed to in the past, and which revision is the one to go back to.

ECS keeps the deployments of the last 90 days, each with the service revision it was to bring: the task definition and the
digests of its images. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

try:
    from botocore.exceptions import ClientError
except ImportError:
    pass

from . import ecs
from .aws import attempt, code_of, is_denied
from .errors import Refusal
from .task_definition import family, number, short

# How a deployment stands. FAILED covers whatever ended without bringing what it was to bring; RETURNING ends in FAILED.
COMPLETED, RUNNING, RETURNING, FAILED = "completed", "running", "returning", "failed"
OUTCOMES = {
    "PENDING": RUNNING,
    "IN_PROGRESS": RUNNING,
    "SUCCESSFUL": COMPLETED,
    "STOP_REQUESTED": FAILED,
    "STOPPED": FAILED,
    "ROLLBACK_REQUESTED": RETURNING,
    "ROLLBACK_IN_PROGRESS": RETURNING,
    "ROLLBACK_SUCCESSFUL": FAILED,
    "ROLLBACK_FAILED": FAILED,
}
ROLLOUTS = {"COMPLETED": COMPLETED, "IN_PROGRESS": RUNNING, "FAILED": FAILED}
# The API of service deployments is missing.
NOT_ANSWERED = ("UnsupportedFeatureException", "UnknownOperationException", "InvalidAction")
# The most deployments that ListServiceDeployments gives, and revisions that DescribeServiceRevisions takes, in one call.
DEPLOYMENTS_A_CALL, REVISIONS_A_CALL = 100, 20
_COMPLETED_EVENT = re.compile(r"\(deployment (?P<id>[^)]+)\) deployment completed")


@dataclass(frozen=True)
class Release:
    """One deployment of the past. `images`: {container: (image, digest or None)} as ECS resolved them, where it says so."""

    task_definition: str
    outcome: str
    arn: str = ""  # of the service deployment, "" where only the service's own list tells of it
    at: datetime | None = None
    images: dict = field(default_factory=dict, hash=False)
    reason: str = ""


@dataclass(frozen=True)
class Choice:
    """The revision (ARN) to go to, the one to leave (None where nothing tells), and why, for people."""

    goal: str
    leaving: str | None
    why: str


class History:
    """The releases of one service, read from AWS.

    Args:
        service: ecs.Service.
    """

    def __init__(self, aws, service):
        self._aws, self._service, self._revisions = aws, service, {}

    def listed(self):
        """ListServiceDeployments, newest first; a ClientError where that API does not answer."""
        found = attempt(
            lambda: self._aws.read(
                "ecs",
                "list_service_deployments",
                cluster=self._service.cluster,
                service=self._service.name,
                maxResults=DEPLOYMENTS_A_CALL,
            )["serviceDeployments"],
            ClientError,
        )
        if isinstance(found, ClientError):
            if is_denied(found):
                self._aws.do_without(found)
            elif code_of(found) not in NOT_ANSWERED:
                raise found
            return found
        return sorted(found, key=lambda each: each["createdAt"], reverse=True)

    def releases(self, service, listed):
        """[Release], newest first, as far back as it takes to find one that completed before the newest.

        Args:
            service: DescribeServices entry.
            listed: what `listed()` found.
        """
        if isinstance(listed, ClientError) or not listed:
            return from_service(service, self._service.definitions())
        found = []
        for start in range(0, len(listed), REVISIONS_A_CALL):
            some = listed[start : start + REVISIONS_A_CALL]
            revisions = self._described([each["targetServiceRevisionArn"] for each in some])
            found += [_release(each, revisions[each["targetServiceRevisionArn"]]) for each in some]
            if before(found):
                break
        else:
            # What ran before the oldest deployment that is remembered completed one that is not.
            found += self._sources(found[-1])
        return with_present(found, service)

    def _described(self, arns):
        """{ARN: DescribeServiceRevisions entry}. A revision never changes, so each is read once."""
        new = sorted(set(arns) - self._revisions.keys())
        if new:
            answer = self._aws.read("ecs", "describe_service_revisions", serviceRevisionArns=new)
            self._revisions |= {each["serviceRevisionArn"]: each for each in answer["serviceRevisions"]}
        return {arn: self._revisions.get(arn, {}) for arn in arns}

    def _sources(self, release):
        described = self.deployment(release.arn)
        arns = [each["arn"] for each in described.get("sourceServiceRevisions", [])]
        return [
            Release(revision["taskDefinition"], COMPLETED, images=_images(revision))
            for revision in self._described(arns).values()
            if revision
        ]

    def deployment(self, arn):
        """DescribeServiceDeployments of one."""
        answer = self._aws.read("ecs", "describe_service_deployments", serviceDeploymentArns=[arn])
        return next(iter(answer["serviceDeployments"]), {})


def _release(listed, revision):
    return Release(
        revision.get("taskDefinition", ""),
        OUTCOMES.get(listed["status"], FAILED),
        listed["serviceDeploymentArn"],
        listed.get("finishedAt") or listed["createdAt"],
        _images(revision),
        listed.get("statusReason", ""),
    )


def _images(revision):
    return {
        each["containerName"]: (each["image"], each.get("imageDigest")) for each in revision.get("containerImages", [])
    }


def from_service(service, definitions):
    """Pure: the releases that the service itself tells of: its deployments, and the events that name completed ones.

    Args:
        service: DescribeServices entry.
        definitions: {deployment id: task definition ARN} of its tasks, stopped ones of the last hour included.
    """
    found = [
        Release(
            each["taskDefinition"],
            ROLLOUTS.get(each.get("rolloutState", "COMPLETED"), FAILED),
            at=each.get("createdAt"),
        )
        for each in sorted(service.get("deployments", []), key=lambda each: each["status"] != "PRIMARY")
    ]
    known = {each["id"] for each in service.get("deployments", [])}
    for event in service.get("events", []):
        match = _COMPLETED_EVENT.search(event["message"])
        if match and match["id"] not in known and match["id"] in definitions:
            known.add(match["id"])
            found.append(Release(definitions[match["id"]], COMPLETED, at=event.get("createdAt")))
    return found


def with_present(releases, service):
    """Pure: the history as the service itself stands: a change of a moment ago may not be in the list of deployments yet."""
    present, newest = ecs.primary(service), releases[0]
    if present is None or newest.outcome in (FAILED, RETURNING) or newest.task_definition == present["taskDefinition"]:
        return releases
    outcome = ROLLOUTS.get(present.get("rolloutState", "COMPLETED"), FAILED)
    return [Release(present["taskDefinition"], outcome, at=present.get("createdAt")), *releases]


def before(releases):
    """Pure: the last release that completed before the newest one and is of another task definition, or None."""
    return next(
        (
            each
            for each in releases[1:]
            if each.outcome == COMPLETED and each.task_definition not in ("", releases[0].task_definition)
        ),
        None,
    )


def last_of(releases, arn):
    """Pure: the last release of that task definition, a completed one before all others; an empty one where none is known."""
    own = [each for each in releases if each.task_definition == arn]
    return next((each for each in own if each.outcome == COMPLETED), own[0] if own else Release(arn, FAILED))


def returns_to(releases):
    """Pure: where ECS itself goes when the newest deployment is stopped with a rollback: the last successful revision."""
    return next((each.task_definition for each in releases[1:] if each.outcome == COMPLETED), None)


def replaced(releases):
    """Pure: what the newest release was to replace, however that had ended, or None."""
    return next((each for each in releases[1:] if each.task_definition != releases[0].task_definition), None)


def choose(releases, present, given=None, leaving=None, in_family=()):
    """Pure: the revision to go to. Deployments bring newer revisions, so one that brought an older revision went back.

    Args:
        releases: newest first, at least one.
        present: ARN of the task definition that the service has.
        given: ARN that a person asks for.
        leaving: the revision (family:revision or ARN) that shall be left; anything else that came since is refused.
        in_family: ARNs of ACTIVE revisions, for a person to choose from when nothing tells which one was good.

    Raises:
        Refusal: nothing tells where to go, going there was tried and failed, or somebody has deployed since.
    """
    choice = _asked_for(given, releases) if given else _found(releases, present, in_family)
    if leaving and short(leaving) != short(choice.leaving or ""):
        newest = releases[0]
        raise Refusal(
            f"the service does not go to {short(leaving)} any more: somebody has deployed "
            f"{short(newest.task_definition)}{_when(newest)}: look at that deployment first, then run again"
        )
    return choice


def _asked_for(given, releases):
    newest, old = releases[0], replaced(releases)
    left = newest if newest.task_definition != given else old
    return Choice(given, left and left.task_definition, f"{short(given)} was asked for")


def _found(releases, present, in_family):
    newest, old, good = releases[0], replaced(releases), before(releases)
    name = short(newest.task_definition)
    if old is not None and is_newer(old.task_definition, newest.task_definition):
        went_from = short(old.task_definition)
        if newest.outcome in (FAILED, RETURNING):
            raise Refusal(
                f"the deployment of {name}{_when(newest)} was the way back from {went_from}, and it failed"
                f"{_because(newest)}: give another revision as task_definition ({_to_choose_from(releases, old)})"
            )
        why = f"the last deployment{_when(newest)} already goes back from {went_from} to {name}"
        return Choice(newest.task_definition, old.task_definition, why)
    if newest.outcome == FAILED and present != newest.task_definition:
        # A circuit breaker, an alarm or a person stopped it.
        why = f"the deployment of {name} failed{_because(newest)}, and ECS went back to {short(present)}"
        return Choice(present, newest.task_definition, why)
    if good is None:
        raise Refusal(_nothing_before(newest, in_family))
    does = ", and ECS goes back to it" if newest.outcome == RETURNING else ""
    why = f"{short(good.task_definition)} is the last revision that completed a deployment{_when(good)} before {name}{does}"
    return Choice(good.task_definition, newest.task_definition, why)


def _nothing_before(newest, in_family):
    older = [short(arn) for arn in in_family if is_newer(newest.task_definition, arn)]
    there = f"ACTIVE before it: {', '.join(older)}" if older else "there is no older ACTIVE one"
    return (
        f"nothing tells which revision completed a deployment before {short(newest.task_definition)} (ECS remembers 90 days; "
        f"a family may hold revisions that never ran): give the one that was good as task_definition ({there})"
    )


def completed(releases):
    """Pure: ARNs of the revisions that completed a deployment and failed none, newest first."""
    failed = {each.task_definition for each in releases if each.outcome == FAILED}
    done = [each.task_definition for each in releases if each.outcome == COMPLETED]
    return [arn for arn in dict.fromkeys(done) if arn not in failed | {""}]


def _to_choose_from(releases, besides):
    names = [short(arn) for arn in completed(releases) if arn != besides.task_definition]
    return f"completed before: {', '.join(names)}" if names else "none is known to have completed"


def is_newer(one, other):
    """Is task definition `one` a later revision of the same family than `other`?"""
    return family(one) == family(other) and number(one) > number(other)


def _when(release):
    return f" on {release.at:%Y-%m-%d at %H:%M}" if release.at else ""


def _because(release):
    reason = " ".join(release.reason.split()).rstrip(".")
    return f" ({reason})" if reason else ""

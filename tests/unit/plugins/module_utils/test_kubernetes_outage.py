# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a workload and its pods tell of an outage: from the objects that a real API server answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_history as history
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_outage
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_workload import KINDS
from ansible_collections.sre.runbooks.plugins.module_utils.outage import Observed, decide
from ansible_collections.sre.runbooks.tests.unit.kubernetes_cluster import story

# v1, v2 and the bad image were shipped at these times of the story.
V1_CAME, V2_CAME, BAD_CAME = (
    datetime(2026, 11, 21, 8, minute, second, tzinfo=UTC) for minute, second in ((44, 48), (44, 54), (45, 2))
)
CRASHED = {
    "name": "app",
    "restartCount": 4,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting failed container"}},
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
}
HANGS = {"name": "app", "restartCount": 0, "state": {"running": {"startedAt": "2026-11-21T08:44:54Z"}}, "ready": False}


def found(chapter, kind="Deployment"):
    """{workload, revisions, pods}, as the reader has them."""
    seen = story(chapter)
    seen["revisions"] = KINDS[kind].revisions(seen["workload"], seen["revisions"])
    return seen


def mapped(seen, kind="Deployment", after=BAD_CAME, minutes=180):
    return kubernetes_outage.workload(KINDS[kind], seen, (after + timedelta(minutes=minutes)).timestamp())


def decided(work, minutes=180, after=BAD_CAME, **more):
    observed = Observed(work, (after + timedelta(minutes=minutes)).timestamp(), **more)
    return decide(observed, count=2, recent_minutes=60, max_error_percent=10)


def turned(pod, status=None, **conditions):
    """A pod that no longer serves."""
    known = pod["status"]["conditions"]
    pod["status"]["conditions"] = [each for each in known if each["type"] not in {"Ready", *conditions}] + [
        {"type": kind, "status": "False", "message": message}
        for kind, message in {"Ready": "not ready", **conditions}.items()
    ]
    pod["status"]["containerStatuses"] = [status] if status else []
    return pod


def test_all_is_well():
    work = mapped(found("v2"))
    assert (work.wanted, work.running, work.serving, work.name) == (3, 3, 3, "web")
    assert (work.release, work.released) == ("revision 2 (shop/web:v2)", V2_CAME.timestamp())
    assert (work.rollout, work.rolling, work.failures, work.waiting, work.starting) == (None, False, (), (), 0)
    assert decided(work).act == "none"


def test_an_image_that_cannot_be_pulled():
    work = mapped(found("bad"), minutes=12)
    assert (work.wanted, work.running, work.serving, work.rolling) == (3, 3, 3, True)
    assert work.rollout == 'progress deadline exceeded: ReplicaSet "web-f945d6bb4" has timed out progressing.'
    assert work.failures == (
        'pod web-f945d6bb4-q59rb, container app: ImagePullBackOff: Back-off pulling image "shop/web:bad"',
    )
    because = "revision 3 (shop/web:bad) was deployed 12 min ago: progress deadline exceeded"
    decision = decided(work, minutes=12)
    assert decision.act == "rollback" and decision.because.startswith(because)
    # New pods would not find that image either.
    assert not work.restart_helps and decided(work).act == "unknown"


@pytest.mark.parametrize(("minutes", "act"), [(12, "rollback"), (180, "restart")])
def test_pods_that_crash(minutes, act):
    seen = found("v2")
    for pod in seen["pods"]:
        turned(pod, CRASHED)
    work = mapped(seen, minutes=minutes, after=V2_CAME)
    assert (work.wanted, work.running, work.serving, work.restart_helps) == (3, 0, 0, True)
    assert work.failures[0] == "pod web-bf5cd9b85-8t89q, container app: CrashLoopBackOff: exit code 1"
    assert decided(work, minutes, after=V2_CAME).act == act


def test_pods_that_hang():
    seen = found("v2")
    for pod in seen["pods"][1:]:
        turned(pod, HANGS)
    work = mapped(seen)
    assert (work.running, work.serving, work.failures) == (3, 1, ())
    assert work.waiting[0] == "pod web-bf5cd9b85-ctgn4: container app is not ready"
    decision = decided(work)
    assert decision.act == "restart"
    assert "container app is not ready" in decision.because and decision.because.endswith("; 1 of 3 of web serve")


def test_pods_that_no_node_takes():
    seen = found("v2")
    for pod in seen["pods"][1:]:
        turned(pod, PodScheduled="0/2 nodes are available: 2 Insufficient cpu.")["status"]["phase"] = "Pending"
    work = mapped(seen)
    assert (work.running, work.serving) == (1, 1)
    decision = decided(work)
    assert decision.act == "unknown" and "is on no node: 0/2 nodes are available" in decision.because


def test_pods_that_a_quota_refuses():
    seen = story("v2")
    (newest,) = (each for each in seen["revisions"] if each["metadata"]["name"] == "web-bf5cd9b85")
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods=2"}
    newest["status"]["conditions"] = [refused]
    seen["revisions"] = KINDS["Deployment"].revisions(seen["workload"], seen["revisions"])
    seen["pods"] = [turned(seen["pods"][0], CRASHED)]
    work = mapped(seen)
    assert work.failures[-1] == "pods cannot be created: exceeded quota: pods=2"
    assert not work.restart_helps and decided(work).act == "unknown"


def test_pods_that_have_only_just_begun_are_waited_for():
    seen = found("v2")
    for pod in seen["pods"]:
        turned(pod, HANGS)
    work = mapped(seen, after=V2_CAME, minutes=0.5)
    assert (work.starting, work.waiting) == (3, ())
    # Nothing was deployed: they were scaled, or a run of the playbook was killed.
    observed = Observed(work, V2_CAME.timestamp() + 30, complaints=("health: refused",))
    decision = decide(observed, count=2, recent_minutes=0, max_error_percent=10)
    assert (decision.act, decision.because) == ("scale", "0 of 3 of web serve and 3 have only just begun")
    assert mapped(seen, after=V2_CAME, minutes=2).starting == 0


def test_one_pod_more_or_less_while_a_rollout_goes_well_is_no_outage():
    seen = found("bad")
    seen["workload"]["status"]["conditions"] = []
    turned(seen["pods"][-1], HANGS)
    del seen["pods"][0:2]
    work = mapped(seen, minutes=0.5)
    assert (work.wanted, work.serving, work.rolling, work.failures) == (3, 1, True, ())
    assert decided(work, 0.5).act == "none"
    assert decided(work, 0.5, complaints=("health: refused",)).act == "rollback"


def test_what_is_on_its_way_out_or_was_evicted_counts_for_nothing():
    seen = found("v2")
    gone, evicted, _serves = seen["pods"]
    turned(gone, CRASHED)["metadata"]["deletionTimestamp"] = "2026-11-21T08:50:00Z"
    turned(evicted)["status"]["phase"] = "Failed"
    work = mapped(seen)
    assert (work.running, work.serving, work.failures, work.waiting) == (1, 1, (), ())


def test_a_restart_is_no_deployment():
    work = mapped(found("restarted"))
    assert work.release == "revision 5 (shop/web:v2)"
    # v2 had come back after the bad build was shipped; nothing says when, but for that.
    assert work.released == BAD_CAME.timestamp()
    seen = found("restarted")
    seen["revisions"] = [each for each in seen["revisions"] if "shop/web:bad" not in history.images(each.template)]
    assert mapped(seen).released == V2_CAME.timestamp()


def test_a_revision_that_was_returned_to_came_after_the_one_that_was_left():
    work = mapped(found("undone"), minutes=5)
    assert (work.release, work.released) == ("revision 4 (shop/web:v2)", BAD_CAME.timestamp())
    # Killed in the middle of an undo: the same command again finishes it.
    assert decided(work, 5, complaints=("health: refused",)).act == "rollback"


def test_paused_is_what_somebody_wanted():
    seen = found("bad")
    seen["workload"]["spec"]["paused"], seen["workload"]["status"]["conditions"] = True, []
    seen["pods"] = seen["pods"][:3]
    work = mapped(seen)
    assert work.rollout is None and decided(work).act == "none"


def test_secrets_in_what_a_container_says_are_hidden_and_names_are_not():
    seen = found("v2")
    waits = {"reason": "CreateContainerError", "message": "exec: postgresql://regami:hunter2@db/regami: no such file"}
    turned(seen["pods"][0], {"name": "session", "restartCount": 0, "state": {"waiting": waits}})
    (failure,) = mapped(seen).failures
    assert "container session: CreateContainerError: exec" in failure and "hunter2" not in failure


@pytest.mark.parametrize(
    ("kind", "came"), [("StatefulSet", "2026-11-21T08:45:44+00:00"), ("DaemonSet", "2026-11-21T08:46:00+00:00")]
)
def test_the_kinds_with_controller_revisions(kind, came):
    work = mapped(found(kind, kind), kind)
    assert work.released == datetime.fromisoformat(came).timestamp()
    assert work.release.startswith("revision 2 (") and work.failures == ()

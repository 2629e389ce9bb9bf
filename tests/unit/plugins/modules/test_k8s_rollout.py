# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""k8s_rollout: its plan, and the exact changes it makes, in order."""

from __future__ import annotations

import json

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_history as history
from ansible_collections.sre.runbooks.plugins.module_utils import room
from ansible_collections.sre.runbooks.plugins.module_utils import temporary_capacity as temporary
from ansible_collections.sre.runbooks.plugins.module_utils.room import Room
from ansible_collections.sre.runbooks.plugins.modules import k8s_rollout
from ansible_collections.sre.runbooks.tests.unit import kubernetes_cluster
from ansible_collections.sre.runbooks.tests.unit.kubernetes_cluster import BAD, V1, V2, Namespace, story

WEB = "/apis/apps/v1/namespaces/shop/deployments/web"


@pytest.fixture
def rollout(monkeypatch):
    def go(namespace, action="undo", **given):
        return kubernetes_cluster.run(monkeypatch, namespace, action, **given)

    return go


def as_recorded(chapter):
    """The controllers do what they did in the recording, when the verb's patch is in."""

    def go_on(namespace):
        workload = namespace.workload
        namespace.enter(chapter)
        namespace.workload["spec"] = workload["spec"]
        namespace.workload["metadata"]["annotations"] |= workload["metadata"]["annotations"]
        namespace.workload["metadata"]["generation"] = workload["metadata"]["generation"]
        namespace.workload["status"]["observedGeneration"] = workload["metadata"]["generation"]

    return go_on


def bad(**changes):
    """The bad image is stuck; v2 serves."""
    namespace = Namespace("bad")
    namespace.on_change = as_recorded("undone")
    for name, value in changes.items():
        setattr(namespace, name, value)
    return namespace


def test_undo_sends_what_kubectl_sends_and_keeps_other_annotations(rollout):
    namespace = bad()
    namespace.workload["metadata"]["annotations"] |= {"team": "shop", history.CHANGE_CAUSE: "bad"}
    result = rollout(namespace)
    template = next(each for each in story("bad")["revisions"] if each["metadata"]["name"] == V2)["spec"]["template"]
    del template["metadata"]["labels"]["pod-template-hash"]
    assert namespace.operations() == [
        ("test", "/metadata/generation", 3),
        ("replace", "/spec/template", template),
        (
            "add",
            "/metadata/annotations/sre.runbooks~1undo",
            json.dumps({"from": BAD, "to": V2, "revision": 2}),
        ),
        ("remove", "/metadata/annotations/kubernetes.io~1change-cause", None),
    ]
    assert [(method, path) for method, path, _body in namespace.changes] == [("PATCH", WEB)]
    assert namespace.workload["metadata"]["annotations"]["team"] == "shop"
    assert result["changed"] and not result["failed"]
    assert [step["do"] for step in result["steps"]] == ["roll_back", "settle"]
    assert result["before"]["revision"] == 3 and "progress deadline exceeded" in result["before"]["rollout"]
    assert result["after"] == {
        "revision": 4,
        "images": ["shop/web:v2"],
        "replicas": 3,
        "available": 3,
        "paused": False,
        "rollout": "complete",
    }
    assert result["undo"] == [
        {
            "verb": "sre.runbooks.k8s_rollout",
            "arguments": {
                "namespace": "shop",
                "kind": "Deployment",
                "name": "web",
                "action": "undo",
                "to_revision": 3,
            },
        }
    ]
    assert [each["revision"] for each in result["history"] if each["current"]] == [3]


def test_check_mode_predicts_and_changes_nothing(rollout):
    namespace = bad()
    planned, real = rollout(namespace, check=True), rollout(bad())
    assert namespace.changes == [] and planned["changed"]
    assert planned["steps"] == real["steps"] and planned["after"] == real["after"]


@pytest.mark.parametrize("to_revision", [None, 2])
def test_the_second_run_finds_it_done(rollout, to_revision):
    namespace = bad()
    rollout(namespace, to_revision=to_revision)
    result = rollout(namespace, to_revision=to_revision)
    assert (len(namespace.changes), result["changed"], result["steps"]) == (1, False, [])


def test_a_rollback_by_kubectl_is_not_taken_back(rollout):
    namespace = Namespace("undone")
    assert rollout(namespace)["msg"] == (
        "web runs revision 4 (shop/web:v2), which it had before revision 3 (shop/web:bad), too: somebody went back, or "
        "shipped it again: give to_revision (4 stays, 3 leaves it)"
    )
    assert not rollout(namespace, to_revision=4)["changed"] and namespace.changes == []


def test_a_restart_after_an_undo_is_no_way_back_to_the_build_that_was_left(rollout):
    namespace = Namespace("restarted")
    namespace.workload["metadata"]["annotations"][history.MARK] = json.dumps({"from": BAD, "to": V2, "revision": 2})
    result = rollout(namespace)
    assert (result["changed"], namespace.changes) == (False, [])
    assert "web already went back from revision 3 (shop/web:bad)" in result["notes"][0]


def test_the_build_that_was_left_is_left_again_when_the_pipeline_ships_it_again(rollout):
    namespace = bad()
    rollout(namespace)
    annotations = namespace.workload["metadata"]["annotations"]
    namespace.enter("bad")
    namespace.workload["metadata"]["annotations"] = annotations
    again = next(each for each in namespace.revisions if each["metadata"]["name"] == BAD)["metadata"]["annotations"]
    again |= {"deployment.kubernetes.io/revision": "5", "deployment.kubernetes.io/revision-history": "3"}
    back = next(each for each in namespace.revisions if each["metadata"]["name"] == V2)["metadata"]["annotations"]
    back |= {"deployment.kubernetes.io/revision": "4", "deployment.kubernetes.io/revision-history": "2"}
    result = rollout(namespace, check=True)
    assert result["steps"][0]["after"] == "revision 4 (shop/web:v2)"


def test_the_kinds_with_controller_revisions_know_the_number_that_they_forgot(rollout):
    namespace = Namespace("StatefulSet", "StatefulSet")

    def controller(namespace):
        """Gives the revision that comes back a new number, and its old one is gone."""
        first = namespace.revisions[1]
        first["revision"] = 3
        namespace.workload["status"] |= dict.fromkeys(("currentRevision", "updateRevision"), first["metadata"]["name"])
        namespace.workload["status"]["observedGeneration"] = namespace.workload["metadata"]["generation"]

    namespace.on_change = controller
    assert rollout(namespace, to_revision=1)["changed"]
    assert namespace.workload["spec"]["template"]["spec"]["containers"][0]["image"] == "shop/web:v1"
    assert "$patch" not in namespace.workload["spec"]["template"]
    again = rollout(namespace, to_revision=1)
    assert (again["changed"], again["steps"]) == (False, [])


def test_a_gap_names_what_there_is(rollout):
    result = rollout(bad(), to_revision=7)
    assert result["msg"] == (
        "web has no revision 7: there are: revision 3 (shop/web:bad), revision 2 (shop/web:v2), "
        "revision 1 (shop/web:v1)"
    )


def test_the_revision_that_serves_is_the_one_to_go_back_to(rollout):
    """Rolled out over the bad one was another bad one: N-1 never served, N-2 still does."""
    namespace = bad()
    worse = story("bad")["revisions"][-1]
    worse["metadata"] |= {"name": "web-worse", "uid": "worse"}
    worse["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "4"}
    worse["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/web:worse"
    namespace.workload["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/web:worse"
    namespace.revisions.append(worse)
    result = rollout(namespace, check=True)
    assert result["steps"][0]["what"] == "send web back to revision 2 (shop/web:v2)"
    assert "revision 3 is passed over: pod web-f945d6bb4-q59rb, container app: ImagePullBackOff" in result["notes"][0]
    # Also when nothing tells any more what was wrong with it.
    namespace.pods, namespace.events = namespace.pods[:-1], []
    result = rollout(namespace, check=True)
    assert result["steps"][0]["what"] == "send web back to revision 2 (shop/web:v2)"
    assert result["notes"] == ["revision 3 is passed over: it never took over from revision 2 (shop/web:v2)"]


def test_a_revision_that_never_had_all_its_pods_is_passed_over(rollout):
    """The present build took over, so nothing else serves: the events of the last hour tell."""
    namespace = Namespace("undone")
    for each in namespace.revisions:
        each["metadata"]["creationTimestamp"] = "2026-11-21T08:44:48Z"
    namespace.workload["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/web:v5"
    newest = next(each for each in namespace.revisions if each["metadata"]["name"] == V2)
    newest["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/web:v5"
    del newest["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"]
    result = rollout(namespace, check=True)
    assert result["steps"][0]["what"] == "send web back to revision 1 (shop/web:v1)"
    assert result["notes"] == ["revision 3 is passed over: it never had more than 1 of 3 pods"]
    namespace.denied = {"events"}
    assert "revision 3" in rollout(namespace, check=True)["steps"][0]["what"]


def test_a_restart_of_the_same_template_is_not_the_previous_revision(rollout):
    result = rollout(Namespace("restarted"), check=True)
    assert "shop/web:v2" not in result["steps"][0]["after"]


def test_another_workloads_revisions_are_not_ours(rollout):
    namespace = bad()
    for each in namespace.revisions:
        if each["metadata"]["name"] != BAD:
            each["metadata"]["ownerReferences"][0]["uid"] = "somebody-else"
    assert "no earlier revision" in rollout(namespace)["msg"]


def crashing(namespace):
    """What came back does not start."""
    as_recorded("undone")(namespace)
    namespace.workload["status"] |= {"availableReplicas": 2, "updatedReplicas": 1}
    container = namespace.pods[0]["status"]["containerStatuses"][0]
    container["state"] = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed"}}
    container["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error"}}
    container["restartCount"] = 2


def test_a_target_that_is_bad_itself_fails_early_with_the_containers_last_words(rollout):
    result = rollout(bad(on_change=crashing))
    assert result["msg"].startswith(
        "web: revision 4 (shop/web:v2) (2 of 3 pods serve, of any revision) does not start: pod web-bf5cd9b85-8t89q, "
        "container app: CrashLoopBackOff: exit code 1. Its log ends: starting | connect postgresql://********@db/regami | "
        "panic: no such table. Done so far: send web back to revision 2"
    )
    assert "hunter2" not in json.dumps(result)
    assert result["failed"] and result["undo"][0]["arguments"]["to_revision"] == 3


def test_it_does_not_go_further_back_by_itself(rollout):
    namespace = bad(on_change=crashing)
    rollout(namespace)
    result = rollout(namespace)
    assert (
        "already went back from revision 3 (shop/web:bad) to revision 4 (shop/web:v2), which fails too" in result["msg"]
    )
    assert "give to_revision: there are: revision 4" in result["msg"] and len(namespace.changes) == 1


def test_the_deadline_of_the_rollout_that_was_left_is_not_that_of_the_undo(rollout):
    def slowly(namespace):
        condition = namespace.workload["status"]["conditions"]
        as_recorded("undone")(namespace)
        namespace.workload["status"] |= {"conditions": condition, "availableReplicas": 0}
        namespace.later = [lambda _namespace: None, as_recorded("undone")]

    assert not rollout(bad(on_change=slowly))["failed"]


def test_a_deadline_that_passed_ends_the_wait(rollout):
    namespace = bad()
    for each in namespace.pods:
        each["status"]["containerStatuses"][0]["state"] = {"running": {}}
    result = rollout(namespace, "status")
    assert "does not roll out: progress deadline exceeded" in result["msg"]
    assert "pod web-f945d6bb4-q59rb: container app is not ready" in result["msg"]


def test_pods_that_a_quota_refuses_end_the_wait(rollout, monkeypatch):
    monkeypatch.setattr(k8s_rollout, "REFUSED_PODS", 0)

    def refused(namespace):
        as_recorded("undone")(namespace)
        namespace.workload["status"]["availableReplicas"] = 1
        back = next(each for each in namespace.revisions if each["metadata"]["name"] == V2)
        message = 'pods "web-x" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=4, limited: pods=4'
        back["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True", "message": message}]

    assert 'cannot create its pods: pods "web-x" is forbidden: exceeded quota' in rollout(bad(on_change=refused))["msg"]


def test_running_into_the_time_out_says_what_is_not_ready(rollout):
    def unscheduled(namespace):
        as_recorded("undone")(namespace)
        namespace.workload["status"]["availableReplicas"] = 2
        namespace.pods[0]["status"]["conditions"] = [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
        ]

    result = rollout(bad(on_change=unscheduled), wait_timeout=0.05)
    assert "still 3 of 3 updated, 2 available" in result["msg"]
    assert "pod web-bf5cd9b85-8t89q is on no node: 0/3 nodes are available" in result["msg"]


@pytest.mark.parametrize("fault", ["lost", "dropped"])
def test_a_lost_answer_is_looked_up_before_anything_is_sent_again(rollout, fault):
    namespace = bad(faults=[fault])
    result = rollout(namespace)
    assert len(namespace.changes) == 1 and not result["failed"]
    assert result["steps"][0]["do"] == "roll_back" and result["changed"]


def deploy(image):
    def somebody_else(namespace):
        namespace.workload["spec"]["template"]["spec"]["containers"][0]["image"] = image
        namespace.workload["metadata"]["generation"] += 1

    return somebody_else


def test_a_build_that_somebody_ships_meanwhile_is_not_overwritten(rollout):
    namespace = bad()
    namespace.read = overtaking(namespace, deploy("shop/web:fix"))
    result = rollout(namespace)
    assert "web was changed to shop/web:fix by somebody else while this run was under way" in result["msg"]
    assert namespace.changes == []


def test_a_count_that_an_autoscaler_sets_meanwhile_is_kept(rollout):
    def scale(namespace):
        namespace.workload["spec"]["replicas"] = 5
        namespace.workload["metadata"]["generation"] += 1

    def controllers(namespace):
        as_recorded("undone")(namespace)
        namespace.workload["status"] |= dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), 5)

    namespace = bad(on_change=controllers)
    namespace.read = overtaking(namespace, scale)
    result = rollout(namespace)
    assert not result["failed"] and namespace.workload["spec"]["replicas"] == 5


def test_the_same_undo_by_another_run_is_waited_for_and_not_ours(rollout):
    def other_run(namespace):
        back = next(each for each in namespace.revisions if each["metadata"]["name"] == V2)
        del back["spec"]["template"]["metadata"]["labels"]["pod-template-hash"]
        namespace.workload["spec"]["template"] = back["spec"]["template"]
        namespace.workload["metadata"]["generation"] += 1
        as_recorded("undone")(namespace)

    namespace = bad()
    namespace.read = overtaking(namespace, other_run)
    result = rollout(namespace)
    assert (result["failed"], result["changed"], namespace.changes) == (False, False, [])


def overtaking(namespace, somebody):
    """Reads; after the last read of the first look somebody acts."""
    read = namespace.read

    def go(path, **query):
        answer = read(path, **query)
        if path.endswith("/events"):
            namespace.read = read
            somebody(namespace)
        return answer

    return go


def test_killed_while_it_waits_the_next_run_only_waits(rollout):
    namespace = bad()
    rollout(namespace)
    namespace.workload["status"]["availableReplicas"] = 1
    namespace.later = [lambda _namespace: None, as_recorded("undone")]
    result = rollout(namespace)
    assert [step["do"] for step in result["steps"]] == ["settle"] and not result["changed"] and not result["failed"]
    assert len(namespace.changes) == 1


@pytest.mark.parametrize(
    ("metadata", "who"),
    [
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/web"}},
            "Argo CD (shop; argocd app",
        ),
        (
            {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}},
            "Flux (apps; flux suspend kustomization apps -n shop)",
        ),
        ({"managedFields": [{"manager": "argocd-controller"}]}, "Argo CD (its application"),
        ({"ownerReferences": [{"kind": "Shop", "name": "web", "controller": True}]}, "the operator of Shop web"),
    ],
)
def test_what_would_put_it_back_refuses_or_is_noted(rollout, metadata, who):
    namespace = bad()
    for key, value in metadata.items():
        present = namespace.workload["metadata"].get(key)
        namespace.workload["metadata"][key] = present | value if isinstance(present, dict) else value
    result = rollout(namespace)
    assert f"web is managed by {who}" in result["msg"] and "when_managed=note" in result["msg"]
    assert namespace.changes == []
    result = rollout(namespace, when_managed="note")
    assert not result["failed"] and f"web is managed by {who}" in result["notes"][0]


def test_a_paused_deployment_is_resumed_first(rollout):
    namespace = bad()
    namespace.workload["spec"]["paused"] = True
    assert "web is paused and cannot be undone: resume it first (action=resume)" in rollout(namespace)["msg"]
    assert namespace.changes == []


def test_pause_and_resume_undo_each_other(rollout):
    namespace = Namespace("v2")
    namespace.on_change = as_recorded("v2")
    result = rollout(namespace, "pause")
    assert namespace.operations() == [("test", "/metadata/generation", 2), ("add", "/spec/paused", True)]
    assert result["after"]["paused"] and result["undo"][0]["arguments"]["action"] == "resume"
    assert not rollout(namespace, "pause")["changed"]
    result = rollout(namespace, "resume")
    assert result["undo"][0]["arguments"]["action"] == "pause" and not result["after"]["paused"]


def test_restart_is_sent_once(rollout):
    namespace = Namespace("v2")
    namespace.faults = ["lost"]
    namespace.on_change = as_recorded("v2")
    result = rollout(namespace, "restart")
    ((_test, _path, _generation), (operation, path, value)) = namespace.operations()
    assert (operation, path) == ("add", "/spec/template/metadata/annotations")
    assert list(value) == [history.RESTARTED_AT] and not result["failed"] and "stays" in result["undo"][0]
    assert namespace.workload["spec"]["template"]["metadata"]["labels"] == {"app": "web"}


def test_a_restart_that_is_under_way_is_waited_for(rollout):
    namespace = Namespace("restarted")
    namespace.workload["status"]["availableReplicas"] = 1
    namespace.later = [lambda _namespace: None, as_recorded("restarted")]
    result = rollout(namespace, "restart")
    assert namespace.changes == [] and not result["changed"]
    assert "the restart of 2026-01-01T00:00:00Z is not over yet" in result["notes"][0]


def scaled(namespace):
    """The controllers follow the count."""
    count = namespace.workload["spec"]["replicas"]
    namespace.pods = story("v2")["pods"][:count]
    namespace.workload["status"] |= dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), count)
    namespace.workload["status"]["observedGeneration"] = namespace.workload["metadata"]["generation"]


def test_recreate_comes_back_with_the_count_it_found(rollout):
    namespace = Namespace("v2")
    namespace.on_change, namespace.autoscalers = scaled, story("autoscalers")
    result = rollout(namespace, "recreate")
    assert [step["do"] for step in result["steps"]] == ["empty", "drain", "fill", "settle", "forget"]
    assert namespace.operations()[1:] == [
        ("add", "/spec/replicas", 0),
        ("add", "/metadata/annotations/sre.runbooks~1replicas", "3"),
    ]
    assert namespace.operations(1)[1:] == [("add", "/spec/replicas", 3)]
    assert namespace.operations(2)[1:] == [("remove", "/metadata/annotations/sre.runbooks~1replicas", None)]
    assert result["after"]["available"] == 3
    assert result["notes"] == [
        "the autoscaler web is off while web is scaled to 0, and takes over again at 2 to 6 pods"
    ]


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_recreate_killed_anywhere_comes_back_with_the_count_it_had(rollout, killed_after):
    class Killed(BaseException):
        pass

    def controllers(namespace):
        scaled(namespace)
        if len(namespace.changes) == killed_after:
            raise Killed

    namespace = Namespace("v2")
    namespace.on_change = controllers
    with pytest.raises(Killed):
        rollout(namespace, "recreate")
    if killed_after < 3:
        namespace.on_change = scaled
        assert not rollout(namespace, "recreate")["failed"]
    assert namespace.workload["spec"]["replicas"] == 3 and len(namespace.changes) == 3
    assert "sre.runbooks/replicas" not in namespace.workload["metadata"]["annotations"]


def test_a_workload_found_at_zero_needs_a_count(rollout):
    namespace = Namespace("v2")
    namespace.workload["spec"]["replicas"], namespace.on_change = 0, scaled
    scaled(namespace)
    for given in ({}, {"replicas": 0}, {"replicas": -1}):
        assert "give the number that it is to have as replicas" in rollout(namespace, "recreate", **given)["msg"]
    assert namespace.changes == []
    namespace.denied = {"horizontalpodautoscalers"}
    assert (
        "whether an autoscaler scales web is not known"
        in rollout(namespace, "recreate", check=True, replicas=2)["notes"][0]
    )
    assert not rollout(namespace, "recreate", replicas=2)["failed"] and namespace.workload["spec"]["replicas"] == 2


def at_zero(**changes):
    """web v2, told to have no pod; an autoscaler of 2 to 6 is off."""
    namespace = Namespace("v2")
    namespace.workload["spec"]["replicas"] = 0
    scaled(namespace)
    namespace.on_change, namespace.autoscalers = scaled, story("autoscalers")
    for name, value in changes.items():
        setattr(namespace, name, value)
    return namespace


def bounds(namespace):
    return tuple(namespace.autoscalers[0]["spec"][key] for key in ("minReplicas", "maxReplicas"))


def test_scale_within_the_bounds_of_an_autoscaler_leaves_them_alone(rollout):
    namespace = at_zero()
    planned = rollout(namespace, "scale", replicas=2, at_least=True, check=True)
    assert namespace.changes == []
    result = rollout(namespace, "scale", replicas=2, at_least=True)
    assert result["steps"] == planned["steps"] and result["after"] == planned["after"]
    assert namespace.operations() == [("test", "/metadata/generation", 2), ("add", "/spec/replicas", 2)]
    assert (len(namespace.changes), bounds(namespace), result["notes"]) == (1, (2, 6), [])
    (undo,) = result["undo"]
    assert {key: undo["arguments"].get(key) for key in ("action", "replicas", "bounds")} == {
        "action": "scale",
        "replicas": 0,
        "bounds": None,
    }
    again = rollout(namespace, "scale", replicas=2, at_least=True)
    assert (again["changed"], again["steps"]) == (False, [])


def test_scale_beyond_them_takes_them_along_and_back(rollout):
    namespace = Namespace("v2")
    namespace.on_change, namespace.autoscalers = scaled, story("autoscalers")
    namespace.workload["spec"]["replicas"] = 2
    scaled(namespace)
    result = rollout(namespace, "scale", replicas=3)
    assert [step["do"] for step in result["steps"]] == ["bound", "fill", "settle"]
    assert result["steps"][0]["what"] == "let the autoscaler web keep web at 3 to 6 pods"
    assert namespace.operations() == [
        ("test", "/spec/minReplicas", 2),
        ("test", "/spec/maxReplicas", 6),
        ("replace", "/spec/minReplicas", 3),
        ("replace", "/spec/maxReplicas", 6),
    ]
    back = result["undo"][0]["arguments"]
    assert (back["replicas"], back["bounds"]) == (2, {"floor": 2, "ceiling": 6})
    given = {key: back[key] for key in ("action", "replicas", "bounds")}
    rollout(namespace, **given)
    assert (namespace.workload["spec"]["replicas"], bounds(namespace)) == (2, (2, 6))
    assert "leave bounds out" in rollout(at_zero(autoscalers=[]), **given)["msg"]


def test_scale_at_least_lowers_nothing(rollout):
    namespace = Namespace("v2")
    namespace.autoscalers = story("autoscalers")
    result = rollout(namespace, "scale", replicas=1, at_least=True)
    assert (result["failed"], result["changed"], namespace.changes) == (False, False, [])


def test_scale_to_nothing_waits_until_no_pod_is_left(rollout):
    namespace = Namespace("v2")
    namespace.on_change, namespace.autoscalers = scaled, story("autoscalers")
    result = rollout(namespace, "scale", replicas=0)
    assert [step["do"] for step in result["steps"]] == ["fill", "drain"]
    assert (result["after"]["available"], bounds(namespace)) == (0, (2, 6))


@pytest.mark.parametrize("fault", ["lost", "dropped"])
def test_scale_is_looked_up_before_anything_is_sent_again(rollout, fault):
    namespace = at_zero(faults=[fault, fault])
    result = rollout(namespace, "scale", replicas=3)
    assert not result["failed"], result["msg"]
    assert [step["do"] for step in result["steps"]][:2] == ["bound", "fill"]
    assert (len(namespace.changes), namespace.workload["spec"]["replicas"], bounds(namespace)) == (2, 3, (3, 6))


def test_bounds_that_somebody_else_sets_meanwhile_are_looked_at_again(rollout, monkeypatch):
    namespace, change = at_zero(), Namespace.change

    def late(namespace, *args):
        if not namespace.changes:
            namespace.autoscalers[0]["spec"]["maxReplicas"] = 9
        return change(namespace, *args)

    monkeypatch.setattr(Namespace, "change", late)
    assert not rollout(namespace, "scale", replicas=3)["failed"]
    assert bounds(namespace) == (3, 9)


def test_what_scale_refuses_and_says(rollout):
    for given, line in (
        ({"replicas": -1}, "replicas is -1: give 0"),
        ({"replicas": 0, "at_least": True}, "at_least=true never lowers a count"),
        ({"replicas": 2, "bounds": {"floor": 3, "ceiling": 2}}, "the floor 3 is above the ceiling 2"),
    ):
        assert line in rollout(at_zero(), "scale", **given)["msg"]
    assert "no count to scale" in rollout(Namespace("DaemonSet", "DaemonSet"), "scale", replicas=2)["msg"]
    namespace = at_zero()
    namespace.autoscalers[0]["metadata"]["ownerReferences"] = [
        {"kind": "ScaledObject", "name": "web", "controller": True}
    ]
    assert not rollout(namespace, "scale", replicas=2, check=True)["failed"]
    assert "is managed by the operator of ScaledObject web" in rollout(namespace, "scale", replicas=3)["msg"]
    assert not rollout(namespace, "scale", replicas=3, when_managed="note")["failed"]
    denied = rollout(at_zero(denied={"horizontalpodautoscalers"}), "scale", replicas=3)
    assert "whether an autoscaler scales web is not known" in denied["notes"][0] and not denied["failed"]


def test_scale_forgets_the_count_of_a_recreate_that_was_killed(rollout):
    namespace = at_zero()
    namespace.workload["metadata"]["annotations"]["sre.runbooks/replicas"] = "3"
    assert not rollout(namespace, "scale", replicas=2)["failed"]
    assert "sre.runbooks/replicas" not in namespace.workload["metadata"]["annotations"]


def test_a_stateful_set_that_is_blocked_by_a_bad_pod_loses_that_pod(rollout):
    namespace = Namespace("StatefulSet", "StatefulSet")
    pod = story("bad")["pods"][-1]
    owner = {"kind": "StatefulSet", "name": "statefulset", "uid": namespace.workload["metadata"]["uid"]}
    pod["metadata"] |= {
        "name": "statefulset-2",
        "labels": {"controller-revision-hash": "statefulset-568dfd8dcf"},
        "ownerReferences": [owner],
    }
    namespace.pods = [pod]
    namespace.workload["status"] |= {
        "readyReplicas": 2,
        "updatedReplicas": 1,
        "currentRevision": "statefulset-6846588d58",
    }

    def controller(namespace):
        if namespace.changes[-1][0] == "DELETE":
            namespace.pods = []
            namespace.workload["status"] |= {"readyReplicas": 3, "updatedReplicas": 3}
            namespace.workload["status"]["updateRevision"] = "statefulset-6846588d58"
            namespace.workload["status"]["observedGeneration"] = 3

    namespace.on_change = controller
    result = rollout(namespace)
    assert not result["failed"], result["msg"]
    assert [(method, path) for method, path, _body in namespace.changes] == [
        ("PATCH", "/apis/apps/v1/namespaces/shop/statefulsets/statefulset"),
        ("DELETE", "/api/v1/namespaces/shop/pods/statefulset-2"),
    ]
    assert namespace.changes[1][2] == {"preconditions": {"uid": pod["metadata"]["uid"]}}


def test_status_only_looks(rollout):
    namespace = Namespace("StatefulSet", "StatefulSet")
    namespace.pods = [dict(story("bad")["pods"][-1])]
    namespace.pods[0]["metadata"]["ownerReferences"][0]["uid"] = namespace.workload["metadata"]["uid"]
    namespace.workload["status"]["readyReplicas"] = 2
    result = rollout(namespace, "status", wait_timeout=0.05)
    assert "rolls out: still 3 of 3 updated, 2 ready" in result["msg"] and namespace.changes == []


def test_a_daemon_set_goes_back_and_is_not_scaled(rollout):
    namespace = Namespace("DaemonSet", "DaemonSet")

    def controller(namespace):
        namespace.workload["status"]["observedGeneration"] = 3

    namespace.on_change = controller
    result = rollout(namespace)
    assert result["after"]["images"] == ["shop/web:v1"] and not result["failed"]
    assert "has no count to scale: restart it instead" in rollout(namespace, "recreate")["msg"]


def test_on_delete_refuses(rollout):
    namespace = Namespace("DaemonSet", "DaemonSet")
    namespace.workload["spec"]["updateStrategy"] = {"type": "OnDelete"}
    assert "update strategy OnDelete" in rollout(namespace)["msg"] and namespace.changes == []


def deployment_config(*triggers, phase="Complete"):
    """Version 1 served, version 2 is bad. https://docs.openshift.com: a DeploymentConfig and its ReplicationControllers."""
    namespace = Namespace("v2", "DeploymentConfig")
    templates = {1: "shop/web:v1", 2: "shop/web:v2"}
    workload = namespace.workload
    workload["spec"] |= {"selector": {"app": "web"}, "triggers": list(triggers)}
    workload["status"] |= {"latestVersion": 2}

    def controller(version):
        template = json.loads(json.dumps(workload["spec"]["template"]))
        template["spec"]["containers"][0]["image"] = templates[version]
        encoded = json.dumps({"spec": {"template": template}})
        return {
            "metadata": {
                "name": f"web-{version}",
                "uid": f"rc-{version}",
                "creationTimestamp": f"2026-11-21T08:44:0{version}Z",
                "annotations": {
                    "openshift.io/deployment-config.latest-version": str(version),
                    "openshift.io/encoded-deployment-config": encoded,
                    "openshift.io/deployment.phase": phase if version == 1 else "Complete",
                },
                "ownerReferences": [{"uid": workload["metadata"]["uid"], "controller": True, "name": "web"}],
            },
            "spec": {},
            "status": {},
        }

    namespace.revisions = [controller(1), controller(2)]

    def go_on(namespace):
        namespace.workload["status"]["observedGeneration"] = namespace.workload["metadata"]["generation"]
        if namespace.changes[-1][0] == "POST" or any(each["type"] == "ConfigChange" for each in triggers):
            templates[3] = "shop/web:v1"
            namespace.revisions.append(controller(3))
            namespace.workload["status"]["latestVersion"] = 3

    namespace.on_change = go_on
    return namespace


def test_a_deployment_config_follows_its_trigger_and_no_longer_its_image_stream(rollout):
    stream = {"type": "ImageChange", "imageChangeParams": {"automatic": True, "from": {"name": "web:latest"}}}
    namespace = deployment_config({"type": "ConfigChange"}, stream)
    result = rollout(namespace)
    assert not result["failed"], result["msg"]
    assert [step["do"] for step in result["steps"]] == ["roll_back", "settle"]
    assert result["after"]["images"] == ["shop/web:v1"] and result["after"]["revision"] == 3
    assert namespace.workload["spec"]["triggers"][1]["imageChangeParams"]["automatic"] is False
    assert "its image triggers (web:latest) are switched off" in result["notes"][0]


def test_a_deployment_config_without_a_trigger_is_told_to_roll_out_also_when_killed_before(rollout):
    namespace = deployment_config()
    namespace.faults = [None, "dropped", "dropped", "dropped", "dropped"]
    assert "looked again 3 times" in rollout(namespace)["msg"]
    result = rollout(namespace)
    assert [step["do"] for step in result["steps"]] == ["instantiate", "settle"] and not result["failed"]
    assert [method for method, _path, _body in namespace.changes] == ["PATCH", "POST"]
    assert namespace.changes[1][1].endswith("/deploymentconfigs/web/instantiate")


def test_a_deployment_config_does_not_go_back_to_a_rollout_that_failed(rollout):
    assert "revision 1: its rollout ended as Failed" in rollout(deployment_config(phase="Failed"))["msg"]


@pytest.mark.parametrize(
    ("gone", "line"),
    [
        ({"deployments", "namespaces"}, "there is no namespace shop in https://cluster.test"),
        ({"deployments"}, "there is no Deployment web in namespace shop"),
    ],
)
def test_what_is_not_there_is_named(rollout, gone, line):
    result = rollout(bad(gone=gone))
    assert result["msg"].startswith(line) and "inventory" in result["msg"]


def test_values_of_the_template_are_not_shown(rollout):
    namespace = bad()
    for each in [namespace.workload, *namespace.revisions]:
        each["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "API_KEY", "value": "do-not-show-me"})
    assert "do-not-show-me" not in json.dumps(rollout(namespace))


def test_v1_is_there_to_go_to(rollout):
    namespace = bad(on_change=as_recorded("undone"))
    assert rollout(namespace, check=True, to_revision=1)["steps"][0]["after"] == "revision 1 (shop/web:v1)"
    assert V1 in [each["metadata"]["name"] for each in namespace.revisions]


def two_pods():
    """web v2 with two pods, scaled within 2 to 6."""
    namespace = Namespace("v2")
    namespace.on_change, namespace.autoscalers = scaled, story("autoscalers")
    namespace.workload["spec"]["replicas"] = 2
    scaled(namespace)
    return namespace


def for_a_while(rollout, namespace, **given):
    return rollout(namespace, "scale", **given)


def test_a_share_more_is_kept_on_the_workload_and_given_back(rollout):
    namespace = two_pods()
    result = for_a_while(rollout, namespace, capacity="+50%")
    assert not result["failed"]
    assert [path.rpartition("/")[0].rpartition("/")[2] for _method, path, _body in namespace.changes] == [
        "deployments",
        "horizontalpodautoscalers",
        "deployments",
    ]
    assert namespace.workload["metadata"]["annotations"][temporary.MARK] == "2 in 2-6 to 3 in 3-6"
    assert (namespace.workload["spec"]["replicas"], bounds(namespace)) == (3, (3, 6))
    assert result["undo"][0]["arguments"]["restore"] is True
    namespace.changes.clear()
    again = for_a_while(rollout, namespace, capacity="+50%")
    assert (namespace.changes, again["changed"]) == ([], False)
    assert not for_a_while(rollout, namespace, restore=True)["failed"]
    assert (namespace.workload["spec"]["replicas"], bounds(namespace)) == (2, (2, 6))
    assert temporary.MARK not in namespace.workload["metadata"]["annotations"]
    namespace.changes.clear()
    nothing = for_a_while(rollout, namespace, restore=True)
    assert namespace.changes == [] and "there is nothing to give back" in nothing["notes"][0]


@pytest.mark.parametrize("fault", ["lost", "dropped"])
def test_what_a_workload_had_is_kept_once_however_answers_are_lost(rollout, fault):
    namespace = two_pods()
    namespace.faults = [fault, None, fault]
    assert not for_a_while(rollout, namespace, capacity="+50%")["failed"]
    assert namespace.workload["metadata"]["annotations"][temporary.MARK] == "2 in 2-6 to 3 in 3-6"
    assert (namespace.workload["spec"]["replicas"], bounds(namespace)) == (3, (3, 6))


def test_none_at_all_leaves_the_bounds_of_the_autoscaler(rollout):
    result = for_a_while(rollout, two_pods(), capacity="0", check=True)
    assert [step["do"] for step in result["steps"]] == ["annotate", "fill", "drain"]


def test_connections_of_the_database_are_asked_for_pods_too(rollout, monkeypatch):
    monkeypatch.setattr(
        room, "connections", lambda *_given: Room("connections of db", 5, 4, "91 of 95 are in use", "end some")
    )
    namespace = two_pods()
    refused = for_a_while(rollout, namespace, capacity="+50%", db_instance="db", connections_each=5)
    assert "1 more pods of web take 5 connections of db, and 4 are left" in refused["msg"] and namespace.changes == []
    assert not for_a_while(rollout, namespace, capacity="+50%")["failed"]
    monkeypatch.setattr(room, "connections", lambda *_given: pytest.fail("asked for what is there already"))
    assert for_a_while(rollout, namespace, capacity="+50%", db_instance="db", connections_each=5, check=True)[
        "already_so"
    ]


def test_a_count_is_needed(rollout):
    assert "give replicas, or capacity for a while" in for_a_while(rollout, two_pods())["msg"]

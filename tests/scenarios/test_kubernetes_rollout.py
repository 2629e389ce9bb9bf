# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8s_rollout against an API server with controllers and pods: the sandbox's, or a real one (kube.py says how)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from kube import SECRET, Namespace, images, only_simulated, team_namespace
from world import wait_until

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api

UNPULLABLE = ("ErrImagePull", "ImagePullBackOff")


@pytest.fixture(scope="module")
def space(request: pytest.FixtureRequest) -> Iterator[Namespace]:
    with team_namespace(lambda: request.getfixturevalue("sandbox")) as namespace:
        yield namespace


def test_an_image_that_cannot_be_pulled(space: Namespace) -> None:
    web = space.deploy_one_by_one("unpullable", "v1", "v2", "missing", replicas=2)
    space.until_waiting(web, *UNPULLABLE)
    before = space.get(web)
    planned = space.verb(web, "undo", check=True)
    assert space.get(web)["spec"] == before["spec"]
    watched = space.verb(web, "status")
    assert watched["failed"] and "container app: " in watched["msg"] and "ImagePull" in watched["msg"]

    result = space.verb(web, "undo")
    assert not result["failed"], result["msg"]
    assert space.serves(web, "v2") and space.get(web)["metadata"]["annotations"]["team"] == "shop"
    assert [step["what"] for step in result["steps"]] == [step["what"] for step in planned["steps"]]
    assert result["after"] == planned["after"]
    assert SECRET not in json.dumps([planned, watched, result])

    again = space.verb(web, "undo")
    assert (again["failed"], again["changed"]) == (False, False) and space.image(web) == "v2"
    # Played backwards, and on to where it began.
    back = result["undo"][0]["arguments"]
    ended = space.verb(web, back["action"], to_revision=back["to_revision"])
    assert ended["failed"] and space.image(web) == "missing"
    assert not space.verb(web, "undo", to_revision=1)["failed"] and space.serves(web, "v1")


def test_a_target_that_is_bad_itself(space: Namespace) -> None:
    # Longer than it takes to crash, or its pods would count as available before they do.
    web = space.deploy("crashing", "crashing", minReadySeconds=4)
    space.until_crashing(web)
    space.ship(web, "v1")
    space.until_serving(web, "v1")
    missing = space.verb(web, "undo", to_revision=7)
    assert f"{web} has no revision 7: there are: revision 2 ({images()['v1']}), revision 1" in missing["msg"]

    result = space.verb(web, "undo", to_revision=1)
    assert result["failed"] and result["waited_seconds"] < 30
    assert f"({images()['crashing']}) (1 of 1 pods serve, of any revision) does not start: pod {web}-" in result["msg"]
    assert "container app: CrashLoopBackOff: exit code" in result["msg"]
    assert result["undo"][0]["arguments"]["to_revision"] == 2
    assert not space.verb(web, "undo", to_revision=2)["failed"] and space.serves(web, "v1")


def test_a_stateful_set_that_is_blocked(space: Namespace) -> None:
    """Its controller waits for the bad pod to become ready before it replaces it: kubectl would wait for ever."""
    store = space.deploy_one_by_one("store", "v1", "missing", kind="StatefulSet")
    space.until_waiting(store, *UNPULLABLE)
    result = space.verb(store, "undo", kind="StatefulSet")
    assert not result["failed"], result["msg"]
    assert [step["do"] for step in result["steps"]] == ["roll_back", "unblock", "settle"]
    assert space.serves(store, "v1")
    again = space.verb(store, "undo", kind="StatefulSet", to_revision=1)
    assert (again["failed"], again["changed"]) == (False, False)


def test_a_daemon_set(space: Namespace) -> None:
    agent = space.deploy_one_by_one("agent", "v1", "missing", kind="DaemonSet")
    space.until_waiting(agent, *UNPULLABLE)
    result = space.verb(agent, "undo", kind="DaemonSet")
    assert not result["failed"], result["msg"]
    assert space.serves(agent, "v1")
    assert not space.verb(agent, "undo", kind="DaemonSet")["changed"]
    assert "restart it instead" in space.verb(agent, "recreate", kind="DaemonSet")["msg"]


@only_simulated
def test_a_deployment_config(space: Namespace) -> None:
    """Through OpenShift's client. Its image stream would bring the bad image back, so it is no longer followed."""
    stream = {"automatic": False, "containerNames": ["app"], "from": {"kind": "ImageStreamTag", "name": "web:latest"}}
    triggers = [{"type": "ConfigChange"}, {"type": "ImageChange", "imageChangeParams": stream}]
    web = space.deploy("configured", "v1", kind="DeploymentConfig", triggers=triggers)
    space.until_serving(web, "v1")
    triggers[1]["imageChangeParams"]["automatic"] = True
    space.call(
        "PATCH", space.path("deploymentconfigs", web), {"spec": {"triggers": triggers}}, "application/merge-patch+json"
    )
    containers = space.get(web, "deploymentconfigs")["spec"]["template"]["spec"]["containers"]
    containers[0]["image"] = images()["missing"]
    change = {"spec": {"template": {"spec": {"containers": containers}}}}
    space.call("PATCH", space.path("deploymentconfigs", web), change, "application/merge-patch+json")
    space.until_waiting(web, *UNPULLABLE)
    result = space.verb(web, "undo", kind="DeploymentConfig")
    assert not result["failed"], result["msg"]
    assert space.serves(web, "v1")
    assert "its image triggers (web:latest) are switched off" in result["notes"][0]
    again = space.verb(web, "undo", kind="DeploymentConfig")
    assert (again["failed"], again["changed"]) == (False, False)
    restarted = space.verb(web, "restart", kind="DeploymentConfig")
    assert restarted["changed"] and not restarted["failed"], restarted["msg"]


def test_restart_pause_recreate(space: Namespace) -> None:
    web = space.deploy("cycled", "v1", replicas=2)
    space.until_serving(web, "v1")
    first = {pod["metadata"]["uid"] for pod in space.pods(web)}
    assert space.verb(web, "restart")["changed"]
    second = {pod["metadata"]["uid"] for pod in space.pods(web)}
    assert not first & second and len(second) == 2
    # The restart is a revision of the same template: there is nothing to go back to.
    assert "no earlier revision with another template" in space.verb(web, "undo")["msg"]

    assert space.verb(web, "pause")["changed"] and space.get(web)["spec"]["paused"] is True
    space.ship(web, "v2")
    assert "resume it first" in space.verb(web, "undo")["msg"]
    resumed = space.verb(web, "resume")
    assert resumed["changed"] and not resumed["failed"] and space.serves(web, "v2")

    emptied = space.verb(web, "recreate")
    assert not emptied["failed"], emptied["msg"]
    third = {pod["metadata"]["uid"] for pod in space.pods(web)}
    assert not second & third and len(third) == 2
    assert "sre.runbooks/replicas" not in space.get(web)["metadata"]["annotations"]


def test_recreate_goes_on_where_a_run_was_killed(space: Namespace) -> None:
    web = space.deploy("killed", "v1", replicas=2)
    space.until_serving(web, "v1")
    space.patch(web, {"metadata": {"annotations": {"sre.runbooks/replicas": "2"}}, "spec": {"replicas": 0}})
    result = space.verb(web, "recreate")
    assert not result["failed"], result["msg"]
    assert space.get(web)["spec"]["replicas"] == 2 and len(space.pods(web)) == 2


def test_scale_takes_an_autoscaler_along_and_back(space: Namespace) -> None:
    web = space.deploy("scaled", "v1")
    scalers = space.path("horizontalpodautoscalers", api="/apis/autoscaling/v2")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": web}
    bounds = {"minReplicas": 1, "maxReplicas": 1}
    space.call("POST", scalers, {"metadata": {"name": web}, "spec": {"scaleTargetRef": target, **bounds}})
    space.until_serving(web, "v1")

    def found() -> tuple[int, int, int]:
        scaler = space.call("GET", f"{scalers}/{web}")["spec"]
        return space.get(web)["spec"]["replicas"], scaler["minReplicas"], scaler["maxReplicas"]

    planned = space.verb(web, "scale", replicas=2, at_least=True, check=True)
    assert found() == (1, 1, 1)
    result = space.verb(web, "scale", replicas=2, at_least=True)
    assert not result["failed"], result["msg"]
    assert result["steps"] == planned["steps"] and found() == (2, 2, 2) and len(space.pods(web)) == 2
    assert not space.verb(web, "scale", replicas=2, at_least=True)["changed"]
    back = result["undo"][0]["arguments"]
    assert not space.verb(web, "scale", replicas=back["replicas"], bounds=back["bounds"])["failed"]
    assert found() == (1, 1, 1)
    assert not space.verb(web, "scale", replicas=0)["failed"] and space.pods(web) == []


@pytest.mark.parametrize("ours", [True, False])
def test_somebody_else_acts_between_look_and_change(
    space: Namespace, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    """Another run's undo is the same; a build that somebody ships is not overwritten."""
    web = space.deploy_one_by_one(f"raced-{'same' if ours else 'other'}", "v1", "missing")
    space.until_waiting(web, *UNPULLABLE)
    change, raced = api.Cluster.change, []

    def late(self: api.Cluster, *args: object, **query: object) -> object:
        if not raced:
            raced.append(True)
            space.ship(web, "v1" if ours else "v2")
        return change(self, *args, **query)

    monkeypatch.setattr(api.Cluster, "change", late)
    result = space.verb(web, "undo")
    if ours:
        assert (result["failed"], result["changed"]) == (False, False) and space.serves(web, "v1")
    else:
        assert "by somebody else while this run was under way" in result["msg"]
        space.until_serving(web, "v2")


def test_what_is_wrong_with_the_command_is_said_in_a_line(space: Namespace) -> None:
    web = space.deploy("asked", "v1")
    space.until_serving(web, "v1")
    known = space.kubeconfig
    for given, line in (
        ({"name": "askd"}, "there is no Deployment askd in namespace"),
        ({"namespace": "nowhere-at-all"}, "there is no namespace nowhere-at-all in https://"),
        ({"kind": "StatefulSet"}, f"there is no StatefulSet {web} in namespace"),
        ({"kind": "Deploymnet"}, "value of kind must be one of: Deployment, StatefulSet, DaemonSet, DeploymentConfig"),
        ({"context": "typo"}, "no cluster to talk to: "),
        ({"host": "https://127.0.0.1:1"}, "the cluster https://127.0.0.1:1 does not answer"),
        ({"to_revision": 7}, f"{web} has no revision 7: there are: revision 1"),
    ):
        result = space.verb(**({"name": web, "action": "undo", "kubeconfig": known} | given))
        assert result["failed"] and line in result["msg"] and "\n" not in result["msg"], (given, result["msg"])


def test_a_token_that_has_expired(space: Namespace) -> None:
    if space.knows_us_by_certificate:
        pytest.skip("this cluster takes us by a client certificate, and looks at no token")
    result = space.verb("nothing", "undo", api_key="expired")
    assert "does not accept these credentials (get deployments.apps nothing in namespace" in result["msg"]


@only_simulated
@pytest.mark.parametrize("kind", ["lost-answer", "reset", "error500", "throttle"])
def test_an_api_in_trouble(space: Namespace, any_world: object, kind: str) -> None:
    web = space.deploy_one_by_one(f"troubled-{kind}", "v1", "missing")
    space.until_waiting(web, *UNPULLABLE)
    sandbox = any_world.sandbox
    first = len(sandbox.calls())
    sandbox.fault("api", service="kubernetes", action="patch deployments", kind=kind, count=1)
    result = space.verb(web, "undo")
    sandbox.heal()
    assert not result["failed"], result["msg"]
    assert [step["do"] for step in result["steps"]][:1] == ["roll_back"] and result["changed"]
    patches = [call["status"] for call in sandbox.calls(first) if call["action"].lower().startswith("patch")]
    assert patches.count(200) == 1 and len(patches) == (1 if kind == "lost-answer" else 2)
    wait_until(lambda: space.serves(web, "v1"), "v1 serves")

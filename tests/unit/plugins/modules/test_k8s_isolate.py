# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8s_isolate: what its plan cuts off, keeps and refuses."""

from __future__ import annotations

import json

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_verb import QUARANTINE as LABEL
from ansible_collections.sre.runbooks.plugins.modules.k8s_isolate import FORMER, K8sIsolate

LABELS = {"app": "web", "pod-template-hash": "1"}
POLICY, WHOLE = "sre.runbooks-quarantine-u1", "sre.runbooks-isolated-u1"


def pod(name, labels=None):
    return {"metadata": {"name": name, "uid": f"uid of {name}", "labels": labels or LABELS}}


def policy(name, selector=None, **rules):
    return {"metadata": {"name": name}, "spec": {"podSelector": selector or {}, **rules}}


def seen(pods=("a", "b"), quarantined=(), policies=()):
    template = {"metadata": {"labels": {"app": "web"}}}
    workload = {
        "metadata": {"name": "web", "uid": "u1"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template},
        "status": {"availableReplicas": 2},
    }
    return {
        "workload": workload,
        "revisions": [],
        "pods": [pod(name) for name in pods],
        "quarantined": [pod(name, {LABEL: "u1"}) for name in quarantined],
        "policies": list(policies),
    }


def plan(observed, pods=(), kind="Deployment", **more):
    wanted = {"kubernetes": {"name": "web", "kind": kind}, "pods": list(pods), "state": "isolated"}
    return K8sIsolate.plan(observed, {**wanted, "accept_policies": False, **more})


def refusal(*arguments, **more):
    with pytest.raises(Refusal) as caught:
        plan(*arguments, **more)
    return str(caught.value)


def test_a_pod_is_cut_before_its_labels_go_and_its_place_is_filled():
    found = plan(seen(), ["a"])
    assert [step.do for step in found.steps] == ["deny", "quarantine", "settle"]
    assert found.steps[0].arguments == {"name": POLICY, "selector": {"matchLabels": {LABEL: "u1"}}}
    operations = found.steps[1].arguments["operations"]
    assert operations[0] == {"op": "test", "path": "/metadata/labels", "value": LABELS}
    notes = next(each["value"] for each in operations if each["path"] == "/metadata/annotations")
    assert json.loads(notes[FORMER]) == LABELS
    assert operations[-1]["value"] == {LABEL: "u1"}
    assert found.after == {"policies": [POLICY], "quarantined": ["a"]}


def test_the_rest_is_done_after_a_run_that_was_killed():
    found = plan(seen(pods=["b", "c"], quarantined=["a"], policies=[policy(POLICY)]), ["a", "b"])
    assert [(step.do, step.arguments.get("name")) for step in found.steps] == [("quarantine", "b"), ("settle", None)]
    assert found.steps[-1].arguments == {"uids": ["uid of a", "uid of b"]}


def test_the_whole_workload():
    (step,) = plan(seen()).steps
    assert step.arguments == {"name": WHOLE, "selector": {"matchLabels": {"app": "web"}}}
    assert plan(seen(policies=[policy(WHOLE)])).steps == ()


def test_what_goes_on_allowing_something_is_refused():
    open_to_all = policy("dns", egress=[{}])
    assert refusal(seen(policies=[open_to_all]), ["a"]).startswith("dns goes on allowing")
    found = plan(seen(policies=[open_to_all]), ["a"], accept_policies=True)
    assert "override accept_policies" in found.notes[0]
    # One for its present labels reaches no pod that has lost them.
    by_label = policy("web", {"matchLabels": {"app": "web"}}, ingress=[{}])
    assert plan(seen(policies=[by_label]), ["a"]).notes == ()
    assert "web goes on allowing" in refusal(seen(policies=[by_label]))
    unlabelled = policy("rest", {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, ingress=[{}])
    assert "rest" in refusal(seen(policies=[unlabelled]), ["a"])
    assert plan(seen(policies=[policy("none")]), ["a"]).notes == ()


def test_what_cannot_be():
    assert "has no pod x (there are: a, b)" in refusal(seen(), ["x"])
    assert "theirs are the names" in refusal(seen(), ["a"], "StatefulSet")


def test_release():
    found = plan(
        seen(quarantined=["a"], policies=[policy(WHOLE), policy(POLICY), policy("dns", egress=[{}])]),
        state="released",
    )
    assert [step.do for step in found.steps] == ["delete", "gone", "allow", "allow"]
    assert found.after == {"policies": [], "quarantined": []}
    assert "nothing to release" in plan(seen(), state="released").notes[0]

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""ecs_image and k8s_image: which image their plan takes, and what it changes."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import registry
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.ecs_image import EcsImage
from ansible_collections.sre.runbooks.plugins.modules.k8s_image import K8sImage

GOOD = "registry/web@sha256:" + "a" * 64
KNOWN = registry.Image(GOOD, registry.THERE, digest="sha256:" + "a" * 64)
WANTED = {
    "image": GOOD,
    "container": None,
    "accept_unknown_image": False,
    "when_managed": "refuse",
    "kubernetes": {"name": "web"},
}


def seen(*names, image="registry/web:v3", known=KNOWN, settled=True, **meta):
    containers = [{"name": name, "image": image} for name in names or ("web",)]
    workload = {
        "metadata": {"name": "web", "namespace": "shop", **meta},
        "spec": {"template": {"metadata": {}, "spec": {"containers": containers}}},
        "status": {"availableReplicas": 2},
    }
    return {"workload": workload, "image": known, "settled": settled}


def plan(observed, **more):
    return K8sImage.plan(observed, {**WANTED, **more})


def refusal(*arguments, **more):
    with pytest.raises(Refusal) as caught:
        plan(*arguments, **more)
    return str(caught.value)


def test_one_container_has_another_image():
    found = plan(seen("web", "proxy"), container="web")
    assert [step.do for step in found.steps] == ["deploy", "settle"]
    assert found.after == {"images": {"web": GOOD, "proxy": "registry/web:v3"}}
    assert plan(seen(image=GOOD)).steps == ()
    assert [step.do for step in plan(seen(image=GOOD, settled=False)).steps] == ["settle"]


def test_an_image_of_which_nobody_knows():
    tag = registry.Image("registry/web:v1", registry.THERE, digest="sha256:bb")
    assert "it means registry/web@sha256:bb now" in refusal(seen(known=tag))
    assert "cannot be pulled" in refusal(seen(known=registry.Image(GOOD, registry.GONE, why="gone")))
    unknown = seen(known=registry.Image(GOOD, registry.UNKNOWN, why="not ECR"))
    assert "accept_unknown_image=true" in refusal(unknown)
    assert "override accept_unknown_image" in plan(unknown, accept_unknown_image=True).notes[0]


def test_what_it_refuses():
    assert "several containers" in refusal(seen("web", "proxy"))
    assert "no container x" in refusal(seen(), container="x")
    flux = {"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}
    assert "flux suspend" in refusal(seen(**flux))
    assert "override when_managed" in plan(seen(**flux), when_managed="note").notes[0]


def test_a_revision_of_ecs_differs_in_the_image_alone():
    request = {
        "family": "web",
        "cpu": "256",
        "containerDefinitions": [{"name": "app", "image": "registry/web:v3", "memory": 5}],
    }
    wish = EcsImage.wish({"current": {"request": request}, "image": KNOWN}, WANTED)
    assert wish.request == {**request, "containerDefinitions": [{"name": "app", "image": GOOD, "memory": 5}]}
    assert request["containerDefinitions"][0]["image"] == "registry/web:v3"
    assert EcsImage.words(EcsImage.shown(wish.request, WANTED)) == f"app of {GOOD}"

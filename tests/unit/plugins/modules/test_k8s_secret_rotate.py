# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8s_secret_rotate: which references its plan moves, and when the old Secret may go."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_api import NotFound
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_reader import Reader
from ansible_collections.sre.runbooks.plugins.modules.k8s_secret_rotate import MARK, K8sSecretRotate, moved, used_by

OLD, NEW = "database", "database-2"


def template(name=OLD):
    env = [
        {"name": "URL", "valueFrom": {"secretKeyRef": {"name": name, "key": "url"}}},
        {"name": "OTHER", "valueFrom": {"secretKeyRef": {"name": "mail", "key": "key"}}},
        {"name": "LEVEL", "value": "INFO"},
    ]
    return {
        "spec": {
            "imagePullSecrets": [{"name": name}],
            "containers": [
                {
                    "name": "web",
                    "env": env,
                    "envFrom": [{"secretRef": {"name": name}}, {"configMapRef": {"name": name}}],
                }
            ],
            "initContainers": [{"name": "migrate", "envFrom": [{"secretRef": {"name": name}}]}],
            "volumes": [
                {"name": "files", "secret": {"secretName": name}},
                {"name": "all", "projected": {"sources": [{"secret": {"name": name}}]}},
                {"name": "scratch", "emptyDir": {}},
            ],
        }
    }


class Cluster:
    """One that has these objects, and no kind besides."""

    def __init__(self, **objects):
        self.objects = {"pods": [], **objects}

    def read(self, path):
        resource = path.rpartition("/")[2]
        if resource not in self.objects:
            raise NotFound(f"{path} not found")
        return {"items": self.objects[resource]}


def users(**objects):
    verb = K8sSecretRotate.__new__(K8sSecretRotate)
    verb.old, verb.namespace, verb.cluster = OLD, "shop", Cluster(**objects)
    verb.reader = Reader(verb.cluster, "Deployment", "shop", "web")
    return verb._users()


def seen(old=True, new=False, uses=OLD, users=(), settled=True, place=OLD):
    made = {"metadata": {"annotations": {MARK: place}}}
    return {
        "workload": {"spec": {"template": template(uses)}},
        "old": {"metadata": {}} if old else None,
        "new": made if new else None,
        "users": list(users),
        "names": (OLD, NEW),
        "settled": settled,
    }


def plan(observed, state="moved", values=({"key": "url"},)):
    kubernetes = {"name": "web", "namespace": "shop"}
    return K8sSecretRotate.plan(observed, {"state": state, "values": list(values), "kubernetes": kubernetes})


def refusal(*arguments, **more):
    with pytest.raises(Refusal) as caught:
        plan(*arguments, **more)
    return str(caught.value)


def do(found):
    return [step.do for step in found.steps]


def test_every_reference_is_moved_and_nothing_else():
    assert used_by(template()["spec"]) == {OLD, "mail"}
    assert moved(template(), OLD, NEW)["spec"]["containers"][0]["envFrom"][1] == {"configMapRef": {"name": OLD}}
    back = moved(moved(template(), OLD, NEW), NEW, OLD)
    assert back == template() and used_by(moved(template(), OLD, NEW)["spec"]) == {NEW, "mail"}


def test_made_then_moved_then_waited_for():
    assert do(plan(seen())) == ["create", "move", "settle"]
    assert do(plan(seen(), "created")) == ["create"]
    assert do(plan(seen(new=True))) == ["move", "settle"]
    assert do(plan(seen(new=True, uses=NEW, settled=False))) == ["settle"]
    assert do(plan(seen(new=True, uses=NEW))) == []
    assert do(plan(seen(new=True, uses=NEW), "former")) == ["move", "settle"]


def test_the_old_one_goes_when_nobody_uses_it():
    assert "still used by pod web-1" in refusal(seen(new=True, uses=NEW, users=["pod web-1"]), "retired")
    assert "state=moved comes first" in refusal(seen(), "retired")
    assert do(plan(seen(new=True, uses=NEW), "retired")) == ["delete"]
    assert do(plan(seen(old=False, new=True, uses=NEW), "retired")) == []


def test_who_uses_it():
    def made(name, **spec):
        return {"metadata": {"name": name}, "spec": spec}

    nightly = made("nightly", jobTemplate={"spec": {"template": template()}})
    moved_on = made("reports", jobTemplate={"spec": {"template": template(NEW)}})
    web = made("web", replicas=0, template=template())
    pod = {**made("web-1", **template()["spec"]), "status": {"phase": "Running"}}
    found = users(deployments=[web], cronjobs=[nightly, moved_on], pods=[pod])
    assert found == ["pod web-1", "deployment web", "cronjob nightly"]
    assert users() == []


def test_one_that_is_used_again_is_named_with_its_age():
    observed = seen(new=True)
    observed["new"]["metadata"]["creationTimestamp"] = "2026-05-03T02:10:44Z"
    (note,) = plan(observed, "created").notes
    assert note.startswith("the Secret database-2 was made at 2026-05-03T02:10:44Z and is used again: ")
    assert note.endswith("give another new_secret")
    moved_already = dict(observed, workload=seen(uses=NEW)["workload"], old=None)
    assert plan(moved_already, "created").notes[0].endswith("name database-2 as secret")


def test_what_it_refuses():
    assert "which is not of this rotation" in refusal(seen(new=True, place="other"))
    assert "there is no Secret database" in refusal(seen(old=False))
    assert "give values" in refusal(seen(), values=())
    assert "no key" in refusal(seen(), values=({"key": None},))
    assert "go back to database by state=former" in refusal(seen(uses=NEW))
    assert "uses neither" in refusal(seen(uses="third"))
    assert "nothing can go back" in refusal(seen(old=False, new=True, uses=NEW), "former")

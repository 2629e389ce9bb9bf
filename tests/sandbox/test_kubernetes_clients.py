# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that know nothing of the sandbox work with its cluster: Python's two, and Ansible's modules."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys

import kubernetes
import openshift.dynamic
import pytest
import yaml
from kube_helpers import Api

IMAGE = "shop/web"


@pytest.fixture
def namespace(sandbox, tmp_path):
    api, name = Api(sandbox.state["kubernetes"]["kubeconfig"], tmp_path), f"clients-{secrets.token_hex(3)}"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    api.call("DELETE", f"/api/v1/namespaces/{name}")


def deployment(namespace: str, version: str, replicas: int = 1) -> dict:
    container = {
        "name": "app",
        "image": f"{IMAGE}:{version}",
        "env": [{"name": "DATABASE_URL", "value": "postgresql://x"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 2},
            },
        },
    }


def test_python_clients(sandbox, namespace):
    client = kubernetes.config.new_client_from_config(sandbox.state["kubernetes"]["kubeconfig"])
    apps = kubernetes.client.AppsV1Api(client)
    apps.create_namespaced_deployment(namespace, deployment(namespace, "v1"))
    watched = kubernetes.watch.Watch().stream(apps.list_namespaced_deployment, namespace, timeout_seconds=20)
    for event in watched:
        if event["object"].status.available_replicas == 1:
            break
    dynamic = openshift.dynamic.DynamicClient(client)
    found = dynamic.resources.get(api_version="apps/v1", kind="Deployment")
    body = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": f"{IMAGE}:v2"}]}}}}
    patched = found.patch(
        name="web", namespace=namespace, body=body, content_type="application/strategic-merge-patch+json"
    )
    assert patched.spec.template.spec.containers[0].image == f"{IMAGE}:v2"
    applied = found.server_side_apply(
        body=deployment(namespace, "v2", 2), name="web", namespace=namespace, field_manager="test", force_conflicts=True
    )
    assert (applied.spec.replicas, applied.metadata.generation) == (2, 3)
    configs = dynamic.resources.get(api_version="apps.openshift.io/v1", kind="DeploymentConfig")
    assert configs.get(namespace=namespace).items == []
    with pytest.raises(kubernetes.client.ApiException) as caught:
        apps.read_namespaced_deployment("none", namespace)
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (404, "NotFound")


def test_ansible_modules(sandbox, namespace, tmp_path):
    """kubernetes.core: k8s changes and waits, k8s_rollback and k8s_scale change, k8s_info reads."""
    api = Api(sandbox.state["kubernetes"]["kubeconfig"], tmp_path)
    api.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment(namespace, "v1"))
    wait = {"wait": True, "wait_timeout": 30, "wait_sleep": 1}
    there = {"namespace": namespace, "name": "web"}
    tasks = [
        {"kubernetes.core.k8s": {"definition": deployment(namespace, "v2"), **wait}},
        {"kubernetes.core.k8s_rollback": {"api_version": "apps/v1", "kind": "Deployment", **there}},
        {"kubernetes.core.k8s_scale": {"kind": "Deployment", "replicas": 2, **there, **wait}},
        {"kubernetes.core.k8s_info": {"api_version": "apps/v1", "kind": "Deployment", **there}, "register": "found"},
        {
            "ansible.builtin.assert": {
                "that": [
                    f"found.resources[0].spec.template.spec.containers[0].image == '{IMAGE}:v1'",
                    "found.resources[0].metadata.annotations['deployment.kubernetes.io/revision'] == '3'",
                    "found.resources[0].status.availableReplicas == 2",
                ]
            }
        },
    ]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    playbook = tmp_path / "clients.yml"
    playbook.write_text(yaml.safe_dump([play]))
    environment = {
        **os.environ,
        "K8S_AUTH_KUBECONFIG": sandbox.state["kubernetes"]["kubeconfig"],
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    program = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", str(playbook)]
    done = subprocess.run(program, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr

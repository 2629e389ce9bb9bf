# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""security_breach.yml and security_release.yml: evidence first, then what is named, while users are served; and all of it back."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from kube import Namespace
from runbook import Result
from world import World, wait_until

NAME, INCIDENT = "api", "night-7"


@pytest.fixture(scope="module")
def shop(any_world: World) -> tuple[World, Namespace]:
    any_world.begin()
    known = any_world.sandbox.state["kubernetes"]
    space = Namespace(known["kubeconfig"], known["context"], known["namespace"])
    wait_until(lambda: len(serving(space)) == 2, "the pods serve")
    return any_world, space


def serving(space: Namespace) -> list[str]:
    return [
        pod["metadata"]["name"]
        for pod in space.pods(NAME)
        if any((each["type"], each["status"]) == ("Ready", "True") for each in pod["status"].get("conditions", []))
    ]


def answer(world: World, *flags: str, playbook: str = "security_breach", **variables: str) -> Result:
    return world.runbook.run(playbook, *flags, env="sandbox_kubernetes", **variables)


def resources(world: World, space: Namespace) -> dict:
    """All that isolating and revoking may change, under names that are the same in every world."""
    iam, user = world.aws("iam"), {"UserName": "deploy"}
    return {
        "policies": space.call("GET", space.path("networkpolicies", api="/apis/networking.k8s.io/v1"))["items"],
        "workload": space.get(NAME)["spec"],
        "services": [each["spec"] for each in space.call("GET", space.path("services", api="/api/v1"))["items"]],
        "labels": sorted(json.dumps(pod["metadata"]["labels"]) for pod in space.pods(NAME)),
        "pods": len(space.call("GET", space.path("pods", api="/api/v1"))["items"]),
        "keys": {each["AccessKeyId"]: each["Status"] for each in iam.list_access_keys(**user)["AccessKeyMetadata"]},
        "inline": iam.list_user_policies(**user)["PolicyNames"],
        "tags": iam.list_user_tags(**user)["Tags"],
    }


def test_what_is_wrong_with_the_command_is_said_in_a_line(shop: tuple[World, Namespace]) -> None:
    world, _space = shop
    for variables, told in (
        ({"steps": "evidence,panic"}, "panic, which is no step: say -e steps=NAME,NAME of evidence, isolate, revoke"),
        ({"steps": "evidence,revoke"}, "cannot go without incident, principal"),
        ({"steps": "isolate"}, "nobody is named to isolate"),
    ):
        run = answer(world, **variables)
        assert run.returncode != 0 and run.mutations == []
        assert any(told in line for line in run.complaints), run.output


def test_without_steps_it_looks_for_signs(shop: tuple[World, Namespace]) -> None:
    """Somebody tries pages that are not there, and makes a user for later."""
    world, space = shop
    address = next(pod["status"]["podIP"] for pod in space.pods(NAME))
    for number in range(25):
        asked = urllib.request.Request(
            f"http://{address}:8000/admin/{number}", headers={"X-Forwarded-For": "198.51.100.77"}
        )
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(asked)
    world.aws("iam").create_user(UserName="backdoor")
    run = answer(world)
    assert run.returncode == 0 and run.mutations == [] and run.lease_calls == [], run.output
    told = "\n".join(run.report["notes"])
    assert "198.51.100.77 was refused 25 times (25 x 404)" in told
    assert "iam:CreateUser backdoor" in told
    world.aws("iam").delete_user(UserName="backdoor")


@pytest.mark.soak
def test_a_breach_is_answered_while_users_are_served_and_released_exactly(shop: tuple[World, Namespace]) -> None:
    world, space = shop
    world.aws("iam").create_user(UserName="deploy")
    key = world.aws("iam").create_access_key(UserName="deploy")["AccessKey"]["AccessKeyId"]
    before, victim = resources(world, space), serving(space)[0]
    world.sandbox.control("load", action="start", name=world.sandbox.state["kubernetes"]["public_name"])
    world.await_users(10)
    said = {"steps": "isolate,evidence,revoke", "incident": INCIDENT, "principal": "user/deploy", "suspects": victim}

    planned = answer(world, "--check", "--diff", **said)
    assert planned.returncode == 0 and planned.mutations == [], planned.output
    assert resources(world, space) == before

    run = answer(world, **said)
    assert run.returncode == 0, run.output
    # The evidence was complete before anything was touched, whatever the order that was said.
    order = [each["step"] for each in run.timeline if each["event"] == "step" and each["state"] == "changed"]
    assert order.index("Into the bundle of the incident") < order.index("Pods cut off the network, and kept")
    assert order.index("Pods cut off the network, and kept") < order.index(
        "Former sessions and keys open nothing any more"
    )
    bundle = world.runbook.incidents / "evidence" / INCIDENT
    assert_verifies(bundle)
    kept = json.loads((bundle / "kubernetes-shop-api.json").read_text())
    assert victim in [pod["metadata"]["name"] for pod in kept["pods"]] and (bundle / f"{victim}-api.log").read_text()
    assert not (bundle.parent / f".{INCIDENT}").exists()
    stored = world.aws("s3").list_objects_v2(Bucket=world.sandbox.state["evidence_bucket"])["Contents"]
    assert any(each["Key"].endswith(f"{victim}-api.log") for each in stored)
    assert victim not in serving(space) and len(serving(space)) == 2
    assert resources(world, space)["keys"] == {key: "Inactive"}
    assert not any(secret in run.output + str(run.report) for secret in world.secrets())

    early = answer(world, playbook="security_release", principal="user/deploy")
    assert early.returncode != 0 and early.mutations == []
    assert any("accept_live_sessions=true" in line for line in early.complaints)
    released = answer(world, playbook="security_release", principal="user/deploy", accept_live_sessions=True)
    assert released.returncode == 0, released.output
    # What the pod had in hand when it was cut off is lost, and nothing else.
    users = world.stop_users(more=20)
    assert users["failed_requests"] <= 5 and users["lost_writes"] == 0, users
    wait_until(lambda: resources(world, space) == before, "all is as it was")


def assert_verifies(bundle: Path) -> None:
    """As sha256sum -c does; every file of it is in the newest manifest, but for that itself."""
    newest = max(bundle.glob("manifest-*.sha256"))
    listed = dict(reversed(line.split("  ", 1)) for line in newest.read_text().splitlines())
    assert listed.keys() == {path.name for path in bundle.iterdir()} - {newest.name}
    for name, digest in listed.items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest

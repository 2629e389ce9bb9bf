# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A breach contained, verb by verb: a stolen session is refused, a pod that was broken into hears and says nothing, secrets change
while users are served, and what runs is what is known to be good.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import boto3
import psycopg2
import pytest
from botocore.exceptions import ClientError
from kube import Namespace, run_module
from world import EAST, World, wait_until

ACCOUNT = "123456789012"
NAME = "api"
KEYS = {"access_key": "sandbox", "secret_key": "sandbox-secret", "region": EAST}


@pytest.fixture(scope="module")
def world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture(scope="module")
def shop(world: World) -> Namespace:
    known = world.sandbox.state["kubernetes"]
    space = Namespace(known["kubeconfig"], known["context"], known["namespace"])
    wait_until(lambda: len(ready(space)) == 2, "the pods serve")
    return space


def ready(space: Namespace) -> list[dict]:
    return [
        pod
        for pod in space.pods(NAME)
        if {"type": "Ready", "status": "True"}.items()
        <= next((each for each in pod["status"].get("conditions", []) if each["type"] == "Ready"), {}).items()
    ]


def verb(world: World, name: str, check: bool = False, **arguments: Any) -> dict:
    return run_module(name, check, endpoint_url=world.sandbox.state["endpoint_url"], **KEYS, **arguments)


def isolate(world: World, space: Namespace, check: bool = False, **arguments: Any) -> dict:
    where = {"kubeconfig": space.kubeconfig, "context": space.context, "namespace": space.name, "name": NAME}
    return verb(world, "k8s_isolate", check, kubernetes=where, **arguments)


def ask(world: World, service: str, key: dict) -> Any:
    return boto3.client(
        service,
        region_name=EAST,
        endpoint_url=world.sandbox.state["endpoint_url"],
        aws_access_key_id=key["AccessKeyId"],
        aws_secret_access_key=key["SecretAccessKey"],
        aws_session_token=key.get("SessionToken"),
    )


def refusal(call: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value.response["Error"]["Code"]


@pytest.fixture
def stolen(world: World) -> Iterator[dict[str, dict]]:
    """A session of a role and a key of a user, which another person has, too."""
    iam = world.aws("iam")
    trusted = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    trust = {"Version": "2012-10-17", "Statement": [trusted]}
    iam.create_role(RoleName="batch", AssumeRolePolicyDocument=json.dumps(trust))
    iam.create_user(UserName="deploy")
    iam.create_login_profile(UserName="deploy", Password="hunter2-Hunter2")
    unused = iam.create_access_key(UserName="deploy")["AccessKey"]
    iam.update_access_key(UserName="deploy", AccessKeyId=unused["AccessKeyId"], Status="Inactive")
    yield {"role": assumed(world), "user": iam.create_access_key(UserName="deploy")["AccessKey"], "unused": unused}


def assumed(world: World) -> dict:
    role = f"arn:aws:iam::{ACCOUNT}:role/batch"
    return world.aws("sts").assume_role(RoleArn=role, RoleSessionName="night")["Credentials"]


def identities(world: World) -> dict:
    iam = world.aws("iam")
    user = {"UserName": "deploy"}
    return {
        "role": iam.list_role_policies(RoleName="batch")["PolicyNames"],
        "user": iam.list_user_policies(**user)["PolicyNames"],
        "tags": iam.list_user_tags(**user)["Tags"],
        "keys": {each["AccessKeyId"]: each["Status"] for each in iam.list_access_keys(**user)["AccessKeyMetadata"]},
    }


def test_a_stolen_session_and_key_are_refused_and_given_back_exactly(world: World, stolen: dict) -> None:
    before = identities(world)
    assert ask(world, "ecs", stolen["role"]).list_clusters()["clusterArns"]
    assert ask(world, "ec2", stolen["user"]).describe_vpcs()["Vpcs"]
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/batch/night"

    planned = verb(world, "iam_revoke", True, principal="user/deploy")
    assert planned["changed"] and identities(world) == before
    revoked = [verb(world, "iam_revoke", principal=each) for each in (session, "user/deploy")]
    assert all(each["changed"] and not each["failed"] for each in revoked)
    assert any("console password" in note for note in revoked[1]["notes"])
    assert refusal(ask(world, "ecs", stolen["role"]).list_clusters) == "AccessDeniedException"
    assert refusal(ask(world, "s3", stolen["role"]).list_buckets) == "AccessDenied"
    assert refusal(ask(world, "ec2", stolen["user"]).describe_vpcs) == "AuthFailure"
    # What the intruder tried is in the history, under the name of the session.
    tried = world.aws("cloudtrail").lookup_events(
        LookupAttributes=[{"AttributeKey": "Username", "AttributeValue": "night"}]
    )
    assert "AccessDenied" in str(tried["Events"])
    # A session that is issued later works: what runs as the role and is replaced goes on.
    wait_until(lambda: time.time() > denied_before(revoked[0]), "a second later")
    assert ask(world, "ecs", assumed(world)).list_clusters()["clusterArns"]

    again = verb(world, "iam_revoke", principal="user/deploy")
    assert not again["changed"] and "renew=true" in again["notes"][0]
    early = verb(world, "iam_revoke", principal="role/batch", state="restored")
    assert early["failed"] and "accept_live_sessions=true" in early["msg"]
    for each in ("role/batch", "user/deploy"):
        restored = verb(world, "iam_revoke", principal=each, state="restored", accept_live_sessions=True)
        assert not restored["failed"] and restored["changed"]
    assert identities(world) == before
    assert ask(world, "ec2", stolen["user"]).describe_vpcs()["Vpcs"]


def denied_before(revoked: dict) -> float:
    return datetime.fromisoformat(revoked["after"]["denied_before"].replace("Z", "+00:00")).timestamp()


@pytest.mark.parametrize("kind", ["denied", "lost-answer"])
def test_a_revocation_that_stops_half_way_goes_on(world: World, kind: str) -> None:
    """Before each of its changes, and with each answer lost: what is remembered stands on the user itself."""
    iam, name = world.aws("iam"), f"half-way-{kind}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"]
    for state, actions in (
        ("revoked", ("TagUser", "PutUserPolicy", "UpdateAccessKey")),
        ("restored", ("UpdateAccessKey", "DeleteUserPolicy", "UntagUser")),
    ):
        stops = [[action] for action in actions] if kind == "denied" else [actions]
        for some in stops:
            for action in some:
                world.sandbox.fault("api", service="iam", action=action, kind=kind, count=1)
            told = verb(world, "iam_revoke", principal=f"user/{name}", state=state, accept_live_sessions=True)
            world.sandbox.heal()
            assert told["failed"] == (kind == "denied"), told
        again = verb(world, "iam_revoke", principal=f"user/{name}", state=state, accept_live_sessions=True)
        assert not again["failed"] and again["changed"] == (kind == "denied")
        (found,) = iam.list_access_keys(UserName=name)["AccessKeyMetadata"]
        assert (found["AccessKeyId"], found["Status"]) == (key, "Inactive" if state == "revoked" else "Active")
        assert bool(iam.list_user_policies(UserName=name)["PolicyNames"]) == (state == "revoked")
        assert bool(iam.list_user_tags(UserName=name)["Tags"]) == (state == "revoked")


def cluster(space: Namespace) -> dict:
    """All that isolating may change, pods aside, whose names are new each time."""
    return {
        "policies": space.call("GET", space.path("networkpolicies", api="/apis/networking.k8s.io/v1"))["items"],
        "workload": {key: space.get(NAME)[key] for key in ("spec",)},
        "labels": sorted(str(pod["metadata"]["labels"]) for pod in all_pods(space)),
    }


def all_pods(space: Namespace) -> list[dict]:
    return space.call("GET", space.path("pods", api="/api/v1"))["items"]


def answers(connection: socket.socket, host: str) -> bytes:
    connection.settimeout(1)
    connection.sendall(f"GET /health?check=db HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    try:
        return connection.recv(4096)
    except TimeoutError:
        return b""


def test_a_pod_in_quarantine_is_cut_off_and_kept_while_the_service_answers(world: World, shop: Namespace) -> None:
    before = cluster(shop)
    victim = ready(shop)[0]
    name, address = victim["metadata"]["name"], (victim["status"]["podIP"], 8000)
    held = socket.create_connection(address)
    assert answers(held, "intruder").startswith(b"HTTP/1.1 200")
    assert not isolate(world, shop, True, pods=[name])["failed"] and cluster(shop) == before

    isolated = isolate(world, shop, pods=[name])
    assert not isolated["failed"], isolated
    assert isolated["after"]["quarantined"] == [name] and isolated["after"]["serving"] == 2
    # The connection that the intruder holds open is cut, no new one is made, and the database hears nothing.
    assert answers(held, "intruder") == b""
    held.close()
    assert not is_open(address)
    # It runs on, unharmed by probes, and belongs to nobody.
    (kept,) = [pod for pod in all_pods(shop) if pod["metadata"]["name"] == name]
    assert kept["status"]["phase"] == "Running" and not kept["metadata"].get("ownerReferences")
    assert kept["status"]["containerStatuses"][0]["restartCount"] == 0
    assert len(ready(shop)) == 2 and name not in [pod["metadata"]["name"] for pod in ready(shop)]
    assert not isolate(world, shop, pods=[name])["changed"]

    (undo,) = isolated["undo"]
    released = isolate(world, shop, state=undo["arguments"]["state"])
    assert not released["failed"] and cluster(shop) == before


@pytest.mark.parametrize("kind", ["denied", "lost-answer"])
def test_a_quarantine_that_stops_half_way_goes_on(world: World, shop: Namespace, kind: str) -> None:
    before, name = cluster(shop), ready(shop)[0]["metadata"]["name"]
    for action in ("create networkpolicies", "patch pods"):
        world.sandbox.fault("api", service="kubernetes", action=action, kind=kind, count=1)
        told = isolate(world, shop, pods=[name])
        world.sandbox.heal()
        assert told["failed"] == (kind == "denied"), told
    done = isolate(world, shop, pods=[name])
    assert not done["failed"] and done["after"]["quarantined"] == [name] and len(done["after"]["policies"]) == 1
    for action in ("delete pods", "delete networkpolicies"):
        world.sandbox.fault("api", service="kubernetes", action=action, kind=kind, count=1)
        isolate(world, shop, state="released")
        world.sandbox.heal()
    assert not isolate(world, shop, state="released")["failed"]
    assert cluster(shop) == before


def test_a_whole_workload_is_cut_off_and_answers_again_when_it_is_released(world: World, shop: Namespace) -> None:
    before = cluster(shop)
    addresses = [(pod["status"]["podIP"], 8000) for pod in ready(shop)]
    assert not isolate(world, shop)["failed"]
    for address in addresses:
        wait_until(lambda address=address: not is_open(address), "nobody gets an answer")
    assert not isolate(world, shop, state="released")["failed"]
    for address in addresses:
        wait_until(lambda address=address: is_open(address), "it answers again")
    assert cluster(shop) == before


def is_open(address: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(address, 0.5) as connection:
            return answers(connection, "user").startswith(b"HTTP/1.1 200")
    except TimeoutError:
        return False


NEW_LOGIN = "regami_2"
WORKLOADS = (("Deployment", "api"), ("StatefulSet", "sessions"), ("DaemonSet", "agent"))


def rotate(world: World, space: Namespace, kind: str, name: str, **arguments: Any) -> dict:
    where = {"kubeconfig": space.kubeconfig, "context": space.context, "namespace": space.name}
    values = [{"key": "url", "user": NEW_LOGIN}, {"key": "password", "length": 40}]
    more = {"secret": "database", "values": values, **arguments}
    return verb(world, "k8s_secret_rotate", kubernetes={**where, "kind": kind, "name": name}, **more)


def log_in(world: World, space: Namespace, **arguments: Any) -> dict:
    state = world.sandbox.state
    return verb(
        world,
        "pg_login_rotate",
        db_instance=world.names(EAST)["db_instance"],
        role="regami",
        new_role=NEW_LOGIN,
        login_user=state["db_admin_user"],
        login_password=world.secret("db_admin"),
        login_db=state["db_name"],
        sslmode="prefer",
        **arguments,
    )


def test_a_database_login_is_rotated_while_users_are_served(world: World, shop: Namespace) -> None:
    public = world.sandbox.state["kubernetes"]["public_name"]
    world.sandbox.control("load", action="start", name=public)
    world.await_users(10)
    told = [rotate(world, shop, *WORKLOADS[0], state="created")]
    where = {"kubeconfig": shop.kubeconfig, "context": shop.context, "namespace": shop.name, "secret": "database-2"}
    told.append(log_in(world, shop, password_kubernetes=where))
    assert "still used by" in rotate(world, shop, *WORKLOADS[0], state="retired")["msg"]
    told += [rotate(world, shop, *each) for each in WORKLOADS]
    told += [rotate(world, shop, *WORKLOADS[0], state="retired"), log_in(world, shop, state="retired")]
    assert not any(each["failed"] for each in told), [each.get("msg") for each in told]
    assert all(each["changed"] for each in told)
    # Nothing was missed, in order or twice; the same again changes nothing.
    assert not rotate(world, shop, *WORKLOADS[0])["changed"] and not log_in(world, shop, state="retired")["changed"]

    users = world.stop_users(more=20)
    assert (users["failed_requests"], users["lost_writes"]) == (0, 0)
    with (
        pytest.raises(psycopg2.OperationalError, match="password authentication failed"),
        world.app_session(EAST),
    ):
        pass
    secrets = {
        each["metadata"]["name"]: each for each in shop.call("GET", shop.path("secrets", api="/api/v1"))["items"]
    }
    assert "database" not in secrets
    password = base64.b64decode(secrets["database-2"]["data"]["password"]).decode()
    assert len(password) == 40 and password not in str(told)


def test_a_version_of_a_secret_is_what_new_tasks_get(world: World) -> None:
    """The former one goes to nobody afterwards."""
    name, manager = "regami/session-key", world.aws("secretsmanager")
    first = manager.create_secret(Name=name, SecretString="former")["VersionId"]
    arguments = {"secret": name, "rotation": "breach-1"}
    world.sandbox.fault("api", service="secretsmanager", action="UpdateSecretVersionStage", kind="lost-answer", count=1)
    made = [
        verb(world, "secret_rotate", values=[{"length": 40}], state=state, **arguments)
        for state in ("staged", "current")
    ]
    assert not any(each["failed"] for each in made)
    value = manager.get_secret_value(SecretId=name)["SecretString"]
    assert len(value) == 40 and value not in str(made)
    assert manager.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS")["VersionId"] == first
    assert not verb(world, "secret_rotate", values=[{"length": 40}], **arguments)["changed"]
    assert verb(world, "secret_rotate", state="retired", **arguments)["changed"]
    labels = manager.describe_secret(SecretId=name)["VersionIdsToStages"]
    assert labels.get(first, []) == [] and manager.get_secret_value(SecretId=name)["SecretString"] == value


def test_a_known_good_image_is_deployed_by_its_digest(world: World, shop: Namespace) -> None:
    repository = world.sandbox.state["kubernetes"]["image"]
    asked = {"repositoryName": repository.partition("/")[2], "imageIds": [{"imageTag": "v1"}]}
    digest = world.aws("ecr").describe_images(**asked)["imageDetails"][0]["imageDigest"]
    where = {"kubeconfig": shop.kubeconfig, "context": shop.context, "namespace": shop.name, "name": NAME}
    tag = verb(world, "k8s_image", kubernetes=where, image=f"{repository}:v1")
    assert f"it means {repository}@{digest} now" in tag["msg"]
    good = f"{repository}@{digest}"
    deployed = verb(world, "k8s_image", kubernetes=where, image=good)
    assert not deployed["failed"] and shop.get(NAME)["spec"]["template"]["spec"]["containers"][0]["image"] == good
    assert not verb(world, "k8s_image", kubernetes=where, image=good)["changed"]
    assert all(pod["status"]["containerStatuses"][0]["imageID"].endswith(digest) for pod in ready(shop))
    names = world.names(EAST)
    service = verb(world, "ecs_image", cluster=names["cluster"], service=names["service"], image=good)
    assert not service["failed"] and service["after"]["images"] == {"app": good}, service

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that is closed to its users and opened again: what they are answered, and that every rule is what it was."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from kube import run_module
from kubernetes import client, config
from world import EAST, World, wait_until

RESPONDER = "127.0.0.9"


def asked(address: str, host: str, path: str = "/health", source: str | None = None) -> tuple[int, str, str]:
    """Status, content type and body that somebody at `source` gets."""
    where = urlsplit(f"//{address}")
    connection = http.client.HTTPConnection(
        where.hostname, where.port, timeout=5, source_address=(source, 0) if source else None
    )
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def shop(first_day: tuple[World, dict]) -> World:
    return first_day[0]


# ---- the load balancer -----------------------------------------------------------------------------------------------


def listeners(world: World) -> str:
    """All that AWS says of the balancer's listeners and rules, tags included."""
    elbv2, arn = world.aws("elbv2"), world.names(EAST)["load_balancer_arn"]
    found = elbv2.describe_listeners(LoadBalancerArn=arn)["Listeners"]
    for each in found:
        each["Rules"] = elbv2.describe_rules(ListenerArn=each["ListenerArn"])["Rules"]
        for rule in each["Rules"]:
            rule["Tags"] = elbv2.describe_tags(ResourceArns=[rule["RuleArn"]])["TagDescriptions"][0]["Tags"]
    return json.dumps(found, sort_keys=True)


@pytest.fixture
def balancer(shop: World) -> Iterator[Callable[..., dict]]:
    """The verb on a balancer that has rules at the first two numbers; afterwards they are gone again."""
    elbv2, facts = shop.aws("elbv2"), shop.names(EAST)
    made = [
        elbv2.create_rule(
            ListenerArn=facts["listener_arn"],
            Priority=number,
            Conditions=[{"Field": "path-pattern", "Values": [path]}],
            Actions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404", "ContentType": kind}}],
        )["Rules"][0]["RuleArn"]
        for number, path, kind in ((1, "/admin", "text/plain"), (2, "/old/*", "text/html"))
    ]

    def verb(state: str, check: bool = False, **given: Any) -> dict:
        known = {"endpoint_url": shop.sandbox.state["endpoint_url"], "region": EAST}
        keys = {"access_key": "sandbox", "secret_key": "sandbox-secret"}
        where = {"load_balancer_arn": facts["load_balancer_arn"]}
        return run_module("alb_traffic", check, **known, **keys, **where, state=state, **given)

    yield verb
    shop.sandbox.heal()
    verb("open")
    for arn in made:
        elbv2.delete_rule(RuleArn=arn)


def users(world: World, path: str = "/health", source: str | None = None) -> int:
    facts = world.names(EAST)
    return asked(urlsplit(facts["alb_url"]).netloc, world.sandbox.state["public_name"], path, source)[0]


def test_users_are_kept_out_and_responders_see_what_they_saw(shop: World, balancer: Callable[..., dict]) -> None:
    before = listeners(shop)
    planned = balancer("blocked", check=True, allow_from=[RESPONDER])
    assert planned["changed"] and listeners(shop) == before
    closed = balancer("blocked", allow_from=[RESPONDER])
    assert not closed["failed"] and {**closed["after"], "since": 0} == {**planned["after"], "since": 0}
    assert [users(shop, path) for path in ("/health", "/admin", "/old/x")] == [503, 503, 503]
    assert [users(shop, path, RESPONDER) for path in ("/health", "/admin")] == [200, 404]
    # Another responder, in another place, does the same again.
    again = balancer("blocked", allow_from=[RESPONDER])
    assert not again["changed"] and "is blocked since 20" in again["notes"][0]
    page = balancer("maintenance", body="<h1>soon</h1>")
    facts = shop.names(EAST)
    seen = asked(urlsplit(facts["alb_url"]).netloc, shop.sandbox.state["public_name"], source=RESPONDER)
    assert seen == (503, "text/html", "<h1>soon</h1>")
    # Played backwards, the record ends where it began.
    for result in (page, closed):
        (undo,) = result["undo"]
        arguments = {
            key: value for key, value in undo["arguments"].items() if key not in ("load_balancer_arn", "region")
        }
        assert not balancer(arguments.pop("state"), **arguments)["failed"]
    assert listeners(shop) == before and users(shop) == 200


CALLS = ("AddTags", "SetRulePriorities", "CreateRule", "ModifyRule", "DeleteRule", "RemoveTags")


@pytest.mark.parametrize("kind", ["lost-answer", "reset"])
@pytest.mark.parametrize("action", CALLS)
def test_an_answer_that_is_lost(shop: World, balancer: Callable[..., dict], action: str, kind: str) -> None:
    before, first = listeners(shop), len(shop.sandbox.calls())
    shop.sandbox.fault("api", service="elbv2", action=action, kind=kind, region=EAST, count=1)
    closed = balancer("blocked", allow_from=[RESPONDER])
    assert not closed["failed"], closed["msg"]
    assert (users(shop), users(shop, source=RESPONDER)) == (503, 200)
    opened = balancer("open")
    assert not opened["failed"], opened["msg"]
    assert listeners(shop) == before
    assert [call["fault"] for call in shop.sandbox.calls(first)].count(kind) == 1


# ---- the ingress -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(shop: World) -> Callable[..., dict]:
    known = shop.sandbox.state["kubernetes"]

    def verb(state: str, check: bool = False, **given: Any) -> dict:
        where = {key: known[key] for key in ("kubeconfig", "context", "namespace", "ingress")}
        return run_module("k8s_traffic", check, **where, state=state, **given)

    return verb


@pytest.fixture
def kubectl(shop: World) -> Any:
    config.load_kube_config(shop.sandbox.state["kubernetes"]["kubeconfig"])
    return client


def ingress(world: World, kubectl: Any) -> dict:
    """What its team wrote in it, and what it says of itself beside the versions."""
    known = world.sandbox.state["kubernetes"]
    found = kubectl.NetworkingV1Api().read_namespaced_ingress(known["ingress"], known["namespace"]).to_dict()
    for name in ("resource_version", "generation", "managed_fields"):
        del found["metadata"][name]
    return {key: value for key, value in found.items() if key != "status"}


def visited(world: World, source: str | None = None) -> int:
    known = world.sandbox.state["kubernetes"]
    return asked(
        f"{known['ingress_address']}:{world.sandbox.state['http_port']}", known["ingress_name"], source=source
    )[0]


def test_an_ingress_is_closed_in_the_way_that_its_controller_obeys(
    shop: World, cluster: Callable[..., dict], kubectl: Any
) -> None:
    before = ingress(shop, kubectl)
    wait_until(lambda: visited(shop) == 200, "the ingress serves")
    # What the runbook does is refused by the webhook of today, and says so.
    assert "Snippet directives are disabled" in cluster("blocked", way="snippet")["msg"]
    closed = cluster("blocked", allow_from=[RESPONDER])
    assert not closed["failed"], closed["msg"]
    wait_until(lambda: (visited(shop), visited(shop, RESPONDER)) == (403, 200), "closed but for responders")
    assert not cluster("blocked", allow_from=[RESPONDER])["changed"]
    # Where snippets are allowed, it is the answer that was asked for.
    settings = {"allow-snippet-annotations": "true", "annotations-risk-level": "Critical"}
    core, place = kubectl.CoreV1Api(), ("ingress-nginx-controller", "ingress-nginx")
    core.patch_namespaced_config_map(*place, {"data": settings})
    try:
        page = cluster("maintenance")
        assert page["after"]["ingress"]["way"] == "snippet"
        wait_until(lambda: visited(shop) == 503, "the page is shown")
        opened = cluster("open")
    finally:
        core.patch_namespaced_config_map(
            *place, {"data": {"allow-snippet-annotations": "false", "annotations-risk-level": None}}
        )
    assert not opened["failed"] and ingress(shop, kubectl) == before
    wait_until(lambda: visited(shop) == 200, "the ingress serves again")


@pytest.mark.parametrize("kind", ["lost-answer", "reset"])
def test_an_application_that_is_told(shop: World, cluster: Callable[..., dict], kubectl: Any, kind: str) -> None:
    """The answer to each change is lost, or the change itself; the ConfigMap is made, and removed again."""
    core, place = kubectl.CoreV1Api(), ("maintenance-mode", shop.sandbox.state["kubernetes"]["namespace"])
    before, first = ingress(shop, kubectl), len(shop.sandbox.calls())
    for action in ("create configmaps", "patch ingresses", "delete configmaps"):
        shop.sandbox.fault("api", service="kubernetes", action=action, kind=kind, region=EAST, count=1)
    told = cluster("maintenance", config_map=place[0])
    assert not told["failed"], told["msg"]
    assert core.read_namespaced_config_map(*place).data == {"enabled": "true"}
    assert ingress(shop, kubectl) == before
    blocked = cluster("blocked", config_map=place[0])
    assert not blocked["failed"], blocked["msg"]
    opened = cluster("open", config_map=place[0])
    assert not opened["failed"], opened["msg"]
    assert ingress(shop, kubectl) == before
    with pytest.raises(kubectl.ApiException):
        core.read_namespaced_config_map(*place)
    assert [call["fault"] for call in shop.sandbox.calls(first)].count(kind) == 3


# ---- the playbook ----------------------------------------------------------------------------------------------------


def test_a_service_is_closed_and_opened_again(shop: World) -> None:
    before = listeners(shop)
    planned = shop.runbook.run("traffic", "--check", "--diff", mode="block")
    assert (planned.returncode, planned.mutations) == (0, []), planned.output
    assert "port 80: answer with 503 every request" in planned.output
    wrong = shop.runbook.run("traffic", mode="blok")
    assert wrong.returncode == 2 and "one of block, maintenance, restore" in wrong.output
    run = shop.runbook.run("traffic", mode="block")
    assert run.returncode == 0, run.output
    assert users(shop) == 503
    opened = shop.runbook.run("traffic", mode="restore")
    assert opened.returncode == 0, opened.output
    assert opened.report["verification"] and listeners(shop) == before


def test_an_ingress_by_the_same_playbook(shop: World, kubectl: Any) -> None:
    known = shop.sandbox.state["kubernetes"]
    before = ingress(shop, kubectl)
    health = [{"name": "health", "url": f"{known['ingress_url']}/health"}]
    given = {"env": "sandbox_kubernetes", "smoke_tests": health}
    run = shop.runbook.run("traffic", mode="maintenance", **given)
    assert run.returncode == 0, run.output
    assert visited(shop) == 403
    opened = shop.runbook.run("traffic", mode="restore", **given)
    assert opened.returncode == 0, opened.output
    assert ingress(shop, kubectl) == before and visited(shop) == 200


# ---- the public name -------------------------------------------------------------------------------------------------


@pytest.fixture
def page(shop: World) -> Iterator[str]:
    """The address of a page, at the port where users ask."""
    address = "127.96.7.7"

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b"soon")

        def log_message(self, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer((address, shop.sandbox.state["http_port"]), Page)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield address
    server.shutdown()
    server.server_close()


def records(world: World) -> list[dict]:
    zone = world.sandbox.state["hosted_zone_id"]
    return world.aws("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]


def test_the_name_leads_to_a_page_and_back(shop: World, page: str) -> None:
    before, state = records(shop), shop.sandbox.state
    given = {"strategy": "dns", "maintenance_target": {"values": [page]}}
    refused = shop.runbook.run("traffic", mode="block", **given)
    assert refused.returncode == 2 and "strategy=dns leads to a page and cannot block" in refused.output
    run = shop.runbook.run("traffic", mode="maintenance", **given)
    assert run.returncode == 0, run.output
    health = {"name": "page", "url": f"{state['public_url']}/health", "expect_status": [503]}
    seen = run_module("smoke_test", checks=[health], dns_servers=[state["dns"]], retry_for=10)
    assert not seen["failed"], seen["msg"]
    keys = {"access_key": "sandbox", "secret_key": "sandbox-secret", "endpoint_url": state["endpoint_url"]}
    name = {"hosted_zone_id": state["hosted_zone_id"], "record": state["public_name"], "region": EAST}
    # From any machine, and although the answer is lost.
    shop.sandbox.fault("api", service="route53", action="ChangeResourceRecordSets", kind="lost-answer", count=1)
    opened = run_module("route53_traffic", **keys, **name, state="open")
    assert not opened["failed"] and records(shop) == before, opened
    served = run_module(
        "smoke_test", checks=[health | {"expect_status": [200]}], dns_servers=[state["dns"]], retry_for=10
    )
    assert not served["failed"], served["msg"]

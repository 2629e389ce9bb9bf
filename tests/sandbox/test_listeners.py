# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rules make of a request, and which rules AWS takes; then two versions behind one load balancer."""

from __future__ import annotations

import http.client
from collections import Counter
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from compute_helpers import EAST, WEST, facts
from core_helpers import wait_until

from sandbox.listeners import Asked, Condition, Forward, Listener, Page, rule_of

BLUE, GREEN = SimpleNamespace(arn="blue"), SimpleNamespace(arn="green")


def asked(method="GET", host="api.test", path="/", query="", client="10.0.0.1", **headers):
    headers = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return Asked(method, host, 443, path, query, headers, client, "https")


# ---- pure ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "right", "wrong"),
    [
        (Condition("host-header", ("*.TEST",)), asked(), asked(host="api.example")),
        (Condition("path-pattern", ("/v1/*",)), asked(path="/v1/rows"), asked(path="/V1/rows")),
        (Condition("http-request-method", ("POST", "PUT")), asked("PUT"), asked()),
        (Condition("http-header", ("curl/*",), "User-Agent"), asked(user_agent="Curl/8"), asked(user_agent="wget")),
        (Condition("query-string", pairs=(("v", "2?"),)), asked(query="a=1&V=2x"), asked(query="v=2")),
        (Condition("query-string", pairs=((None, "beta"),)), asked(query="x=beta"), asked(query="beta=x")),
        (Condition("source-ip", ("10.0.0.0/24",)), asked(), asked(client="10.0.1.1")),
    ],
)
def test_condition(condition, right, wrong):
    assert condition.matches(right) and not condition.matches(wrong)


def test_weights_share_requests_and_zero_gets_none():
    forward = Forward(((BLUE, 3), (GREEN, 1)))
    shares = Counter(forward.choose(asked())[0].arn for _ in range(2000))
    assert 1350 < shares["blue"] < 1650
    assert Forward(((BLUE, 0), (GREEN, 1))).choose(asked())[0] is GREEN
    assert Forward(((BLUE, 0),)).choose(asked()) == (None, ())


def test_sticky_client_stays_even_at_weight_zero_until_the_rule_names_its_group_no_more():
    group, ((_, cookie), _) = Forward(((BLUE, 1), (GREEN, 0)), 60).choose(asked())
    held = asked(cookie=cookie.partition(";")[0])
    assert group is BLUE
    assert Forward(((BLUE, 0), (GREEN, 1)), 60).choose(held) == (BLUE, ())
    assert Forward(((BLUE, 0), (GREEN, 1))).choose(held)[0] is GREEN
    assert Forward(((GREEN, 1),), 60).choose(held)[0] is GREEN
    (_, stale), _ = Forward(((BLUE, 1),), -1).choose(asked())[1]
    assert Forward(((BLUE, 0), (GREEN, 1)), 60).choose(asked(cookie=stale.partition(";")[0]))[0] is GREEN


def oidc(**changes):
    config = {
        "Issuer": "https://idp",
        "AuthorizationEndpoint": "https://idp/authorize",
        "TokenEndpoint": "https://idp/token",
        "UserInfoEndpoint": "https://idp/user",
        "ClientId": "me",
    } | changes
    return {"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": config}


def decide(actions, request, conditions=()):
    groups = {"blue": BLUE, "green": GREEN}
    return Listener(443, "HTTPS", (rule_of(list(conditions), actions, groups.__getitem__, EAST),)).decide(request)


def test_authentication_comes_before_the_forward_whatever_the_order_of_the_list():
    actions = [{"Type": "forward", "TargetGroupArn": "blue", "Order": 2}, oidc()]
    page = decide(actions, asked())
    assert isinstance(page, Page) and page.status == 302
    assert page.headers[0][1].startswith("https://idp/authorize?client_id=me&redirect_uri=https%3A%2F%2Fapi.test")
    assert decide(actions, asked(cookie="AWSELBAuthSessionCookie-0=x"))[0] is BLUE
    assert decide([oidc(OnUnauthenticatedRequest="deny"), actions[0]], asked()).status == 401
    assert decide([oidc(OnUnauthenticatedRequest="allow"), actions[0]], asked())[0] is BLUE


def test_redirect_fills_in_the_parts_of_the_request():
    config = {"StatusCode": "HTTP_301", "Host": "new.#{host}", "Path": "/x/#{path}"}
    page = decide([{"Type": "redirect", "RedirectConfig": config}], asked(path="/a", query="b=1"))
    assert (page.status, page.headers) == (301, (("Location", "https://new.api.test:443/x/a?b=1"),))


# ---- the API ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(sandbox):
    """Two versions, the second behind no listener yet; tests leave the listener on port 80 as they found it."""
    sandbox.reset()
    sandbox.control("green", attached=False)
    return sandbox


@pytest.fixture(scope="module")
def elbv2(world):
    return world.boto("elbv2", EAST)


@pytest.fixture
def shift(world, elbv2):
    """Function that gives the default action of port 80 its target groups; put back at the end."""
    listener, blue = facts(world, EAST)["listener_arn"], facts(world, EAST)["target_group_arn"]

    def set_to(weights, sticky=None, **changes):
        config = {"TargetGroups": [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]}
        if sticky:
            config["TargetGroupStickinessConfig"] = {"Enabled": True, "DurationSeconds": sticky}
        return elbv2.modify_listener(
            ListenerArn=listener, DefaultActions=[{"Type": "forward", "ForwardConfig": config} | changes]
        )["Listeners"][0]["DefaultActions"]

    yield set_to
    set_to({blue: 1})
    wait_until(lambda: states(elbv2, blue) == [("healthy", None)] * 2, "the first version serves again")


@pytest.fixture(scope="module")
def both(world):
    return facts(world, EAST)["target_group_arn"], facts(world, EAST)["green_target_group_arn"]


def states(elbv2, arn):
    found = elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
    return [(each["TargetHealth"]["State"], each["TargetHealth"].get("Reason")) for each in found]


def version(world, cookie=None):
    """Who answers at port 80, and the cookie that comes with it."""
    address = facts(world, EAST)["alb_url"].removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=5)
    connection.request("GET", "/health", headers={"Cookie": cookie} if cookie else {})
    response = connection.getresponse()
    response.read()
    connection.close()
    given = response.headers.get("Set-Cookie", "").partition(";")[0]
    return response.headers.get("X-App-Version") or response.status, given


def test_group_is_checked_once_a_listener_refers_to_it(world, elbv2, both, shift):
    blue, green = both
    assert states(elbv2, green) == [("unused", "Target.NotInUse")] * 2
    (action,) = shift({blue: 1, green: 0})
    assert "TargetGroupArn" not in action
    wait_until(lambda: states(elbv2, green) == [("healthy", None)] * 2, "checked at weight 0")
    assert {version(world)[0] for _ in range(10)} == {"v2"}
    (group,) = elbv2.describe_target_groups(TargetGroupArns=[green])["TargetGroups"]
    assert group["LoadBalancerArns"] == [facts(world, EAST)["load_balancer_arn"]]
    shift({blue: 1})
    assert states(elbv2, green) == [("unused", "Target.NotInUse")] * 2


def test_requests_follow_weights_and_cookies(world, elbv2, both, shift):
    blue, green = both
    shift({blue: 1, green: 1}, sticky=60)
    wait_until(lambda: states(elbv2, green) == [("healthy", None)] * 2, "checked")
    seen = dict(version(world) for _ in range(20))
    assert set(seen) == {"v2", "v1"}
    shift({blue: 0, green: 1}, sticky=60)
    assert version(world)[0] == "v1"
    assert version(world, seen["v2"])[0] == "v2"
    shift({green: 1}, sticky=60)
    assert version(world, seen["v2"])[0] == "v1"


def test_single_group_is_described_in_both_spellings(both, shift):
    (action,) = shift({both[0]: 7})
    assert action == {
        "Type": "forward",
        "TargetGroupArn": both[0],
        "ForwardConfig": {
            "TargetGroups": [{"TargetGroupArn": both[0], "Weight": 7}],
            "TargetGroupStickinessConfig": {"Enabled": False},
        },
    }


def test_rules_of_another_port_are_served_in_their_order(world, elbv2, both):
    balancer = facts(world, EAST)["load_balancer_arn"]
    listener = elbv2.create_listener(
        LoadBalancerArn=balancer,
        Protocol="HTTP",
        Port=8080,
        DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "404", "MessageBody": "no"}}],
    )["Listeners"][0]["ListenerArn"]

    def rule(priority, path, action):
        condition = {"Field": "path-pattern", "PathPatternConfig": {"Values": [path]}}
        return elbv2.create_rule(ListenerArn=listener, Priority=priority, Conditions=[condition], Actions=[action])[
            "Rules"
        ][0]["RuleArn"]

    teapot = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "418"}}
    late, early = rule(20, "/v1/*", teapot), rule(10, "/v1/rows/*", {"Type": "forward", "TargetGroupArn": both[0]})

    def status(path):
        address = facts(world, EAST)["alb_url"].removeprefix("http://").partition(":")[0]
        connection = http.client.HTTPConnection(address, world.state["ports"]["8080"], timeout=5)
        connection.request("GET", path)
        return connection.getresponse().status

    assert (status("/other"), status("/v1/x")) == (404, 418)
    assert status("/v1/rows/1") == 404  # the application's own: it has no such row
    elbv2.set_rule_priorities(RulePriorities=[{"RuleArn": late, "Priority": 10}, {"RuleArn": early, "Priority": 20}])
    assert status("/v1/rows/1") == 418
    described = elbv2.describe_rules(ListenerArn=listener)["Rules"]
    assert [each["Priority"] for each in described] == ["10", "20", "default"]
    both_ways = {"Field": "path-pattern", "Values": ["/v1/*"], "PathPatternConfig": {"Values": ["/v1/*"]}}
    assert described[0]["Conditions"] == [both_ways]
    with pytest.raises(ClientError, match="PriorityInUse"):
        rule(20, "/x", teapot)
    with pytest.raises(ClientError, match="OperationNotPermitted"):
        elbv2.modify_rule(RuleArn=described[-1]["RuleArn"], Actions=[teapot])
    with pytest.raises(ClientError, match="DuplicateListener"):
        elbv2.create_listener(LoadBalancerArn=balancer, Protocol="HTTP", Port=8080, DefaultActions=[teapot])
    pages = list(
        elbv2.get_paginator("describe_listeners").paginate(LoadBalancerArn=balancer, PaginationConfig={"PageSize": 1})
    )
    assert [len(page["Listeners"]) for page in pages] == [1, 1]
    elbv2.delete_listener(ListenerArn=listener)
    with pytest.raises(ConnectionRefusedError):
        status("/other")


def test_what_is_refused(world, elbv2, both, shift):
    blue, _ = both
    foreign = facts(world, WEST)["target_group_arn"]
    many = {f"{blue}{n}": 1 for n in range(6)}
    for code, weights, changes in (
        ("TargetGroupNotFound", {foreign: 1}, {}),
        ("ValidationError", {blue: 1000}, {}),
        ("ValidationError", many, {}),
        ("InvalidLoadBalancerAction", {both[1]: 1}, {"TargetGroupArn": blue}),
    ):
        with pytest.raises(ClientError, match=code):
            shift(weights, **changes)
    with pytest.raises(ClientError, match="ValidationError"):
        shift({blue: 1}, sticky=604801)
    with pytest.raises(ClientError, match="InvalidLoadBalancerAction"):  # a listener of protocol HTTP
        elbv2.modify_listener(
            ListenerArn=facts(world, EAST)["listener_arn"],
            DefaultActions=[oidc(), {"Type": "forward", "TargetGroupArn": blue, "Order": 2}],
        )


@pytest.mark.parametrize(
    ("networks", "answer", "says"),
    [
        ([f"10.{number}.0.0/16" for number in range(6)], {"StatusCode": "503"}, "only have '5' condition values"),
        (["10.0.0.300/32"], {"StatusCode": "503"}, "must be a CIDR block"),
        (["10.0.0.0/8"], {"StatusCode": "301"}, "2XX, 4XX or 5XX"),
        (["10.0.0.0/8"], {"StatusCode": "503", "MessageBody": "x" * 1025}, "at most 1024"),
    ],
)
def test_rules_that_answer_have_limits(world, elbv2, networks, answer, says):
    condition = {"Field": "source-ip", "SourceIpConfig": {"Values": networks}}
    action = {"Type": "fixed-response", "FixedResponseConfig": answer}
    with pytest.raises(ClientError, match=says):
        listener = facts(world, EAST)["listener_arn"]
        elbv2.create_rule(ListenerArn=listener, Priority=7, Conditions=[condition], Actions=[action])


def test_group_belongs_to_one_balancer(world, elbv2, both):
    first = elbv2.describe_load_balancers()["LoadBalancers"][0]
    other = elbv2.create_load_balancer(Name="other", Subnets=[zone["SubnetId"] for zone in first["AvailabilityZones"]])
    arn = other["LoadBalancers"][0]["LoadBalancerArn"]
    listener = {"LoadBalancerArn": arn, "Protocol": "HTTP", "Port": 80}
    with pytest.raises(ClientError, match="TargetGroupAssociationLimit"):
        elbv2.create_listener(**listener, DefaultActions=[{"Type": "forward", "TargetGroupArn": both[0]}])
    elbv2.create_listener(**listener, DefaultActions=[{"Type": "forward", "TargetGroupArn": both[1]}])
    elbv2.delete_load_balancer(LoadBalancerArn=arn)


def test_client_secret_is_kept_and_never_shown(world, elbv2, both):
    forward = {"Type": "forward", "TargetGroupArn": both[0], "Order": 2}
    new = {"LoadBalancerArn": facts(world, EAST)["load_balancer_arn"], "Protocol": "HTTPS", "Port": 443}
    new["Certificates"] = [{"CertificateArn": "arn:aws:iam::123456789012:server-certificate/api"}]
    with pytest.raises(ClientError, match="client secret"):
        elbv2.create_listener(**new, DefaultActions=[oidc(), forward])
    made = elbv2.create_listener(**new, DefaultActions=[oidc(ClientSecret="hush"), forward])["Listeners"][0]
    shown = made["DefaultActions"][0]["AuthenticateOidcConfig"]
    assert "ClientSecret" not in shown and shown["OnUnauthenticatedRequest"] == "authenticate"
    change = {"ListenerArn": made["ListenerArn"]}
    with pytest.raises(ClientError, match="client secret"):
        elbv2.modify_listener(**change, DefaultActions=[oidc(), forward])
    elbv2.modify_listener(**change, DefaultActions=[oidc(UseExistingClientSecret=True), forward])
    elbv2.delete_listener(**change)


def test_group_with_none_healthy_fails_open_and_its_errors_are_counted(world, elbv2, both, shift):
    blue, green = both
    shift({blue: 0, green: 1})
    wait_until(lambda: states(elbv2, green) == [("healthy", None)] * 2, "checked")
    world.fault("standby-unhealthy", region=EAST)
    wait_until(lambda: {state for state, _ in states(elbv2, green)} == {"unhealthy"}, "unhealthy")
    assert version(world)[0] == "v1"
    world.heal()
    cloudwatch = world.boto("cloudwatch", EAST)

    def counted():
        return [
            each
            for each in cloudwatch.list_metrics(Namespace="AWS/ApplicationELB", MetricName="HTTPCode_Target_2XX_Count")[
                "Metrics"
            ]
            if {"Name": "TargetGroup", "Value": green.rpartition(":")[2]} in each["Dimensions"]
        ]

    wait_until(counted, "the second group's own count in CloudWatch")

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole verb on an API that answers as Route 53 does: the calls in their order, and nothing besides."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import dns, waiting
from ansible_collections.sre.runbooks.plugins.module_utils import verb as engine
from ansible_collections.sre.runbooks.plugins.module_utils.dns import Answer
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.patience import Patience
from ansible_collections.sre.runbooks.plugins.modules import route53_failover
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

ZONE, NAME = "Z1234567890ABC", "api.regami.test"
GROUP = "arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/regami-tg-secondary/50dc6c495c0c9188"
ADDRESSES = {"primary.elb.test": "192.0.2.10", "secondary.elb.test": "198.51.100.20"}
ARGUMENTS = {
    "hosted_zone_id": ZONE,
    "record": NAME,
    "set_identifier": "secondary",
    "target_groups": [{"arn": GROUP, "region": "us-west-2"}],
    "dns_servers": ["192.0.2.53"],
    "region": "us-west-2",
}
CONTROLS = {
    "record": NAME,
    "routing_controls": {
        "cluster_endpoints": [{"region": "us-west-2", "endpoint_url": "https://west.example.com/v1"}],
        "turn_on": "arn:west",
        "turn_off": "arn:east",
    },
    "target_groups": [{"arn": GROUP, "region": "us-west-2"}],
    "dns_servers": ["192.0.2.53"],
    "region": "us-west-2",
}


def record(identifier: str, role: str) -> dict:
    target = {"HostedZoneId": "Z35SXDOTRQ7X7K", "DNSName": f"{identifier}.elb.test.", "EvaluateTargetHealth": True}
    return {"Name": f"{NAME}.", "Type": "A", "SetIdentifier": identifier, "Failover": role, "AliasTarget": target}


class FakeAws:
    """Two record sets, one target group, one cluster; remembers each call."""

    region = "us-west-2"

    def __init__(self) -> None:
        self.sets = [record("primary", "PRIMARY"), record("secondary", "SECONDARY")]
        self.controls = {"arn:east": "On", "arn:west": "Off"}
        self.health = "healthy"
        self.status = ["PENDING", "INSYNC"]
        self.lost: list[str] = []
        self.silent: set[str] = set()
        self.missed: list[str] = []
        self.patience = Patience()
        self.calls: list[str] = []

    def read(self, service: str, operation: str, region: str | None = None, **arguments: object) -> dict:
        self.calls.append(operation)
        match operation:
            case "list_resource_record_sets":
                return {"ResourceRecordSets": copy.deepcopy(self.sets), "IsTruncated": False}
            case "get_hosted_zone":
                return {"DelegationSet": {"NameServers": ["ns-1.example.com"]}}
            case "describe_target_health":
                assert region == "us-west-2"
                health = {"State": self.health, "Reason": "Target.Timeout"}
                return {
                    "TargetHealthDescriptions": [{"Target": {"Id": "10.0.0.1", "Port": 8000}, "TargetHealth": health}]
                }
            case "describe_target_groups":
                return {"TargetGroups": [{"LoadBalancerArns": ["arn:alb"]}]}
            case "describe_load_balancers":
                return {"LoadBalancers": [{"DNSName": "secondary.elb.test"}]}
            case "get_change":
                assert arguments == {"Id": "C42"}
                return {"ChangeInfo": {"Status": self.status.pop(0)}}
        raise AssertionError(operation)

    def change(self, service: str, operation: str, **arguments: object) -> dict:
        self.calls.append(operation)
        assert operation == "change_resource_record_sets"
        lost = self.lost.pop(0) if self.lost else None
        if lost != "before":
            self.sets = [change["ResourceRecordSet"] for change in arguments["ChangeBatch"]["Changes"]]
        if lost:
            raise LostAnswer("no answer")
        return {"ChangeInfo": {"Id": "/change/C42"}}

    def client(self, service: str, region: str, endpoint_url: str, timeout: float) -> FakeAws:
        assert (service, region) == ("route53-recovery-cluster", "us-west-2")
        return self

    def get_routing_control_state(self, RoutingControlArn: str) -> dict:
        self.calls.append("get_routing_control_state")
        return {"RoutingControlState": self.controls[RoutingControlArn]}

    def update_routing_control_states(self, UpdateRoutingControlStateEntries: list) -> None:
        self.calls.append("update_routing_control_states")
        self.controls = {
            entry["RoutingControlArn"]: entry["RoutingControlState"] for entry in UpdateRoutingControlStateEntries
        }

    def answer(self) -> str:
        """What the name servers give."""
        if self.controls["arn:west"] == "On":
            return ADDRESSES["secondary.elb.test"]
        serve = next(there for there in self.sets if there["Failover"] == "PRIMARY")
        return ADDRESSES[serve["AliasTarget"]["DNSName"].rstrip(".")]


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    fake = FakeAws()
    monkeypatch.setattr(engine, "Aws", lambda connection: fake)
    monkeypatch.setattr(dns, "ask_all", lambda servers, name, kind: [Answer(frozenset({fake.answer()}), 20, True)])
    monkeypatch.setattr(dns, "resolve", lambda name, servers, kind: frozenset({ADDRESSES[name.rstrip(".")]}))
    return fake


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    clock = Clock()
    monkeypatch.setattr(route53_failover, "time", clock)
    monkeypatch.setattr(waiting.wait_until, "__defaults__", (None, None, str, clock.monotonic, clock.sleep))

    def go(arguments: dict, check: bool = False) -> dict:
        return run_main(route53_failover.main, check, **arguments)

    return go


def test_moves_the_pair_and_waits_for_everybody(aws: FakeAws, run: Callable) -> None:
    result = run(ARGUMENTS)
    assert sorted(aws.calls[:2]) == ["describe_target_health", "list_resource_record_sets"]
    assert aws.calls[2:] == ["change_resource_record_sets", "get_change", "get_change", "list_resource_record_sets"]
    assert result["changed"]
    assert (result["before"]["serves"], result["after"]["serves"]) == ("primary", "secondary")
    assert (result["before"]["answers"], result["after"]["answers"]) == (["192.0.2.10"], ["198.51.100.20"])
    assert [step["do"] for step in result["steps"]] == ["move_records", "follow"]
    assert result["previous_record_sets"] == [record("primary", "PRIMARY"), record("secondary", "SECONDARY")]
    assert 20 <= result["waited_seconds"] < 20.2  # the TTL that the name server told, slept through exactly


def test_the_undo_is_the_verb_itself_and_restores_every_set(aws: FakeAws, run: Callable) -> None:
    before = copy.deepcopy(aws.sets)
    (undo,) = run(ARGUMENTS)["undo"]
    assert undo["verb"] == "sre.runbooks.route53_failover"
    aws.status = ["INSYNC"]
    assert run(dict(undo["arguments"], region="us-west-2"))["changed"]
    assert aws.sets == before


def test_check_mode_predicts_and_changes_nothing(aws: FakeAws, run: Callable) -> None:
    predicted = run(ARGUMENTS, check=True)
    assert "change_resource_record_sets" not in aws.calls
    done = run(ARGUMENTS)
    for key in ("changed", "before", "after", "steps", "diff"):
        assert predicted[key] == done[key]


def test_a_second_run_finds_nothing_to_do(aws: FakeAws, run: Callable) -> None:
    run(ARGUMENTS)
    aws.calls.clear()
    result = run(ARGUMENTS)
    assert (result["changed"], result["steps"], result["undo"], result["waited_seconds"]) == (False, [], [], 0.0)
    assert sorted(aws.calls) == ["describe_target_health", "list_resource_record_sets"]


def test_a_run_after_a_killed_one_waits_for_the_name_servers_and_reports_ok(
    aws: FakeAws, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.sets = [record("primary", "SECONDARY"), record("secondary", "PRIMARY")]
    answers = ["192.0.2.10", "192.0.2.10", "198.51.100.20", "198.51.100.20"]
    monkeypatch.setattr(dns, "ask_all", lambda servers, name, kind: [Answer(frozenset({answers.pop(0)}), 20, True)])
    result = run(ARGUMENTS)
    assert [step["do"] for step in result["steps"]] == ["follow"]
    assert (result["changed"], result["undo"], answers) == (False, [], [])


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_lost_answer_leaves_out_no_wait(aws: FakeAws, run: Callable, lost: str) -> None:
    aws.lost = [lost]
    result = run(ARGUMENTS)
    assert aws.calls[2:] == [
        "change_resource_record_sets",
        "list_resource_record_sets",
        "change_resource_record_sets",
        "get_change",
        "get_change",
        "list_resource_record_sets",
    ]
    assert [step["do"] for step in result["steps"]] == ["move_records", "follow"]
    assert result["waited_seconds"] >= 20


def test_without_dns_servers_those_of_the_zone_are_asked_and_then_the_resolver(
    aws: FakeAws, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask_all(servers: list, name: str, kind: str) -> list[Answer]:
        asked.append(servers)
        if servers != [None]:
            raise Unreachable("no answer")
        return [Answer(frozenset({aws.answer()}), 3)]

    monkeypatch.setattr(dns, "ask_all", ask_all)
    result = run({name: value for name, value in ARGUMENTS.items() if name != "dns_servers"})
    assert "get_hosted_zone" in aws.calls
    assert asked[:2] == [["ns-1.example.com"], [None]]
    assert asked[2:] == [[None]] * len(asked[2:])
    assert "the name servers of the zone could not be asked, only a resolver that caches" in result["notes"]
    assert result["waited_seconds"] >= 60  # what a cache has left says nothing of the TTL


def test_a_wait_that_ran_out_says_what_was_done_and_how_to_undo_it(aws: FakeAws, run: Callable) -> None:
    aws.status = ["PENDING"] * 100
    result = run(dict(ARGUMENTS, wait_timeout=30))
    assert result["failed"]
    assert result["msg"] == (
        "Route 53 tells its name servers of api.regami.test: still PENDING after 30 s. Done so far: move api.regami.test "
        "from primary to secondary in one change batch. The same command again goes on from here"
    )
    assert result["changed"]
    assert result["undo"][0]["arguments"]["set_identifier"] == "primary"


def test_an_unhealthy_target_changes_nothing(aws: FakeAws, run: Callable) -> None:
    aws.health = "unhealthy"
    result = run(ARGUMENTS)
    assert result["failed"]
    assert "10.0.0.1:8000 unhealthy Target.Timeout" in result["msg"]
    assert "change_resource_record_sets" not in aws.calls
    result = run(dict(ARGUMENTS, allow_unhealthy_target=True))
    assert result["changed"]
    assert result["notes"][0].startswith("allow_unhealthy_target: target group regami-tg-secondary")


def test_routing_controls_touch_no_control_plane(aws: FakeAws, run: Callable) -> None:
    result = run(CONTROLS)
    assert sorted(set(aws.calls)) == [
        "describe_load_balancers",
        "describe_target_groups",
        "describe_target_health",
        "get_routing_control_state",
        "update_routing_control_states",
    ]
    assert aws.calls.count("update_routing_control_states") == 1
    assert aws.controls == {"arn:west": "On", "arn:east": "Off"}
    assert result["after"] == {"controls": {"arn:west": "On", "arn:east": "Off"}, "answers": ["198.51.100.20"]}
    assert result["waited_seconds"] >= 20
    (undo,) = result["undo"]
    assert undo["arguments"]["routing_controls"]["turn_on"] == "arn:east"
    assert run(CONTROLS)["changed"] is False


@pytest.mark.parametrize(
    ("without", "message"),
    [("hosted_zone_id", "hosted_zone_id, routing_controls"), ("set_identifier", "set_identifier, alias_target")],
)
def test_what_shall_move_where_must_be_said(run: Callable, without: str, message: str) -> None:
    result = run({name: value for name, value in ARGUMENTS.items() if name != without})
    assert f"one of the following is required: {message}" in result["msg"]

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

from ansible_collections.sre.runbooks.plugins.module_utils.arc import RoutingControls, plan_controls
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.patience import Patience

EAST, WEST = "arn:aws:route53-recovery-control::123456789012:controlpanel/p/routingcontrol/east", "arn:west"
WANTED = {"turn_on": WEST, "turn_off": EAST}
REGIONS = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2"]
ENDPOINTS = [{"region": region, "endpoint_url": f"https://{region}.example.com/v1"} for region in REGIONS]


def no(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": {}}, "operation")


class Cluster:
    """Five endpoints; `broken` maps a region to the exception that it raises."""

    def __init__(self, **broken: Exception) -> None:
        self.broken = {region.replace("_", "-"): error for region, error in broken.items()}
        self.state = {EAST: "On", WEST: "Off"}
        self.patience = Patience()
        self.calls: list[tuple[str, str]] = []

    def client(self, service: str, region: str, endpoint_url: str, timeout: float) -> object:
        assert (service, endpoint_url) == ("route53-recovery-cluster", f"https://{region}.example.com/v1")
        assert timeout <= 3
        cluster = self

        class Client:
            def get_routing_control_state(self, RoutingControlArn: str) -> dict:
                cluster.answer(region, "get")
                return {"RoutingControlState": cluster.state[RoutingControlArn]}

            def update_routing_control_states(self, UpdateRoutingControlStateEntries: list) -> dict:
                cluster.answer(region, "update")
                for entry in UpdateRoutingControlStateEntries:
                    cluster.state[entry["RoutingControlArn"]] = entry["RoutingControlState"]
                return {}

        return Client()

    def answer(self, region: str, what: str) -> None:
        self.calls.append((region, what))
        if region in self.broken:
            raise self.broken[region]


def test_one_goes_on_and_one_off_together() -> None:
    assert plan_controls({EAST: "On", WEST: "Off"}, WANTED) == {WEST: "On", EAST: "Off"}
    assert plan_controls({EAST: "Off", WEST: "Off"}, WANTED) == {WEST: "On", EAST: "Off"}
    assert plan_controls({EAST: "Off", WEST: "On"}, WANTED) == {}


def test_the_same_control_twice_is_refused() -> None:
    with pytest.raises(Refusal, match="are the same control"):
        plan_controls({EAST: "On"}, {"turn_on": EAST, "turn_off": EAST})


def test_both_controls_change_in_one_call() -> None:
    cluster = Cluster()
    RoutingControls(cluster, ENDPOINTS).set({WEST: "On", EAST: "Off"})
    assert cluster.state == {WEST: "On", EAST: "Off"}
    assert cluster.calls == [("us-east-1", "update")]


def test_an_endpoint_that_is_gone_is_tried_once_and_then_comes_last() -> None:
    cluster = Cluster(
        us_east_1=ConnectTimeoutError(endpoint_url="x"), us_west_2=no("EndpointTemporarilyUnavailableException")
    )
    controls = RoutingControls(cluster, ENDPOINTS)
    assert controls.states([WEST, EAST]) == {WEST: "Off", EAST: "On"}
    controls.set({WEST: "On", EAST: "Off"})
    assert cluster.calls == [
        ("us-east-1", "get"),
        ("us-west-2", "get"),
        ("eu-west-1", "get"),
        ("eu-west-1", "get"),
        ("eu-west-1", "update"),
    ]


def test_a_lost_answer_is_asked_again_at_the_next_endpoint() -> None:
    cluster = Cluster(us_east_1=ReadTimeoutError(endpoint_url="x"))
    RoutingControls(cluster, ENDPOINTS).set({WEST: "On", EAST: "Off"})
    assert cluster.calls == [("us-east-1", "update"), ("us-west-2", "update")]


def test_with_all_endpoints_gone_it_says_so() -> None:
    cluster = Cluster(**{region.replace("-", "_"): ConnectTimeoutError(endpoint_url="x") for region in REGIONS})
    with pytest.raises(Unreachable, match="none of the 5 endpoints"):
        RoutingControls(cluster, ENDPOINTS).states([WEST])


def test_a_safety_rule_is_told_in_words_and_not_asked_of_the_next_endpoint() -> None:
    cluster = Cluster(us_east_1=no("ConflictException", "MinCellsActive: at least 1 control must be On"))
    with pytest.raises(Refusal, match=r"a safety rule .* forbids the change: MinCellsActive"):
        RoutingControls(cluster, ENDPOINTS).set({WEST: "Off", EAST: "Off"})
    assert len(cluster.calls) == 1


def test_an_unknown_control_is_refused_by_option() -> None:
    cluster = Cluster(us_east_1=no("ResourceNotFoundException", "not found"))
    with pytest.raises(Refusal, match=r"check routing_controls\.turn_on and routing_controls\.turn_off"):
        RoutingControls(cluster, ENDPOINTS).states([WEST])


def test_a_missing_permission_is_no_reason_to_try_elsewhere() -> None:
    cluster = Cluster(us_east_1=no("AccessDeniedException"))
    with pytest.raises(ClientError):
        RoutingControls(cluster, ENDPOINTS).states([WEST])
    assert len(cluster.calls) == 1

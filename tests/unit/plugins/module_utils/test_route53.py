# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils import route53
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal, Stop

NAME, ZONE = "api.regami.test", "Z1234567890ABC"
PRIMARY_ALB, SECONDARY_ALB = (
    "regami-alb.us-east-1.elb.amazonaws.com.",
    "regami-alb-secondary.us-west-2.elb.amazonaws.com.",
)


def alias(identifier=None, dns_name=PRIMARY_ALB, **fields):
    record = {"Name": f"{NAME}.", "Type": "A"}
    if identifier:
        record["SetIdentifier"] = identifier
    target = {"HostedZoneId": "Z35SXDOTRQ7X7K", "DNSName": dns_name, "EvaluateTargetHealth": True}
    return {**record, **fields, "AliasTarget": target}


def values(identifier, *addresses, **fields):
    records = [{"Value": address} for address in addresses]
    return {
        "Name": f"{NAME}.",
        "Type": "A",
        "SetIdentifier": identifier,
        **fields,
        "TTL": 30,
        "ResourceRecords": records,
    }


def pair():
    return [
        alias("primary", PRIMARY_ALB, Failover="PRIMARY", HealthCheckId="hc-1"),
        alias("secondary", SECONDARY_ALB, Failover="SECONDARY"),
    ]


def wanted(set_identifier=None, alias_target=None):
    return {
        "record": NAME,
        "type": "A",
        "hosted_zone_id": ZONE,
        "set_identifier": set_identifier,
        "alias_target": alias_target,
    }


def test_a_failover_pair_swaps_its_roles_and_keeps_all_else() -> None:
    before = pair()
    kept = copy.deepcopy(before)
    first, second = route53.plan_records(before, wanted("secondary"))
    assert first == dict(before[0], Failover="SECONDARY")
    assert second == dict(before[1], Failover="PRIMARY")
    assert before == kept


def test_swapping_twice_restores_every_set() -> None:
    there = route53.plan_records(pair(), wanted("secondary"))
    assert list(route53.plan_records(list(there), wanted("primary"))) == pair()


def test_nothing_is_left_where_the_set_serves_already() -> None:
    assert route53.plan_records(pair(), wanted("primary")) == ()


@pytest.mark.parametrize(
    ("weights", "then"), [((100, 0), (0, 100)), ((0, 0), (0, 100)), ((3, 7), (0, 10)), ((255, 255), (0, 255))]
)
def test_weights_move_whole(weights: tuple[int, int], then: tuple[int, int]) -> None:
    sets = [values("a", "192.0.2.1", Weight=weights[0]), values("b", "192.0.2.2", Weight=weights[1])]
    moved = route53.plan_records(sets, wanted("b"))
    assert tuple(record["Weight"] for record in moved) == then
    assert [dict(record, Weight=0) for record in moved] == [dict(record, Weight=0) for record in sets]


def test_a_simple_alias_gets_its_new_target_as_route_53_writes_it() -> None:
    target = {"hosted_zone_id": "Z1H1FL5HABSF5", "dns_name": SECONDARY_ALB.rstrip("."), "evaluate_target_health": True}
    (moved,) = route53.plan_records([alias()], wanted(alias_target=target))
    assert moved["AliasTarget"] == {
        "HostedZoneId": "Z1H1FL5HABSF5",
        "DNSName": SECONDARY_ALB,
        "EvaluateTargetHealth": True,
    }
    assert route53.plan_records([moved], wanted(alias_target=target)) == ()


@pytest.mark.parametrize(
    ("sets", "want", "line"),
    [
        ([], wanted("secondary"), r"there is no record api\.regami\.test A in zone Z.*: it has app\.regami\.test A"),
        (pair(), wanted("west"), r"has no set west: set_identifier is one of primary, secondary"),
        (
            pair(),
            wanted(alias_target={"dns_name": "x"}),
            r"has several sets \(primary, secondary\): give set_identifier",
        ),
        ([alias()], wanted("secondary"), r"is one record without sets: give alias_target"),
        ([pair()[1]], wanted("secondary"), r"is no failover pair \(it has SECONDARY\)"),
        (
            [pair()[0], alias("secondary", Failover="PRIMARY")],
            wanted("secondary"),
            r"is no failover pair \(it has PRIMARY and PRIMARY\)",
        ),
        (
            [pair()[0], values("secondary", "192.0.2.2", Failover="SECONDARY")],
            wanted("secondary"),
            r"set secondary .* is no alias and has no health check",
        ),
        (
            [alias("east", Region="us-east-1"), alias("west", Region="us-west-2")],
            wanted("west"),
            r"has latency routing",
        ),
        (
            [{"Name": NAME, "Type": "A", "TTL": 5, "ResourceRecords": [{"Value": "192.0.2.1"}]}],
            wanted(alias_target={"dns_name": "x"}),
            r"is no alias",
        ),
    ],
)
def test_a_move_that_cannot_be_or_would_not_be_safe_is_refused(sets: list, want: dict, line: str) -> None:
    with pytest.raises(Refusal, match=line):
        route53.plan_records(sets, want, names=["admin.regami.test A", "app.regami.test A"])


def test_a_set_that_serves_is_named_only_where_it_is_the_only_one() -> None:
    assert route53.serving(pair())["SetIdentifier"] == "primary"
    assert route53.serving([values("a", "192.0.2.1", Weight=1), values("b", "192.0.2.2", Weight=1)]) is None
    assert route53.serving([alias()]) == alias()


class FakeAws:
    """Answers from a script of (operation, answer or exception); any other call fails the test."""

    def __init__(self, *script: tuple) -> None:
        self.script = list(script)

    def read(self, service: str, operation: str, **_arguments: object) -> object:
        assert service == "route53"
        expected, answer = self.script.pop(0)
        assert operation == expected
        if isinstance(answer, Exception):
            raise answer
        return answer

    change = read


def page(*records: dict, **more: str) -> tuple:
    return "list_resource_record_sets", {"ResourceRecordSets": list(records), "IsTruncated": bool(more), **more}


ACCEPTED = ("change_resource_record_sets", {"ChangeInfo": {"Id": "/change/C42", "Status": "PENDING"}})
LOST = ("change_resource_record_sets", LostAnswer("no answer"))


def zone(*script: tuple) -> route53.Zone:
    return route53.Zone(FakeAws(*script), ZONE)


def test_record_sets_are_read_over_pages_and_no_further_than_the_name() -> None:
    first, second = pair()
    more = {"NextRecordName": f"{NAME}.", "NextRecordType": "A", "NextRecordIdentifier": "secondary"}
    there = zone(
        page(first, **more), page(second, dict(second, Name="b.regami.test."), NextRecordName="c.regami.test.")
    )
    assert there.record_sets("API.regami.test.", "A") == [first, second]
    assert not there._aws.script


def test_the_change_is_named_by_its_own_id() -> None:
    there = zone(ACCEPTED, ("get_change", {"ChangeInfo": {"Status": "INSYNC"}}))
    assert there.send(pair(), pair()) == "C42"
    assert there.status("C42") == "INSYNC"


@pytest.mark.parametrize("applied", [True, False])
def test_after_a_lost_answer_the_batch_is_looked_for_and_sent_again_for_its_id(applied: bool) -> None:
    old, new = pair(), list(route53.plan_records(pair(), wanted("secondary")))
    there = zone(LOST, page(*(new if applied else old)), ACCEPTED)
    assert there.send(old, new) == "C42"
    assert not there._aws.script


def test_after_a_lost_answer_the_change_of_somebody_else_stops_the_move() -> None:
    old, new = pair(), list(route53.plan_records(pair(), wanted("secondary")))
    foreign = alias("primary", "somewhere.else.", Failover="PRIMARY")
    there = zone(LOST, page(foreign, new[1]))
    with pytest.raises(Stop, match="changed by somebody else"):
        there.send(old, new)


def test_answers_lost_for_good_stop_the_move_without_a_second_look_by_the_engine() -> None:
    old, new = pair(), list(route53.plan_records(pair(), wanted("secondary")))
    there = zone(LOST, *[page(*old), LOST] * route53.SEND_TRIES)
    with pytest.raises(Stop, match="was sent 4 times: run the same command again") as stop:
        there.send(old, new)
    assert not isinstance(stop.value, LostAnswer)


def test_a_zone_that_is_not_there_is_refused_by_name() -> None:
    error = ClientError({"Error": {"Code": "NoSuchHostedZone"}, "ResponseMetadata": {}}, "ListResourceRecordSets")
    with pytest.raises(Refusal, match=f"there is no hosted zone {ZONE} in this account"):
        zone(("list_resource_record_sets", error)).record_sets(NAME, "A")

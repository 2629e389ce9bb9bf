# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""room: what is left of quotas, subnets and connections, and what not knowing means."""

from __future__ import annotations

import datetime
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils import rds, room, sessions
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.room import Room

METRIC = {"MetricNamespace": "AWS/Usage", "MetricName": "ResourceCount", "MetricDimensions": {"Resource": "vCPU"}}
INSTANCE = {"id": "db", "arn": "arn:aws:rds:us-east-1:1:db:db", "host": "db.test", "port": 5432, "status": "available"}


def refusal(code):
    return ClientError({"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "Get")


class Aws:
    """Answers by operation; an exception is raised."""

    region = "us-east-1"

    def __init__(self, **answers):
        self.answers = answers

    def read(self, _service, operation, /, **_arguments):
        answer = self.answers[operation]
        if isinstance(answer, Exception):
            raise answer
        return answer


def points(*values):
    start = datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC)
    return {
        "Datapoints": [
            {"Timestamp": start + datetime.timedelta(minutes=number), "Maximum": value}
            for number, value in enumerate(values)
        ]
    }


def vcpus(own=0.0, **answers):
    return room.quota(Aws(**answers), "fargate", "L-1", "vCPUs", 0.5, own)


def test_the_newest_usage_counts_but_never_less_than_our_own():
    quota = {"Quota": {"Value": 10.0, "UsageMetric": METRIC}}
    assert vcpus(get_service_quota=quota, get_metric_statistics=points(9.0, 4.0)).free == 6.0
    assert vcpus(5.0, get_service_quota=quota, get_metric_statistics=points()).free == 5.0


def test_a_quota_that_was_never_raised_is_the_default_one():
    default = {"Quota": {"Value": 6.0}}
    found = vcpus(get_service_quota=refusal("NoSuchResourceException"), get_aws_default_service_quota=default)
    assert found.free == 6.0


@pytest.mark.parametrize("error", [refusal("AccessDeniedException"), Unreachable("no answer")])
def test_a_quota_that_nobody_tells_does_not_stop_anybody(error):
    unknown = vcpus(get_service_quota=error)
    assert unknown.free is None
    (note,) = room.check("tasks", 2, [unknown], accept=False)
    assert note.startswith("NOT CHECKED: whether 2 more tasks find their vCPUs is not known")


def test_free_addresses_are_added_up():
    subnets = [{"SubnetId": name, "AvailableIpAddressCount": free} for name, free in (("a", 1), ("b", 3))]
    found = room.addresses(Aws(describe_subnets={"Subnets": subnets}), ["a", "b"])
    assert (found.free, found.detail) == (4, "1 in a, 3 in b")


@pytest.fixture
def database(monkeypatch):
    """Room of a database in which so many connections of `usable` are in use, or that raises."""

    def of(usable=95, used=0, error=None, is_there=True):
        def look(_sessions):
            if error:
                raise error
            return SimpleNamespace(
                used=used, max_connections=usable + 5, reserved_for_superusers=3, reserved_for_entitled=2
            )

        monkeypatch.setattr(rds, "describe", lambda *_given: INSTANCE if is_there else None)
        monkeypatch.setattr(rds, "not_found", lambda *_given: Refusal("there is no RDS instance db"))
        monkeypatch.setattr(sessions.Sessions, "look", look)
        return room.connections(Aws(), "db", SimpleNamespace(given=True, db="regami"), 10, 4)

    return of


def test_connections_that_pools_may_open_are_not_free(database):
    assert database(used=12).free == 55
    assert database(used=80).free == 15


def test_a_database_that_does_not_tell_refuses_until_that_is_accepted(database):
    unknown = database(error=Unreachable("the database does not answer"))
    with pytest.raises(Refusal, match="accept_shortage=true goes on all the same"):
        room.check("tasks", 1, [unknown], accept=False)
    assert room.check("tasks", 1, [unknown], accept=True)[0].startswith("ACCEPTED: ")


def test_a_database_that_does_not_exist_is_a_mistake(database):
    with pytest.raises(Refusal, match="there is no RDS instance db"):
        database(is_there=False)


def test_too_little_says_how_many_would_fit():
    rooms = [Room("vCPUs", 0.5, 1.0, "9 of 10 are used", "ask for more"), Room("addresses", 1, 5, "5 in a", "add one")]
    assert room.check("tasks of api", 2, rooms, accept=False) == []
    with pytest.raises(Refusal) as refused:
        room.check("tasks of api", 4, rooms, accept=False)
    assert str(refused.value) == (
        "4 more tasks of api take 2 vCPUs, and 1 are left (9 of 10 are used): ask for more; 2 would fit; "
        "accept_shortage=true goes on all the same"
    )
    assert room.check("tasks of api", 4, rooms, accept=True)[0].startswith("ACCEPTED: 4 more tasks of api take 2 vCPUs")


def test_fewer_need_no_room():
    assert room.check("tasks", 0, [Room("vCPUs", 1, 0, "", "")], accept=False) == []
    assert room.check("tasks", -2, [Room("vCPUs", 1, None, "", "", must_be_known=True)], accept=False) == []

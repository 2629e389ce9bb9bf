# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What keeps a standby from taking over while the other region is gone."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import (
    NotLetIn,
    Refusal,
    Throttled,
    Unreachable,
    because_and_fix,
)
from ansible_collections.sre.runbooks.plugins.module_utils.room import Room
from ansible_collections.sre.runbooks.plugins.module_utils.static_stability import needs
from ansible_collections.sre.runbooks.plugins.modules.standby_assess import StandbyAssess

EAST = "us-east-1"


def definition(**container):
    return {"containerDefinitions": [{"name": "app", "image": "1.dkr.ecr.us-west-2.amazonaws.com/app:v2", **container}]}


def wanted(**given):
    return {
        "failed_region": EAST,
        "leaves_region": True,
        "desired_count": 2,
        "moved_variables": ["DATABASE_URL"],
        "buckets": [],
        "accept_missing": False,
        "accept_shortage": False,
        **given,
    }


def seen(**given):
    service = {"serviceName": "standby", "desiredCount": 0}
    return {
        "service": service,
        "definition": definition(),
        "source_serves": False,
        "there": {},
        "left": {},
        "rooms": [],
        "region": "us-west-2",
        **given,
    }


@pytest.mark.parametrize(
    ("container", "told"),
    [
        ({"image": f"1.dkr.ecr.{EAST}.amazonaws.com/app:v2"}, "the image of app is pulled from us-east-1"),
        ({"secrets": [{"name": "KEY", "valueFrom": f"arn:aws:ssm:{EAST}:1:parameter/k"}]}, "KEY of app comes from"),
        (
            {"environment": [{"name": "QUEUE", "value": f"https://sqs.{EAST}.amazonaws.com/1/q"}]},
            "variable QUEUE of app",
        ),
        ({"logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-region": EAST}}}, "app logs to us-east-1"),
        ({"environmentFiles": [{"type": "s3", "value": f"arn:aws:s3:::settings-{EAST}/app.env"}]}, "from a file"),
    ],
)
def test_what_a_task_takes_of_the_region_that_is_left(container, told):
    (line,) = needs(definition(**container), EAST)
    assert told in line and "amazonaws.com/1/q" not in line


@pytest.mark.parametrize("value", ["https://sqs.us-west-2.amazonaws.com/1/q", "us-east-12", "prus-east-1"])
def test_what_is_no_matter(value):
    environment = [{"name": "QUEUE", "value": value}, {"name": "DATABASE_URL", "value": f"db.{EAST}.x"}]
    assert list(needs(definition(environment=environment), EAST, ["DATABASE_URL"])) == []


NO_SUCH_QUEUE = Refusal("the queue is not there")


def test_what_is_missing_refuses_unless_accepted():
    hanging = seen(
        definition=definition(image=f"1.dkr.ecr.{EAST}.amazonaws.com/app:v2"),
        there={"the cache c": "is creating", "the queue q": NO_SUCH_QUEUE, "the bucket b": None},
    )
    with pytest.raises(Refusal) as caught:
        StandbyAssess.plan(hanging, wanted())
    told = str(caught.value)
    assert all(
        word in told
        for word in ("pulled from us-east-1", "c is creating", "queue is not there", "-e accept_missing=true")
    )
    found = StandbyAssess.plan(hanging, wanted(accept_missing=True))
    assert len(found.returned["missing"]) == 3 and all(note.startswith("ACCEPTED: ") for note in found.notes)


def test_what_comes_from_a_region_that_serves_is_noted():
    image = {"image": f"1.dkr.ecr.{EAST}.amazonaws.com/app:v2"}
    plan = StandbyAssess.plan(seen(definition=definition(**image), source_serves=True), wanted(leaves_region=False))
    (note,) = plan.notes
    assert note.startswith("ACCEPTED, since us-east-1 answers: the image of app is pulled from us-east-1")
    assert plan.returned["missing"] == []


@pytest.mark.parametrize("silence", [Unreachable("no answer"), NotLetIn("missing permission"), Throttled("too often")])
def test_who_cannot_be_asked_has_not_said_no(silence):
    plan = StandbyAssess.plan(seen(there={"the image app:v2": silence}), wanted())
    assert plan.notes == (f"NOT CHECKED: the image app:v2: {silence}",) and plan.returned["missing"] == []


def test_all_that_is_in_the_way_is_said_at_once():
    lacking = seen(there={"the secret s": "is not there"}, rooms=[Room("addresses", 1, 1, "1 in subnet-a", "more")])
    with pytest.raises(Refusal) as caught:
        StandbyAssess.plan(lacking, wanted())
    because, fix = because_and_fix(str(caught.value).removesuffix("; nothing was changed"))
    assert "2 more tasks" in because and "accept_shortage=true" in because and "the secret s is not there" in because
    assert fix == "mend that, or say -e accept_missing=true"
    with pytest.raises(Refusal, match=r"^2 more tasks .* goes on all the same; nothing was changed$"):
        StandbyAssess.plan(lacking, wanted(accept_missing=True))


class Standby:
    """AWS that has every image and secret; says which regions were asked."""

    region = "us-west-2"

    def __init__(self):
        self.asked = []

    def read(self, service, operation, /, region, **arguments):
        self.asked.append(region)
        return {"describe_images": {"imageDetails": [{"imageDigest": "sha256:1"}]}, "describe_secret": {}}[operation]


@pytest.mark.parametrize(
    ("leaves_region", "asked"), [(True, ["us-west-2"] * 2), (False, ["us-west-2"] * 2 + [EAST] * 2)]
)
def test_images_and_secrets_of_a_region_that_is_left_are_not_asked_for(leaves_region, asked):
    containers = [
        {
            "name": region,
            "image": f"123456789012.dkr.ecr.{region}.amazonaws.com/app:v2",
            "secrets": [{"name": "KEY", "valueFrom": f"arn:aws:secretsmanager:{region}:1:secret:key"}],
        }
        for region in ("us-west-2", EAST)
    ]
    verb = object.__new__(StandbyAssess)
    verb.aws, verb.failed = Standby(), EAST
    verb.params = {"leaves_region": leaves_region, "caches": [], "queues": [], "buckets": []}
    looks = verb._lacks({"containerDefinitions": containers})
    assert not any(look() for look in looks.values()) and sorted(verb.aws.asked, reverse=True) == asked


def test_whether_a_region_serves_is_asked_only_where_it_is_not_left(monkeypatch):
    verb = object.__new__(StandbyAssess)
    verb.aws, verb.failed, verb.params = Standby(), EAST, {"leaves_region": True}
    assert not verb._source_serves() and verb.aws.asked == []
    verb.params = {"leaves_region": False}
    answers = [{}, Unreachable("no answer")]

    def answer(*_call, **_arguments):
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(verb.aws, "read", answer)
    assert [verb._source_serves(), verb._source_serves()] == [True, False]


def test_too_little_room_refuses():
    full = seen(rooms=[Room("free addresses", 1, 1, "1 in subnet-a", "another subnet")])
    with pytest.raises(Refusal, match="1 would fit"):
        StandbyAssess.plan(full, wanted())
    # A run that was killed has started one.
    full["service"]["desiredCount"] = 1
    assert StandbyAssess.plan(full, wanted()).notes == ()


def test_no_room_is_asked_for_what_runs_already():
    verb = object.__new__(StandbyAssess)
    verb.params = wanted()
    network = {"awsvpcConfiguration": {"subnets": ["subnet-a"]}}
    service = {"desiredCount": 1, "launchType": "FARGATE", "runningCount": 0, "networkConfiguration": network}
    verb.aws = None
    assert verb._rooms(service, {"cpu": "256"}).keys() == {"FARGATE", "addresses"}
    assert verb._rooms(service | {"desiredCount": 2}, {"cpu": "256"}) == {}


def test_what_stays_behind_is_said():
    left = seen(left={"jobs": 12, "mails": Unreachable("no answer"), "empty": 0})
    notes = StandbyAssess.plan(left, wanted(buckets=["b"])).notes
    assert "jobs in us-east-1 still holds 12 messages" in notes[0]
    assert "how many messages mails in us-east-1 still holds is not known: no answer" in notes[1]
    assert "not replicated yet are not in b" in notes[2] and len(notes) == 3

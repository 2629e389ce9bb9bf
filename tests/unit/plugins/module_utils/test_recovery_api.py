# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is asked of a recovery API, how often, and what its answers are taken for."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import recovery_api
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.recovery_api import RecoveryApi, last_good, state_of
from ansible_collections.sre.runbooks.plugins.module_utils.web import Seen


class Script:
    """Answers in turn, the last one stays; knows what was sent."""

    def __init__(self, *answers: Seen | dict) -> None:
        self.answers, self.sent = list(answers), []

    def request(self, message: dict, dns_servers: tuple) -> Seen:
        self.sent.append(message)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Seen(200, json.dumps(answer)) if isinstance(answer, dict) else answer


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[RecoveryApi, list[dict]]]:
    monkeypatch.setattr(recovery_api, "PAUSE", 0)

    def play(*answers: Seen | dict) -> tuple[RecoveryApi, list[dict]]:
        there = Script(*answers)
        monkeypatch.setattr(recovery_api.web, "request", there.request)
        return RecoveryApi("http://api.test/", "Secret-Token-1", "a cluster", "api", 5), there.sent

    return play


def test_a_read_is_repeated_until_the_api_itself_answers(script: Callable) -> None:
    api, sent = script(Seen(None, "no answer"), Seen(503, "<html>"), {"monitoring": {}})
    assert api.status() == {"monitoring": {}}
    assert {(each["method"], each["url"]) for each in sent} == {
        ("GET", "http://api.test/api/v1/deployment-orchestration/status/a%20cluster/api")
    }
    assert sent[0]["headers"] == {"Authorization": "Bearer Secret-Token-1"}


@pytest.mark.parametrize("seen", [Seen(None, "no answer within 5 s"), Seen(500, "Internal"), Seen(504, "")])
def test_an_api_that_does_not_answer_is_told_from_one_that_says_no(script: Callable, seen: Seen) -> None:
    api, sent = script(seen)
    with pytest.raises(Unreachable) as stop:
        api.status()
    assert stop.value.found == {"answered": False}
    assert len(sent) == recovery_api.TRIES


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (Seen(401, "no"), "refuses the token"),
        (Seen(302, ""), "redirects are not followed"),
        (Seen(404, '{"detail": "Not Found"}'), "check url, cluster and service"),
        (Seen(200, "<html>"), "is no recovery API"),
        (Seen(200, "[]"), "is no recovery API"),
    ],
)
def test_a_no_is_final_and_shows_no_token(script: Callable, seen: Seen, message: str) -> None:
    api, sent = script(seen)
    with pytest.raises(Stop, match=message) as stop:
        api.status()
    assert not isinstance(stop.value, Unreachable)
    assert "Secret-Token-1" not in str(stop.value)
    assert len(sent) == 1


def test_a_rollback_is_sent_once_and_says_that_it_is_no_dry_run(script: Callable) -> None:
    api, sent = script(Seen(None, "no answer within 5 s"))
    with pytest.raises(LostAnswer):
        api.roll_back("s1")
    assert [each["json"] for each in sent] == [{"snapshot_id": "s1", "dry_run": False}]


@pytest.mark.parametrize("status", [500, 502, 504])
def test_an_error_of_the_server_does_not_say_whether_it_was_taken(script: Callable, status: int) -> None:
    api, _sent = script(Seen(status, ""))
    with pytest.raises(LostAnswer):
        api.roll_back("s1")


def test_a_rollback_that_nobody_received_is_none(script: Callable) -> None:
    api, _sent = script(Seen(None, "no answer (Connection refused)", was_sent=False))
    with pytest.raises(Unreachable) as stop:
        api.roll_back("s1")
    assert stop.value.found == {"answered": False}


def test_a_plan_is_told_which_snapshot(script: Callable) -> None:
    api, sent = script({"status": "started", "operation_id": "o1"})
    assert api.execute("service_rollback", "s1")["operation_id"] == "o1"
    assert sent[0]["json"] == {
        "cluster_name": "a cluster",
        "service_name": "api",
        "parameters": {"snapshot_id": "s1"},
    }


def test_snapshots_are_known_by_what_a_dry_run_says_of_them(script: Callable) -> None:
    listed = [{"snapshot_id": "s1", "timestamp": "2026-01-01"}, {"snapshot_id": "s2", "timestamp": "2026-01-02"}]
    simulated = {"status": "simulated", "changes": {"task_definition": "api:1", "desired_count": 2}}
    api, sent = script({"snapshots": listed}, simulated)
    assert [each["snapshot_id"] for each in api.snapshots()] == ["s2", "s1"]
    dry = [each["json"] for each in sent[1:]]
    assert sorted(each["snapshot_id"] for each in dry) == ["s1", "s2"]
    assert all(each["dry_run"] is True for each in dry)


def snapshots(*definitions: str | None) -> list[dict]:
    """Newest first, each of a task definition."""
    return [{"snapshot_id": f"s{n}", "task_definition": each} for n, each in enumerate(definitions)]


@pytest.mark.parametrize(
    ("held", "running", "chosen"),
    [
        ("A", "B", "s0"),  # the pipeline took one before it deployed B
        ("BA", "B", "s1"),  # somebody scaled in the emergency, which took one of B
        ("BA", "A", None),  # rolled back already: the API took one of B before it did
        ("BBA", "A", None),
        ("CBA", "C", "s1"),  # two deployments: back by one
        ("BCBA", "B", None),  # back from C to B, and a snapshot since
        ("CBA", "B", None),  # back from C to B: done
        ("A", "A", None),
        ("", "A", None),
    ],
)
def test_the_snapshot_is_chosen_by_what_it_holds(held: str, running: str, chosen: str | None) -> None:
    found = last_good(snapshots(*held), running)
    assert (found and found["snapshot_id"]) == chosen


def test_a_snapshot_that_says_nothing_is_passed_over() -> None:
    assert last_good(snapshots(None, "A"), "B")["snapshot_id"] == "s1"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("completed", "completed"),
        ("success", "completed"),
        ("failed", "failed"),
        ("started", "in progress"),
        ("", "in progress"),
    ],
)
def test_words_of_the_api(status: str, state: str) -> None:
    assert state_of({"status": status}) == state

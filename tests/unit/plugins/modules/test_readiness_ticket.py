# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole verb readiness_ticket, its plan included, against a stand-in of Jira."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import record
from ansible_collections.sre.runbooks.plugins.module_utils.readiness import NOT_READY, READY, UNKNOWN, Verdict
from ansible_collections.sre.runbooks.plugins.modules import readiness_ticket
from ansible_collections.sre.runbooks.tests.unit.a_look import SAID, behind, leave
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from ansible_collections.sre.runbooks.tests.unit.notifier_services import SECRETS, Illness, Services

NOT_IT, IS_IT = (
    [Verdict("api-prod", "db_failover", NOT_READY, (behind("db_failover"),))],
    [Verdict("api-prod", "db_failover", READY)],
)


@pytest.fixture
def services() -> Iterator[Services]:
    there = Services()
    yield there
    there.close()


@pytest.fixture
def told(services: Services, tmp_path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the verb after a look."""
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(tmp_path))

    def tell(said: list[Verdict], check: bool = False, **more: Any) -> dict[str, Any]:
        leave(tmp_path, said)
        given = {
            "environment_name": "prod",
            "jira": services.inventory["notify_jira"],
            "within": 1,
            "region": "us-west-2",
            **more,
        }
        outcome = run_main(readiness_ticket.main, check, **given)
        assert SECRETS["jira"] not in str({key: value for key, value in outcome.items() if key != "invocation"})
        return outcome

    return tell


def test_one_ticket_from_the_first_look_to_the_last(told, services):
    """Opened once, commented once for other reasons, ended once."""
    for said in (NOT_IT, NOT_IT, SAID, SAID, [Verdict("api-prod", "db_failover", UNKNOWN)], IS_IT, IS_IT):
        outcome = told(said)
        assert not outcome["failed"] and not outcome["changed"], outcome
    (issue,) = services.jira.issues
    assert issue["summary"] == "api-prod in prod is not ready for db_failover"
    assert "wait until it has caught up" in issue["description"]
    assert [each.splitlines()[0] for each in issue["comments"]] == [
        "It is not ready for other reasons than before:",
        "It is ready again.",
    ]
    assert (issue["status"], len(issue["labels"])) == ("Done", 3)
    # Whoever broke it again meets a new one.
    assert told(NOT_IT)["tickets"] == {"api-prod": "OPS-2"}


def test_check_mode_says_it_and_tells_nobody(told, services):
    outcome = told(NOT_IT, check=True)
    assert [step["what"] for step in outcome["steps"]] == [
        "open a ticket: api-prod in prod is not ready for db_failover"
    ]
    assert services.jira.issues == []


def test_tickets_are_found_however_many_answers_it_takes(told, services):
    """The stand-in gives two at once."""
    many = [replace(NOT_IT[0], host=f"api-{number}", findings=NOT_IT[0].findings) for number in range(5)]
    assert len(told(many)["tickets"]) == 5
    assert told(many)["tickets"] == {}
    assert len(services.jira.issues) == 5


def test_where_an_answer_is_lost_nothing_is_made_twice(told, services):
    services.ill["jira"] = Illness("loses answers", times=1)
    outcome = told(NOT_IT)
    assert outcome["failed"] and "the next run looks" in outcome["msg"]
    assert not told(NOT_IT)["failed"]
    assert len(services.jira.issues) == 1


@pytest.mark.parametrize(
    ("illness", "words"),
    [("refusing", "check notify_jira.token"), ("broken", "Jira answered 503; the next run goes on")],
)
def test_a_jira_that_does_not_serve_is_named(told, services, illness, words):
    services.ill["jira"] = Illness(illness)
    assert words in told(NOT_IT)["msg"]


def test_a_limit_is_waited_for(told, services):
    services.ill["jira"] = Illness("limited", times=1, seconds=0)
    assert told(NOT_IT, within=5)["tickets"] == {"api-prod": "OPS-1"}


def test_a_workflow_without_a_way_to_the_end_is_said(told, services):
    services.jira.status = "To Do"
    told(NOT_IT)
    assert "no way from where OPS-1 is to done" in told(IS_IT)["msg"]
    assert services.jira.issues[0]["comments"] == []


def test_without_jira_it_says_what_is_missing(told):
    assert "notify_jira" in told(NOT_IT, jira=None)["msg"]

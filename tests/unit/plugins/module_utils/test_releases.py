# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which revision is the one to go back to, for histories as they are found at night."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.releases import (
    COMPLETED,
    FAILED,
    RETURNING,
    RUNNING,
    Release,
    before,
    choose,
    completed,
    from_service,
    is_newer,
    returns_to,
    with_present,
)
from ansible_collections.sre.runbooks.plugins.module_utils.task_definition import number, short
from ansible_collections.sre.runbooks.tests.unit.ecs_region import Region, deployment, revision


def past(text):
    """`40 41! 42…` is: 40 completed, then 41 failed, then 42 goes on; `<` after a number: ECS goes back from it."""
    outcomes = {"!": FAILED, "…": RUNNING, "<": RETURNING}
    releases = []
    for word in text.split():
        outcome = outcomes.get(word[-1], COMPLETED)
        releases.insert(0, Release(revision(int(word.rstrip("!…<"))), outcome, arn=f"deployment-{word}"))
    return releases


def chosen(text, present, **more):
    choice = choose(past(text), revision(present), **more)
    return number(choice.goal), choice.leaving and number(choice.leaving)


@pytest.mark.parametrize(
    ("history", "present", "goal", "leaving"),
    [
        pytest.param("40 41 42", 42, 41, 42, id="a bad build completed"),
        pytest.param("40 42", 42, 40, 42, id="N-1 was never deployed"),
        pytest.param("40 41! 42", 42, 40, 42, id="N-1 failed"),
        pytest.param("41 42…", 42, 41, 42, id="in progress"),
        pytest.param("41 42<", 42, 41, 42, id="ECS goes back"),
        pytest.param("41 42<", 41, 41, 42, id="ECS goes back and has said so"),
        pytest.param("40 41 42!", 41, 41, 42, id="the circuit breaker went back"),
        pytest.param("41 42!", 42, 41, 42, id="given up without a rollback"),
        pytest.param("41 42 41", 41, 41, 42, id="went back already"),
        pytest.param("41 42 41…", 41, 41, 42, id="on the way back"),
        pytest.param("41 42! 41…", 41, 41, 42, id="on the way back from one that never completed"),
        pytest.param("41 42 41 41", 41, 41, 42, id="went back and was restarted"),
        pytest.param("41 42 42", 42, 41, 42, id="the bad one was restarted"),
        pytest.param("41 42 42…", 42, 41, 42, id="the bad one is being restarted"),
        pytest.param("41 42 41 42", 42, 41, 42, id="the bad one was deployed again"),
        pytest.param("41 42 41 43", 43, 41, 43, id="the fix is bad too"),
        pytest.param("40 41 42 41 40", 40, 40, 41, id="went back twice"),
        pytest.param("41 42!  43", 43, 41, 43, id="after one that failed"),
    ],
)
def test_goes_back_to_the_last_that_completed(history, present, goal, leaving):
    assert chosen(history, present) == (goal, leaving)


@pytest.mark.parametrize(
    ("history", "present", "parts"),
    [
        pytest.param(
            "42", 42, ["before regami-api:42", "ACTIVE before it: regami-api:41, regami-api:40"], id="only one"
        ),
        pytest.param("41! 42", 42, ["nothing tells"], id="nothing before it completed"),
        pytest.param(
            "40 41 42 41!",
            42,
            ["regami-api:41", "was the way back from regami-api:42", "failed", "completed before: regami-api:40"],
            id="the way back failed",
        ),
        pytest.param("40 41 42 41<", 42, ["way back from regami-api:42"], id="the way back is failing"),
    ],
)
def test_refuses_where_nothing_good_is_known(history, present, parts):
    family = [revision(each) for each in (43, 42, 41, 40)]
    with pytest.raises(Refusal) as refused:
        chosen(history, present, in_family=family)
    assert [part for part in parts if part not in str(refused.value)] == [] and "\n" not in str(refused.value)


def test_what_a_person_asks_for():
    assert chosen("40 41 42", 42, given=revision(40)) == (40, 42)
    assert chosen("41 42 41", 41, given=revision(42)) == (42, 41)  # the undo
    assert chosen("41 42", 42, given=revision(42)) == (42, 41)
    assert chosen("42", 42, given=revision(42)) == (42, None)


@pytest.mark.parametrize("history", ["41 42", "41 42…", "41 42 41…", "41 42 41", "41 42<"])
def test_leaves_what_was_to_be_left(history):
    assert chosen(history, 42, leaving="regami-api:42") == (41, 42)


@pytest.mark.parametrize("history", ["41 42 43", "41 42 43…", "41 42 41 43"])
def test_what_was_deployed_since_is_not_undone(history):
    with pytest.raises(Refusal, match="somebody has deployed regami-api:43"):
        chosen(history, 43, leaving="regami-api:42")


def test_where_ecs_itself_would_go():
    assert returns_to(past("40 41 42…")) == revision(41)
    assert returns_to(past("41 42 42…")) == revision(42)  # not where we want to go
    assert returns_to(past("42…")) is None


def test_revisions_that_failed_once_are_not_proposed():
    assert [short(arn) for arn in completed(past("39 40 41 42 41!"))] == [
        "regami-api:42",
        "regami-api:40",
        "regami-api:39",
    ]


def test_another_family():
    other = Release(revision(9).replace("regami-api", "regami-api-two"), COMPLETED)
    assert short(choose([other, *past("41 42")], other.task_definition).goal) == "regami-api:42"
    assert not is_newer(other.task_definition, revision(42)) and not is_newer(revision(42), other.task_definition)


def test_the_service_knows_of_a_change_before_the_list_of_deployments_does():
    service = {"deployments": [deployment(9, 43, rolloutState="IN_PROGRESS")], "taskDefinition": revision(43)}
    found = with_present(past("41 42"), service)
    assert (number(found[0].task_definition), found[0].outcome) == (43, RUNNING)
    assert with_present(past("41 42 43"), service)[0].arn
    assert with_present(past("43 44!"), service) == past("43 44!")  # gone back from: no change that is missing


def test_without_the_api_the_service_itself_tells():
    region = Region(desired=2)
    region.service["deployments"] = [
        deployment(1, 3, status="ACTIVE"),
        deployment(2, 5, rolloutState="IN_PROGRESS"),
    ]
    found = from_service(region.service, {})
    assert short(choose(found, revision(5)).goal) == "regami-api:3"
    # Once 5 is complete, an event names the deployment that was before, and a stopped task its revision.
    region.service["deployments"] = [deployment(2, 5)]
    region.service["events"] = [
        {"message": f"(service regami) (deployment ecs-svc/{each}) deployment completed."} for each in (2, 1, 7)
    ]
    found = from_service(region.service, {"ecs-svc/1": revision(3), "ecs-svc/2": revision(5)})
    assert [short(each.task_definition) for each in found] == ["regami-api:5", "regami-api:3"]
    assert short(choose(found, revision(5)).goal) == "regami-api:3"


OUTCOMES = st.sampled_from([COMPLETED, COMPLETED, FAILED])


@st.composite
def histories(draw):
    """Pipelines that deploy ever newer revisions, some of which fail; then the newest goes on, or completed."""
    numbers = sorted(draw(st.sets(st.integers(1, 60), min_size=2, max_size=12)))
    releases = [Release(revision(each), draw(OUTCOMES)) for each in numbers[:-1]]
    return [Release(revision(numbers[-1]), draw(st.sampled_from([COMPLETED, RUNNING]))), *reversed(releases)]


@given(histories())
def test_any_pipeline(releases):
    present = releases[0].task_definition
    good = before(releases)
    if good is None:
        with pytest.raises(Refusal):
            choose(releases, present)
        return
    choice = choose(releases, present)
    assert choice.leaving == present and choice.goal in [
        each.task_definition for each in releases if each.outcome == COMPLETED
    ]
    assert number(choice.goal) < number(present)
    assert all(each.outcome != COMPLETED for each in releases[1:] if number(each.task_definition) > number(choice.goal))
    # On its way and done, the next look finds the same: run again as often as you like.
    for outcome in (RUNNING, COMPLETED):
        then = [Release(choice.goal, outcome), *releases]
        again = choose(then, choice.goal)
        assert (again.goal, again.leaving) == (choice.goal, choice.leaving)
        assert choose([Release(choice.goal, COMPLETED), *then], choice.goal).goal == choice.goal

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine: what each verb may rely on when answers get lost, runs die and check mode is on."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import verb as engine
from ansible_collections.sre.runbooks.plugins.module_utils.errors import (
    HalfDone,
    LeaseLost,
    LostAnswer,
    Overtaken,
    Refusal,
    WaitTimeout,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main


class Counter(Verb):
    """Counts a number up to three, one step each; `faults` are raised before or after applying."""

    value = 0
    faults = iter(())

    def observe(self):
        return {"value": Counter.value}

    @staticmethod
    def plan(observed, wanted):
        if observed["value"] > 3:
            raise Refusal("it counts backwards only by hand")
        steps = tuple(
            Step("count", f"count to {number}", number - 1, number, {"number": number})
            for number in range(observed["value"] + 1, 4)
        )
        return Plan(steps, {"value": 3}, returned={"mode": "up"})

    def count(self, number):
        fault = next(Counter.faults, "")
        if fault == "before":
            raise LostAnswer("no answer")
        if isinstance(fault, Overtaken):
            raise fault
        Counter.value = number
        if fault == "after":
            raise LostAnswer("no answer")
        if fault == "meanwhile":
            raise Overtaken("it was counted meanwhile")
        if isinstance(fault, BaseException):
            raise fault

    def undo(self, before, done):
        return [{"verb": "count", "args": before}]


class Ended(Exception):
    pass


@pytest.fixture
def run(monkeypatch):
    def go(verb_class=Counter, check=False, value=0, faults=()):
        Counter.value, Counter.faults = value, iter(faults)
        monkeypatch.setattr(engine.time, "sleep", lambda seconds: None)
        return run_main(lambda: engine.run(engine.verb_module({}), verb_class), check, region="us-east-1")

    return go


def test_carries_the_plan_out_and_returns_the_contract(run):
    result = run()
    assert (result["changed"], result["before"], result["after"]) == (True, {"value": 0}, {"value": 3})
    assert [step["what"] for step in result["steps"]] == ["count to 1", "count to 2", "count to 3"]
    assert result["undo"] == [{"verb": "count", "args": {"value": 0}}]
    assert result["mode"] == "up"
    assert "1. count to 1\n" in result["diff"]["prepared"]


def test_what_nothing_undoes_is_told_with_what_to_do_instead(run):
    class Final(Counter):
        INSTEAD = "count anew"
        undo = engine.Verb.undo

    assert run(Final)["undo"] == [{"stays": "count to 1; count to 2; count to 3", "instead": "count anew"}]
    assert run(Final, value=3)["undo"] == []


def test_check_mode_predicts_and_changes_nothing(run):
    result = run(check=True)
    assert (result["changed"], result["after"], Counter.value) == (True, {"value": 3}, 0)
    assert (result["already_so"], run(check=True, value=3)["already_so"]) == (False, True)


def test_nothing_left_is_ok(run):
    assert run(value=3)["changed"] is False


def test_lost_answer_of_an_applied_step_does_not_repeat_it(run):
    result = run(faults=["after"])
    assert [step["after"] for step in result["steps"]] == [1, 2, 3]
    assert Counter.value == 3


def test_lost_answer_of_a_step_that_was_not_applied_repeats_it(run):
    result = run(faults=["before", "before"])
    assert (Counter.value, len(result["steps"])) == (3, 3)


def test_answers_lost_again_and_again_end_in_a_sentence(run):
    result = run(faults=["before"] * 9)
    assert result["failed"]
    assert "run the same command again" in result["msg"]


def test_what_changed_since_the_look_is_looked_at_again_before_anything_is_sent(run):
    result = run(faults=[Overtaken("the counter was changed by somebody else")])
    assert (Counter.value, len(result["steps"])) == (3, 3)
    result = run(faults=[Overtaken("the counter was changed by somebody else")] * 9)
    assert "changed by somebody else; looked again 3 times" in result["msg"] and "goes on changing it" in result["msg"]


def test_what_comes_late_after_a_lost_answer_is_ours_and_is_undone(run):
    late, others = run(faults=["before", "meanwhile"]), run(faults=["meanwhile"])
    assert ([step["after"] for step in late["steps"]], Counter.value) == ([1, 2, 3], 3)
    assert [step["after"] for step in others["steps"]] == [2, 3]


def test_every_step_may_lose_its_own_answers(run):
    result = run(faults=["before", "before", "after"] * 3)
    assert not result.get("failed")
    assert (Counter.value, len(result["steps"])) == (3, 3)


def test_refusal_is_one_line_and_nothing_else(run):
    result = run(value=9)
    assert result["failed"]
    assert result["msg"] == "it counts backwards only by hand"
    assert "steps" not in result
    assert Counter.value == 9


@pytest.mark.parametrize("error", [WaitTimeout("still 1 after 5 s"), LeaseLost("kim has it")])
def test_failure_half_way_says_what_was_done_and_how_to_go_on(run, error):
    result = run(faults=["", error])
    assert "Done so far: count to 1" in result["msg"]
    assert "The same command again goes on" in result["msg"]
    assert [step["after"] for step in result["steps"]] == [1]
    assert result["undo"]


def test_a_step_that_ends_before_its_end_is_a_change_with_its_undo(run):
    result = run(faults=["", HalfDone("the rest of it may not be counted")])
    assert result["failed"] and result["changed"] and result["undo"]
    assert "Done so far: count to 1; count to 2, in part" in result["msg"]


def test_nothing_is_changed_any_more_once_the_run_was_killed(run, monkeypatch):
    parents = iter([100, 100, 1])
    monkeypatch.setattr(engine.os, "getppid", lambda: next(parents))
    result = run()
    assert result["failed"] and "the run that began this was killed" in result["msg"]
    assert Counter.value == 1


def test_a_step_that_looks_again_plans_anew(run):
    class Waiting(Counter):
        looked = False

        @staticmethod
        def plan(observed, wanted):
            if not Waiting.looked:
                return Plan((Step("pause", "wait", look_again=True),))
            return Counter.plan(observed, wanted)

        def pause(self):
            Waiting.looked = True

    result = run(Waiting)
    assert [step["what"] for step in result["steps"]] == ["wait", "count to 1", "count to 2", "count to 3"]


def test_lease_is_kept_before_each_step(run):
    class Held(Counter):
        kept = ()

        def keep_lease(self, always=False):
            Held.kept += (always,)

    run(Held)
    assert Held.kept == (True, True, True)


def test_a_step_that_only_waits_is_no_change_and_asks_for_no_fresh_lease(run):
    class Waiting(Counter):
        kept = ()

        @staticmethod
        def plan(observed, wanted):
            return Plan((Step("settle", "wait until it is there", waits=True),))

        def settle(self):
            pass

        def keep_lease(self, always=False):
            Waiting.kept += (always,)

    result = run(Waiting)
    assert (result["changed"], result["undo"], Waiting.kept) == (False, [], (False,))
    assert run(Waiting, check=True)["already_so"], "a wait is no change"
    assert [step["do"] for step in result["steps"]] == ["settle"]

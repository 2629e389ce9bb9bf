# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""drill_experiment: its plan refuses what nobody has agreed to; what it begins it ends."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import smoke, waiting
from ansible_collections.sre.runbooks.plugins.module_utils.aws import Aws
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal
from ansible_collections.sre.runbooks.plugins.modules import drill_experiment
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

ACCOUNT = "123456789012"
TEMPLATE = {
    "id": "EXT1",
    "actions": {"a": {"actionId": "aws:rds:reboot-db-instances"}},
    "stopConditions": [{"source": "aws:cloudwatch:alarm", "value": "arn:aws:cloudwatch:r:1:alarm:lost"}],
}
WELL = {"template": TEMPLATE, "under_way": [], "account": ACCOUNT, "failing": (), "alarms": {"lost": "OK"}}
CHECK = {"name": "health", "url": "http://api.regami.test/health"}
WANTED = {"template_id": "EXT1", "consent": ACCOUNT, "checks": [CHECK], "rehearse": False}


def test_it_breaks_what_is_well_and_agreed_to():
    (step,) = drill_experiment.DrillExperiment.plan(WELL, WANTED).steps
    assert (step.do, step.what) == ("hold", "break it by EXT1 (aws:rds:reboot-db-instances) until it is recovered")
    (step,) = drill_experiment.DrillExperiment.plan(WELL, WANTED | {"rehearse": True}).steps
    assert step.do == "rehearse" and step.waits


@pytest.mark.parametrize(
    ("seen", "asked", "why"),
    [
        ({}, {"consent": ""}, "consent is '' and these credentials are of account 123456789012"),
        ({}, {"consent": "yes"}, "consent is 'yes'"),
        ({"alarms": {}}, {}, "no alarm as a stop condition"),
        ({"alarms": {"lost": "ALARM"}}, {}, "is in alarm already"),
        ({"alarms": {"lost": None}}, {}, "does not exist"),
        ({"under_way": ["EXP1"]}, {}, "EXP1 of EXT1 is under way"),
        ({"failing": ("health: answered 503",)}, {}, "not well, so nothing is broken: health: answered 503"),
        ({}, {"checks": []}, "checks is empty"),
    ],
)
def test_it_refuses(seen, asked, why):
    for rehearse in (False, True):
        with pytest.raises(Refusal, match=why):
            drill_experiment.DrillExperiment.plan(WELL | seen, WANTED | asked | {"rehearse": rehearse})


class Account:
    """AWS FIS and a service: `health` has what is not well, look by look, the last for ever."""

    def __init__(self, monkeypatch, health, lost=0, alarm_after=None):
        self.changes, self.tokens, self.state = [], set(), "completed"
        self._health, self._lost, self._alarm_after, self._looks = list(health), lost, alarm_after, 0
        self.now = 1000.0
        monkeypatch.setattr(Aws, "__init__", lambda *_: None)
        monkeypatch.setattr(Aws, "silent", set(), raising=False)
        monkeypatch.setattr(Aws, "missed", [], raising=False)
        monkeypatch.setattr(Aws, "region", "r", raising=False)
        monkeypatch.setattr(Aws, "read", self._read)
        monkeypatch.setattr(Aws, "change", self._change)
        monkeypatch.setattr(smoke, "complaints", self._complaints)
        monkeypatch.setattr(drill_experiment.time, "time", lambda: self.now)
        monkeypatch.setattr(drill_experiment.time, "sleep", self._sleep)
        monkeypatch.setattr(waiting, "say", lambda line: None)

    def _sleep(self, seconds):
        self.now += seconds

    def _complaints(self, checks, servers, tries, pause=0.0):
        if self.state == "running":
            found = self._health.pop(0) if len(self._health) > 1 else self._health[0]
            if isinstance(found, BaseException):
                raise found
            return found
        return ()

    def _read(self, _api, operation, /, **arguments):
        answers = {
            "get_experiment_template": lambda: {"experimentTemplate": TEMPLATE},
            "list_experiments": lambda: {"experiments": []},
            "get_caller_identity": lambda: {"Account": ACCOUNT},
            "describe_alarms": lambda: {
                "MetricAlarms": [{"AlarmName": "lost", "StateValue": "OK"}],
                "CompositeAlarms": [],
            },
            "get_experiment": lambda: {"experiment": {"id": "EXP1", "state": {"status": self._seen()}}},
        }
        return answers[operation]()

    def _seen(self):
        self._looks += 1
        if self._alarm_after is not None and self._looks > self._alarm_after:
            self.state = "stopped"
        return self.state

    def _change(self, _api, operation, /, **arguments):
        self.changes.append(operation)
        if operation == "start_experiment":
            self.tokens.add(arguments["clientToken"])
            self.state = "completed" if arguments["experimentOptions"] == {"actionsMode": "skip-all"} else "running"
            if self._lost:
                self._lost -= 1
                raise LostAnswer("no answer")
        if operation == "stop_experiment":
            self.state = "stopped"
        return {"experiment": {"id": "EXP1"}}


SICK = ("health: answered 503",)


@pytest.fixture
def hold(monkeypatch):
    def go(health=((), SICK, SICK, ()), lost=0, alarm_after=None, **arguments):
        account = go.account = Account(monkeypatch, health, lost, alarm_after)
        asked = {
            "template_id": "EXT1",
            "consent": ACCOUNT,
            "checks": [CHECK],
            "steady_seconds": 3,
            "show_seconds": 20,
            "region": "r",
        }
        return run_main(drill_experiment.main, **asked | arguments), account

    return go


def test_it_measures_from_the_first_failure_until_all_is_well_and_ends_the_experiment(hold):
    result, account = hold(scenario={"name": "db"})
    assert not result["failed"] and result["changed"]
    drill = result["drill"]
    assert (drill["outcome"], drill["scenario"]) == ("recovered", {"name": "db"})
    assert (drill["paged"] - drill["broke"], drill["recovered"] - drill["paged"]) == (1, 2)
    assert drill["rounds"][:4] == [[0, 1, 0], [1, 0, 1], [2, 0, 1], [3, 1, 0]]
    assert account.changes == ["start_experiment", "stop_experiment"]
    assert result["entries"] == [{"event": "drill", **drill}]


def test_whose_answer_was_lost_is_started_once(hold):
    _result, account = hold(lost=2)
    assert account.changes == ["start_experiment"] * 3 + ["stop_experiment"] and len(account.tokens) == 1


def test_what_nobody_recovers_is_ended_and_fails(hold):
    result, account = hold(health=(SICK,), max_seconds=30)
    assert result["failed"] and "not recovered: out of time after 31 s; the experiment EXP1 is ended" in result["msg"]
    assert account.changes[-1] == "stop_experiment" and account.state == "stopped"
    assert result["entries"][0]["outcome"] == "out of time"


def test_an_alarm_stops_it(hold):
    result, account = hold(health=(SICK,), alarm_after=4)
    assert result["failed"] and "not recovered: stopped" in result["msg"]
    assert account.changes == ["start_experiment"]


def test_what_shows_nothing_is_void(hold):
    result, account = hold(health=((),))
    assert (result["drill"]["outcome"], result["failed"]) == ("void", False)
    assert result["notes"] == ["the drill is void: nothing failed within 20 s"]
    assert account.changes[-1] == "stop_experiment"


def test_it_is_ended_also_where_looking_fails(hold):
    with pytest.raises(KeyboardInterrupt):
        hold(health=(KeyboardInterrupt(),))
    assert hold.account.changes == ["start_experiment", "stop_experiment"]


def test_a_rehearsal_breaks_nothing_and_is_no_change(hold):
    result, account = hold(rehearse=True)
    assert (result["failed"], result["changed"], account.changes) == (False, False, ["start_experiment"])
    assert "nothing was broken" in result["notes"][0] and "drill" not in result

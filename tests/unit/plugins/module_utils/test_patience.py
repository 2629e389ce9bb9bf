# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One budget of waiting for a region that answers nothing, whoever asks it."""

from __future__ import annotations

import socket
import time

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import aws as plumbing
from ansible_collections.sre.runbooks.plugins.module_utils import patience
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import GivenUp, LostAnswer, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.patience import Patience
from ansible_collections.sre.runbooks.plugins.module_utils.waiting import wait_until


class Silence(Exception):
    pass


def is_silence(error):
    return isinstance(error, Silence)


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def silent_call(self, seconds):
        def call():
            self.now += seconds
            raise Silence

        return call


def asked(of, region, call):
    with pytest.raises(Silence):
        of.ask(region, call, is_silence)


def test_what_the_variables_say():
    assert patience.parse("us-east-1=20 us-west-2=5.5") == {"us-east-1": 20, "us-west-2": 5.5}
    assert patience.parse(patience.text({"us-east-1": 4.25})) == {"us-east-1": 4.25}
    assert patience.parse(None) == {} and patience.parse("us-east-1=soon") == {"us-east-1": 0}


def test_only_silence_is_spent_and_only_where_there_is_a_limit():
    clock = Clock()
    spent = Patience({"a": 10}, clock=clock)
    asked(spent, "a", clock.silent_call(4))
    clock.now += 60
    assert spent.ask("a", lambda: 1, is_silence) == 1
    clock.now += 60
    asked(spent, "a", clock.silent_call(2))
    asked(spent, "b", clock.silent_call(9))
    assert spent.spent == {"a": 6}
    assert (spent.left("a"), spent.left("b")) == (4, None)


def test_a_pause_between_two_silences_is_waiting_too():
    clock = Clock()
    spent = Patience({"a": 10}, clock=clock)
    asked(spent, "a", clock.silent_call(1))
    clock.now += 2
    asked(spent, "a", clock.silent_call(1))
    assert spent.spent == {"a": 4}


def test_calls_side_by_side_are_one_wait():
    clock = Clock()
    spent = Patience({"a": 10}, clock=clock)

    def outer():
        clock.now += 1
        asked(spent, "a", clock.silent_call(3))
        clock.now += 1
        raise Silence

    asked(spent, "a", outer)
    assert spent.spent == {"a": 5}


def test_what_earlier_tasks_spent_counts():
    spent = Patience({"a": 10}, {"a": 9.9})
    assert spent.left("a") == 0
    assert "asked no more" in spent.notes()[0]
    assert Patience({"a": 10}, {"a": 5}).notes() == []


@pytest.fixture
def nobody(monkeypatch):
    """An Aws whose endpoint takes connections and never answers, with 1.5 s to wait for it."""
    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv(patience.ALLOWED_VARIABLE, "us-east-1=1.5")
    monkeypatch.delenv(patience.SILENT_VARIABLE, raising=False)
    params = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "aws_session_token": None, "verify": True}
    yield plumbing.Aws(("us-east-1", f"http://127.0.0.1:{silent.getsockname()[1]}", params))
    silent.close()


def test_no_number_of_calls_waits_longer(nobody):
    plumbing.preload(["sts", "ecs"])
    nobody.client("sts"), nobody.client("ecs")
    started = time.monotonic()
    found = tried_together(
        {name: lambda: nobody.read("sts", "get_caller_identity") for name in ("one", "two", "three")}, Unreachable
    )
    assert all(isinstance(each, Unreachable) and not isinstance(each, GivenUp) for each in found.values())
    with pytest.raises((LostAnswer, GivenUp)):
        nobody.change("ecs", "update_service", service="x")
    for _try in range(50):
        with pytest.raises(Unreachable):
            nobody.read("sts", "get_caller_identity")
    with pytest.raises(GivenUp, match="us-east-1 is asked no more"):
        nobody.read("sts", "get_caller_identity")
    with pytest.raises(GivenUp):
        wait_until(lambda: nobody.read("sts", "get_caller_identity"), bool, "an answer", 60)
    assert time.monotonic() - started < 3
    assert nobody.patience.spent["us-east-1"] <= 1.6
    assert nobody.silent == {"us-east-1"}


def test_another_region_has_all_the_time_it_needs(nobody):
    nobody.patience.spent["us-east-1"] = 1.5
    assert nobody.client("sts", "us-west-2") is not None
    assert together(here=lambda: nobody.patience.left("us-west-2")) == {"here": None}

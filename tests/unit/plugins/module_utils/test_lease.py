# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may take a lease, and how a dead run is told from a living one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import lease
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LeaseLost, LostAnswer

try:
    from botocore.exceptions import ClientError
except ImportError:
    pytest.skip("needs botocore", allow_module_level=True)

NOW = 1_000_000.0
ME = {"holder": "jo@bastion", "run": "bastion:10:77"}


def item(**changes):
    return {"holder": "kim@other", "run": "other:5:9", "token": 3, "acquired": NOW - 30, "expires": NOW + 30, **changes}


def test_free_and_released_leases_may_be_taken():
    assert lease.may_take(None, ME, NOW)
    assert lease.may_take(item(run="released"), ME, NOW)


def test_held_lease_may_not_be_taken():
    assert not lease.may_take(item(), ME, NOW)


def test_expired_lease_is_free_only_after_the_margin_between_clocks():
    assert not lease.may_take(item(expires=NOW - lease.CLOCK_MARGIN + 1), ME, NOW)
    assert lease.may_take(item(expires=NOW - lease.CLOCK_MARGIN - 1), ME, NOW)


def test_own_run_may_take_it_again():
    assert lease.may_take(item(run=ME["run"]), ME, NOW)


def test_run_killed_on_this_machine_is_dead_at_once_and_a_living_one_is_not():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = lease.run_id(child.pid)
    assert not lease.is_dead(run)
    child.kill()
    child.wait()
    assert lease.is_dead(run)


def test_pid_used_again_by_another_process_is_a_dead_run():
    host, pid, start = lease.run_id(os.getpid()).split(":")
    assert lease.is_dead(f"{host}:{pid}:{int(start) - 1}")


def test_run_on_another_machine_is_never_called_dead():
    assert not lease.is_dead("elsewhere:1:1")
    assert not lease.is_dead("")


class Table:
    """DynamoDB as far as a lease uses it; `answers` are raised in order."""

    def __init__(self, *answers, stored=None):
        self.calls, self.answers, self.stored = [], list(answers), stored

    def change(self, service, operation, **arguments):
        self.calls.append(operation)
        answer = self.answers.pop(0) if self.answers else None
        if operation == "put_item" and (answer is None or isinstance(answer, LostAnswer)):
            self.stored = arguments["Item"]
        if answer is not None:
            raise answer

    def read(self, service, operation, **arguments):
        self.calls.append(operation)
        return {"Item": self.stored} if self.stored else {}


REFUSED = ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "PutItem")


def made(table, token=None):
    return lease.Lease(table, "locks", "regami", "us-west-2", 60, token=token)


def test_taking_writes_once_and_grows_the_token():
    table = Table()
    mine = made(table)
    mine.take(item(), NOW)
    assert table.calls == ["put_item"]
    assert mine.token == 4


def test_loser_of_a_race_is_told_who_won():
    table = Table(REFUSED)
    table.stored = {
        "holder": {"S": "kim@other"},
        "run": {"S": "other:5:9"},
        "token": {"N": "1"},
        "acquired": {"N": "1000000"},
        "expires": {"N": "1000060"},
    }
    with pytest.raises(LeaseLost, match="kim@other has held the lease regami since 1970-01-12"):
        made(table).take(None, NOW)


def test_lost_answer_to_taking_is_looked_up_and_kept():
    table = Table(LostAnswer("reset"))
    made(table).take(None, NOW)
    assert table.calls == ["put_item", "get_item"]


def test_renews_only_after_a_third():
    table = Table()
    mine = made(table)
    mine.take(None, NOW)
    mine.renew(NOW + 10)
    assert table.calls == ["put_item"]
    mine.renew(NOW + 21)
    assert table.calls == ["put_item", "update_item"]


def test_a_lease_broken_a_second_ago_stops_the_next_change():
    table = Table()
    mine = made(table)
    mine.take(None, NOW)
    mine.renew(NOW + 1, always=True)
    assert table.calls == ["put_item", "update_item"]


def test_first_renewal_of_a_lease_that_was_handed_on_is_sent_at_once():
    table = Table()
    made(table, token=4).renew(NOW)
    assert table.calls == ["update_item"]


def test_release_of_a_lease_that_was_lost_is_no_error():
    assert made(Table(REFUSED), token=4).release() is False

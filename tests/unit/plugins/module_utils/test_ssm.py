# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands over SSM: sent once, in batches, and read in pages."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import ssm
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, WaitTimeout
from ansible_collections.sre.runbooks.tests.unit.ssm_account import Account

OF_SHOP = {"service": "shop"}


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssm.time, "sleep", lambda seconds: None)


def wait(look: Any, done: Any, _what: str, **_how: Any) -> Any:
    for _attempt in range(1000):
        if done(seen := look()):
            return seen
    raise AssertionError("never over")


def run(account: Account, ids: list[str], by_tags: bool = False, **limits: Any) -> dict[str, ssm.Result]:
    selection = ssm.Selection(tags=OF_SHOP) if by_tags else ssm.Selection(tuple(ids))
    return ssm.RunCommand(account, "test").run("df", selection, ids, wait, "df", ssm.Limits(**limits), by_tags=by_tags)


@pytest.mark.parametrize(
    ("text", "total", "number"), [("7", 100, 7), ("10%", 95, 9), ("100%", 3, 3), ("0", 5, 0), ("1%", 50, 0)]
)
def test_a_limit_is_a_number_or_a_share(text: str, total: int, number: int) -> None:
    assert ssm.share(text, total) == number


@pytest.mark.parametrize("text", ["", "ten", "101%", "-1", "5 %"])
def test_anything_else_is_no_limit(text: str) -> None:
    with pytest.raises(ValueError, match="neither a number nor a percentage"):
        ssm.share(text, 10)


def test_ids_go_in_batches_of_fifty_and_calls_grow_with_batches() -> None:
    calls = {}
    for count in (50, 500):
        account = Account()
        ids = account.add(count)
        results = run(account, ids, max_concurrency="100")
        assert sorted(results) == sorted(ids) and all(each.ok and each.output == "done" for each in results.values())
        assert [len(each["InstanceIds"]) for each in account.sent()] == [50] * (count // 50)
        calls[count] = len(account.calls)
    assert calls[500] <= 10 * calls[50]


def test_tags_take_one_command_and_its_results_come_in_pages() -> None:
    account = Account()
    ids = account.add(120, OF_SHOP)
    account.add(3, {"service": "other"})
    assert sorted(run(account, ids, by_tags=True, max_concurrency="10%", max_errors="5")) == sorted(ids)
    (sent,) = account.sent()
    assert (sent["Targets"], sent["MaxConcurrency"], sent["MaxErrors"]) == (
        [{"Key": "tag:service", "Values": ["shop"]}],
        "10%",
        "5",
    )
    assert account.count("list_command_invocations") == 3
    assert account.count("get_command_invocation") == 0


def test_as_many_commands_at_a_time_as_the_concurrency_allows() -> None:
    account = Account()
    ids = account.add(200)
    most = 0

    def counting(look: Any, done: Any, what: str, **how: Any) -> Any:
        def looked() -> Any:
            nonlocal most
            seen = look()
            most = max(most, sum(each["Status"] == "InProgress" for each in account.commands.values()))
            return seen

        return wait(looked, done, what)

    limits = ssm.Limits(max_concurrency="100")
    ssm.RunCommand(account, "test").run("df", ssm.Selection(tuple(ids)), ids, counting, "df", limits)
    assert most == 2
    assert {each["MaxConcurrency"] for each in account.sent()} == {"50"}
    small = Account()
    run(small, small.add(60), max_concurrency="7")
    assert [each["MaxConcurrency"] for each in small.sent()] == ["7", "7"]


def test_one_that_fails_neither_hides_nor_stops_the_rest() -> None:
    account = Account(lambda name, _text: (1, "", "df: Input/output error") if name.endswith("3") else (0, "fine", ""))
    ids = account.add(60)
    results = run(account, ids)
    bad = [each for each in ids if each.endswith("3")]
    assert {name for name, each in results.items() if not each.ok} == set(bad)
    assert results[bad[0]].trouble() == "Failed: df: Input/output error"
    assert len(results) == 60


def test_beyond_max_errors_no_further_batch_is_sent() -> None:
    account = Account(lambda _name, _text: (1, "", "no"))
    results = run(account, account.add(150), max_errors="49")
    assert len(account.sent()) == 1
    statuses = [each.status for each in results.values()]
    assert (statuses.count("Failed"), statuses.count("Not Sent")) == (50, 100)


def test_an_instance_that_is_gone_does_not_keep_the_others_from_theirs() -> None:
    account = Account()
    ids = account.add(50)
    del account.nodes[ids[7]]
    results = run(account, ids)
    assert "no agent has registered" in results[ids[7]].trouble()
    assert sum(each.ok for each in results.values()) == 49


def test_a_lost_answer_is_looked_for_and_not_sent_twice() -> None:
    account = Account()
    ids = account.add(3)
    account.trouble = ["lost"]
    assert all(each.ok for each in run(account, ids).values())
    assert len(account.commands) == 1


def test_an_answer_that_is_lost_for_good_is_the_engines_to_look_after() -> None:
    account = Account()
    account.trouble = ["reset"]
    with pytest.raises(LostAnswer):
        run(account, account.add(1))


def test_a_later_run_finds_what_an_earlier_one_has_sent() -> None:
    account = Account()
    ids = account.add(2)
    account.looks_until_end = 100
    mine = ssm.RunCommand(account, "clean")
    selection = ssm.Selection(tuple(ids))
    command_id = mine.send("df", selection, {"InstanceIds": ids}, ssm.Limits())
    later = ssm.RunCommand(account, "clean")
    assert later.running(ssm.Selection(tuple(reversed(ids)))) == [command_id]
    assert later.running(ssm.Selection(tuple(ids[:1]))) == []
    assert ssm.RunCommand(account, "grow").running(selection) == []
    assert sorted(later.finish([command_id], wait, "df")) == sorted(ids)
    assert later.running(selection) == []


def test_running_out_of_time_says_what_goes_on_and_how_to_find_it() -> None:
    account = Account()
    ids = account.add(1)

    def impatient(look: Any, _done: Any, what: str, **_how: Any) -> None:
        raise WaitTimeout(f"{what}: still {look()} after 5 s")

    with pytest.raises(WaitTimeout) as error:
        ssm.RunCommand(account, "test").run("df", ssm.Selection(tuple(ids)), ids, impatient, "df", ssm.Limits())
    assert len(account.commands) == 1
    command_id = next(iter(account.commands))
    assert str(error.value).startswith("df: still 0 of 1 instances after 5 s")
    assert f"command {command_id}: the same command here goes on from there" in str(error.value)


def test_output_that_was_cut_is_read_whole() -> None:
    account = Account(lambda name, _text: (0, "x" * (9000 if name.endswith("1") else 10), ""))
    ids = account.add(20)
    results = run(account, ids)
    assert len(results[ids[0]].output) == 9000
    assert account.count("get_command_invocation") == 2  # 1 and 11 in hexadecimal


def test_what_the_api_does_not_show_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    ids = account.add(2)
    shown = iter([[], [{"InstanceId": ids[0], "CommandId": "c", "StatusDetails": "In Progress"}]])
    real = account._list_command_invocations

    def slow(**arguments: Any) -> dict:
        there = next(shown, None)
        return real(**arguments) if there is None else {"CommandInvocations": there}

    monkeypatch.setattr(account, "_list_command_invocations", slow)
    assert all(each.ok for each in run(account, ids).values())
    assert account.count("list_command_invocations") == 3


def test_who_can_run_a_script_and_who_cannot() -> None:
    account = Account()
    (there,) = account.add(1)
    (lost,) = account.add(1, PingStatus="ConnectionLost")
    (windows,) = account.add(1, PlatformType="Windows")
    nodes = ssm.RunCommand(account, "test").nodes(ssm.Selection((there, lost, windows, "i-0")))
    assert nodes[there].trouble() is None
    assert "has not answered (ConnectionLost); a full disk" in nodes[lost].trouble()
    assert nodes[windows].trouble() == "it runs Windows, not Linux"
    assert "SSM does not know it" in nodes["i-0"].trouble()


def test_an_agent_without_room_says_so() -> None:
    result = ssm.Result("i-1", "Failed", 1, "Plugin with name aws:runShellScript not found. Step name: x")
    assert "the root volume is full" in result.trouble()

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of ssm_disk_cleanup, and the verb against instances in memory."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import disk_cleanup, ssm
from ansible_collections.sre.runbooks.plugins.module_utils import verb as engine
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules import ssm_disk_cleanup
from ansible_collections.sre.runbooks.plugins.modules.ssm_disk_cleanup import ARGUMENTS, SsmDiskCleanup
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main
from ansible_collections.sre.runbooks.tests.unit.ssm_account import Account, at_once

MB = 10**6
WANTED = {name: each.get("default") for name, each in ARGUMENTS.items()}


def usage(free: float, inodes: float = 90.0) -> dict:
    """Of 100 MB and 1,000 inodes."""
    return {
        "bytes": 100 * MB,
        "bytes_free": int(free * MB),
        "free_percent": free,
        "inodes": 1000,
        "inodes_free": int(inodes * 10),
        "free_inodes_percent": inodes,
    }


def report(name: str, free: float, inodes: float = 90.0, **stages: tuple[int, int]) -> disk_cleanup.Report:
    found = {stage: {"items": items, "bytes": size * MB} for stage, (items, size) in stages.items()}
    return disk_cleanup.Report(name, usage(free, inodes), found)


def dead(name: str) -> disk_cleanup.Report:
    return disk_cleanup.Report(name, trouble="its agent has not answered (ConnectionLost)")


def plan(*reports: disk_cleanup.Report, running: tuple[str, ...] = (), **wanted: Any):
    observed = {
        "selected": ssm.Selection(tags={"service": "shop"}),
        "running": list(running),
        "reports": {each.instance_id: each for each in reports},
    }
    return SsmDiskCleanup.plan(observed, WANTED | wanted)


def test_only_what_is_too_full_and_can_be_helped_is_cleaned() -> None:
    found = plan(
        report("i-roomy", 50, rotated=(9, 9)),
        report("i-full", 1, rotated=(10, 30)),
        report("i-lost-cause", 2),
        report("i-inodes", 70, inodes=1.0, logs=(300, 0)),
    )
    clean, judge = found.steps
    assert clean.arguments == {"instance_ids": ["i-full", "i-inodes"]}
    assert clean.what == ("clean 2 of 4 instances until 20 % is free: rotated 10 (30.0 MB), logs 300 (0 B) may go")
    assert judge.waits
    assert found.after == {"below_target": 1, "lowest_free_percent": 2.0}
    assert found.returned["still_full"] == ["i-lost-cause"]
    states = {each["instance_id"]: each["state"] for each in found.returned["instances"]}
    assert states == {
        "i-roomy": "enough",
        "i-full": "to clean",
        "i-lost-cause": "still full",
        "i-inodes": "to clean",
    }
    assert any("i-lost-cause comes to 2 % at most, not to 20 %: grow its volume" in note for note in found.notes)


def test_nothing_to_do_where_there_is_room() -> None:
    found = plan(report("i-1", 20.0, rotated=(5, 5)), report("i-2", 90))
    assert (found.steps, found.notes) == ((), ())


def test_a_cleaning_that_goes_on_is_waited_for_and_nothing_else_is_sent() -> None:
    (step,) = plan(running=("c-1", "c-2")).steps
    assert (step.do, step.arguments, step.look_again, step.waits) == (
        "finish",
        {"command_ids": ["c-1", "c-2"]},
        True,
        True,
    )


def test_one_whose_agent_is_silent_does_not_stop_the_rest() -> None:
    found = plan(report("i-full", 1, rotated=(10, 30)), dead("i-dead"))
    assert found.steps[0].arguments == {"instance_ids": ["i-full"]}
    assert found.returned["not_cleaned"] == ["i-dead"]


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        (
            [dead("i-1"), report("i-2", 80)],
            "1 of 2 instances could not be cleaned .i-1: its agent .* grow their volumes",
        ),
        ([], "SSM manages no instance with service=shop: check the tags"),
    ],
)
def test_it_refuses_with_a_way_out(reports: list, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        plan(*reports)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"roots": ["/"]}, "roots: / holds /bin"),
        ({"roots": ["/etc/app"]}, "lies in /etc"),
        ({"roots": ["/var"]}, "holds /var/lib/cassandra"),
        ({"roots": ["/home"]}, "too much of a machine"),
        ({"roots": ["/var/lib/postgresql/16/main/log"]}, "lies in /var/lib/postgresql"),
        ({"roots": ["/var/log/../lib/mysql"]}, "no absolute path in its shortest form"),
        ({"roots": ["var/log"]}, "no absolute path"),
        ({"roots": ["/var/log/"]}, "no absolute path in its shortest form"),
        ({"path": "data"}, "path: 'data' is no absolute path"),
        ({"target_free_percent": 96}, "give 1 to 95"),
        ({"min_age_days": 0}, "give 1 or more"),
        ({"journal_keep_megabytes": 0}, "journalctl takes 0 for no limit"),
        ({"max_errors": "some"}, "max_errors: 'some' is neither a number nor a percentage"),
        ({"max_concurrency": "110%"}, "max_concurrency"),
    ],
)
def test_what_would_not_be_safe_is_refused_before_anything_is_asked(wanted: dict, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        disk_cleanup.script_options(WANTED | wanted)


def test_stages_go_in_the_order_of_safety_however_they_were_named() -> None:
    assert disk_cleanup.script_options(WANTED | {"stages": ["images", "logs", "packages"]})["stages"] == [
        "packages",
        "logs",
        "images",
    ]


def test_what_is_sent_is_the_script_whatever_the_options_hold(tmp_path: Any) -> None:
    options = disk_cleanup.script_options(
        WANTED | {"path": str(tmp_path), "roots": [f'{tmp_path}/it\'s a "log" $HOME'], "stages": ["logs"]}
    )
    text = disk_cleanup.command("survey", options)
    assert "{{" not in text  # SSM would take it for a parameter
    assert "<<" not in shlex.split(text.partition(" -c ")[0])  # a here-document needs room on the disk
    python = tmp_path / "bin"
    python.mkdir()
    (python / "python3").symlink_to(sys.executable)
    told = subprocess.run(
        ["sh", "-c", text], env={"PATH": f"{python}:/usr/bin:/bin"}, capture_output=True, text=True, check=True
    )
    said = json.loads(told.stdout)
    assert said["told"] == [f'{tmp_path}/it\'s a "log" $HOME: is no directory there']


# ---- the verb ---------------------------------------------------------------------------------------------------------


class Shop:
    """Instances with a percentage free, of which a cleaning makes 25; `broken` ones answer with an error."""

    def __init__(self) -> None:
        self.free: dict[str, float] = {}
        self.broken: set[str] = set()
        self.account = Account(self.script)

    def add(self, *free: float, **about: Any) -> list[str]:
        names = self.account.add(len(free), {"service": "shop"}, **about)
        self.free.update(zip(names, free, strict=True))
        return names

    def script(self, name: str, text: str) -> tuple[int, str, str]:
        if name in self.broken:
            return 1, "", "df: Input/output error"
        before = self.free[name]
        said = {"before": usage(before), "told": [], "problems": 0}
        if re.search(r"^' survey|' survey ", text):
            said |= {"stages": {"rotated": {"items": 5, "bytes": 30 * MB}}, "largest": [[MB, "/var/log/x.gz"]]}
        else:
            self.free[name] = 25.0
            said |= {"stages": {"rotated": {"items": 5, "bytes": 24 * MB}}, "after": usage(25.0)}
        return 0, json.dumps(said), ""

    def commands(self, purpose: str) -> list[dict]:
        return [each for each in self.account.sent() if f" {purpose} " in each["Comment"]]


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    there = Shop()
    monkeypatch.setattr(engine, "Aws", there.account)
    monkeypatch.setattr(engine.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(engine.waiting, "wait_until", at_once)
    return there


def run(check: bool = False, **arguments: object) -> dict:
    chosen = {} if {"instance_ids", "auto_scaling_group"} & arguments.keys() else {"tags": {"service": "shop"}}
    return run_main(ssm_disk_cleanup.main, check, **{"region": "us-east-1", **chosen, **arguments})


def test_it_looks_cleans_and_says_what_is_free_before_and_after(shop: Shop) -> None:
    full, roomy = shop.add(1.0, 60.0)
    result = run()
    assert not result.get("failed"), result
    assert result["changed"] and [set(entry) for entry in result["undo"]] == [{"stays", "instead"}]
    assert result["before"] == {"instances": 2, "below_target": 1, "not_cleaned": 0, "lowest_free_percent": 1.0}
    assert result["after"] == {"instances": 2, "below_target": 0, "not_cleaned": 0, "lowest_free_percent": 25.0}
    about = {each["instance_id"]: each for each in result["instances"]}
    assert (about[full]["state"], about[roomy]["state"]) == ("cleaned", "enough")
    assert (about[full]["before"]["free_percent"], about[full]["after"]["free_percent"]) == (1.0, 25.0)
    assert len(result["command_ids"]) == 2
    again = run()
    assert (again["changed"], len(shop.commands("disk-cleanup"))) == (False, 1)


def test_check_mode_looks_and_cleans_nothing(shop: Shop) -> None:
    shop.add(1.0)
    result = run(check=True)
    assert (result["changed"], shop.commands("disk-cleanup")) == (True, [])
    assert result["after"]["lowest_free_percent"] == 20.0


def test_a_group_is_one_command_where_all_of_it_answer(shop: Shop) -> None:
    shop.account.groups["fleet"] = names = shop.account.add(3, {"aws:autoscaling:groupName": "fleet"})
    shop.free.update(dict.fromkeys(names, 1.0))
    result = run(auto_scaling_group="fleet", max_concurrency="10%")
    assert not result.get("failed"), result
    (look, clean) = shop.account.sent()
    assert look["Targets"] == clean["Targets"] == [{"Key": "tag:aws:autoscaling:groupName", "Values": ["fleet"]}]
    assert clean["MaxConcurrency"] == "10%"
    refused = run(auto_scaling_group="flet")
    assert "there is no Auto Scaling group flet in us-east-1 (there are: fleet)" in refused["msg"]


def test_those_that_do_not_answer_are_left_out_and_named_when_the_others_are_done(shop: Shop) -> None:
    full = shop.add(1.0, 2.0)
    (silent,) = shop.add(0.0, PingStatus="ConnectionLost")
    (broken,) = shop.add(0.0)
    shop.broken.add(broken)
    result = run()
    assert result["failed"] and result["changed"]
    assert "2 of 4 instances could not be cleaned" in result["msg"]
    assert f"{silent}: its agent has not answered" in result["msg"] and "Input/output error" in result["msg"]
    assert {shop.free[each] for each in full} == {25.0}
    assert sorted(result["not_cleaned"]) == sorted([silent, broken])
    assert shop.commands("disk-cleanup")[0]["InstanceIds"] == full


def test_a_lost_answer_cleans_once(shop: Shop) -> None:
    shop.add(1.0)
    shop.account.trouble = ["", "lost"]
    result = run()
    assert not result.get("failed"), result
    assert len(shop.commands("disk-cleanup")) == 1


def test_an_answer_that_never_comes_leads_to_another_look(shop: Shop) -> None:
    shop.add(1.0)
    shop.account.trouble = ["", "reset"]
    result = run()
    assert not result.get("failed"), result
    assert (len(shop.account.commands), result["after"]["below_target"]) == (3, 0)


def test_a_run_that_was_killed_is_gone_on_with(shop: Shop) -> None:
    (name,) = shop.add(1.0)
    earlier = ssm.RunCommand(shop.account, "disk-cleanup")
    options = disk_cleanup.script_options(WANTED)
    selection = ssm.Selection(tags={"service": "shop"})
    sent = earlier.send(disk_cleanup.command("clean", options), selection, {"InstanceIds": [name]}, ssm.Limits())
    planned = run(check=True)
    assert [each["do"] for each in planned["steps"]] == ["finish"]
    result = run()
    assert not result.get("failed"), result
    assert len(shop.commands("disk-cleanup")) == 1
    assert (result["changed"], result["command_ids"][-1], result["after"]["below_target"]) == (False, sent, 0)


def test_a_selection_that_cannot_be_is_refused(shop: Shop) -> None:
    assert "instance_ids is empty" in run(instance_ids=[])["msg"]
    assert "one to five tags" in run(tags={str(number): "x" for number in range(6)})["msg"]
    assert "SSM manages no instance with service=shop" in run()["msg"]
    assert shop.account.sent() == []

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cleanup script of ssm_disk_cleanup on real file systems, whatever lies there: what went may go, all else is as it was."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import disk_cleanup
from ansible_collections.sre.runbooks.plugins.modules.ssm_disk_cleanup import ARGUMENTS
from sandbox.ssm.machine import namespaces

BENCH = Path(__file__).parent / "disk_bench.py"
DISK = "/mnt/disk"
MIN_AGE = 7
WANTED = {name: each.get("default") for name, each in ARGUMENTS.items()}
ROTATED = re.compile(r".*\.(gz|xz|bz2|zst|old|\d{1,2})|.*-20\d{6}", re.DOTALL)
LOGS = re.compile(r".*\.log|.*\.log\..*|.*\.out|.*\.err|messages|syslog", re.DOTALL)
# Names that only a database gives, which an ending of a log does not make any better.
DATABASE = re.compile(r"[0-9A-F]{24}.*|.*\.(ibd|wt|rdb|sst|db|wal)\..*|mysql-bin\.\d{6}", re.DOTALL)
MARKS = ("PG_VERSION", "ibdata1", "WiredTiger", "CURRENT", "dump.rdb")

Bench = Callable[..., dict]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    begin = namespaces()
    if begin is None:
        pytest.skip("this machine allows no file systems of its own")
    with subprocess.Popen(
        [*begin, sys.executable, str(BENCH)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    ) as process:

        def ask(tree: list, fill: str | None = None, kind: str = "tmpfs", mode: str = "clean", **wanted: Any) -> dict:
            options = disk_cleanup.script_options(
                WANTED | {"path": DISK, "roots": [f"{DISK}/logs"], "min_age_days": MIN_AGE} | wanted
            )
            asked = {"tree": tree, "fill": fill, "kind": kind, "command": disk_cleanup.command(mode, options)}
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, "the bench is gone"
            seen = json.loads(line)
            assert not seen["err"], seen["err"]
            return seen | {"report": json.loads(seen["out"])}

        yield ask
        process.stdin.close()


def may_go(path: str, entry: list, before: dict) -> bool:
    """Said anew, and not as the script says it."""
    kind, names, age, _digest, _inode = entry
    folders = path.split("/")[:-1]
    above = ["/".join(folders[: depth + 1]) for depth in range(len(folders))]
    in_database = (
        any(f"{folder}/{mark}" in before for folder in above for mark in (*MARKS, "pg_wal")) or "pg_wal" in folders
    )
    name = path.rsplit("/", 1)[-1]
    return (
        path.startswith("logs/")
        and stat.S_ISREG(kind)
        and names == 1
        and age >= MIN_AGE
        and not in_database
        and "held" not in name
        and not path.startswith("logs/audit/")
        and bool(ROTATED.fullmatch(name) or LOGS.fullmatch(name))
        and not DATABASE.fullmatch(name)
    )


def check(seen: dict) -> None:
    before, after = seen["before"], seen["after"]
    gone = {path for path in before if path not in after}
    assert not after.keys() - before.keys(), "it has written something"
    wrong = [path for path in gone if not may_go(path, before[path], before)]
    assert not wrong, f"went, and may not: {wrong}"
    for path in after:
        was, now = before[path], after[path]
        assert (was[0], was[1], was[3], was[4]) == (now[0], now[1], now[3], now[4]), f"{path} was touched"
    end = seen["report"]["after"]
    if min(end["free_percent"], end["free_inodes_percent"]) < WANTED["target_free_percent"]:
        useful = [path for path in after if may_go(path, after[path], before) and before[path][3] != EMPTY]
        assert not useful, f"stays, though it would help: {useful}"


EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

characters = st.one_of(
    st.sampled_from(list(" \n\t-'\"$`\\*?[]{};|&<>()#!~éß中\U0001f4be")),
    st.characters(codec="utf-8", exclude_characters="/\0"),
    st.sampled_from(["\udcff", "\udc80"]),  # bytes that are no UTF-8
)
stems = st.text(characters, min_size=1, max_size=12).filter(lambda text: text not in (".", ".."))
endings = st.sampled_from([".log", ".gz", ".1", ".log.7", ".db.gz", ".txt", "", "-20260101", ".err"])
names = st.builds(str.__add__, stems, endings).filter(lambda name: len(os.fsencode(name)) < 200)
special = st.sampled_from(
    ["mysql-bin.000001", "000000010000000000000001.gz", "messages", "--help.log", "-rf.log", "$(reboot).log"]
)
folders = st.one_of(
    st.just("logs"), st.just("outside"), st.builds(lambda name: f"logs/{name}", stems), st.just("logs/audit")
)
ages = st.sampled_from([0, 1, 6, 8, 30, 4000])


@st.composite
def trees(draw: st.DrawFn) -> list:
    tree, taken = [["folder", "logs", 0, 0], ["folder", "outside", 0, 0]], set()
    for number in range(draw(st.integers(1, 14))):
        folder = draw(folders)
        if draw(st.integers(0, 9)) == 0:
            folder += f"/data{number}"
            tree.append(["file", f"{folder}/{draw(st.sampled_from(MARKS))}", 30, 10])
        elif draw(st.integers(0, 9)) == 0:
            folder += "/pg_wal"
        path = f"{folder}/{draw(st.one_of(names, names, special))}"
        if path in taken:
            continue
        taken.add(path)
        kind = draw(st.sampled_from(["file"] * 6 + ["symlink", "hardlink", "pipe"]))
        files = [entry[1] for entry in tree if entry[0] == "file"]
        if kind in ("symlink", "hardlink") and files:
            target = "outside" if kind == "symlink" and draw(st.booleans()) else draw(st.sampled_from(files))
            tree.append([kind, path, 30, target])
        else:
            size = draw(st.sampled_from([0, 1, 5000, 120000, 400000]))
            tree.append(["pipe" if kind == "pipe" else "file", path, draw(ages), size])
    return tree


def buildable(tree: list) -> bool:
    """No file stands where another entry needs a folder."""
    paths = {entry[1] for entry in tree if entry[0] != "folder"}
    return not any(str(parent) in paths for path in paths for parent in Path(path).parents) and (
        sum(entry[3] for entry in tree if entry[0] == "file") < 3_500_000
    )


@settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tree=trees().filter(buildable), fill=st.sampled_from([None, "blocks", "inodes"]))
def test_what_went_may_go_and_all_else_is_as_it_was(bench: Bench, tree: list, fill: str | None) -> None:
    check(bench(tree, fill, protected=[f"{DISK}/logs/audit"]))


OLD_LOGS = [["file", f"logs/app/worker {number}.log.{number}", 10 + number, 100_000] for number in range(12)]
SESSIONS = [["file", f"logs/sessions/{number}.log", 20, 0] for number in range(200)]


@pytest.fixture(params=["tmpfs", "ext4"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "ext4" and not (
        os.geteuid() == 0 and Path("/dev/loop0").exists() and shutil.which("mkfs.ext4")
    ):
        pytest.skip("no loop devices, or not root")
    return request.param


def test_full_to_the_last_block(bench: Bench, kind: str) -> None:
    seen = bench(OLD_LOGS, "blocks", kind)
    assert seen["report"]["before"]["bytes_free"] == 0
    assert 20 <= seen["report"]["after"]["free_percent"] < 25, "enough, and no more than that"
    gone = sorted(seen["before"].keys() - seen["after"].keys())
    # The oldest first.
    assert gone == sorted(f"logs/app/worker {number}.log.{number}" for number in range(12 - len(gone), 12))
    check(seen)


def test_full_to_the_last_inode(bench: Bench, kind: str) -> None:
    seen = bench(SESSIONS, "inodes", kind)
    assert seen["report"]["before"]["inodes_free"] == 0
    assert 20 <= seen["report"]["after"]["free_inodes_percent"] < 22
    check(seen)


def test_a_deleted_log_gives_its_space_back_while_its_writer_lives_on(bench: Bench, kind: str) -> None:
    tree = [["folder", "logs/app", 0, 0], ["deleted", "logs/app/work\ner.log", 0, 2_000_000]]
    seen = bench(tree, "blocks", kind)
    assert seen["report"]["stages"]["open_deleted"]["items"] == 1
    assert seen["report"]["stages"]["open_deleted"]["bytes"] >= 2_000_000
    assert seen["report"]["after"]["bytes_free"] >= 1_900_000
    assert seen["writers"] == 1, "its writer is dead, or cannot write"


def test_what_is_deleted_elsewhere_stays_with_its_process(bench: Bench) -> None:
    """Programs keep their scratch in deleted files; a database keeps data there."""
    tree = [
        ["file", "logs/data/PG_VERSION", 0, 3],
        ["deleted", "logs/data/sorted.log", 0, 500_000],
        ["folder", "outside", 0, 0],
        ["deleted", "outside/scratch.log", 0, 500_000],
        ["deleted", "logs/scratch", 0, 500_000],
    ]
    seen = bench(tree, "blocks")
    assert (seen["report"]["stages"], seen["writers"]) == ({}, 3)


def test_what_a_process_has_open_stays(bench: Bench) -> None:
    seen = bench([["folder", "logs", 0, 0], ["open", "logs/held.log", 30, 5000], *OLD_LOGS[:2]], "blocks")
    assert "logs/held.log" in seen["after"]
    check(seen)


def test_links_and_what_they_lead_to_stay(bench: Bench) -> None:
    traps = [
        ["file", "outside/notes.log", 30, 5000],
        ["symlink", "logs/notes.log", 0, "outside/notes.log"],
        ["symlink", "logs/elsewhere", 0, "outside"],
        ["hardlink", "logs/notes.log.1", 0, "outside/notes.log"],
        ["symlink", "logs/nowhere.log", 0, "outside/nothing"],
    ]
    seen = bench([*traps, *OLD_LOGS[:2]], "blocks")
    assert seen["before"].keys() - seen["after"].keys() == {each[1] for each in OLD_LOGS[:2]}
    check(seen)


def test_enough_is_enough(bench: Bench) -> None:
    seen = bench(OLD_LOGS)
    assert (seen["report"]["stages"], seen["after"]) == ({}, seen["before"])


def test_a_survey_touches_nothing_and_says_what_would_go(bench: Bench) -> None:
    seen = bench([*OLD_LOGS, ["deleted", "logs/app/worker.log", 0, 300_000]], "blocks", mode="survey")
    assert seen["after"] == seen["before"]
    stages = seen["report"]["stages"]
    assert (stages["rotated"]["items"], stages["open_deleted"]["items"]) == (12, 1)
    assert stages["rotated"]["bytes"] >= 1_200_000
    assert len(seen["out"]) < 2400, "more is cut by ListCommandInvocations"


@pytest.mark.parametrize("target", ["outside", "logs/app"])
def test_a_root_that_is_a_symbolic_link_is_refused(bench: Bench, target: str) -> None:
    tree = [*OLD_LOGS, ["file", "outside/old.log", 30, 1000], ["symlink", "link", 0, target]]
    seen = bench(tree, "blocks", roots=[f"{DISK}/link"])
    assert seen["after"] == seen["before"]
    assert seen["report"]["told"] == [f"{DISK}/link: is or lies behind a symbolic link: name where it leads"]


def test_a_root_inside_a_database_is_refused(bench: Bench) -> None:
    tree = [["file", "data/PG_VERSION", 30, 3], ["file", "data/log/postgresql.log.1", 30, 500_000]]
    seen = bench(tree, "blocks", roots=[f"{DISK}/data/log"])
    assert seen["after"] == seen["before"]
    assert "belongs to a database" in seen["report"]["told"][0]

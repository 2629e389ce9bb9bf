# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a slow service is hot: each picture as an incident has it, and what helps."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import hotspots
from ansible_collections.sre.runbooks.plugins.module_utils.hotspots import Database, Limits, Part, Seen
from ansible_collections.sre.runbooks.plugins.module_utils.instance_processes import Survey

SLOW = "p99 of shop-alb is 4.1 s, above 3 s since 08:02 UTC"
BUSIER = "requests of shop-alb is 900 a minute, more than the usual 120 a minute since 08:00 UTC"


def process(pid: int, command: str, cpu: float, rss: int = 10**7, may_end: bool = True) -> dict:
    about = {"started": f"b:{pid}", "elapsed": 240, "user": "app", "unit": None}
    return {"pid": pid, "command": command, "cpu": cpu, "rss": rss, "may_end": may_end, **about}


def instance(name: str, cpu: float, *processes: dict, memory: float = 40.0, cpus: int = 2) -> Part:
    commands = ("nginx", *(each["command"] for each in processes))
    survey = Survey(name, cpus, cpu, memory, 8 * 10**9, processes, commands)
    return Part("instance", name, cpu, memory, survey)


def tasks(*cpu: float | None, memory: tuple[float | None, ...] = ()) -> tuple[Part, ...]:
    memory = memory or (40.0,) * len(cpu)
    return tuple(Part("task", f"t{number}", *each) for number, each in enumerate(zip(cpu, memory, strict=True)))


def judged(*parts: Part, slow: str | None = SLOW, **seen: Any) -> hotspots.Hottest:
    return hotspots.hottest(Seen(slow=slow, parts=parts, **seen), Limits())


# ---- a process -------------------------------------------------------------------------------------------------------


def test_a_process_that_no_other_instance_runs_is_ended() -> None:
    found = judged(
        instance("i-1", 12, process(812, "java app.jar", 20)),
        instance("i-2", 97, process(4711, "python3 report.py", 180), process(811, "java app.jar", 12)),
    )
    assert (found.action, found.resource) == ("end_process", "processes")
    assert found.arguments == {"instance_id": "i-2", "pid": 4711, "started": "b:4711"}
    assert found.where == "process 4711 (python3 report.py) on i-2"
    assert found.why == (
        "i-2 is at 97 % of its processors, most of it by 4711 python3 report.py of app, 180 % of a processor, 10.0 MB, for 4 min, "
        "which runs on no other instance"
    )


def test_a_process_that_fills_the_memory_is_ended_too() -> None:
    eater = process(4711, "python3 report.py", 3, rss=6 * 10**9)
    found = judged(instance("i-1", 12), instance("i-2", 20, eater, memory=95))
    assert (found.action, found.arguments["pid"]) == ("end_process", 4711)
    assert "i-2 is at 95 % of its memory" in found.why


def test_a_process_of_the_service_is_not_ended_but_its_instance_replaced() -> None:
    own = process(812, "java app.jar", 190)
    cool = instance("i-1", 12, process(811, "java app.jar", 20))
    found = judged(cool, instance("i-2", 97, own))
    assert (found.action, found.where, found.arguments) == ("restart", "instance i-2", {"instance": "i-2"})
    named = judged(instance("i-2", 97, own), cool, own=("java *",))
    assert named.action == "restart"


@pytest.mark.parametrize(
    ("eater", "own"),
    [
        (process(9, "postgres", 190, may_end=False), ()),  # never ended
        (process(9, "report.py", 30), ()),  # there, but not why it is busy
        (process(9, "nginx", 190), ()),  # runs on the others as well
    ],
)
def test_what_is_no_stranger_or_not_why_is_left_alone(eater: dict, own: tuple) -> None:
    assert judged(instance("i-1", 12), instance("i-2", 97, eater), own=own).action == "restart"


def test_on_the_only_instance_nothing_tells_a_stranger_but_the_inventory() -> None:
    only = instance("i-1", 97, process(4711, "report.py", 190))
    assert judged(only).action == "scale"
    assert judged(only, own=("java *",)).action == "end_process"


# ---- the database ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("database", "playbook", "extra", "why"),
    [
        (
            Database("db", 20, 50, 100, blocked=7),
            "kill_queries",
            "-e kill=blocking",
            "7 sessions of db wait for others",
        ),
        (
            Database("db", 20, 50, 100, longest=((400, "SELECT sum(?) FROM t"), (3, "SELECT ?"))),
            "kill_queries",
            "-e older_than=60",
            "1 statements of db run for 60 s and more, the longest for 400 s: SELECT sum(?) FROM t",
        ),
        (Database("db", 20, 4, 100), "db_connections", "", "4 of 100 connections of db are free"),
        (
            Database("db", 96),
            "db_connections",
            "-e steps=resize -e db_instance_class=CLASS",
            "the processors of db are at 96 %, with no statement that runs for long",
        ),
    ],
)
def test_who_waits_for_the_database_is_not_helped_by_more_tasks(
    database: Database, playbook: str, extra: str, why: str
) -> None:
    found = judged(*tasks(91, 92), database=database)
    assert (found.action, found.where, found.why) == ("database", "db", why)
    assert found.arguments == {"playbook": playbook, "extra": extra}


def test_a_report_that_runs_for_long_while_users_are_well_is_nobodys_business() -> None:
    database = Database("db", 20, 50, 100, longest=((400, "SELECT sum(?) FROM t"),))
    assert judged(*tasks(30, 31), slow=None, database=database).action == "none"


# ---- one, all, or none -----------------------------------------------------------------------------------------------


def test_one_that_is_hot_while_the_others_are_not_is_replaced() -> None:
    found = judged(*tasks(20, 97, 30))
    assert (found.action, found.where, found.arguments) == ("restart", "task t1", {"task": "t1"})
    assert found.why == "task t1 is at 97 % of its processors, 2 others are at 25 %"
    leak = judged(*tasks(20, 20, 30, memory=(40, 41, 96)))
    assert (leak.resource, leak.where) == ("memory", "task t2")


def test_one_that_stands_out_without_a_name_is_said_to_have_none() -> None:
    found = judged(average={"cpu": 45, "memory": 30}, busiest={"cpu": 96, "memory": 31}, tasks=3)
    assert (found.action, found.arguments) == ("restart", {})
    assert found.where == "one of 3 tasks, and nothing tells which"


def test_load_that_is_spread_takes_more_of_them() -> None:
    found = judged(*tasks(88, 92, 91), busier=BUSIER)
    assert (found.action, found.resource, found.where) == ("scale", "processors", "all 3 tasks")
    assert found.why == f"all 3 tasks at 91 % of their processors; {BUSIER}"
    usual = judged(average={"cpu": 91, "memory": 30}, busiest={"cpu": 96, "memory": 31}, tasks=2)
    assert usual.action == "scale" and "no more is asked of it than usual" in usual.why
    assert judged(*tasks(97)).where == "the only task"


def test_memory_that_is_short_everywhere_takes_larger_ones() -> None:
    found = judged(*tasks(20, 30, memory=(91, 96)))
    assert (found.action, found.resource) == ("resize", "memory")


def test_where_nothing_tells_that_is_the_answer() -> None:
    found = judged(*tasks(20, 30))
    assert (found.action, found.where) == ("unknown", "")
    assert found.why == f"{SLOW}, and nothing that was looked at is busy: it waits for something else"
    assert judged(slow=None, latency_known=False).action == "unknown"
    assert judged(*tasks(20, 30), slow=None).action == "none"
    # Two hot and one cool: neither all of them, nor one among others.
    assert judged(*tasks(97, 20, 79), slow=None).action == "none"


def test_findings_name_all_that_was_seen() -> None:
    eater = process(4711, "python3 report.py", 180)
    seen = Seen(
        slow=SLOW,
        busier=BUSIER,
        parts=(Part("pod", "p-1", None, 12.5, restarts=4), instance("i-2", 97, eater)),
        database=Database("db", 20, 50, 100, 1, ((400.2, "SELECT ?"),)),
    )
    assert hotspots.findings(seen) == [
        SLOW,
        BUSIER,
        "instance i-2: processors 97 %, memory 40 %",
        "  4711 python3 report.py of app, 180 % of a processor, 10.0 MB, for 4 min",
        "pod p-1: processors unknown, memory 12.5 %, restarted 4 times",
        "database db: processors 20 %, 50 of 100 connections free, 1 sessions wait for others",
        "  400 s: SELECT ?",
    ]
    few = Seen(average={"cpu": 45, "memory": 30}, busiest={"cpu": 96, "memory": 31}, tasks=3, latency_known=False)
    assert hotspots.findings(few) == [
        "response times are not known",
        "3 tasks: processors 45 %, the busiest 96 %; memory 30 %, the fullest 31 %",
    ]

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill_queries.yml: those who are meant are ended on the real database, and all others live on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from runbook import Result
from world import EAST, World, wait_until

# What the sandbox's sessions write into their statements.
VALUES = ("jane@example.com", "4111-1111")


@pytest.fixture(scope="module")
def one_world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture
def world(one_world: World) -> Iterator[World]:
    """No test here changes more than sessions: they end with the fault that opened them."""
    yield one_world
    one_world.sandbox.heal()


def kill(world: World, *flags: str, **variables: object) -> Result:
    return world.runbook.run("kill_queries", *flags, **variables)


def sessions(world: World, application: str) -> dict[tuple, str]:
    """{(pid, start): state} of an application's, as the database has them."""
    with world.session(EAST) as query:
        rows = query("SELECT pid, backend_start, state FROM pg_stat_activity WHERE application_name = %s", application)
    return {(pid, start): state for pid, start, state in rows}


def test_queries_are_ended_once_and_check_ends_none(world: World) -> None:
    world.sandbox.fault("long-queries", count=20)
    world.sandbox.fault("idle-in-transaction", count=2)
    searching, reporting = sessions(world, "regami-search"), sessions(world, "regami-reports")

    planned = kill(world, "--check", "--diff", older_than=0)
    assert (planned.returncode, planned.mutations) == (0, [])
    assert "cancel what 20 sessions run" in planned.output
    assert sessions(world, "regami-search") == searching

    run = kill(world, older_than=0)
    assert run.returncode == 0, run.output
    # They were cancelled, which was enough: the connections are there and do nothing.
    assert sessions(world, "regami-search") == dict.fromkeys(searching, "idle")
    assert sessions(world, "regami-reports") == reporting
    assert not [value for value in VALUES if value in planned.output + run.output]

    again = kill(world, older_than=0)
    assert (again.returncode, again.recap["changed"], again.report["outcome"]) == (0, 0, "noop")


def test_of_a_blocking_chain_only_the_head_is_ended(world: World) -> None:
    world.sandbox.fault("blocking-chain", count=60)
    before = sessions(world, "regami-billing")
    (head,) = [who for who, state in before.items() if state == "idle in transaction"]
    run = kill(world, "-v", kill="blocking")
    assert run.returncode == 0, run.output
    wait_until(lambda: set(sessions(world, "regami-billing").values()) == {"idle"}, "each gets what it waited for")
    assert set(sessions(world, "regami-billing")) == set(before) - {head}
    assert "depth: 59" in run.output
    assert not [value for value in VALUES if value in run.output]


def test_where_all_connections_are_taken_there_is_a_way_in_and_users_are_served_again(world: World) -> None:
    world.sandbox.fault("idle-in-transaction")
    crowd = len(sessions(world, "regami-reports"))
    assert crowd > 80
    run = kill(world, kill="idle_in_transaction", older_than=0, kill_per_round=60)
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    assert "0 free for all" in run.output
    assert sessions(world, "regami-reports") == {}


def test_killed_between_two_rounds_and_run_again(world: World) -> None:
    world.sandbox.fault("idle-in-transaction", count=30)
    options = {"kill": "idle_in_transaction", "older_than": 0, "kill_per_round": 10}
    running = world.runbook.start("kill_queries", **options)
    running.until(lambda run: any("before round 2" in event.get("line", "") for event in run.timeline))
    running.kill()
    assert len(sessions(world, "regami-reports")) == 20
    again = kill(world, **options)
    assert again.returncode == 0, again.output
    assert sessions(world, "regami-reports") == {}


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({"kill": "query"}, "kill=query means nobody: say -e kill=NAME with one of blocking, idle, "),
        ({"db_instance": "regami-db-primry"}, "there is no RDS instance regami-db-primry in us-east-1 (there are: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_ends_nobody_and_is_named(world: World, variables: dict, part: str) -> None:
    run = kill(world, **{"older_than": 0, **variables})
    assert run.returncode == 2
    (complaint,) = run.complaints
    assert part in complaint
    assert not re.search(r"Traceback|password=", run.output)

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""schema_drift.yml: the newest migration never ran, users get 400 from one page, and a reviewed file mends it, once."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from typing import Any

import pytest
from killing import Point, answered, killed_at, said
from runbook import Result
from world import EAST, WEST, World, wait_until

pytest.importorskip("alembic", reason="of requirements-dev.txt")

RUN_TASK = f"ecs:RunTask {EAST}"
PLAYBOOK = "schema_drift"
HEAD, BEFORE = "8e2d4c6a1f37", "5b1f0c7d2a90"
# Running it twice leaves two rows: it says how often it ran.
FIX = """\
-- What migration 8e2d4c6a1f37 would have done.
ALTER TABLE rows ADD COLUMN IF NOT EXISTS written_at timestamptz DEFAULT now();
INSERT INTO repairs DEFAULT VALUES;
DO $$ BEGIN RAISE NOTICE 'the audit can go on'; END $$;
"""


@pytest.fixture(scope="module")
def fix(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The file and what its reviewer signed, as variables of the playbook."""
    path = tmp_path_factory.mktemp("reviewed") / "fix.sql"
    path.write_text(FIX)
    return {"sql_file": str(path), "reviewed_sha256": hashlib.sha256(FIX.encode()).hexdigest(), "stamp": "head"}


@pytest.fixture(scope="module")
def first_world(any_world: World) -> World:
    any_world.begin()
    return any_world


@pytest.fixture
def drifted(first_world: World) -> Iterator[World]:
    """Without the newest migration, and without what an earlier test has repaired. ECS would remember the repair for an hour:
    each test that repairs says which attempt its own is."""
    world = first_world
    world.sandbox.heal()
    wait_until(lambda: world.lease() is None or world.lease()["run"] == "released", "the lease is free")
    with world.session(EAST) as query:
        query("DROP TABLE IF EXISTS repairs")
        query("CREATE TABLE repairs (at timestamptz DEFAULT clock_timestamp())")
        query("GRANT INSERT ON repairs TO regami")
    world.sandbox.fault("schema-drift")
    yield world
    world.sandbox.heal()


def audit(world: World) -> int:
    """What a user gets."""
    address, _, port = world.names(EAST)["alb_url"].removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(address, int(port), timeout=5)
    connection.request("GET", "/v1/audit/search", headers={"Host": world.sandbox.state["public_name"]})
    return connection.getresponse().status


def schema(world: World) -> tuple[str, int]:
    """(revision that the database says it has, how often the file was run)."""
    with world.session(EAST) as query:
        return query("SELECT version_num, (SELECT count(*) FROM repairs) FROM alembic_version")[0]


def mend(world: World, *flags: str, **variables: Any) -> Result:
    return world.runbook.run(PLAYBOOK, *flags, **variables)


def refusal(world: World, **variables: Any) -> str:
    run = mend(world, **variables)
    assert (run.returncode, run.mutations) == (2, []), run.output
    (complaint,) = run.complaints
    return complaint


def test_a_look_says_what_the_database_has_and_what_the_image_wants(drifted: World) -> None:
    run = mend(drifted)
    assert (run.returncode, run.mutations, schema(drifted)) == (2, [RUN_TASK], (BEFORE, 0)), run.output
    (complaint,) = run.complaints
    assert f"alembic_version is {BEFORE}, the image wants {HEAD}" in complaint and "-e sql_file=FILE" in complaint


def test_a_plan_starts_no_task(drifted: World, fix: dict) -> None:
    planned = mend(drifted, "--check", "--diff", **fix)
    assert (planned.returncode, planned.mutations, schema(drifted)) == (0, [], (BEFORE, 0)), planned.output
    for part in (
        "run fix.sql (3 statements",
        "stamp alembic_version with head",
        "ALTER TABLE rows ADD COLUMN",
        "DO ?",
    ):
        assert part in planned.output


def test_a_reviewed_file_mends_it_once(drifted: World, fix: dict) -> None:
    assert audit(drifted) == 400
    run = mend(drifted, **fix, expect_version=BEFORE)
    assert (run.returncode, run.mutations) == (0, [RUN_TASK]), run.output
    assert (audit(drifted), schema(drifted)) == (200, (HEAD, 1))
    assert any(check["name"] == "audit search" and check["ok"] for check in run.report["verification"])
    assert all(secret not in run.output + str(run.report) + str(run.timeline) for secret in drifted.secrets())

    again = mend(drifted, **fix, expect_version=BEFORE)
    assert (again.returncode, again.mutations, schema(drifted)) == (0, [], (HEAD, 1)), again.output
    assert any("was done by task" in note for note in again.report["notes"])


def test_a_busy_table_is_given_up_and_nothing_stays(drifted: World, fix: dict) -> None:
    fix = fix | {"attempt": 2, "lock_timeout": 0.5}
    with drifted.session(EAST) as query:
        query("BEGIN")
        query("SELECT count(*) FROM rows")  # what a long report holds
        run = mend(drifted, **fix)
    assert run.returncode == 2, run.output
    (complaint,) = run.complaints
    assert "LockNotAvailable: canceling statement due to lock timeout" in complaint and "rolled back" in complaint
    assert (schema(drifted), run.report["undo"]) == ((BEFORE, 0), [])
    # The same command again, when the table is free.
    again = mend(drifted, **fix)
    assert (again.returncode, schema(drifted)) == (0, (HEAD, 1)), again.output


def test_what_must_not_run(drifted: World, fix: dict) -> None:
    said_so = refusal(drifted, **fix | {"reviewed_sha256": "0" * 64})
    assert "fix.sql is not the text that was reviewed" in said_so and fix["reviewed_sha256"] in said_so
    run = mend(drifted, **fix, expect_version="1111aaaa2222", attempt=3)
    assert f"alembic_version is {BEFORE}, not 1111aaaa2222" in run.complaints[0], run.output
    assert (run.returncode, schema(drifted)) == (2, (BEFORE, 0))


POINTS = (
    Point("planned, nothing sent", said("run fix.sql"), ("ecs", "RunTask", EAST)),
    Point("the task is started", answered("RunTask", EAST)),
    Point(
        "done, lease not given back",
        said("give the lease regami-api back"),
        ("dynamodb", "UpdateItem", WEST),
        answered("RunTask", EAST),
    ),
)


@pytest.mark.parametrize(
    "number",
    [*(pytest.param(number, marks=pytest.mark.soak) for number in range(len(POINTS) - 1)), len(POINTS) - 1],
    ids=[point.name for point in POINTS],
)
def test_killed(drifted: World, fix: dict, number: int) -> None:
    fix = fix | {"attempt": 10 + number}
    killed = killed_at(drifted, POINTS[number], PLAYBOOK, **fix)
    drifted.sandbox.fault("schema-drift") if number == 0 else None  # killed_at heals everything
    again = mend(drifted, **fix)
    assert again.returncode == 0, again.output
    assert (again.report["resumes"], schema(drifted)) == (killed.folder.name, (HEAD, 1))


def test_of_two_responders_one_runs_it(drifted: World, fix: dict) -> None:
    fix = fix | {"attempt": 20}
    runs = [drifted.runbook.start(PLAYBOOK, **fix) for _ in range(2)]
    told, acted = sorted((run.wait() for run in runs), key=lambda result: len(result.timeline))
    assert (acted.returncode, told.returncode) == (0, 2), acted.output + told.output
    assert "has held the lease regami-api since 20" in told.complaints[0]
    assert (acted.mutations, schema(drifted)) == ([RUN_TASK], (HEAD, 1))


def test_answers_that_are_lost(drifted: World, fix: dict) -> None:
    """First the task was not started, then it was, and nobody hears of it."""
    for kind in ("reset", "lost-answer"):
        drifted.sandbox.fault("api", service="ecs", action="RunTask", kind=kind, region=EAST, count=1)
    run = mend(drifted, **fix, attempt=30)
    assert (run.returncode, run.mutations, schema(drifted)) == (0, [RUN_TASK] * 2, (HEAD, 1)), run.output

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a schema repair sends into a task, run here as the task would run it, against the real database by each driver."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

import pytest
from runbook import REPOSITORY
from world import EAST, World

from ansible_collections.sre.runbooks.plugins.module_utils import schema_repair

DRIVERS = ("psycopg2", "psycopg", "asyncpg")
HEAD = "8e2d4c6a1f37"
IMAGE = REPOSITORY / "sandbox" / "image"


@pytest.fixture(scope="module")
def database(any_world: World) -> World:
    any_world.begin()
    with any_world.session(EAST) as query:
        query("CREATE TABLE repairs (number int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        query("GRANT ALL ON repairs TO regami")
    return any_world


def repaired(world: World, sql: str | None, driver: str = "psycopg2", stamp: str | None = None, **ask: Any) -> tuple:
    """(exit code, {event: what the runner told}, other lines)."""
    if importlib.util.find_spec(driver) is None:
        pytest.skip(f"{driver} is not installed")
    what = {
        "key": "k",
        "sql": sql,
        "stamp": stamp,
        "expect": None,
        "after": None,
        "alembic_config": "",
        "lock_timeout": 0.3,
        "statement_timeout": 5,
        "variables": {"url": "DATABASE_URL", "password": "DATABASE_PASSWORD"},
    } | ask
    without = "".join(f"sys.modules[{other!r}] = None;" for other in DRIVERS if other != driver)
    python, flag, program = schema_repair.command(sys.executable)
    options = {"sslmode": "prefer", "ssl_root_cert": None}
    done = subprocess.run(
        [python, flag, f"import sys;{without}{program}"],
        cwd=IMAGE,
        env=os.environ
        | schema_repair.environment(what, options)
        | {
            "DATABASE_URL": f"postgresql+asyncpg://regami:wrong@{world.address(EAST)}/regami?ssl=require",
            "DATABASE_PASSWORD": world.secret("db_app"),
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert world.secret("db_app") not in done.stdout + done.stderr
    found, rest = {}, []
    for line in (done.stdout + done.stderr).splitlines():
        if event := schema_repair.told(line):
            found[event["event"]] = event
        else:
            rest.append(line)
    return done.returncode, found, rest


def rows(world: World) -> list[int]:
    with world.session(EAST) as query:
        return [number for (number,) in query("SELECT number FROM repairs ORDER BY number")]


@pytest.mark.parametrize("driver", DRIVERS)
def test_by_each_driver(database: World, driver: str) -> None:
    """Several statements with what looks like parameters; then one that fails, whose file leaves nothing."""
    number = 10 * (1 + DRIVERS.index(driver))
    code, found, _lines = repaired(database, f"INSERT INTO repairs VALUES ({number});SELECT '%s', 5 % 2;", driver)
    assert (code, found["committed"]["database"], number in rows(database)) == (0, [HEAD], True), found
    code, found, _lines = repaired(database, f"INSERT INTO repairs VALUES ({number + 1}); SELECT 1/0", driver)
    assert (code, "division by zero" in found["failed"]["error"], number + 1 in rows(database)) == (1, True, False)
    code, found, _lines = repaired(database, None, driver)
    assert (code, found["looked"]) == (0, {"event": "looked", "database": [HEAD], "image": None})


def test_what_fails_at_its_commit_is_known_to_be_rolled_back(database: World) -> None:
    code, found, _lines = repaired(database, "INSERT INTO repairs VALUES (1), (1)")
    assert (code, "UniqueViolation" in found["failed"]["error"], 1 in rows(database)) == (1, True, False)


def test_a_file_that_ends_the_transaction_all_the_same_is_found_out(database: World) -> None:
    code, found, _lines = repaired(database, "INSERT INTO repairs VALUES (2); COMMIT; INSERT INTO repairs VALUES (3)")
    assert code == 1 and "part of it is committed" in found["partly"]["error"]


def test_what_became_of_the_transaction_before(database: World) -> None:
    """It was committed: nothing is run again. It was rolled back: it is."""
    _code, found, _lines = repaired(database, "INSERT INTO repairs VALUES (4)")
    _code, again, _lines = repaired(database, "INSERT INTO repairs VALUES (5)", after=found["committed"]["transaction"])
    assert again["committed"]["transaction"] == found["committed"]["transaction"] and 5 not in rows(database)
    _code, found, _lines = repaired(database, "INSERT INTO repairs VALUES (6); SELECT 1/0")
    repaired(
        database,
        "INSERT INTO repairs VALUES (6)",
        after=found["failed"].get("transaction") or found["found"]["transaction"],
    )
    assert 6 in rows(database)


def test_a_migration_that_goes_on_is_not_run_over(database: World) -> None:
    with database.session(EAST) as query:
        query("BEGIN")
        query("UPDATE alembic_version SET version_num = version_num")
        code, found, _lines = repaired(database, "INSERT INTO repairs VALUES (7)")
    assert (code, "lock timeout" in found["failed"]["error"], 7 in rows(database)) == (1, True, False)


@pytest.mark.parametrize("stamp", ["head", "5b1f0c7d2a90", "1111aaaa2222"])
def test_only_what_the_image_has_is_stamped(database: World, stamp: str) -> None:
    pytest.importorskip("alembic", reason="of requirements-dev.txt")
    code, found, _lines = repaired(database, None, stamp=stamp, alembic_config="alembic.ini")
    if stamp == "1111aaaa2222":
        assert (code, found["refused"]["error"]) == (3, "cannot stamp 1111aaaa2222: the image has no such revision")
    else:
        assert (code, found["committed"]["database"]) == (0, [HEAD if stamp == "head" else stamp])


def test_what_the_server_says_is_a_line_of_the_log(database: World) -> None:
    _code, _found, lines = repaired(database, "DO $$ BEGIN RAISE NOTICE 'one % of two', '%s'; END $$")
    assert lines == ["NOTICE:  one %s of two"]

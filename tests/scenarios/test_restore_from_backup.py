# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""restore_from_backup.yml: somebody deleted rows, and they come back, every one of the chosen moment and no other."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from killing import answered
from runbook import Result
from world import EAST, PRIMARY, REPLICA, World, wait_until

from ansible_collections.sre.runbooks.plugins.module_utils.aws import Aws
from ansible_collections.sre.runbooks.plugins.modules import pg_check_data, rds_restore, rds_swap_names
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main

RESTORED, KEPT = f"{PRIMARY}-restored", f"{PRIMARY}-old"
SNAPSHOT = "before-the-release"
ROWS = "SELECT id FROM rows ORDER BY id"


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class Story:
    """`wanted`: numbers that users were told are committed before `moment`; `later`: those sent after it. Then all rows went."""

    world: World
    moment: str
    in_snapshot: set[int]
    wanted: set[int]
    later: set[int]

    def login(self) -> dict[str, Any]:
        state = self.world.sandbox.state
        return {
            "endpoint_url": state["endpoint_url"],
            "access_key": "sandbox",
            "secret_key": "sandbox",
            "region": EAST,
            "login_user": state["db_admin_user"],
            "login_password_file": state["db_admin_password_file"],
            "login_db": state["db_name"],
            "sslmode": "prefer",
        }

    def run(self, verb: Callable[[], None], /, **arguments: Any) -> dict[str, Any]:
        return run_main(verb, **{**self.login(), **arguments})

    def swap(self, **arguments: Any) -> dict[str, Any]:
        return self.run(rds_swap_names.main, db_instance=PRIMARY, restored_instance=RESTORED, **arguments)

    def rows(self, name: str) -> set[int]:
        with self.world.session(EAST, name=name) as query:
            return {number for (number,) in query(ROWS)}

    def who(self) -> dict[str, str]:
        """{name: resource id}, of those that are not in the middle of something."""
        there = self.world.databases(EAST)
        return {name: each["DbiResourceId"] for name, each in there.items() if each["DBInstanceStatus"] == "available"}


def utc(seconds: float) -> str:
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def take_snapshot(world: World) -> None:
    world.aws("rds").create_db_snapshot(DBInstanceIdentifier=PRIMARY, DBSnapshotIdentifier=SNAPSHOT)
    wait_until(lambda: world.database(EAST)["DBInstanceStatus"] == "available", "the snapshot")


@pytest.fixture(scope="module")
def story(any_world: World) -> Iterator[Story]:
    world = any_world
    world.begin()
    world.start_users(pinned=False)
    before_snapshot = {ack["id"] for ack in world.acknowledged()}
    take_snapshot(world)
    world.await_users(10)
    moment = time.time()
    world.await_users(10)
    acknowledged = world.acknowledged()
    with world.session(EAST) as query:
        query("DELETE FROM rows")
    world.await_users(3)
    world.stop_users(more=0)
    latest = lambda: world.database(EAST)["LatestRestorableTime"].timestamp()  # noqa: E731
    wait_until(lambda: latest() > moment, "the log in safety")
    yield Story(
        world,
        utc(moment),
        before_snapshot,
        {ack["id"] for ack in acknowledged if ack["acked"] < moment},
        {ack["id"] for ack in world.acknowledged() if ack["sent"] > moment},
    )
    world.sandbox.heal()


def recover(story: Story, *flags: str, **variables: Any) -> Result:
    return story.world.runbook.run("restore_from_backup", *flags, restore_time=story.moment, **variables)


def changes(run: Result) -> list[str]:
    return [name.partition(" ")[0] for name in run.mutations]


@pytest.fixture(scope="module")
def told(story: Story) -> Result:
    """Nothing is asked for: what is there."""
    return story.world.runbook.run("restore_from_backup")


@pytest.fixture(scope="module")
def killed_and_again(story: Story, told: Result) -> tuple[Result, Result, Result]:
    """The plan, a run that is killed when the damaged database is losing its name, and the same command again."""
    plan = recover(story, "--check", "--diff", switch="rename")
    running = story.world.runbook.start("restore_from_backup", restore_time=story.moment, switch="rename")
    running.until(lambda run: answered("ModifyDBInstance", EAST)(run, story.world))
    running.kill()
    return plan, recover(story, switch="rename"), recover(story, switch="rename")


def test_what_there_is_to_go_back_to(told: Result) -> None:
    assert told.returncode == 0 and not told.mutations
    assert "any second from" in told.output and f"snapshot {SNAPSHOT}, manual" in told.output
    assert f"snapshot rds:{PRIMARY}-" in told.output
    assert "-e restore_time=TIME" in told.output


def test_the_plan_has_every_step_and_changes_nothing(killed_and_again) -> None:
    plan, _again, _thrice = killed_and_again
    assert plan.returncode == 0 and not plan.mutations
    for step in (
        f"take the safety snapshot {PRIMARY}-before-{RESTORED}-",
        f"restore {PRIMARY} to ",
        "set the desired count of regami-service to 0",
        f"rename {PRIMARY} to {KEPT}",
        f"rename {RESTORED} to {PRIMARY}",
    ):
        assert step in plan.output


def test_killed_between_the_names_it_ends_right(story: Story, killed_and_again) -> None:
    """Every row committed before the moment, none after; the damaged original is kept; nothing is deleted."""
    _plan, again, thrice = killed_and_again
    assert again.returncode == 0, again.output
    assert changes(again).count("rds:ModifyDBInstance") == 1, "the second name only"
    assert not {"rds:CreateDBSnapshot", "rds:RestoreDBInstanceToPointInTime"} & set(changes(again))
    assert thrice.returncode == 0, thrice.output
    assert thrice.mutations == [] and thrice.recap["changed"] == 0
    there = story.world.databases(EAST)
    assert {PRIMARY, KEPT} <= there.keys() and RESTORED not in there
    rows = story.rows(PRIMARY) - {-1}  # of the smoke test
    assert story.wanted <= rows and not story.later & rows
    assert story.rows(KEPT) < story.later | {-1}
    service = story.world.service(EAST)
    assert (service["desiredCount"], service["runningCount"]) == (2, 2)
    assert REPLICA in again.output and "rds_recreate_replica" in again.output
    source, made = there[KEPT], there[PRIMARY]
    for key in ("DBInstanceClass", "BackupRetentionPeriod", "VpcSecurityGroups", "DBParameterGroups", "DBSubnetGroup"):
        assert made[key] == source[key], key
    safety = story.world.aws("rds").describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    assert sorted(each["DBSnapshotIdentifier"].rpartition("-")[0] for each in safety) == [
        SNAPSHOT.rpartition("-")[0],
        f"{PRIMARY}-before-{RESTORED}",
    ]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"switch": "swap"}, "switch=swap is no way to switch here: say -e switch=rename"),
        ({"switch": "rename", "restore_checks": []}, "restore_checks of api-sandbox is empty"),
    ],
)
def test_what_is_refused_names_the_way_out(story: Story, killed_and_again, variables, words) -> None:
    run = recover(story, **variables)
    assert run.returncode == 2 and not run.mutations
    assert words in " ".join(run.complaints)


# ---- the verbs by themselves, stopped at every call that changes something


def stopped(number: int, before: bool, run: Callable[..., Any], /, **arguments: Any) -> bool:
    """Run a verb and kill it at its change of that number, before it is sent or after; whether it came there."""
    change, seen = Aws.change, []

    def counted(self: Aws, *given: Any, **named: Any) -> Any:
        seen.append(given)
        if len(seen) == number and before:
            raise Killed
        answer = change(self, *given, **named)
        if len(seen) == number:
            raise Killed
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Aws, "change", counted)
        try:
            run(**arguments)
        except Killed:
            return True
    return False


@pytest.fixture(scope="module")
def beside(story: Story, killed_and_again) -> Story:
    """All names as they were, both databases there."""
    result = story.swap(state="original", accept_sessions=True)
    assert not result["failed"], result
    return story


def test_a_snapshot_comes_back_beside(beside: Story) -> None:
    """Killed after each change; and told apart from the other database that was restored."""
    restore = partial(
        beside.run, rds_restore.main, db_instance=PRIMARY, restored_instance="from-snapshot", snapshot=SNAPSHOT
    )
    assert stopped(1, False, restore), "the safety snapshot is being made"
    assert stopped(1, False, restore), "and now the instance"
    result = restore()
    assert not result["failed"], result
    assert (result["exists"], result["switched"], result["source"]) == (True, False, PRIMARY)
    assert result["changed"] is False, "there was nothing left but to wait"
    made = beside.world.aws("rds").describe_db_snapshots(SnapshotType="manual")["DBSnapshots"]
    safety = [name for each in made if "from-snapshot" in (name := each["DBSnapshotIdentifier"])]
    assert safety == [result["safety_snapshot"]]
    rows = beside.rows("from-snapshot")
    assert beside.in_snapshot <= rows < beside.wanted
    refused = beside.run(rds_restore.main, db_instance=PRIMARY, restored_instance=RESTORED, snapshot=SNAPSHOT)
    assert f"{RESTORED} is there already and was restored to {beside.moment}" in refused["msg"]
    wrong = [{"name": "rows", "query": "SELECT count(*) FROM rows", "beside": "fewer"}]
    checked = beside.run(pg_check_data.main, db_instance="from-snapshot", beside=PRIMARY, queries=wrong)
    assert checked["failed"] and checked["checks"][0]["value"] == str(len(rows))
    writing = [
        {"name": "rows", "query": "WITH x AS (DELETE FROM rows RETURNING 1) SELECT count(*) FROM x", "expect": "0"}
    ]
    checked = beside.run(pg_check_data.main, db_instance="from-snapshot", queries=writing)
    assert "read-only transaction" in checked["msg"] and beside.rows("from-snapshot") == rows


def test_the_swap_killed_at_each_step_leads_on_and_back(beside: Story) -> None:
    first = beside.who()
    swapped = {PRIMARY: first[RESTORED], KEPT: first[PRIMARY]}
    ends = {"swapped": swapped, "original": {PRIMARY: first[PRIMARY], RESTORED: first[RESTORED]}}
    for number, before in ((1, False), (2, True), (2, False)):
        for state, names in ends.items():
            assert stopped(number, before, beside.swap, state=state, accept_sessions=True)
            if (number, before) == (2, True):  # one name is left to change: it is changed, and nobody hears of it
                beside.world.sandbox.fault(
                    "api", service="rds", action="ModifyDBInstance", kind="lost-answer", region=EAST, count=1
                )
            done = beside.swap(state=state, accept_sessions=True)
            assert not done["failed"], done
            assert {name: beside.who().get(name) for name in names} == names
    # Half way, and back at once, as the undo entry of a swap says.
    assert stopped(2, True, beside.swap, accept_sessions=True)
    planned = run_main(rds_swap_names.main, True, **beside.login(), db_instance=PRIMARY, restored_instance=RESTORED)
    assert [step["do"] for step in planned["steps"]] == ["rename"]
    (undo,) = planned["undo"]
    back = beside.run(rds_swap_names.main, **undo["arguments"])
    assert not back["failed"] and beside.who() == first


def test_the_service_is_moved_by_its_task_definition(beside: Story) -> None:
    """Taken off the air first; the names stay as they are."""
    world, names = beside.world, beside.who()
    run = recover(beside, switch="task_definition", stop_first=True)
    assert run.returncode == 0, run.output
    assert beside.who() == names and not any("ModifyDBInstance" in each for each in run.mutations)
    definition = world.aws("ecs").describe_task_definition(taskDefinition=world.service(EAST)["taskDefinition"])
    (container,) = definition["taskDefinition"]["containerDefinitions"]
    (url,) = [each["value"] for each in container["environment"] if each["name"] == "DATABASE_URL"]
    assert world.address(EAST, RESTORED) in url
    assert changes(run).count("ecs:UpdateService") == 3, "to 0, to the new revision, back to 2"
    assert world.service(EAST)["runningCount"] == 2
    again = recover(beside, switch="task_definition", stop_first=True)
    assert again.returncode == 0 and not again.mutations, "it is not taken off the air for nothing"

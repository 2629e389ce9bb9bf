# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Away, protected again, and back: users write all the while and lose nothing."""

from __future__ import annotations

import pytest
from world import EAST, PRIMARY, REPLICA, WEST, World


@pytest.mark.soak
def test_there_and_back_under_load(world: World) -> None:
    world.start_users()
    away = world.runbook.run()
    assert away.returncode == 0, away.output
    with world.session(EAST) as query:
        (left_behind,) = query("SELECT count(*) FROM rows")

    # Back at once would be back to a database that has missed everything since.
    early = world.runbook.run(env="sandbox_secondary")
    assert early.returncode == 2
    (complaint,) = early.complaints
    assert f"{REPLICA} was itself promoted from {PRIMARY} and is the primary now" in complaint
    assert f"playbooks/db_reprotect.yml first to make {PRIMARY} its replica" in complaint
    assert early.mutations == []

    protected = world.runbook.run("db_reprotect")
    assert protected.returncode == 0, protected.output
    assert protected.report["outcome"] == "recovered"
    replica = world.database(EAST)
    assert replica["ReadReplicaSourceDBInstanceIdentifier"].endswith(f"{WEST}:123456789012:db:{REPLICA}")
    (retired,) = [name for name in world.databases(EAST) if name.startswith(f"{PRIMARY}-retired-")]
    assert any(retired in note for note in protected.report["notes"])
    with world.session(EAST, name=retired) as query:
        assert query("SELECT count(*) FROM rows") == [left_behind]
    assert not world.takes_writes(EAST, retired)
    again = world.runbook.run("db_reprotect")
    assert (again.returncode, again.recap["changed"], again.mutations) == (0, 0, [])

    back = world.runbook.run(env="sandbox_secondary")
    assert back.returncode == 0, back.output
    assert (back.report["mode"], back.report["unfenced"]) == ("switchover", False)
    users = world.stop_users()
    assert users["lost_writes"] == 0
    assert users["overlap"] is False
    first, second, third = users["databases"]
    # An endpoint goes with its name: the new database has that of the old one, whose rows are looked at above.
    assert first["database"] == third["database"] == world.address(EAST) != second["database"]
    assert world.takes_writes(EAST) and not world.takes_writes(WEST)
    assert world.service(EAST)["runningCount"] == 2 and world.service(WEST)["desiredCount"] == 0
    third_run = world.runbook.run(env="sandbox_secondary")
    assert (third_run.returncode, third_run.report["outcome"], third_run.recap["changed"]) == (0, "noop", 0)

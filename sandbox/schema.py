# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database whose schema is not what the running image expects: its newest migration is missing.

Courtcase scenario 6: one endpoint answers 400, the log has "column ... does not exist".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import postgres, rds
from .faults import Fault

if TYPE_CHECKING:
    from .world import World

# As in image/migrations/versions.
HEAD, BEFORE = "8e2d4c6a1f37", "5b1f0c7d2a90"


def _set(world: World, sql: str, version: str) -> None:
    with rds.servers[world.regions[0], rds.PRIMARY].session(database=postgres.DATABASE) as query:
        query(f"BEGIN; {sql}; UPDATE alembic_version SET version_num = '{version}'; COMMIT")


def _drift(world: World) -> None:
    _set(world, "ALTER TABLE rows DROP COLUMN IF EXISTS written_at", BEFORE)


def _mend(world: World) -> None:
    _set(world, "ALTER TABLE rows ADD COLUMN IF NOT EXISTS written_at timestamptz DEFAULT now()", HEAD)


faults = {
    "schema-drift": Fault(
        "the newest migration of the image is missing in the database: rows has no column written_at", _drift, _mend
    )
}

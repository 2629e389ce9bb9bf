# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the database of the standby has the schema of the one in use, where it is no replica and could have another.

By what Alembic writes down: https://alembic.sqlalchemy.org/en/latest/tutorial.html
"""

from __future__ import annotations

from . import rds
from .aws import tried_together
from .postgres_login import Login
from .readiness import MOVES, NOT_READY, Found

CHECK, SCENARIOS = "schema", MOVES


def looks(aws, wanted, now):
    """{standby's instance: call}; the call gives {instance: its versions}, None where there are not two databases."""
    here, standby, login = wanted["db_instance"], wanted["standby"] or {}, Login(wanted, aws)
    there = standby.get("db_instance")
    if not (here and there and login.given):
        return {}
    return {there: lambda: _versions(aws, login, (here, aws.region), (there, standby["region"]))}


def _versions(aws, login, *places):
    found = [rds.describe(aws, name, region) for name, region in places]
    # One that cannot be asked now is told by the verbs that need it.
    if any(each is None or each["source"] or not each["host"] for each in found):
        return None
    asked = {each["id"]: lambda each=each: _of(rds.database(each, login)) for each in found}
    versions = tried_together(asked)
    return None if any(isinstance(each, Exception) for each in versions.values()) else versions


def _of(database):
    """Sorted; None where no migration of Alembic was ever applied."""
    with database.session() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('alembic_version') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return None
        cursor.execute("SELECT version_num FROM alembic_version ORDER BY version_num")
        return [version for (version,) in cursor.fetchall()]


def judge(seen, wanted, now):
    """Pure: two databases that differ in their versions."""
    for name, versions in seen.items():
        if not versions or None in versions.values():
            continue
        theirs, ours = ", ".join(versions[name]), ", ".join(versions[wanted["db_instance"]])
        if theirs != ours:
            because = f"its schema is {theirs or 'empty'}, and that of {wanted['db_instance']} is {ours or 'empty'}"
            yield Found(NOT_READY, name, because, "apply the same migrations to it (alembic upgrade)")

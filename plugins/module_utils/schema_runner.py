# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the task of ecs_run_sql runs: SQL as one transaction, in the service's own image.

This file is sent as the task's command. It imports nothing of this collection, and reaches PostgreSQL by whichever driver
the image has. What it tells the verb are lines of JSON under MARK; all else that it prints is for people. libpq and
asyncpg take TLS, time-outs and the application's name from PG... variables, which the verb sets.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import sys
import zlib
from urllib.parse import unquote, urlsplit

MARK = "sre.runbooks.sql"
# The variable that says what to do: JSON, compressed, as base64.
ASK = "SRE_RUNBOOKS_SQL"


class Refused(Exception):
    """A gate is closed; the transaction is rolled back."""


class Session:
    """One connection that runs what it is given at once, without a transaction of its own."""

    def __init__(self, login):
        self._loop = None
        for name in ("psycopg2", "psycopg"):
            try:
                driver = importlib.import_module(name)
            except ImportError:
                continue
            self._connection = driver.connect(**login)
            self._connection.autocommit = True
            return
        import asyncio

        driver = importlib.import_module("asyncpg")
        login["database"] = login.pop("dbname", None)
        self._loop = asyncio.new_event_loop()
        self._connection = self._loop.run_until_complete(driver.connect(**login))

    def execute(self, sql):
        """Any number of statements."""
        if self._loop:
            self._loop.run_until_complete(self._connection.execute(sql))
            return
        self._connection.cursor().execute(sql)

    def values(self, sql):
        """The first column of one statement's result."""
        if self._loop:
            return [row[0] for row in self._loop.run_until_complete(self._connection.fetch(sql))]
        cursor = self._connection.cursor()
        cursor.execute(sql)
        return [row[0] for row in cursor.fetchall()]

    def notices(self):
        return [notice.strip() for notice in getattr(self._connection, "notices", ())]


def say(event, **more):
    tell(json.dumps({MARK: dict(more, event=event)}))


def tell(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def login(variables, environment):
    """Where the database is and who asks, from the variables that the service's own containers have."""
    given = {what: environment.get(name) for what, name in variables.items() if name}
    parts = urlsplit(given.pop("url", None) or "")
    found = {
        "host": parts.hostname,
        "port": parts.port,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.lstrip("/")),
    }
    found.update({what: value for what, value in given.items() if value})
    return {what: value for what, value in found.items() if value}


def revisions(config):
    """(heads, every revision) of the migrations in the image; (None, ()) where there is none to look at."""
    if not config:
        return None, ()
    script = importlib.import_module("alembic.script").ScriptDirectory.from_config(
        importlib.import_module("alembic.config").Config(config)
    )
    return sorted(script.get_heads()), {each.revision for each in script.walk_revisions()}


def versions(session):
    """What alembic_version holds; None where there is no such table."""
    if session.values("SELECT to_regclass('alembic_version') IS NULL")[0]:
        return None
    return sorted(session.values("SELECT version_num FROM alembic_version"))


def repair(ask, session):
    """Look, or run and stamp, as one transaction."""
    heads, known = revisions(ask["alembic_config"])
    writes = ask["sql"] or ask["stamp"]
    session.execute("BEGIN" if writes else "BEGIN READ ONLY")
    for setting in ("lock_timeout", "statement_timeout"):
        session.execute(f"SET LOCAL {setting} = {round(ask[setting] * 1000)}")
    if not writes:
        say("looked", database=versions(session), image=heads)
        return
    transaction = session.values("SELECT txid_current()")[0]
    if versions(session) is not None:
        # A migration that starts now waits, and one that is under way makes us wait, and give up in time.
        session.execute("LOCK TABLE alembic_version IN SHARE ROW EXCLUSIVE MODE")
    before = versions(session)
    say("found", database=before, image=heads, transaction=transaction)
    if ask["after"]:
        fate = session.values(f"SELECT txid_status({ask['after']})")[0]
        if fate == "committed":
            say("committed", database=before, image=heads, transaction=ask["after"])
            return
        if fate == "in progress":
            raise Refused(f"transaction {ask['after']} of an earlier task still goes on")
    if ask["expect"] and before != [ask["expect"]]:
        raise Refused(f"alembic_version is {' and '.join(before or ['missing'])}, not {ask['expect']}")
    stamp = heads if ask["stamp"] == "head" else [ask["stamp"]] if ask["stamp"] else None
    if stamp is not None and (before is None or not set(stamp) <= set(known)):
        why = "there is no table alembic_version" if before is None else "the image has no such revision"
        raise Refused(f"cannot stamp {' and '.join(stamp)}: {why}")
    session.execute(ask["sql"] or "SELECT")
    if stamp is not None:
        session.execute("DELETE FROM alembic_version")
        for each in stamp:
            session.execute(f"INSERT INTO alembic_version (version_num) VALUES ('{each}')")
    if session.values("SELECT txid_current()")[0] != transaction:
        say("partly", error="the file ended its transaction, so that part of it is committed", transaction=transaction)
        raise SystemExit(1)
    after = versions(session)
    try:
        session.execute("COMMIT")
    except Exception as error:
        # What the server answered is rolled back; no answer may be either.
        answered = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
        say("failed" if answered else "unclear", error=first_line(error), transaction=transaction)
        raise SystemExit(1) from error
    say("committed", database=after, image=heads, transaction=transaction)


def first_line(error):
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def main():
    ask = json.loads(zlib.decompress(base64.b64decode(os.environ.pop(ASK))))
    say("begun", key=ask["key"])
    session = None
    try:
        session = Session(login(ask["variables"], os.environ))
        repair(ask, session)
    except Refused as error:
        say("refused", error=str(error))
        raise SystemExit(3) from error
    except Exception as error:
        say("failed", error=first_line(error))
        raise SystemExit(1) from error
    finally:
        for notice in session.notices() if session else ():
            tell(notice)


if __name__ == "__main__":
    main()

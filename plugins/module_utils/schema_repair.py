# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task that repairs a schema is asked, what it tells, and what is left to do after those that there were. Pure."""

from __future__ import annotations

import ast
import base64
import hashlib
import inspect
import json
import zlib
from dataclasses import dataclass

from . import ecs, one_off_task, schema_runner
from .errors import Refusal, near
from .masking import logged, snippet
from .task_definition import addresses
from .verb import Plan, Step

# How a task ends. COMMITTED and LOOKED are what was wanted; after UNCLEAR the commit may or may not have happened.
RUNNING, COMMITTED, LOOKED, FAILED, UNCLEAR, PARTLY = "running", "committed", "looked", "failed", "unclear", "partly"
_ENDS = {
    COMMITTED: COMMITTED,
    LOOKED: LOOKED,
    "refused": FAILED,
    "failed": FAILED,
    UNCLEAR: UNCLEAR,
    PARTLY: PARTLY,
}
TLS = ("require", "verify-ca", "verify-full")
# Lines of the log that are returned, the last ones.
LINES = 100


@dataclass(frozen=True)
class Try:
    """One task that was begun for this repair.

    `found`: what its runner told, {event: {...}}. `lines`: what else it wrote, None where its log cannot be read.
    """

    task: dict
    exit_code: int | None
    found: dict
    lines: tuple | None

    @property
    def name(self):
        return ecs.short(self.task["taskArn"])

    @property
    def outcome(self):
        if self.task["lastStatus"] != "STOPPED":
            return RUNNING
        ends = [_ENDS[event] for event in self.found if event in _ENDS]
        if ends:
            return ends[-1]
        if self.lines is None and self.exit_code is not None:
            # Killed (128 + signal) is the only end after which nobody knows.
            return COMMITTED if self.exit_code == 0 else UNCLEAR if self.exit_code > 128 else FAILED
        return UNCLEAR if "found" in self.found else FAILED

    @property
    def transaction(self):
        """The id of its transaction, as far as it came so far."""
        return next((each["transaction"] for each in self.found.values() if each.get("transaction")), None)

    def reason(self):
        """Why it ended as it did, in a few words."""
        told = [each["error"] for each in self.found.values() if each.get("error")]
        if not told and self.exit_code == 0 and self.lines is not None:
            told = ["the image did not run the command: its entry point must execute what it is given"]
        return snippet("; ".join([*told, ecs.stop_reason(self.task)]), 400)

    def returned(self):
        before = self.found.get("found") or self.found.get(LOOKED) or {}
        after = self.found.get(COMMITTED) or before
        image = after.get("image")
        known = image is not None and after.get("database") is not None
        return {
            "task": self.task["taskArn"],
            "exit_code": self.exit_code,
            "stopped_reason": snippet(self.task.get("stoppedReason", ""), 300),
            "log_lines": [logged(line, 300) for line in (self.lines or ())[-LINES:]],
            "alembic": {
                "before": before.get("database"),
                "after": after.get("database"),
                "image": image,
                "in_sync": after["database"] == image if known else None,
            },
        }


NOT_RUN = {"task": None, "exit_code": None, "stopped_reason": None, "log_lines": [], "alembic": None}


def heard(task, container, lines):
    """The Try of a described task and the lines of its log (None where it cannot be read)."""
    found, rest = {}, []
    for line in lines or ():
        event = told(line)
        if event:
            found[event["event"]] = event
        else:
            rest.append(line)
    return Try(task, one_off_task.exit_code(task, container["name"]), found, None if lines is None else tuple(rest))


def told(line):
    """What the runner tells with a line, None for any other line."""
    if schema_runner.MARK not in line:
        return None
    try:
        event = json.loads(line)[schema_runner.MARK]
    except (ValueError, KeyError, TypeError):
        return None
    return event if isinstance(event, dict) and "event" in event else None


def ends(line):
    """Whether this is the last that a runner tells."""
    return (told(line) or {}).get("event") in _ENDS


def key(service, sql, wanted):
    """What is the same for every task of one repair: the service, the text, what is stamped, and which time it is asked for."""
    said = json.dumps([service["serviceArn"], sql.sha256 if sql else None, wanted["stamp"], wanted["attempt"]])
    return hashlib.sha256(said.encode()).hexdigest()[:24]


def ask(sql, wanted, this_key, after):
    """What the runner reads. `after`: transaction of an earlier task whose end is not known."""
    return {
        "key": this_key,
        "sql": sql.text if sql else None,
        "stamp": wanted["stamp"],
        "expect": wanted["expect_version"],
        "after": after,
        "alembic_config": wanted["alembic_config"],
        "lock_timeout": wanted["lock_timeout"],
        "statement_timeout": wanted["statement_timeout"],
        "variables": {
            {"name": "dbname"}.get(what, what): name for what, name in wanted["login_variables"].items() if name
        },
    }


def command(python):
    """argv that runs the runner; its source without comments, compressed, since ECS takes little."""
    tree = ast.parse(inspect.getsource(schema_runner))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return [python, "-c", f"import base64,zlib;exec(zlib.decompress(base64.b64decode('{_packed(ast.unparse(tree))}')))"]


def environment(what, wanted):
    """Variables for the runner and for the driver that it finds."""
    found = {
        schema_runner.ASK: _packed(json.dumps(what)),
        "PGSSLMODE": wanted["sslmode"],
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "sre.runbooks",
    }
    return dict(found, PGSSLROOTCERT=wanted["ssl_root_cert"]) if wanted["ssl_root_cert"] else found


def _packed(text):
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def gate(container, wanted):
    """Notes for a person. Raises Refusal: the container has no variable that says where the database is."""
    names = wanted["login_variables"]
    there = [each["name"] for each in (*container.get("environment", ()), *container.get("secrets", ()))]
    missing = [name for name in (names.get("url"), names.get("host")) if name]
    if not missing:
        raise Refusal(
            "login_variables names neither url nor host: say which variable of the container has the database's address"
        )
    if not set(missing) & set(there) and not container.get("environmentFiles"):
        raise Refusal(
            f"container {container['name']} has no variable {' or '.join(missing)} ({near(missing[0], there)}): say where its "
            f"database is, with login_variables"
        )
    notes = []
    if wanted["sslmode"] not in TLS:
        notes.append(f"sslmode={wanted['sslmode']}: the task may talk to the database without TLS")
    return notes


def plan(observed, wanted):
    """Pure: what is left to do.

    Args:
        observed: {service, definition, container, sql, key, started_by, tries}; `tries` are those of this repair, oldest
            first.
    """
    service, container, sql = observed["service"], observed["container"], observed["sql"]
    if sql and sql.sha256 != (wanted["reviewed_sha256"] or "").lower():
        raise Refusal(
            f"{sql.name} is not the text that was reviewed: its SHA-256 is {sql.sha256}, reviewed_sha256 says "
            f"{wanted['reviewed_sha256']}: have this text reviewed, or give the file that was"
        )
    notes = gate(container, wanted)
    others = [
        each["name"] for each in observed["definition"]["containerDefinitions"] if each["name"] != container["name"]
    ]
    if others:
        notes.append(
            f"beside {container['name']} the task starts {', '.join(others)}, as every task of the service does"
        )
    name, revision = service["serviceName"], ecs.short(observed["definition"]["taskDefinitionArn"])
    where = ", ".join(
        f"{variable}={address}"
        for variable, address in addresses(
            observed["definition"],
            [wanted["login_variables"].get(each) for each in ("url", "host")],
            container["name"],
        ).items()
    )
    what = purpose(sql, wanted)
    last = observed["tries"][-1] if observed["tries"] else None
    if settled := committed(observed["tries"]):
        stopped = settled.task.get("stoppedAt")
        when = f" at {stopped:%H:%M:%S}" if hasattr(stopped, "strftime") else ""
        notes.append(f"{what} was done by task {settled.name}{when}; attempt={wanted['attempt'] + 1} does it once more")
        return Plan(notes=tuple(notes))
    settle = Step("settle", "wait until the task has ended", waits=True)
    after = {"applied": True, "statements": shown(sql)}
    if last and last.outcome == RUNNING:
        return Plan((settle,), after, tuple(notes))
    if last and last.outcome == PARTLY:
        raise Refusal(
            f"task {last.name} has committed a part of {what}: {last.reason()}: a person has to look at the database"
        )
    if last and last.outcome == UNCLEAR and not last.transaction:
        raise Refusal(
            f"nothing tells whether task {last.name} did {what} ({last.reason()}): look at the database, then say "
            f"attempt={wanted['attempt'] + 1} if it did not"
        )
    if last:
        notes.append(f"task {last.name} did not do it: {last.reason()}")
    request = one_off_task.request(
        service,
        observed["definition"],
        container,
        command(wanted["python"]),
        environment(
            ask(sql, wanted, observed["key"], last.transaction if last and last.outcome == UNCLEAR else None), wanted
        ),
        observed["started_by"],
    )
    run = Step(
        "run",
        f"{what} as a one-off task of {name} ({revision}, container {container['name']}{', ' + where if where else ''})",
        arguments={"request": request, "last": last.name if last else ""},
    )
    if sql or wanted["stamp"]:
        notes.append("what the SQL does cannot be undone by this collection")
    return Plan((run, settle), after, tuple(notes))


def shown(sql):
    """The statements, for people."""
    return list(sql.statements) if sql else []


def committed(tries):
    """The one that did it, or None."""
    return next((each for each in tries if each.outcome == COMMITTED), None)


def purpose(sql, wanted):
    """What is done, for people."""
    stamp = f"stamp alembic_version with {wanted['stamp']}" if wanted["stamp"] else ""
    if sql:
        count = f"{len(sql.statements)} statement{'' if len(sql.statements) == 1 else 's'}"
        return f"run {sql.name} ({count}, SHA-256 {sql.sha256[:12]}){' and ' + stamp if stamp else ''}"
    return stamp or "compare alembic_version with the image"

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load on a public name, and what it proves: errors that users saw, time to recover, acknowledged writes that are gone."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import route53

if TYPE_CHECKING:
    from .processes import Process
    from .world import World

WRITERS = 2
ROWS_PER_SECOND = 20.0
READERS = 1
READS_PER_SECOND = 10.0
RETRY_SECONDS = 0.1
# A database that acknowledges nothing for this long has stopped: what comes later is another run of it.
RUN_ENDS_SECONDS = 2.0

_process: Process | None = None
_name = ""  # what it loads


# ---- what was seen -------------------------------------------------------------------------------------------------


def read(path: Path) -> list[dict]:
    """The complete lines of a journal, a last one that is cut short left out."""
    try:
        text = path.read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def outage(acked: list[float], last_failure: float | None) -> dict:
    """The longest time without an acknowledgement, seconds; `rto_seconds` is None while it goes on.

    `acked`: times of the acknowledgements through the public name. `last_failure`: when a write last failed.
    """
    times = sorted(acked)
    gaps = [(after - before, before, after) for before, after in itertools.pairwise(times)]
    seconds, before, after = max(gaps, default=(0.0, times[0] if times else None, None))
    if last_failure is not None and (not times or last_failure - times[-1] > max(seconds, RUN_ENDS_SECONDS)):
        return {"rto_seconds": None, "last_ack_before": times[-1] if times else None, "first_ack_after": None}
    return {"rto_seconds": round(seconds, 3), "last_ack_before": before, "first_ack_after": after}


def runs(acks: list[dict]) -> list[dict]:
    """For each database the spans of time in which it acknowledged, in the order of their beginnings."""
    found: list[dict] = []
    latest: dict[str, dict] = {}
    for ack in sorted(acks, key=lambda each: each["acked"]):
        run = latest.get(ack["database"])
        if run is None or ack["acked"] - run["last_ack"] > RUN_ENDS_SECONDS:
            run = {"database": ack["database"], "first_ack": ack["acked"], "acknowledged": 0}
            latest[ack["database"]] = run
            found.append(run)
        run["last_ack"] = ack["acked"]
        run["acknowledged"] += 1
    return found


def overlaps(spans: list[dict]) -> list[dict]:
    """Where two databases acknowledged at the same time; a single stray acknowledgement is enough."""
    return [
        {
            "databases": [one["database"], other["database"]],
            "from": max(one["first_ack"], other["first_ack"]),
            "to": min(one["last_ack"], other["last_ack"]),
        }
        for one, other in itertools.combinations(spans, 2)
        if one["database"] != other["database"]
        and one["first_ack"] <= other["last_ack"]
        and other["first_ack"] <= one["last_ack"]
    ]


def missing(numbers: list[int], database: str, state: dict) -> list[int]:
    """Those of `numbers` that the database at `host:port` does not have. Raises psycopg2.Error."""
    import psycopg2

    host, _, port = database.partition(":")
    connection = psycopg2.connect(
        host=host,
        port=port,
        dbname=state["db_name"],
        user=state["db_admin_user"],
        password=Path(state["db_admin_password_file"]).read_text(),
        connect_timeout=5,
        options="-c statement_timeout=20000",
    )
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT id FROM rows WHERE id = ANY(%s)", (numbers,))
            return sorted(set(numbers) - {number for (number,) in cursor.fetchall()})
    finally:
        connection.close()


def felt(answered: list[dict], failed: list[dict]) -> dict:
    """How it was to be a user: requests, how many failed and for how long, how long answers took, who gave them.

    `error_seconds`: seconds of the clock in which a request failed; `errors_lasted_seconds`: from the first failure to
    the last. `latency_ms` is that of the requests that were answered, `versions` counts their X-App-Version.
    """
    requests = len(answered) + len(failed)
    moments = sorted(each["failed"] for each in failed)
    took = sorted((each["acked"] - each["sent"]) * 1000 for each in answered)
    return {
        "requests": requests,
        "failed_requests": len(failed),
        "error_rate": round(len(failed) / requests, 4) if requests else 0.0,
        "error_seconds": len({int(moment) for moment in moments}),
        "errors_lasted_seconds": round(moments[-1] - moments[0], 3) if moments else 0.0,
        "first_error": moments[0] if moments else None,
        "last_error": moments[-1] if moments else None,
        "latency_ms": {f"p{percent}": _percentile(took, percent) for percent in (50, 95, 99)},
        "versions": dict(Counter(str(each.get("version")) for each in answered)),
        "last_version": max(answered, key=lambda each: each["acked"]).get("version") if answered else None,
    }


def _percentile(ordered: list[float], percent: int) -> float | None:
    """By nearest rank."""
    return round(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)], 1) if ordered else None


def report(home: Path, state: dict, database: str | None = None) -> dict[str, Any]:
    """What the users of this load saw; of a pinned writer only what concerns the databases, and its errors.

    `database`: host:port to look for the acknowledged rows in, default the one that acknowledged last through the
    public name. `lost_writes` is None when it cannot be asked.
    """
    import psycopg2

    acks, reads, errors = (read(home / "load" / f"{name}.jsonl") for name in ("acks", "reads", "errors"))
    public = [ack for ack in acks if not ack["pinned"]]
    failed = [error for error in errors if not error["pinned"]]
    failures = [error["failed"] for error in failed if error["what"] == "write"]
    spans = runs(acks)
    seen: dict[str, Any] = {
        "acknowledged_writes": len(acks),
        "lost_writes": 0,
        "lost_ids": [],
        **outage([ack["acked"] for ack in public], max(failures, default=None)),
        "overlap": bool(overlaps(spans)),
        "overlaps": overlaps(spans),
        "databases": spans,
        "errors": dict(Counter(error["problem"] for error in errors)),
        **felt(public + reads, failed),
        "surviving_database": database or (max(public, key=lambda ack: ack["acked"])["database"] if public else None),
    }
    if acks and seen["surviving_database"]:
        try:
            lost = missing([ack["id"] for ack in acks], seen["surviving_database"], state)
            seen |= {"lost_writes": len(lost), "lost_ids": lost[:20]}
        except psycopg2.Error as error:
            seen |= {"lost_writes": None, "lost_ids": [], "lost_unknown_because": str(error).splitlines()[0]}
    return seen


# ---- start and stop ------------------------------------------------------------------------------------------------


def is_running() -> bool:
    return _process is not None and _process.poll() is None


def begin(
    world: World,
    writers: int = WRITERS,
    rate: float = ROWS_PER_SECOND,
    readers: int = READERS,
    reads: float = READS_PER_SECOND,
    pinned: bool = False,
    name: str | None = None,
    retry: float | None = None,
) -> dict:
    """A new load on the public name `name` (default the service's own), its journals empty.

    `rate`, `reads`: rows written and read a second, by all `writers` and all `readers`. `pinned`: one more writer keeps to
    the address that the name has now. `retry`: seconds until a row that failed is sent again.
    """
    global _process, _name
    if is_running():
        raise ValueError("the load is running already: `load stop` ends it")
    folder = world.home / "load"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _name = name = name or world.state["public_name"]
    world.wake(name)
    options = {
        "dns": world.state["dns"],
        "name": name,
        "port": world.state["http_port"],
        # Numbers of an earlier load are never used again: a row that is there already would count as written.
        "first": int(time.time()) * 1000,
        "writers": int(writers),
        "rate": float(rate),
        "pinned": next(iter(route53.addresses(name)), None) if pinned else None,
        "readers": int(readers) if float(reads) else 0,
        "reads": float(reads),
        "retry": RETRY_SECONDS if retry is None else float(retry),
    }
    argv = [sys.executable, "-m", "sandbox.writers", str(folder), json.dumps(options)]
    _process = world.spawn("load", argv, log=folder / "log")
    return {"started": time.time(), **{key: value for key, value in options.items() if key not in ("dns", "port")}}


def end(world: World) -> dict:
    global _process
    if _process:
        _process.terminate()
        _process = None
    return report(world.home, world.state)


def _control(world: World, arguments: dict) -> dict:
    action = arguments.pop("action", None)
    if action == "start":
        return begin(world, **arguments)
    if action == "stop":
        return end(world)
    if action == "report":
        return report(world.home, world.state, **arguments)
    raise ValueError(f"load {action!r}: start, stop or report")


control = {"load": _control}


def seed(world: World) -> None:
    shutil.rmtree(world.home / "load", ignore_errors=True)


def stop(world: World) -> None:
    global _process
    if _process:
        _process.terminate()
        _process = None


def status(world: World) -> list[dict]:
    if _process is None or _process.poll() is not None:
        return []
    acks = read(world.home / "load" / "acks.jsonl")
    detail = f"{len(acks)} rows acknowledged"
    if acks:
        detail += f", last by {acks[-1]['database']} {time.time() - acks[-1]['acked']:.1f} s ago"
    return [{"region": "", "kind": "load", "name": _name, "state": "writing", "detail": detail}]

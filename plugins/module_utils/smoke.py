# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Asking a service what a user would ask, and judging the answer."""

from __future__ import annotations

import json
import operator
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from . import dns
from .aws import code_of, explain, side_by_side
from .errors import Stop
from .masking import logged, masked, snippet
from .web import SAFE_METHODS, request

LOG_PATTERN = "?ERROR ?Exception"

CHECK_ARGUMENTS = dict(
    checks=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            name=dict(type="str", required=True),
            url=dict(type="str", required=True),
            method=dict(
                type="str", choices=["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"], default="GET"
            ),
            headers=dict(type="dict", no_log=True),
            json=dict(type="dict"),
            secret_json=dict(type="dict", no_log=True),
            body=dict(type="str"),
            expect_status=dict(type="list", elements="int", default=[200]),
            expect_json=dict(type="dict"),
            expect_above=dict(type="dict"),
            expect_below=dict(type="dict"),
            within=dict(type="float", default=5),
            attempts=dict(type="int"),
        ),
        mutually_exclusive=[("body", "json"), ("body", "secret_json")],
    ),
    dns_servers=dict(type="list", elements="str", default=[]),
)


def refuse_malformed(checks, dns_servers):
    """Stop at a URL or a server that cannot be asked: that is a mistake in the inventory, and no outage."""
    for server in dns_servers:
        dns.parse_server(server)
    for check in checks:
        if urlsplit(check["url"]).scheme not in ("http", "https") or not urlsplit(check["url"]).hostname:
            raise Stop(f"check {check['name']}: {masked(check['url'])} is no URL with http or https")


def fault(check, seen):
    """Pure: what is wrong with the answer `seen` to `check`, for people; None where it is as expected."""
    if seen.status is None:
        return seen.text or "no answer"
    if seen.status not in check["expect_status"]:
        return f"answered {seen.status}: {snippet(seen.text)}" if seen.text.strip() else f"answered {seen.status}"
    expected, above, below = (check[name] for name in ("expect_json", "expect_above", "expect_below"))
    if expected is None and above is None and below is None:
        return None
    try:
        answer = json.loads(seen.text)
    except ValueError:
        return f"answered {seen.status} without JSON: {snippet(seen.text)}"
    problem = (
        (expected is not None and _missing(expected, answer))
        or _beyond(above, answer, operator.gt, "more than")
        or _beyond(below, answer, operator.lt, "less than")
    )
    return f"answered {seen.status}, but {problem}" if problem else None


def _missing(expected, found, path=""):
    """Pure: the first part of `expected` that `found` has not, as text; a list must be equal, a dict may have more."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            at = f"{path}.{name}" if path else str(name)
            if name not in found:
                return f"{at} is missing"
            if missing := _missing(value, found[name], at):
                return missing
        return None
    if expected == found and isinstance(expected, bool) == isinstance(found, bool):
        return None
    name = path.rpartition(".")[2]
    shown = snippet(json.dumps(masked({name: found})[name]), 80)
    return f"{path or 'the answer'} is {shown} instead of {json.dumps(masked({name: expected})[name])}"


def _beyond(limits, found, is_within, words, path=""):
    """Pure: the first number of `found` that does not keep its limit, as text; limits are nested as the answer is."""
    for name, limit in (limits or {}).items():
        at = f"{path}.{name}" if path else str(name)
        if not isinstance(found, dict) or name not in found:
            return f"{at} is missing"
        value = found[name]
        if isinstance(limit, dict):
            if problem := _beyond(limit, value, is_within, words, at):
                return problem
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"{at} is {snippet(json.dumps(masked({name: value})[name]), 80)}, no number"
        elif not is_within(value, float(limit)):
            return f"{at} is {value:g}, {words} {float(limit):g} wanted"
    return None


@dataclass
class Trial:
    """One check over several looks."""

    check: dict
    dns_servers: tuple = ()
    tries: int = 0
    passed: int = 0
    seconds: float = 0.0
    status: int | None = None
    problem: str | None = "not asked yet"

    def look(self):
        """Ask once more and remember how it went."""
        seen = request(self.check, self.dns_servers)
        self.tries += 1
        self.status, self.seconds, self.problem = seen.status, seen.seconds, fault(self.check, seen)
        self.passed = 0 if self.problem else self.passed + 1

    def is_over(self, passes):
        """Whether it passed often enough in a row, or may not be tried again."""
        return self.passed >= passes or bool(self.check["attempts"] and self.tries >= self.check["attempts"])

    def verdict(self, passes):
        """The entry of this check in `verification`."""
        problem = self.problem
        if problem is None and self.passed < passes:
            problem = f"passed {self.passed} times in a row, {passes} needed"
        return {
            "name": self.check["name"],
            "ok": problem is None,
            "status": self.status,
            "seconds": self.seconds,
            "seen": problem or f"answered {self.status}" + (f" at try {self.tries}" if self.tries > passes else ""),
        }


def look(trials):
    """Ask all of them once more, side by side."""
    side_by_side(dict(enumerate(trial.look for trial in trials)))


def complaints(checks, dns_servers, tries, pause=0.0):
    """What fails of `checks` at each of several tries, a line each. Those that may change something are left out.

    Args:
        pause: seconds between two tries; one that failed once may have met a target on its way out.
    """
    trials = [Trial(check, tuple(dns_servers)) for check in checks if check["method"] in SAFE_METHODS]
    for number in range(tries):
        failing = [trial for trial in trials if trial.problem]
        if failing:
            time.sleep(pause if number else 0)
            look(failing)
    return tuple(f"{trial.check['name']}: {trial.problem}" for trial in trials if trial.problem)


def skipped(check):
    """The entry of a check that check mode leaves out."""
    return {
        "name": check["name"],
        "ok": None,
        "status": None,
        "seconds": 0.0,
        "seen": f"not asked in check mode: {check['method']} may change something",
    }


def parse_time(since):
    """Seconds since the epoch of a number or an ISO 8601 time; without a zone it is UTC. Raises Stop on anything else."""
    try:
        return float(since)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as error:
        raise Stop(
            f"since: {since} is no time: give seconds since the epoch or ISO 8601 (2026-01-31T03:15:00Z)"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def count_errors(aws, group, since, enough):
    """(number, first lines) of the ERROR lines in a log group; stops counting beyond `enough`.

    Args:
        group: {name, region}.
        since: seconds since the epoch.

    Raises:
        Stop: the log cannot be read, in words.
    """
    count, lines, page = 0, [], {}
    while count <= enough:
        try:
            found = aws.read(
                "logs",
                "filter_log_events",
                region=group["region"],
                logGroupName=group["name"],
                startTime=int(since * 1000),
                filterPattern=LOG_PATTERN,
                **page,
            )
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                raise Stop(f"there is no log group {group['name']} in {group['region']}") from error
            if code_of(error):
                raise Stop(explain(error)) from error
            raise
        count += len(found["events"])
        lines += [event["message"] for event in found["events"][:3]]
        if not found.get("nextToken"):
            break
        page = {"nextToken": found["nextToken"]}
    return count, lines[:3]


def judge_log(group, count, lines, allowed):
    """Pure: (ok, seen) of a log group."""
    many = f"{count} ERROR lines, {allowed} allowed"
    return (True, many) if count <= allowed else (False, f"{many}: {logged(lines[0])}")

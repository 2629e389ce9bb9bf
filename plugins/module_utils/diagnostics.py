# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a service says of itself through the API that it brings along (courtcase runbook, "API Endpoints Quick Reference"), and
what its last migration wrote."""

from __future__ import annotations

import json

from .aws import code_of, reason, tried_together
from .errors import Stop
from .log_patterns import pattern_of
from .masking import logged, masked, snippet
from .recovery_api import Missing

# {what a person calls it: its path}. A service has some of them.
ENDPOINTS = {
    "comprehensive health": "health/comprehensive",
    "health score": "health/score",
    "database health": "health/database",
    "diagnostics": "diagnostics/run-diagnostics",
    "issues": "diagnostics/issues",
    "critical issues": "diagnostics/issues?severity=critical",
    "database connections": "diagnostics/database-connections",
    "resource analysis": "resource-optimization/analyze/{target}",
    "metrics": "monitoring/metrics/{target}",
    "alert status": "monitoring/alerts/status",
}
# So many lines of a migration's log are kept, its last ones; and so many characters of an answer are told in words.
LINES, TOLD = 100, 200
# Pages of log streams that are looked through for the newest, 50 each.
STREAM_PAGES = 10


def ask(api):
    """{name: (answer, seconds), or the exception} of all ENDPOINTS, side by side."""
    return tried_together({name: lambda path=path: api.look(path) for name, path in ENDPOINTS.items()})


def told(found):
    """Pure: {diagnostics, missing, blind} of what `ask` found; answers come without their secrets."""
    listed, missing, blind = [], [], []
    for name, answer in found.items():
        if isinstance(answer, Missing):
            missing.append(name)
        elif isinstance(answer, Exception):
            blind.append(f"{name}: {reason(answer)}")
        else:
            listed.append({"name": name, "seconds": answer[1], "answer": masked(answer[0])})
    return {"diagnostics": listed, "missing": missing, "blind": blind}


def words(diagnostics):
    """Pure: each answer in a line, without what says nothing of the service's state; issues in a line each."""
    for each in diagnostics:
        answer = {key: value for key, value in each["answer"].items() if not key.endswith(("timestamp", "_name"))}
        issues = answer.get("issues")
        if each["name"] == "critical issues" and any(other["name"] == "issues" for other in diagnostics):
            continue  # they are among the others
        if isinstance(issues, list) and issues:
            yield f"{each['name']}: {len(issues)}"
            yield from (f"  {_issue(issue)}" for issue in issues)
        else:
            yield f"{each['name']}: {snippet(json.dumps(answer, default=str), TOLD)}"


def _issue(issue):
    if not isinstance(issue, dict):
        return snippet(str(issue), TOLD)
    parts = [issue.get("severity"), issue.get("component"), issue.get("message") or issue.get("description")]
    known = [snippet(str(part), TOLD) for part in parts if part]
    return ": ".join(known) if known else snippet(json.dumps(issue, default=str), TOLD)


# ---- the last migration ----------------------------------------------------------------------------------------------


def last_job(aws, log_group, prefix, region):
    """{log_group, stream, at, lines} of the newest log stream whose name begins with `prefix`: the last run of a job.

    A prefix and the order by time cannot be asked for together, so that the newest is looked for here.
    https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_DescribeLogStreams.html

    Raises:
        Stop: there is no such log group, or no such stream in it.
    """
    newest, more = None, {}
    for _page in range(STREAM_PAGES):
        try:
            answer = aws.read(
                "logs",
                "describe_log_streams",
                region=region,
                logGroupName=log_group,
                logStreamNamePrefix=prefix,
                **more,
            )
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                raise Stop(
                    f"there is no log group {log_group} in {region or aws.region}: check migration_log"
                ) from error
            raise
        newest = max([*filter(None, [newest]), *answer["logStreams"]], key=_written, default=None)
        if not answer.get("nextToken"):
            break
        more = {"nextToken": answer["nextToken"]}
    if newest is None:
        raise Stop(f"no log stream of {log_group} begins with {prefix}: no migration has run, or check migration_log")
    events = aws.read(
        "logs",
        "get_log_events",
        region=region,
        logGroupName=log_group,
        logStreamName=newest["logStreamName"],
        limit=LINES,
        startFromHead=False,
    )["events"]
    return {
        "log_group": log_group,
        "stream": newest["logStreamName"],
        "at": _written(newest) / 1000,
        "lines": [logged(event["message"], TOLD) for event in events],
    }


def _written(stream):
    """When it was written to last, in milliseconds of the epoch; AWS tells that late."""
    return max(stream.get("lastEventTimestamp", 0), stream.get("creationTime", 0))


def failures(job, terms):
    """Pure: the lines of a job that have any of `terms`, each kind once."""
    kinds = {pattern_of(line): line for line in job["lines"] if any(term in line for term in terms)}
    return list(kinds.values())

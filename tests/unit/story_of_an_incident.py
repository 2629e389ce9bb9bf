# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The events of an incident as `incidents.merged` gives them: noticed late, a first run that failed, a rollback, a scale that is
still in force, one channel that nobody reached."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils.record import now
from ansible_collections.sre.runbooks.tests.unit.story_of_a_page import FOUND, TEN

INCIDENT = "2025-11-21-checkout-answers-503"
TRIAGE, SCALE, BACK = (
    "2025-11-21T100800Z-triage-prod",
    "2025-11-21T101000Z-emergency_scale-prod",
    "2025-11-21T101300Z-rollback_deployment-prod",
)
EPISODES = [{"since": TEN - 120, "until": TEN + 16 * 60, "seconds": 18 * 60, "requests": 21600, "errors": 10380}]
ALARMS = FOUND["alarms"]
METRICS = FOUND["metrics"]
SAID = {
    "incident": INCIDENT,
    "title": INCIDENT,
    "service": "regami-api",
    "environment_name": "prod",
    "objective": 99.9,
    "window_days": 30,
}


def at(after, event, record, **more):
    """An event so many seconds after ten."""
    return {"time": now(TEN + after), "event": event, "record": record, **more}


def started(seconds, record, playbook, **more):
    return at(seconds, "run_started", record, playbook=playbook, env="prod", by="anna@bastion", resumes=None, **more)


def step(seconds, record, name, state="changed", duration=5.0, **more):
    return at(seconds, "step", record, step=name, host="api-prod", state=state, duration=duration, **more)


def call(what, *undo):
    return {"verb": "sre.runbooks.set", "arguments": {}, "what": [what], "undo": list(undo)}


def back(to="2 tasks"):
    return {"verb": "sre.runbooks.set", "arguments": {"to": to}}


OPEN, CLOSE = "2025-11-21T100500Z-incident_open-prod", "2025-11-21T103000Z-incident_close-prod"
EVENTS = (
    started(300, OPEN, "incident_open"),
    at(
        300,
        "opened",
        OPEN,
        incident=INCIDENT,
        env="prod",
        by="anna@bastion",
        title="Checkout answers 503",
        severity="P1",
        service="regami-api",
        detected=now(TEN + 270),
    ),
    at(310, "told", OPEN, channel="slack", message="opened", ok=True, why=""),
    at(311, "told", OPEN, channel="statuspage", message="opened", ok=False, why="503 from its API, three times"),
    at(400, "acknowledged", OPEN, incident=INCIDENT, env="prod", by="ben@bastion"),
    started(480, TRIAGE, "triage"),
    step(
        489,
        TRIAGE,
        "How bad it is, and what to do",
        "ok",
        1.4,
        verb="sre.runbooks.triage_assess",
        notes=["severity P1", "cannot see changes: missing permission cloudtrail:LookupEvents in us-east-1"],
    ),
    at(490, "run_ended", TRIAGE, outcome="noop", seconds=10.0),
    started(600, SCALE, "emergency_scale"),
    step(640, SCALE, "Scale it", calls=[call("set the desired count of regami-service to 6", back())], duration=30.0),
    step(
        700,
        SCALE,
        "sre.runbooks.verify : Smoke tests",
        "failed",
        55.0,
        message="health with the database: answered 503",
    ),
    at(701, "run_ended", SCALE, outcome="failed", seconds=101.0),
    at(720, "noted", OPEN, incident=INCIDENT, env="prod", by="ben@bastion", text="more tasks | *do not* <help>"),
    started(780, BACK, "rollback_deployment"),
    step(
        900,
        BACK,
        "Take the service back",
        calls=[call("roll regami-service back to regami-api:6", back("regami-api:7"))],
        duration=110.0,
    ),
    step(960, BACK, "sre.runbooks.verify : Smoke tests", "ok", 20.0, verb="sre.runbooks.smoke_test"),
    at(961, "run_ended", BACK, outcome="recovered", seconds=181.0),
    started(1800, CLOSE, "incident_close"),
    at(
        1800,
        "closed",
        CLOSE,
        incident=INCIDENT,
        env="prod",
        by="anna@bastion",
        cause="a deployment without the new column",
        text="the migration ran after the deployment",
    ),
)


def measured(**other):
    """What CloudWatch told of it."""
    told = {"episodes": EPISODES, "counted_by": "as load balancers counted", "alarms": ALARMS, "metrics": METRICS}
    return {**told, "blind": [], **other}

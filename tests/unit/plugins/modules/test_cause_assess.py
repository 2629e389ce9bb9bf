# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""cause_assess: which cause the signs of an incident tell, that noise is none of them, and that nobody is sent the wrong way."""

from __future__ import annotations

import dataclasses
import datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import cause_rules, causes, metrics, outage
from ansible_collections.sre.runbooks.plugins.module_utils.changes import Change
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.log_patterns import Event
from ansible_collections.sre.runbooks.plugins.module_utils.log_search import Found
from ansible_collections.sre.runbooks.plugins.modules.cause_assess import CauseAssess

NOW = 1763719200
ONSET = NOW - 300
LONG_AGO = NOW - 6 * 3600


def error(text, count=200, since=ONSET, streams=3, new=False, last=NOW - 1, example=""):
    """A kind of error that came up; one of `since` None goes on as always."""
    return {
        "pattern": text,
        "count": count,
        "first": since or NOW - 1800,
        "last": last,
        "example": example or text,
        "surge": since,
        "streams": streams,
        "busiest": {"stream": "app/1", "count": count if streams == 1 else count // streams},
        "new": new,
    }


def measured(name, values, usual=None, since=None, now=None):
    """A metric minute by minute; abnormal where `since` says so."""
    return {
        "name": name,
        "of": "regami",
        "unit": "",
        "now": values[-1] if now is None else now,
        "before": usual,
        "week_ago": None,
        "usual": [None, usual and usual * 1.5],
        "abnormal": since is not None,
        "since": since,
        "why": f"{name} is {values[-1]}, more than the usual {usual}",
        "series": [[NOW - 60 * (len(values) - at), value] for at, value in enumerate(values)],
    }


def signals(*patterns, **more):
    """An incident of five minutes; the last deployment was hours ago."""
    calm = {
        "now": NOW,
        "release": "regami-api:7",
        "released": LONG_AGO,
        "running": 3,
        "related": ("sg-1", "regami-db", "regami-uploads"),
    }
    return causes.Signals(patterns=patterns, **(calm | more))


def judged(seen):
    return causes.judge(seen, cause_rules.CAUSES)


def write(what, at=ONSET - 30, who="user/anna"):
    return Change(at, "write", what, who)


NOISE = (error("ERROR GET /v<n>/rows BrokenPipeError: [Errno <n>] Broken pipe", 9, None),)
MANY = measured("requests", [900, 2400], 800, ONSET - 60)
USUAL_TRAFFIC = measured("requests", [800, 810], 800)
ERRORS = measured("error_percent", [0.1, 40], 0.1, ONSET)
INCIDENTS = {
    "bad_deployment": signals(
        error("ERROR POST /v<n>/rows KeyError: 'tenant'", new=True),
        *NOISE,
        released=ONSET - 60,
        changes=(Change(ONSET - 60, "deployment", "deployment of regami-api:7 to regami began"),),
        revision={"from": "regami-api:6", "to": "regami-api:7", "lines": ["app: image a:1 -> a:2"]},
        metrics=(USUAL_TRAFFIC, ERRORS),
    ),
    "slow_query": signals(
        error("ERROR psycopg2.errors.QueryCanceled: canceling statement due to statement timeout"),
        error("ERROR sqlalchemy.exc.TimeoutError: QueuePool limit of size <n> overflow <n> reached", 150, ONSET + 20),
        metrics=(USUAL_TRAFFIC, ERRORS, measured("db_cpu", [10, 95], 10, ONSET)),
    ),
    "memory_leak": signals(
        error("ERROR POST /v<n>/rows MemoryError", 40),
        stops=tuple((ONSET + at, "OutOfMemoryError: Container killed (app: exit code 137)", True) for at in (0, 90)),
        metrics=(USUAL_TRAFFIC, measured("service_memory", [50, 60, 70, 82, 93], 50, ONSET)),
    ),
    "pool_exhausted": signals(
        error("ERROR sqlalchemy.exc.TimeoutError: QueuePool limit of size <n> overflow <n> reached"),
        *NOISE,
        metrics=(USUAL_TRAFFIC, ERRORS),
    ),
    "redis_down": signals(
        error("ERROR redis.exceptions.ConnectionError: Error <n> connecting to cache:<n>. Connection refused."),
        *NOISE,
        dependencies=(
            {"name": "cache", "kind": "redis", "ok": False, "reason": "nothing listens", "fault": "refused"},
        ),
    ),
    "s3_denied": signals(
        error(
            "ERROR botocore.exceptions.ClientError: An error occurred (AccessDenied) when calling the PutObject operation"
        ),
        changes=(write("s3:PutBucketPolicy of regami-uploads"),),
    ),
    "bad_host": signals(
        error("ERROR OSError: [Errno <n>] Input/output error", streams=1),
        targets=tuple({"target": f"i-{at}", "state": "healthy", "reason": ""} for at in range(3)),
    ),
    "network_rule": signals(
        error('ERROR psycopg2.OperationalError: connection to server at "db" failed: timeout expired'),
        changes=(write("ec2:RevokeSecurityGroupIngress of sg-1"),),
    ),
    "throttled_api": signals(
        error(
            "ERROR ClientError: An error occurred (ThrottlingException) when calling the SendMessage operation: Rate exceeded"
        )
    ),
    "traffic_spike": signals(
        error("ERROR sqlalchemy.exc.TimeoutError: QueuePool limit of size <n> overflow <n> reached", 40),
        metrics=(MANY, ERRORS, measured("service_cpu", [30, 98], 30, ONSET), measured("p99", [0.1, 4], 0.1, ONSET)),
    ),
    "disk_full": signals(error("ERROR OSError: [Errno <n>] No space left on device: '/var/tmp/upload'", streams=1)),
    "certificate_expired": signals(
        error(
            "ERROR requests.exceptions.SSLError: HTTPSConnectionPool(host='partner', port=<n>): Max retries exceeded with url: /v<n>/chec",
            example="ERROR requests.exceptions.SSLError: HTTPSConnectionPool(host='partner', port=8443): Max retries exceeded with "
            "url: /v1/checks (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify "
            "failed: certificate has expired (_ssl.c:1006)')))",
        )
    ),
    "dependency_down": signals(
        error(
            "ERROR requests.exceptions.ConnectionError: Max retries exceeded with url: /rates [Errno <n>] Connection refused"
        ),
        database=outage.Database("regami-db", "available", True),
    ),
    "unhandled_exception": signals(error("ERROR GET /v<n>/report ZeroDivisionError: division by zero")),
}


@pytest.mark.parametrize("cause", INCIDENTS)
def test_each_cause_is_told_by_its_signs(cause):
    verdict = judged(INCIDENTS[cause])
    assert verdict.cause == verdict.causes[0].cause.name == cause, verdict.because
    assert verdict.confidence >= 0.5
    assert verdict.causes[0].evidence_for


@pytest.mark.parametrize("cause", [name for name in INCIDENTS if name != "bad_deployment"])
def test_a_harmless_deployment_shortly_before_is_not_blamed(cause):
    """A restart of the same revision, or another image: what the errors name says more."""
    noisy = dataclasses.replace(
        INCIDENTS[cause],
        released=ONSET - 240,
        revision={"from": "regami-api:6", "to": "regami-api:7", "lines": []},
    )
    assert judged(noisy).cause == cause


@pytest.mark.parametrize("cause", ["redis_down", "s3_denied", "throttled_api", "disk_full", "certificate_expired"])
def test_a_deployment_of_another_image_is_not_blamed_for_what_has_a_name(cause):
    noisy = dataclasses.replace(
        INCIDENTS[cause],
        released=ONSET - 240,
        revision={"from": "a:6", "to": "a:7", "lines": ["app: image a:1 -> a:2"]},
    )
    assert judged(noisy).cause == cause


def test_a_warning_that_names_no_cause_is_no_defect_of_the_new_build():
    """A build that leaks connections, as its users meet it."""
    slow = error("WARNING slow request: POST /v<n>/rows took <n> s", 150, new=True)
    seen = dataclasses.replace(
        INCIDENTS["pool_exhausted"],
        patterns=(*INCIDENTS["pool_exhausted"].patterns, slow),
        released=ONSET - 240,
        revision={"from": "a:6", "to": "a:7", "lines": ["app: image a:1 -> a:2"]},
    )
    verdict = judged(seen)
    assert verdict.cause == "pool_exhausted"
    (blamed,) = [each for each in verdict.causes if each.cause.name == "bad_deployment"]
    assert blamed.score < 0.3 and "100% of the new errors name something else" in blamed.evidence_against[0]


def test_errors_that_go_on_as_always_name_no_cause_of_slow_answers():
    slow = measured("p95", [40, 400], 40, ONSET)
    old = error("ERROR POST /v<n>/auth/login ValueError: malformed token", 30, None, streams=1)
    verdict = judged(signals(old, metrics=(slow,)))
    assert (verdict.cause, verdict.trouble) == ("unknown", "on")
    (exception, host) = (each for each in verdict.causes if each.cause.name in ("unhandled_exception", "bad_host"))
    assert "100% of the errors, none of which is new" in (exception.evidence_for[0] + host.evidence_for[0])


def test_tasks_that_are_killed_for_memory_are_a_leak_though_they_are_new():
    killed = "Essential container in task exited (app: exit code 137, OutOfMemoryError: Container killed due to memory usage)"
    leak = signals(
        released=NOW - 1300,
        stops=((NOW - 120, killed, True), (NOW - 90, killed, True)),
        metrics=(measured("service_memory", [15, 30, 45, 60, 75, 94]), measured("p50", [0.2], 0.03, NOW - 120)),
    )
    assert judged(leak).cause == "memory_leak"


def test_a_cause_is_not_later_than_what_it_causes():
    late = dataclasses.replace(INCIDENTS["bad_deployment"], released=ONSET + 120)
    verdict = judged(late)
    assert verdict.cause != "bad_deployment"
    (deployment,) = [each for each in verdict.causes if each.cause.name == "bad_deployment"] or [None]
    assert deployment is None or "before regami-api:7 was deployed" in " ".join(deployment.evidence_against)
    written = dataclasses.replace(
        INCIDENTS["network_rule"], changes=(write("ec2:RevokeSecurityGroupIngress of sg-1", NOW),)
    )
    assert judged(written).cause == "unknown"


def test_nothing_abnormal_is_no_cause():
    verdict = judged(
        signals(*NOISE, metrics=(USUAL_TRAFFIC,), changes=(write("ec2:RevokeSecurityGroupIngress of sg-1"),))
    )
    assert (verdict.cause, verdict.onset) == ("unknown", None)


def test_a_spike_is_told_before_users_suffer_and_busy_processors_alone_are_no_trouble():
    busy = measured("service_cpu", [30, 98], 30, ONSET)
    assert judged(signals(metrics=(MANY, busy))).cause == "traffic_spike"
    assert judged(signals(metrics=(USUAL_TRAFFIC, busy))).cause == "unknown"


def test_the_deployment_that_ended_the_errors_is_not_blamed_for_them():
    """A rollback within the minute in which they began: the log knows the second."""
    seen = INCIDENTS["bad_deployment"]
    minute = measured("error_percent", [0.1, 40], 0.1, ONSET // 60 * 60)
    assert judged(dataclasses.replace(seen, released=ONSET + 20, metrics=(minute,))).cause != "bad_deployment"
    without_logs = dataclasses.replace(seen, patterns=(), released=ONSET // 60 * 60 + 20, metrics=(minute,))
    assert judged(without_logs).cause == "bad_deployment", "the metric does not know the second"


def test_errors_that_stopped_coming_have_ended():
    seen = INCIDENTS["bad_deployment"]
    (first, *noise) = seen.patterns
    over = dataclasses.replace(seen, patterns=(first | {"last": NOW - 90}, *noise), metrics=())
    assert (judged(seen).trouble, judged(over).trouble) == ("on", "over")
    assert judged(dataclasses.replace(over, complaints=("health: answered 503",))).trouble == "on"
    rare = first | {"last": NOW - 90, "count": 4}
    assert judged(dataclasses.replace(over, patterns=(rare,))).trouble == "on"
    minute = measured("error_percent", [0.1, 40], 0.1, ONSET)
    assert judged(dataclasses.replace(over, metrics=(minute,))).trouble == "on"


def test_slow_first_answers_of_new_tasks_do_not_prolong_errors():
    """A minute that has just begun tells of errors, but not of slowness."""
    (first, *noise) = INCIDENTS["bad_deployment"].patterns
    minute = NOW // 60 * 60
    minutes = {"series": [[minute - 60, 50], [minute, 900]]}
    over = dataclasses.replace(
        INCIDENTS["bad_deployment"],
        now=minute + 8,
        patterns=(first | {"last": minute - 1}, *noise),
        metrics=(measured("p99", [50, 900], 50, minute) | minutes,),
    )
    assert judged(over).trouble == "over"
    assert judged(dataclasses.replace(over, now=minute + 68)).trouble == "on", "a whole minute was slow"
    errors = measured("error_percent", [0.1, 40], 0.1, minute) | minutes
    assert judged(dataclasses.replace(over, metrics=(errors,))).trouble == "on"


@pytest.mark.parametrize(
    ("silent", "count", "hush"),
    [(1, 900, 0), (3, 900, 2), (6, 900, 0), (3, 4, 0)],
    ids=["they come", "a moment's silence", "ended", "rare"],
)
def test_errors_that_may_have_ended_a_moment_ago_are_looked_at_again(silent, count, hush):
    (first, *noise) = INCIDENTS["bad_deployment"].patterns
    seen = dataclasses.replace(
        INCIDENTS["bad_deployment"], patterns=(first | {"last": NOW - silent, "count": count}, *noise)
    )
    assert seen.hush == hush


def test_two_causes_alike_are_not_told_apart():
    redis, certificate = (INCIDENTS[name].patterns[0] for name in ("throttled_api", "certificate_expired"))
    verdict = judged(signals(redis, certificate))
    assert verdict.cause == "unknown"
    assert "are alike" in verdict.because


def test_what_is_not_seen_is_no_evidence_and_costs_confidence():
    seen = INCIDENTS["redis_down"]
    blind = dataclasses.replace(
        seen, unseen={"metrics": ["metrics: denied"], "changes": ["CloudTrail: denied"]}, released=None
    )
    assert judged(blind).cause == "redis_down"
    assert judged(blind).confidence == pytest.approx(
        judged(seen).confidence - 0.3 * judged(blind).causes[0].score, abs=0.02
    )
    nothing = causes.Signals(now=NOW, unseen={where: ["denied"] for where in causes.BLINDNESS})
    verdict = judged(nothing)
    assert (verdict.cause, verdict.confidence) == ("unknown", 0)
    assert verdict.because == "nothing of the service is abnormal, as far as could be seen"


def test_the_one_that_the_errors_come_from_is_named_by_its_stream():
    assert cause_rules.part(INCIDENTS["bad_host"]) == "1"
    assert cause_rules.part(INCIDENTS["redis_down"]) == ""


def test_the_rules_are_whole():
    names = {cause.name for cause in cause_rules.CAUSES}
    for cause in cause_rules.CAUSES:
        assert set(cause.brings) <= names - {cause.name}
        assert cause.playbook or cause.advice
        assert cause.source
        for clue in (*cause.speaks_for, *cause.against):
            assert clue.where in causes.BLINDNESS
            assert 0 < clue.weight < 1


def wanted(**options):
    return {
        "environment_name": "prod",
        "limits": {},
        "db_instances": [],
        "auto_scaling_groups": [],
        "names": [],
        "dependencies": [{"name": "uploads", "bucket": "regami-uploads"}],
        **options,
    }


def observed(**read):
    lines = tuple(
        Event(1000 * (ONSET + at), "/ecs/app", f"s{at % 3}", "ERROR POST /v1/rows KeyError: 'tenant'")
        for at in range(60)
    )
    group = {"name": "/ecs/app", "region": "us-east-1"}
    deployment = {
        "id": "ecs-svc/1",
        "status": "PRIMARY",
        "createdAt": datetime.datetime.fromtimestamp(ONSET - 60, datetime.UTC),
    }
    service = {"taskDefinition": "arn:x/regami-api:7", "runningCount": 3, "deployments": [deployment]}
    usual = {
        "now": NOW,
        "windows": {"logs": (NOW - 1800, NOW), "changes": NOW - 10800},
        "metrics": ({metrics.of_service("c", "s", "us-east-1")[0]: metrics.Seen({NOW - 60: 20.0})}, {}),
        "logs": [(group, Found(lines, 60, True, "FilterLogEvents"))],
        "changes": {"deployments": ([], {"from": "regami-api:6", "to": "regami-api:7", "lines": ["image"]})},
        "tasks": {
            "entry": service,
            "failures": [],
            "targets": [("tg", [])],
            "definition": {"taskRoleArn": "arn:x:role/api"},
        },
        "users": ("health: answered 500",),
        "alarms": [],
    }
    return usual | read


def test_the_plan_changes_nothing_and_names_the_cause_with_its_fix():
    plan = CauseAssess.plan(observed(), wanted())
    assert not plan.steps
    assert plan.returned["cause"] == "bad_deployment"
    first = plan.returned["causes"][0]
    assert first["fix"] == {
        "playbook": "rollback_deployment",
        "command": "ansible-playbook playbooks/rollback_deployment.yml -e env=prod",
    }
    assert plan.notes[0].startswith("likely cause: a bad deployment (bad_deployment, 0.")
    assert any("60 x new since the deployment" in note for note in plan.notes)
    assert plan.returned["patterns"][0]["surge"] == ONSET


def test_the_plan_says_what_it_could_not_see():
    plan = CauseAssess.plan(
        observed(
            metrics=({}, {"us-east-1": "denied"}),
            changes={"CloudTrail": Stop("denied too")},
            tasks=Stop("no answer"),
            alarms=Stop("no permission"),
        ),
        wanted(),
    )
    others = ["metrics in us-east-1: denied", "CloudTrail: denied too", "alarms: no permission"]
    assert plan.returned["unseen"] == ["tasks: no answer", *others]
    assert plan.returned["alarms"] == []
    assert plan.returned["cause"] == "unhandled_exception"
    assert plan.returned["confidence"] < plan.returned["causes"][0]["score"]

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What no gate knows: the pure judgement of each subject, and what it says of what cannot be read."""

from __future__ import annotations

import datetime
from types import SimpleNamespace

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import (
    readiness_backups,
    readiness_certificates,
    readiness_images,
    readiness_names,
    readiness_replica,
    readiness_schema,
    readiness_secrets,
    registry,
    task_secrets,
)
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.readiness import NOT_READY, RISK, UNKNOWN, Found
from ansible_collections.sre.runbooks.plugins.module_utils.restore_points import Window
from ansible_collections.sre.runbooks.plugins.modules import readiness_assess

NOW = 1_800_000_000.0
DAY = 86400


def said(subject, seen, **wanted):
    return [(each.level, each.because) for each in subject.judge(seen, wanted, NOW)]


# ---- replica -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lags", "levels"),
    [
        ([0.1, 0.2, 3.0], []),
        ([0.1, 0.2, 61.0], [RISK]),
        ([70.0, 80.0, 0.1], [NOT_READY]),
        ([0.1, -1.0, 0.1], [RISK]),
        ([-1.0], [RISK]),
        ([], [UNKNOWN]),
        (None, []),  # there is no replica, which the promotion says
    ],
)
def test_the_lag_of_the_day_is_measured_by_what_is_promised(lags, levels):
    assert [level for level, _because in said(readiness_replica, {"replica": lags}, rpo_seconds=60)] == levels


def test_what_is_usual_and_the_worst_are_both_told():
    ((_level, because),) = said(readiness_replica, {"replica": [0, 2, 400]}, rpo_seconds=60)
    assert "it was 2 s behind (p50), at most 7 min" in because


# ---- backups -------------------------------------------------------------------------------------------------------


def points(latest=None, snapshot=None, **more):
    window = Window(NOW - 7 * DAY, NOW - latest) if latest is not None else None
    snapshots = [{"id": "s", "status": "available", "created": NOW - snapshot}] if snapshot is not None else []
    return {"db": {"window": window, "snapshots": snapshots, **more}}


@pytest.mark.parametrize(
    ("seen", "level", "words"),
    [
        (points(latest=300), None, ""),
        (points(latest=1800), RISK, "its log is not uploaded"),
        (points(latest=3 * DAY), NOT_READY, "3 d ago"),
        (points(latest=3 * DAY, snapshot=3600), RISK, "the last second to go back to"),
        (points(snapshot=3600), None, ""),  # the restore says why no second can be chosen
        (points(latest=300, copies=NOW - 3600), None, ""),
        (points(latest=300, copies=None), NOT_READY, "us-west-2 has no copy"),
        (points(latest=300, copies=NOW - 5 * DAY), NOT_READY, "newest copy in us-west-2"),
        ({"db": None}, None, ""),
    ],
)
def test_a_backup_is_recent_or_it_is_none(seen, level, words):
    found = said(readiness_backups, seen, backup_copy_region="us-west-2")
    assert [each for each, _because in found] == ([level] if level else [])
    assert all(words in because for _level, because in found)


# ---- images --------------------------------------------------------------------------------------------------------

ECR = "123456789012.dkr.ecr.{}.amazonaws.com/app:{}"


def definition(image, **more):
    container = {"name": "app", "image": image, **more}
    return {"taskDefinitionArn": "arn:aws:ecs:us-west-2:1:task-definition/app:3", "containerDefinitions": [container]}


def image(name, state=registry.THERE, digest="sha256:1", why=""):
    return {name: registry.Image(name, state, digest=digest, why=why)}


THERE, HERE = ECR.format("us-west-2", "v2"), ECR.format("us-east-1", "v2")


@pytest.mark.parametrize(
    ("seen", "levels"),
    [
        (image(THERE) | image(HERE), []),
        (image(THERE, registry.GONE, None, "gone") | image(HERE), []),  # which the gate says
        (image(THERE) | image(HERE, digest="sha256:2"), [RISK]),
        (image(THERE, registry.UNKNOWN, None, "denied") | image(HERE), []),  # so it does that
        (image(THERE) | image(HERE, registry.UNKNOWN, None), []),  # the same tag
        (image(THERE), []),
    ],
)
def test_the_standby_has_the_image_that_runs_now(seen, levels):
    definitions = {"here": definition(HERE), "standby": definition(THERE)}
    assert [level for level, _because in said(readiness_images, seen, definitions=definitions)] == levels


def test_a_registry_that_cannot_be_asked_is_no_finding_but_another_tag_is():
    one, other = "docker.io/acme/app:v1", "docker.io/acme/app:v2"
    seen = image(one, registry.UNKNOWN, None) | image(other, registry.UNKNOWN, None)
    definitions = {"here": definition(other), "standby": definition(one)}
    ((level, because),) = said(readiness_images, seen, definitions=definitions)
    assert level == RISK and one in because and other in because


# ---- secrets -------------------------------------------------------------------------------------------------------

ARN = "arn:aws:secretsmanager:us-west-2:123456789012:secret:app/db-AbCdEf"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, None),  # no copy, or not there, which the gate says
        ({"state": "InProgress", "from": "us-east-1", "why": ""}, None),
        ({"state": "Failed", "from": "us-east-1", "why": "no key"}, "replication failed: no key"),
    ],
)
def test_a_secret_is_what_it_is_where_it_comes_from(found, words):
    standby = definition(THERE, secrets=[{"name": "PASSWORD", "valueFrom": ARN}])
    wanted = {"definitions": {"standby": standby}, "standby": {"region": "us-west-2"}}
    told = said(readiness_secrets, {task_secrets.named(ARN, "us-west-2"): found}, **wanted)
    if words is None:
        assert told == []
    else:
        ((level, because),) = told
        assert level == NOT_READY and words in because and "PASSWORD of container app in app:3" in because


# ---- schema --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        (None, None),  # a replica has that of its source
        ({"db": ["b"], "there": ["b"]}, None),
        ({"db": None, "there": ["b"]}, None),  # no migrations of Alembic
        ({"db": ["b"], "there": ["a"]}, "its schema is a, and that of db is b"),
        ({"db": ["b"], "there": []}, "its schema is empty"),
    ],
)
def test_two_databases_have_one_schema(versions, words):
    found = said(readiness_schema, {"there": versions}, db_instance="db")
    assert [level for level, _because in found] == ([NOT_READY] if words else [])
    assert all(words in because for _level, because in found)


# ---- the name ------------------------------------------------------------------------------------------------------


def name(ttl=60, checks=None, **record):
    record = {"SetIdentifier": "one", "Failover": "PRIMARY", **record}
    return {"api.example.com": {"sets": [record], "ttl": {"api.example.com": ttl}, "checks": checks or {}}}


ALIAS = {"HostedZoneId": "Z", "DNSName": "alb.", "EvaluateTargetHealth": True}


@pytest.mark.parametrize(
    ("seen", "level", "words"),
    [
        (name(AliasTarget=ALIAS), None, ""),
        (name(AliasTarget=ALIAS, ttl=500), RISK, "more than half"),
        (name(AliasTarget=ALIAS, ttl=3600), NOT_READY, "for 3600 s"),
        (name(AliasTarget={**ALIAS, "EvaluateTargetHealth": False}), RISK, "does not evaluate"),
        (name(AliasTarget={**ALIAS, "EvaluateTargetHealth": False}, HealthCheckId="h", checks={"h": {}}), None, ""),
        (name(), RISK, "has no health check"),
        (name(HealthCheckId="h", checks={"h": None}), RISK, "which is not there"),
        (name(HealthCheckId="h", checks={"h": {"Disabled": True}}), RISK, "which is disabled"),
        (name(Failover="SECONDARY"), None, ""),
    ],
)
def test_users_follow_the_name_in_time(seen, level, words):
    found = said(readiness_names, seen, rto_seconds=900)
    assert [each for each, _because in found] == ([level] if level else [])
    assert all(words in because for _level, because in found)


def test_nothing_promised_is_nothing_broken():
    assert said(readiness_names, name(AliasTarget=ALIAS, ttl=86400), rto_seconds=None) == []


# ---- certificates --------------------------------------------------------------------------------------------------

BALANCER = "arn:aws:elasticloadbalancing:us-west-2:123456789012:loadbalancer/app/alb/0123456789abcdef"


def certificate(days=100, domain="api.example.com", status="ISSUED"):
    until = datetime.datetime.fromtimestamp(NOW + days * DAY, datetime.UTC)
    return {"CertificateArn": "arn:aws:acm:1", "DomainName": domain, "NotAfter": until, "Status": status}


@pytest.mark.parametrize(
    ("found", "level", "words"),
    [
        ([certificate()], None, ""),
        ([], None, ""),
        ([certificate(days=20)], RISK, "expires on"),
        ([certificate(days=-1, status="EXPIRED")], NOT_READY, "has expired on"),
        ([certificate(status="REVOKED")], NOT_READY, "is REVOKED"),
        ([certificate(domain="www.example.com")], NOT_READY, "only for www.example.com"),
        ([certificate(domain="www.example.com"), certificate(domain="*.example.com")], None, ""),
    ],
)
def test_a_certificate_is_valid_for_a_while_and_for_the_name(found, level, words):
    told = said(readiness_certificates, {(BALANCER, ("a",)): found}, record="api.example.com")
    assert [each for each, _because in told] == ([level] if level else [])
    assert all(words in because for _level, because in told)


def test_what_is_served_is_told_where_the_balancer_has_nothing_to_tell():
    served = {("api.example.com", ("a",)): {"refused": "certificate has expired"}}
    ((level, because),) = said(readiness_certificates, served, record="api.example.com")
    assert level == NOT_READY and because.endswith("certificate has expired")
    both = {(BALANCER, ("a",)): [certificate(days=-1)], **served}
    ((_level, because),) = said(readiness_certificates, both, record="api.example.com")
    assert "of alb" in because


@pytest.mark.parametrize(
    ("mine", "host", "covered"),
    [
        ("api.example.com", "API.example.com.", True),
        ("*.example.com", "api.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("example.com", "api.example.com", False),
    ],
)
def test_a_star_is_one_label(mine, host, covered):
    assert readiness_certificates.covers(mine, host) is covered


# ---- all of them ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_cannot_be_told_and_the_rest_is():
    subject = SimpleNamespace(judge=lambda seen, wanted, now: [Found(RISK, "b", "it is so", "mend it")], CHECK="any")
    found = list(readiness_assess._found(subject, {"a": Unreachable("no answer"), "b": 1}, {}, NOW))
    assert [(each.level, each.resource) for each in found] == [(UNKNOWN, "a"), (RISK, "b")]
    assert "no answer" in found[0].because


def test_a_finding_counts_for_each_scenario_that_it_concerns():
    told = Found(RISK, "r", "so it is", "mend it", ("a", "c")).told("dns", ["a", "b"])
    assert told == [
        {"scenario": "a", "level": RISK, "check": "dns", "resource": "r", "because": "so it is", "fix": "mend it"}
    ]

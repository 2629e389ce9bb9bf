# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""s3_access: what it finds, and what its plan mends."""

from __future__ import annotations

import json

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import upload_access
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.modules.s3_access import S3Access

ARN = "arn:aws:iam::123456789012:role/app"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1"
ASKED = {"bucket": "photos", "prefix": "dogs/", "role": "app", "acl": None}
WANTED = {**ASKED, "remediate": False, "restore": None}


def statement(*actions, effect="Allow", resource="*", **more):
    return {"Effect": effect, "Action": list(actions), "Resource": resource, **more}


def seen(grants=("s3:PutObject", "s3:GetObject"), **more):
    return {
        "bucket": {"region": "us-east-1"},
        "role": {
            "arn": ARN,
            "inline": {"mine": {"Statement": [statement(*grants)]}},
            "managed": {},
            "boundary": None,
        },
        "policy": None,
        "ownership": None,
        "public_access": None,
        "encryption": None,
        "endpoints": [],
        "events": [],
        "key": None,
        **more,
    }


def found(asked=None, **more):
    findings, _blind = upload_access.assess(seen(**more), {**ASKED, **(asked or {})}, "us-east-1")
    return [(finding["where"], finding["remedy"] and finding["remedy"]["do"]) for finding in findings]


DENIAL = statement("s3:*", effect="Deny", Principal="*", Sid="KeepOut")
KEY_POLICY = {"Statement": [statement("kms:*", Principal={"AWS": "arn:aws:iam::123456789012:root"})]}


def key(policy=None, state="Enabled"):
    return {"arn": KEY, "state": state, "policy": policy or KEY_POLICY}


@pytest.mark.parametrize(
    ("more", "findings"),
    [
        ({}, []),
        ({"bucket": None}, [("bucket", None)]),
        ({"bucket": {"region": "eu-west-1"}}, [("bucket", None)]),
        ({"grants": ["s3:GetObject"]}, [("role app", "grant")]),
        (
            {"policy": json.dumps({"Statement": [DENIAL]})},
            [("policy of bucket photos", "lift_denial"), ("policy of bucket photos", None)],
        ),
        ({"key": key()}, [("role app", "grant"), ("role app", "grant")]),
        ({"key": key(), "grants": ["s3:*", "kms:*"]}, []),
        ({"key": key(state="Disabled"), "grants": ["s3:*", "kms:*"]}, [("KMS key", None)]),
        ({"key": key({"Statement": []}), "grants": ["s3:*", "kms:*"]}, [("key policy", None), ("key policy", None)]),
        (
            {"endpoints": [{"VpcEndpointId": "vpce-1", "VpcId": "vpc-1", "PolicyDocument": '{"Statement": []}'}]},
            [("VPC endpoint vpce-1", None), ("VPC endpoint vpce-1", None)],
        ),
        (
            {"events": [{"service": "S3", "eventTypeCode": "AWS_S3_OPERATIONAL_ISSUE", "region": "us-east-1"}]},
            [("AWS Health", None)],
        ),
        (
            {
                "asked": {"acl": "public-read"},
                "ownership": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]},
            },
            [("object ownership", None)],
        ),
        (
            {"asked": {"acl": "public-read"}, "public_access": {"BlockPublicAcls": True}},
            [("public access block", None)],
        ),
    ],
)
def test_what_stands_against_an_upload(more, findings):
    assert found(**more) == findings


def test_what_cannot_be_read_is_told_and_fails_nothing():
    findings, blind = upload_access.assess(
        seen(events=Stop("no support plan"), role=Stop("no such role")), ASKED, "us-east-1"
    )
    assert findings == [] and blind == ["role: no such role", "events: no support plan"]


def plan(findings, probe=None, **wanted):
    observed = {"findings": findings, "probe": probe, "role_arn": ARN}
    return S3Access.plan(observed, {**WANTED, **wanted})


LIFT = {"fix": "x", "remedy": {"do": "lift_denial", "statement": DENIAL}}
GRANT = {"fix": "x", "remedy": {"do": "grant", "action": "s3:PutObject", "resource": "*"}}
BY_HAND = {"fix": "wait", "remedy": None}
FAILED = {"tried": True, "ok": False, "message": "AccessDenied"}


def test_nothing_changes_unless_it_is_asked_for():
    (step,) = plan([LIFT]).steps
    assert step.do == "try_it" and step.waits
    assert plan([LIFT], FAILED).steps == ()


def test_a_fix_is_tried_until_it_works():
    planned = plan([LIFT, GRANT], FAILED, remediate=True)
    assert [step.do for step in planned.steps] == ["lift_denial", "grant", "await_it"]
    assert planned.after == {"works": True, "findings": 0}
    # Nobody waits for what a person has to do.
    planned = plan([GRANT, BY_HAND], FAILED, remediate=True)
    assert [step.do for step in planned.steps] == ["grant"] and planned.notes == ("left for you: wait",)


def test_the_way_back_puts_only_what_differs():
    observed = {"now": {"bucket_policy": "", "role_policy": '{"a": 1}'}}
    wanted = {**WANTED, "restore": {"bucket_policy": '{"b": 2}', "role_policy": '{ "a":1}'}}
    assert [step.do for step in S3Access.plan(observed, wanted).steps] == ["put_bucket_policy"]


def test_only_the_denial_is_taken_out():
    reading = statement("s3:GetObject", Principal="*")
    policy = json.dumps({"Version": "2012-10-17", "Statement": [reading, DENIAL]})
    assert json.loads(upload_access.without(policy, [DENIAL]))["Statement"] == [reading]
    assert upload_access.without(json.dumps({"Statement": DENIAL}), [DENIAL]) is None
    with pytest.raises(Stop, match="changed meanwhile"):
        upload_access.without(policy, [statement("s3:*")])

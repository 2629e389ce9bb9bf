# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which statement decides."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.policy import Policy, Request, condition_holds, judge

ROLE = "arn:aws:iam::123456789012:role/app"
PUT = Request("s3:PutObject", "arn:aws:s3:::photos/dogs/1.jpg", ROLE, {"aws:securetransport": "true"})


def policy(kind, effect="Allow", action="s3:PutObject", resource="arn:aws:s3:::photos/*", **more):
    return Policy.of(kind, kind, {"Statement": {"Effect": effect, "Action": action, "Resource": resource, **more}})


MINE = policy("identity")


def judged(*policies):
    found = judge(PUT, policies)
    return found.allowed or found.kind


@pytest.mark.parametrize(
    ("policies", "decides"),
    [
        ([MINE], True),
        ([], "identity"),
        ([policy("identity", action="s3:Get*")], "identity"),
        ([policy("identity", action=["s3:put*", "s3:Get*"])], True),
        ([policy("identity", resource="arn:aws:s3:::photos")], "identity"),
        ([policy("resource", Principal={"AWS": ROLE})], True),
        ([policy("resource", Principal={"AWS": "123456789012"})], "identity"),
        ([MINE, policy("resource", "Deny", Principal={"AWS": "123456789012"})], "resource"),
        ([MINE, policy("resource", "Deny", NotPrincipal={"AWS": ROLE})], True),
        ([policy("resource", Principal={"AWS": "arn:aws:iam::123456789012:role/other"})], "identity"),
        ([MINE, policy("resource", "Deny", Principal="*")], "resource"),
        ([MINE, policy("identity", "Deny")], "identity"),
        ([MINE, policy("boundary")], True),
        ([MINE, policy("boundary", action="logs:*")], "boundary"),
        ([MINE, policy("endpoint", resource="arn:aws:s3:::other/*", Principal="*")], "endpoint"),
        ([MINE, policy("resource", "Deny", Principal="*", Condition={"Bool": {"aws:SecureTransport": "false"}})], True),
        ([MINE, Policy.of("resource", "x", {"Statement": [{"Effect": "Deny", "Principal": "*", "NotAction": "s3:Get*",
                                                           "NotResource": "arn:aws:s3:::other/*"}]})], "resource"),
    ],
)  # fmt: skip
def test_who_decides(policies, decides):
    assert judged(*policies) == decides


def test_the_statement_is_named_and_what_cannot_be_known_decides_nothing():
    denial = policy("resource", "Deny", Principal="*", Sid="KeepOut")
    assert judge(PUT, [MINE, denial]).statement["Sid"] == "KeepOut"
    unknown = policy(
        "resource", "Deny", Principal="*", Sid="Office", Condition={"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    )
    found = judge(PUT, [MINE, unknown])
    assert found.allowed and found.undecided == ("Office of resource",)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({}, True),
        ({"StringEquals": {"k": ["a", "b"]}}, True),
        ({"StringNotEquals": {"K": "a"}}, False),
        ({"StringLike": {"k": "?"}}, True),
        ({"ArnNotLike": {"k": "b*"}}, True),
        ({"Null": {"k": "true"}}, False),
        ({"Null": {"none": True}}, True),
        ({"StringEquals": {"none": "a"}}, False),
        ({"StringNotEquals": {"none": "a"}}, True),
        ({"StringEqualsIfExists": {"none": "a"}}, True),
        ({"StringEquals": {"unknown": "a"}}, None),
        ({"StringEquals": {"unknown": "a"}, "StringLike": {"k": "b"}}, False),
        ({"NumericLessThan": {"k": "5"}}, None),
    ],
)
def test_conditions(condition, holds):
    assert condition_holds(condition, {"k": "a", "none": None}) is holds

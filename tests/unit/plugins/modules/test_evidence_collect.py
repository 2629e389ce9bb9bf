# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""evidence_collect: what its plan writes, and whose calls CloudTrail has."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils import trail
from ansible_collections.sre.runbooks.plugins.modules.evidence_collect import EvidenceCollect, file_name


def test_every_file_is_a_step_and_what_is_missing_is_told():
    found = EvidenceCollect.plan({"words": {"b.log": "3 lines", "a.json": "2 pods"}, "blind": ["x: denied"]}, {})
    assert [step.what for step in found.steps] == ["write a.json (2 pods)", "write b.log (3 lines)"]
    assert found.notes == ("cannot see x: denied",) and found.returned == {"blind": ["x: denied"]}


def test_names_of_files():
    assert file_name("/ecs/regami-api") == "ecs-regami-api"
    assert file_name("../x y") == "x-y"


def test_a_session_is_its_roles():
    session = {
        "eventSource": "iam.amazonaws.com",
        "eventName": "CreateUser",
        "userIdentity": {
            "type": "AssumedRole",
            "arn": "arn:aws:sts::1:assumed-role/app/6c1f",
            "sessionContext": {"sessionIssuer": {"userName": "app"}},
        },
    }
    assert (trail.issuer(session), trail.who(session), trail.action(session)) == (
        "app",
        "assumed-role/app/6c1f",
        "iam:CreateUser",
    )
    service = {"userIdentity": {"type": "AWSService", "invokedBy": "ecs.amazonaws.com"}}
    assert (trail.issuer(service), trail.who(service)) == (None, "ecs.amazonaws.com")

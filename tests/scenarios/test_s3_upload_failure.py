# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""s3_upload_failure.yml: what denies an upload is named, and mended only when that is asked for."""

from __future__ import annotations

import json

import pytest
from killing import answered
from runbook import Result
from world import EAST, World

BUCKET = "regami-uploads"


@pytest.fixture(scope="module")
def world(any_world: World) -> World:
    any_world.begin()
    return any_world


def look(world: World, *flags: str, **variables: object) -> Result:
    return world.runbook.run("s3_upload_failure", *flags, **variables)


def policy(world: World) -> str:
    return world.aws("s3", EAST).get_bucket_policy(Bucket=BUCKET)["Policy"]


def test_a_denial_is_named_then_lifted_when_asked_and_no_probe_is_left(world: World) -> None:
    world.sandbox.fault("uploads-denied", how="bucket")
    denied = policy(world)
    planned = look(world, "--check", "--diff", remediate=True)
    assert (planned.returncode, planned.mutations) == (0, [])
    assert "take 1 statements out of the policy" in planned.output
    looked = look(world)
    assert looked.returncode == 2 and policy(world) == denied
    (complaint,) = looked.complaints
    assert "denied by statement KeepOut" in complaint and "-e remediate=true does it" in complaint
    assert "explicit deny in a resource-based policy" in looked.output  # the real put's own words

    # Behind it a permission is missing, which nobody sees as long as it denies; and an answer is lost.
    role = world.sandbox.state["regions"][EAST]["uploads_role"]
    world.aws("iam").delete_role_policy(RoleName=role, PolicyName="uploads")
    world.sandbox.fault("api", service="s3", action="PutBucketPolicy", kind="lost-answer", count=1)
    run = look(world, remediate=True)
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    assert "KeepOut" not in policy(world) and "Reading" in policy(world)
    assert world.aws("iam").list_role_policies(RoleName=role)["PolicyNames"] == ["sre-runbooks-uploads"]
    assert world.aws("s3", EAST).list_object_versions(Bucket=BUCKET).get("Versions") is None
    again = look(world, remediate=True)
    assert (again.returncode, again.recap["changed"]) == (0, 0)


def test_what_others_depend_on_is_only_named(world: World) -> None:
    world.sandbox.fault("uploads-denied", how="boundary")
    run = look(world, remediate=True)
    assert run.returncode == 2
    assert "allow s3:PutObject in permissions boundary logs-only" in run.complaints[0]
    world.sandbox.heal()


@pytest.mark.soak
def test_the_policy_that_a_killed_run_has_changed_is_put_back(world: World) -> None:
    """It stands nowhere but in what the preflight of that run has noted."""
    world.sandbox.fault("uploads-denied", how="bucket")
    denied = json.loads(policy(world))
    running = world.runbook.start("s3_upload_failure", remediate=True)
    running.until(lambda run: answered("PutBucketPolicy", EAST)(run, world))
    running.kill()
    again = look(world, remediate=True)
    assert (again.returncode, again.recap["changed"]) == (0, 0), again.output
    assert "KeepOut" not in policy(world)
    back = world.runbook.run("undo")
    assert back.returncode == 0 and json.loads(policy(world)) == denied, back.output

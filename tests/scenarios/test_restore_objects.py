# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""restore_objects.yml: photos that a job has deleted and spoilt are what they were, and nothing is lost on the way."""

from __future__ import annotations

import datetime
import stat

import pytest
from runbook import Result
from world import EAST, World

BUCKET = "regami-uploads"
# Seconds ago: between the hour of the photos and the five minutes of the job.
BEFORE_THE_JOB = 1800


@pytest.fixture(scope="module")
def world(any_world: World) -> World:
    any_world.begin()
    any_world.sandbox.fault("objects-lost", count=30)
    return any_world


def ago(seconds: float) -> str:
    return f"{datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def restore(world: World, *flags: str, **variables: object) -> Result:
    return world.runbook.run("restore_objects", *flags, **variables)


def contents(world: World) -> dict[str, str]:
    """What users see."""
    s3 = world.aws("s3", EAST)
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() for key in keys}


def versions(world: World) -> set[str]:
    """Ids of what is kept, delete markers aside."""
    return {each["VersionId"] for each in world.aws("s3", EAST).list_object_versions(Bucket=BUCKET).get("Versions", [])}


def test_planned_done_again_and_taken_back(world: World) -> None:
    spoilt, kept = contents(world), versions(world)
    at = ago(BEFORE_THE_JOB)
    planned = restore(world, "--check", "--diff", at=at)
    assert (planned.returncode, planned.mutations) == (0, [])
    assert "remove the delete markers of 10 objects" in planned.output and "copy 10 versions" in planned.output
    assert contents(world) == spoilt

    world.sandbox.fault("api", service="s3", action="CopyObject", kind="lost-answer", count=2)
    world.sandbox.fault("s3-slow-down", rate=15)
    run = restore(world, at=at)
    world.sandbox.heal()
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    photos = {f"dogs/photos/{number}.jpg": f"photo dogs/photos/{number}.jpg" for number in range(30)}
    assert contents(world) == photos
    # An answer that was lost was looked for: one copy each.
    assert kept < versions(world) and len(versions(world) - kept) == 10
    (manifest,) = run.folder.glob("s3_restore-*.jsonl")
    assert stat.S_IMODE(manifest.stat().st_mode) == 0o600

    again = restore(world, at=at)
    assert (again.returncode, again.recap["changed"], again.report["outcome"]) == (0, 0, "noop")
    back = restore(world, undo_manifest=str(manifest))
    assert back.returncode == 0, back.output
    assert contents(world) == spoilt and versions(world) == kept


def test_one_object_and_what_is_refused(world: World) -> None:
    key = "dogs/photos/15.jpg"
    looked = restore(world, key=key)
    assert (looked.returncode, looked.mutations) == (0, [])
    s3 = world.aws("s3", EAST)
    newest, first = s3.list_object_versions(Bucket=BUCKET, Prefix=key)["Versions"]
    assert newest["VersionId"] in looked.output and first["VersionId"] in looked.output
    run = restore(world, key=key, version_id=first["VersionId"])
    assert run.returncode == 0, run.output
    assert contents(world)[key] == f"photo {key}"
    for wrong, way_out in (
        ({}, "say one of -e at=TIME"),
        ({"at": "2020-01-01"}, "accept_deletes=true"),
        ({"at": ago(60), "bucket": "regami-upload"}, BUCKET),
    ):
        refused = restore(world, **wrong)
        assert (refused.returncode, refused.mutations) == (2, []), refused.output
        assert way_out in refused.complaints[0]

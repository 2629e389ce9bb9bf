# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""s3_restore: what its plan counts, says and refuses."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.object_versions import Tally, Version
from ansible_collections.sre.runbooks.plugins.modules.s3_restore import S3Restore

WANTED = {
    "key": None,
    "prefix": "",
    "at": "2026-03-01T12:00:00Z",
    "version_id": None,
    "backup_bucket": None,
    "undo_manifest": None,
    "archived": "refuse",
    "accept_deletes": False,
    "allow_unversioned": False,
    "batch_above": 100,
    "batch_role_arn": None,
    "manifest_bucket": None,
}


def plan(tally, wanted=None, **facts):
    observed = {
        "bucket": "photos",
        "now": "2026-03-02T00:00:00",
        "versioning": "Enabled",
        "mfa_delete": False,
        "replicated": False,
        "archived": [],
        "versions": [],
        "jobs": [],
        "kms_by_default": False,
        "tally": tally,
        **facts,
    }
    return S3Restore.plan(observed, {**WANTED, **(wanted or {})})


def refusal(*args, **facts):
    with pytest.raises(Refusal) as caught:
        plan(*args, **facts)
    return str(caught.value)


def test_counts_and_bytes_come_first_and_a_check_last():
    found = plan(Tally(right=4, copy=2, copy_bytes=3 * 2**20, unmark=5, mark=1, there=7))
    assert [(step.do, step.after) for step in found.steps] == [
        ("undelete", 5),
        ("copy", 2),
        ("delete", 1),
        ("check", None),
    ]
    assert "2 versions (3.0 MiB)" in found.steps[1].what
    assert (found.after["right"], found.after["copy"]) == (12, 0)
    assert "hidden too" in found.notes[0]


def test_what_is_right_needs_nothing():
    found = plan(Tally(right=4, there=4))
    assert (found.steps, found.notes) == ((), ())


@pytest.mark.parametrize(("versioning", "says"), [(None, "off"), ("Suspended", "suspended")])
def test_a_bucket_that_keeps_nothing_is_not_written_to(versioning, says):
    assert f"versioning of photos is {says}" in refusal(Tally(copy=1), versioning=versioning)
    backup = {"at": None, "backup_bucket": "copy"}
    assert "allow_unversioned=true" in refusal(Tally(copy=1), backup, versioning=versioning)
    found = plan(Tally(copy=1), {**backup, "allow_unversioned": True}, versioning=versioning)
    assert "nothing undoes this run" in found.notes[-1]


def test_a_typing_error_does_not_empty_a_bucket():
    assert "6 of the 10 objects" in refusal(Tally(right=4, mark=6, there=10))
    assert "accepted: 6 of 10" in plan(Tally(right=4, mark=6, there=10), {"accept_deletes": True}).notes[-1]
    assert "check bucket and prefix" in refusal(Tally())
    assert "lies ahead" in refusal(Tally(right=1), {"at": "2027-01-01"})
    assert "is no time" in refusal(Tally(right=1), {"at": "noon"})


def test_what_must_be_brought_back_first_is_named():
    tally = Tally(right=1, archived=2, there=1)
    assert "RestoreObject first (old.jpg)" in refusal(tally, archived=["old.jpg"])
    assert "left: 2 versions" in plan(tally, {"archived": "skip"}, archived=["old.jpg"]).notes[0]


def test_removing_a_marker_needs_to_be_allowed_and_is_not_replicated():
    assert "delete_markers=keep" in refusal(Tally(unmark=1), mfa_delete=True)
    assert "is replicated" in plan(Tally(unmark=1), replicated=True).notes[0]


def test_a_version_that_is_none():
    versions = [Version("b", "2026-03-01T10:00:00", is_marker=True), Version("a", "2026-03-01T09:00:00")]
    wanted = {"at": None, "key": "one.jpg", "version_id": "c"}
    assert "the newest are b, a" in refusal(Tally(), wanted, versions=versions)
    assert "is a delete marker" in refusal(Tally(), {**wanted, "version_id": "b"}, versions=versions)
    assert plan(Tally(unmark=1), {**wanted, "version_id": "a"}, versions=versions).steps


def test_beyond_a_number_of_copies_batch_operations_does_them():
    many = Tally(copy=101, unmark=3, there=200)
    assert "batch_role_arn and manifest_bucket" in refusal(many)
    batch = {"batch_role_arn": "arn:aws:iam::1:role/batch", "manifest_bucket": "lists"}
    found = plan(many, batch)
    assert [step.do for step in found.steps] == ["undelete", "batch", "check"]
    assert "have S3 Batch Operations copy 101 versions" in found.steps[1].what
    assert plan(Tally(copy=100), batch).steps[0].do == "copy"
    assert plan(many, kms_by_default=True).steps[1].do == "copy"
    # What an earlier run has started is waited for before anything else is planned.
    (step,) = plan(many, batch, jobs=["j-1"]).steps
    assert (step.do, step.waits, step.look_again) == ("await_jobs", True, True)

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a restore: what it says after a run that was killed anywhere."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.object_manifest import Manifest, actions
from ansible_collections.sre.runbooks.plugins.module_utils.object_versions import Version

BUCKET = "uploads"
PHOTO = Version("v1", "2026-03-01T12:00:00", etag='"e1"')


def undone(path):
    """(do, key, versions) of what takes it back."""
    return [(action.do, action.key, action.markers) for action in actions(path, BUCKET)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "manifest.jsonl"


def test_what_was_done_is_taken_back_by_its_version_and_what_may_have_been_by_a_look(path):
    manifest = Manifest(path, BUCKET)
    for key in ("a", "b"):
        manifest.will_copy(key, PHOTO)
    manifest.add("copied", "a", "v2")
    for key in ("c", "d"):
        manifest.will_mark(key)
    manifest.add("marked", "d", "m1")
    assert undone(path) == [
        ("withdraw", "a", ("v2",)),
        ("unmark", "d", ("m1",)),
        ("withdraw", "b", ()),
        ("unmark", "c", ()),
    ]
    assert next(each for each in actions(path, BUCKET) if each.key == "b").wanted.etag == PHOTO.etag


def test_markers_of_one_object_are_one_deletion(path):
    manifest = Manifest(path, BUCKET)
    for marker in ("m1", "m2"):
        manifest.will_unmark("a", marker, "v1")
    assert undone(path) == [("mark", "a", ())]


def test_a_line_that_was_cut_short_told_of_nothing_yet(path):
    Manifest(path, BUCKET).will_copy("a", PHOTO)
    path.write_text(path.read_text()[:-3])
    assert undone(path) == []


def test_of_another_bucket(path):
    Manifest(path, "other").will_mark("a")
    with pytest.raises(Refusal, match="tells of bucket other, not of uploads"):
        undone(path)

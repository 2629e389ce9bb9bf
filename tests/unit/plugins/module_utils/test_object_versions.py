# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes an object again what it was."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import object_copy
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.object_versions import (
    Action,
    Version,
    as_at,
    by_key,
    decide,
    mirror,
    parse_page,
    second,
)

NOON = "2026-03-01T12:00:00"


def version(name, hour, etag="x", **told):
    return Version(name, f"2026-03-01T{hour:02}:00:00", etag=etag, size=1, **told)


def marker(name, hour):
    return Version(name, f"2026-03-01T{hour:02}:00:00", is_marker=True)


def decided(*versions, **options):
    ((key, above, wanted),) = by_key([("k", each) for each in versions], as_at(NOON))
    action = decide(key, above, wanted, **options)
    return action and (action.do, action.wanted.id if action.wanted else None, action.markers)


@pytest.mark.parametrize(
    ("versions", "does"),
    [
        ([version("a", 9)], None),
        ([version("b", 13, "y"), version("a", 9)], ("copy", "a", ())),
        ([version("b", 13, "x"), version("a", 9)], None),  # right already, under another id
        ([marker("m", 13), version("a", 9)], ("unmark", "a", ("m",))),
        ([marker("n", 14), marker("m", 13), version("a", 9)], ("unmark", "a", ("n", "m"))),
        ([marker("m", 14), version("b", 13, "y"), version("a", 9)], ("copy", "a", ())),
        ([version("b", 13)], ("mark", None, ())),  # made since
        ([marker("m", 14), version("b", 13)], None),  # made since, and gone
        ([version("b", 13), marker("m", 9), version("a", 8)], ("mark", None, ())),  # deleted then
        ([marker("m", 9), version("a", 8)], None),
        # Within one second the order of S3 decides.
        ([version("b", 12, "y"), marker("m", 12), version("a", 9)], None),
        ([marker("m", 12), version("b", 12, "y"), version("a", 9)], None),
    ],
)
def test_each_kind_of_past(versions, does):
    assert decided(*versions) == does


def test_markers_are_kept_where_that_is_asked():
    assert decided(marker("m", 13), version("a", 9), remove_markers=False) == ("copy", "a", ())


def test_a_page_keeps_the_order_in_which_versions_and_markers_were_made():
    def entry(tag, name, key="a%2Fb+c"):
        return f"<{tag}><Key>{key}</Key><VersionId>{name}</VersionId><LastModified>{NOON}.000Z</LastModified></{tag}>"

    body = (
        '<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>true</IsTruncated>'
        "<NextKeyMarker>a%2Fb+c</NextKeyMarker><NextVersionIdMarker>1</NextVersionIdMarker>"
        f"{entry('Version', '3')}{entry('DeleteMarker', '2')}{entry('Version', '1')}</ListVersionsResult>"
    )
    entries, after = parse_page(body.encode())
    assert [(key, each.id, each.is_marker) for key, each in entries] == [
        ("a/b c", "3", False),
        ("a/b c", "2", True),
        ("a/b c", "1", False),
    ]
    assert after == {"KeyMarker": "a/b c", "VersionIdMarker": "1"}


def test_times_of_people():
    assert second("2026-03-01T12:00:00Z") == second("2026-03-01 14:00:00.9+02:00") == second("2026-03-01T12:00") == NOON
    with pytest.raises(Refusal, match="say it as"):
        second("noon")


# Such that the order of bytes and that of Python's characters could differ.
NAMES = st.dictionaries(st.sampled_from(["a", "a/b", "a0", "z", "é", "\uffff", "\U0001f436"]), st.sampled_from("xy"))


@given(NAMES, NAMES)
def test_a_mirror_ends_as_the_backup(ours, backup):
    def stream(objects):
        return ((key, version("", 9, objects[key])) for key in sorted(objects, key=str.encode))

    ended = dict(ours)
    for action in filter(None, mirror(stream(ours), stream(backup))):
        if action.do == "mark":
            del ended[action.key]
        else:
            ended[action.key] = action.wanted.etag
    assert ended == backup


def test_packed_and_unpacked_an_action_is_the_same_for_who_carries_it_out():
    action = Action("copy", "k\n", version("b", 13), version("a", 9, "y"), ("m",))
    back = Action.unpacked(action.packed())
    assert (back.do, back.key, back.top.id, back.wanted.id, back.wanted.etag, back.markers) == (
        "copy",
        "k\n",
        "b",
        "a",
        "y",
        ("m",),
    )


# ---- copies


def test_a_copy_carries_what_s3_would_leave_behind():
    head = {
        "ETag": '"x"',
        "ServerSideEncryption": "AES256",
        "ContentType": "image/jpeg",
        "WebsiteRedirectLocation": "/new",
        "Metadata": {"dog": "rex"},
    }
    found = object_copy.attributes(head, version("a", 9, storage_class="STANDARD_IA"), kms_by_default=True)
    assert found == {
        "StorageClass": "STANDARD_IA",
        "ServerSideEncryption": "AES256",
        "WebsiteRedirectLocation": "/new",
        "MetadataDirective": "COPY",
        "TaggingDirective": "COPY",
    }


@pytest.mark.parametrize(
    "head",
    [
        {"ETag": '"x-2"'},
        {"ETag": '"x"', "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:key", "BucketKeyEnabled": True},
    ],
)
def test_a_copy_whose_etag_must_differ_is_marked(head):
    found = object_copy.attributes(
        {**head, "ContentType": "image/jpeg", "Metadata": {"dog": "rex"}}, version("a", 9), False
    )
    assert found["MetadataDirective"] == "REPLACE" and found["ContentType"] == "image/jpeg"
    assert found["Metadata"] == {"dog": "rex", object_copy.MARK: "x"}
    assert found.get("SSEKMSKeyId") == head.get("SSEKMSKeyId")
    assert object_copy.is_marked({"Metadata": found["Metadata"]}, version("a", 9, '"x"'))


@given(st.integers(1, 10**7))
def test_parts_cover_the_whole(size):
    spans = [tuple(map(int, span.removeprefix("bytes=").split("-"))) for span in object_copy.parts(size, part=1000)]
    assert spans[0][0] == 0 and spans[-1][1] == size - 1
    assert all(end + 1 == begin for (_from, end), (begin, _to) in itertools.pairwise(spans))
    assert len(spans) <= object_copy.MOST_PARTS


def test_what_is_archived_can_be_read_once_it_is_restored():
    assert object_copy.is_archived({"StorageClass": "GLACIER"})
    assert object_copy.is_archived({"StorageClass": "INTELLIGENT_TIERING", "ArchiveStatus": "ARCHIVE_ACCESS"})
    assert not object_copy.is_archived({"StorageClass": "GLACIER_IR"})
    assert not object_copy.is_archived(
        {"StorageClass": "GLACIER", "Restore": 'ongoing-request="false", expiry-date="x"'}
    )

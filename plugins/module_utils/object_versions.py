# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The versions of a bucket's objects, and what makes each object again what it was. All but the listing is pure.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/RestoringPreviousVersions.html
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from dataclasses import dataclass
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from .errors import Refusal

# Storage classes whose objects can be copied only after RestoreObject.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/archived-objects.html
ARCHIVED = ("GLACIER", "DEEP_ARCHIVE")
END = (None, None)  # of a stream of (key, Version)
_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(frozen=True, slots=True)
class Version:
    """One version, or a delete marker. `modified`: UTC, to the second, as S3 lists it: 2026-03-01T12:00:00."""

    id: str
    modified: str
    is_marker: bool = False
    etag: str = ""
    size: int = 0
    storage_class: str = "STANDARD"

    def shown(self):
        return {
            "version_id": self.id,
            "modified": f"{self.modified}Z",
            "delete_marker": self.is_marker,
            "size": self.size,
            "storage_class": None if self.is_marker else self.storage_class,
        }


@dataclass(frozen=True, slots=True)
class Action:
    """What one object needs: `do` is copy (the version `wanted`), unmark (remove its delete markers) or mark (delete it, by a
    marker), withdraw (remove a copy that we made). `top`: the version that is current before; None where nothing is there."""

    do: str
    key: str
    top: Version | None
    wanted: Version | None = None
    markers: tuple = ()

    def packed(self):
        """As JSON takes it; what only planning needs is left out."""
        wanted = self.wanted
        return [
            self.do,
            self.key,
            self.top and self.top.id,
            wanted and [wanted.id, wanted.etag, wanted.size, wanted.storage_class],
            self.markers,
        ]

    @classmethod
    def unpacked(cls, packed):
        do, key, top, wanted, markers = packed
        if wanted:
            wanted = Version(wanted[0], "", False, *wanted[1:])
        return cls(do, key, None if top is None else Version(top, ""), wanted, tuple(markers))

    @property
    def is_doubtful(self):
        """Whether only a closer look tells if the content is another: ETags of parts and of KMS are no sums of the content."""
        return (
            self.do == "copy" and self.top is not None and not self.top.is_marker and self.top.size == self.wanted.size
        )

    @property
    def is_archived(self):
        return self.do == "copy" and self.wanted.storage_class in ARCHIVED

    def readable(self):
        """The same, of an archived version that RestoreObject has brought back: its copy is not archived."""
        return dataclasses.replace(self, wanted=dataclasses.replace(self.wanted, storage_class="STANDARD"))


def second(text):
    """A time of a person, ISO 8601, as `Version.modified` has it. Without a zone it is UTC.

    Raises:
        Refusal: it is no time.
    """
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(f"at={text} is no time: say it as 2026-03-01T12:00:00Z") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=datetime.UTC)
    return f"{parsed.astimezone(datetime.UTC):%Y-%m-%dT%H:%M:%S}"


def parse_page(body):
    """([(key, Version)] in the order of S3, the markers of the next page or None), of an answer with encoding-type url.

    boto3 tells versions and delete markers in two lists; which came first within the same second, which is all that
    LastModified says, stands only in the order of the XML.
    """
    entries, told = [], {}
    for element in ElementTree.fromstring(body):
        tag = element.tag.removeprefix(_SPACE)
        if tag not in ("Version", "DeleteMarker"):
            told[tag] = element.text or ""
            continue
        of = {child.tag.removeprefix(_SPACE): child.text or "" for child in element}
        entries.append((
            unquote_plus(of["Key"]),
            Version(
                of["VersionId"],
                of["LastModified"][:19],
                tag == "DeleteMarker",
                of.get("ETag", ""),
                int(of.get("Size", 0)),
                of.get("StorageClass", "STANDARD"),
            ),
        ))  # fmt: skip
    if told.get("IsTruncated") != "true":
        return entries, None
    after = {"KeyMarker": unquote_plus(told["NextKeyMarker"])}
    if told.get("NextVersionIdMarker"):
        after["VersionIdMarker"] = told["NextVersionIdMarker"]
    return entries, after


def _read_raw(operation_model, response_dict, customized_response_dict, **_rest):
    """botocore's event before-parse: its own parser takes ten times as long, and loses the order."""
    if response_dict["status_code"] == 200:
        customized_response_dict["Page"] = parse_page(response_dict["body"])
        response_dict["body"] = b"<ListVersionsResult/>"


def page(aws, bucket, prefix, **after):
    """([(key, Version)], the markers of the next page or None); `after`: markers, MaxKeys."""
    events = aws.client("s3").meta.events
    events.register("before-parse.s3.ListObjectVersions", _read_raw, unique_id="sre.runbooks.object_versions")
    return aws.read("s3", "list_object_versions", Bucket=bucket, Prefix=prefix, EncodingType="url", **after)["Page"]


def entries(aws, bucket, prefix):
    """Yields (key, Version) of all versions below a prefix: keys in order, the versions of each newest first."""
    after = {}
    while after is not None:
        found, after = page(aws, bucket, prefix, **after)
        yield from found


def of_key(aws, bucket, key):
    """Yields the Versions of one object, newest first."""
    # S3 lists keys in order: the key itself comes before all that begin with it.
    for name, version in entries(aws, bucket, key):
        if name != key:
            return
        yield version


def newest(aws, bucket, key):
    """The newest Version of one object, which may be a marker; None where there is none."""
    found, _after = page(aws, bucket, key, MaxKeys=1)
    return found[0][1] if found and found[0][0] == key else None


def current(aws, bucket, prefix, region=None, named=None):
    """Yields (key, Version without an id) of the objects below a prefix, in order; with the prefix `named` in place of it."""
    named = prefix if named is None else named
    more = {}
    while more is not None:
        listed = aws.read("s3", "list_objects_v2", region=region, Bucket=bucket, Prefix=prefix, **more)
        for each in listed.get("Contents", []):
            modified = f"{each['LastModified']:%Y-%m-%dT%H:%M:%S}"
            version = Version("", modified, False, each["ETag"], each["Size"], each.get("StorageClass", "STANDARD"))
            yield named + each["Key"].removeprefix(prefix), version
        more = {"ContinuationToken": listed["NextContinuationToken"]} if listed["IsTruncated"] else None


def as_at(moment):
    """function(Version) -> whether it is the one that was current at `moment`, of versions told newest first."""
    return lambda version: version.modified <= moment


def with_id(version_id):
    return lambda version: version.id == version_id


def by_key(entries, is_wanted):
    """Yields (key, its versions down to the first that `is_wanted`, that one or None)."""
    for key, some in itertools.groupby(entries, key=lambda entry: entry[0]):
        above, wanted = [], None
        for _key, version in some:
            if wanted is None:
                above.append(version)
                wanted = version if is_wanted(version) else None
        yield key, above, wanted


def decide(key, versions, wanted, remove_markers=True):
    """The Action that makes an object what it was, or None where it is right.

    Where only delete markers lie above the right version, removing them brings back that very version, with its metadata,
    ACL, encryption, lock and age, whatever its size and storage class; a copy would bring back a likeness of it.
    """
    top = versions[0]
    if wanted is None or wanted.is_marker:
        return None if top.is_marker else Action("mark", key, top)
    if is_same(top, wanted):
        return None
    above = versions[: versions.index(wanted)]
    if remove_markers and all(version.is_marker for version in above):
        return Action("unmark", key, top, wanted, tuple(version.id for version in above))
    return Action("copy", key, top, wanted)


def is_same(top, wanted):
    return top.id == wanted.id or (not top.is_marker and (top.etag, top.size) == (wanted.etag, wanted.size))


def mirror(ours, backup):
    """Yields an Action, or None, for each key of two sorted streams of (key, Version): as `aws s3 sync --delete` compares them."""
    (key, top), (other, wanted) = next(ours, END), next(backup, END)
    while key is not None or other is not None:
        if other is None or (key is not None and _before(key, other)):
            yield Action("mark", key, top)
            key, top = next(ours, END)
        elif key is None or _before(other, key):
            yield Action("copy", other, None, wanted)
            other, wanted = next(backup, END)
        else:
            yield None if (top.etag, top.size) == (wanted.etag, wanted.size) else Action("copy", key, top, wanted)
            (key, top), (other, wanted) = next(ours, END), next(backup, END)


def _before(one, other):
    """In the order of S3: by the bytes of UTF-8."""
    return one.encode() < other.encode()


@dataclass
class Tally:
    """How many objects need what: all that the plan keeps of them."""

    right: int = 0
    copy: int = 0
    copy_bytes: int = 0
    unmark: int = 0
    mark: int = 0
    withdraw: int = 0
    archived: int = 0
    there: int = 0  # objects that users see now

    def count(self, action, is_there=True):
        """`is_there`: whether an object that is right is one, and not rightly deleted."""
        if action is None:
            self.right += 1
            self.there += is_there
        elif action.is_archived:
            self.archived += 1
        else:
            self.there += action.do in ("copy", "mark") and action.top is not None and not action.top.is_marker
            setattr(self, action.do, getattr(self, action.do) + 1)
            self.copy_bytes += action.wanted.size if action.do == "copy" else 0

    @property
    def left(self):
        """Objects that are not yet as they shall be, archived ones aside."""
        return self.copy + self.unmark + self.mark + self.withdraw

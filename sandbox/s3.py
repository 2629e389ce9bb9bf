# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3 where moto is not as S3 is documented: listing versions, deleting delete markers, too many requests; and a past for buckets.

moto lists versions before delete markers, takes what was made in one millisecond for older than what it replaced, goes on at
the wrong place after a key marker alone, forgets encoding-type, and copies the whole bucket for each page.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from .faults import Fault
from .wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .wire import Call
    from .world import World

BUCKET, BACKUP = "regami-uploads", "regami-uploads-backup"
MOST_KEYS = 1000
_OWNER = "<Owner><ID>75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a</ID></Owner>"

_limit: list[float] = []  # requests a second that S3 takes, where a fault limits them
_second = [0, 0]  # which second it is, and how many have come in it


def install(world: World) -> None:
    from moto.s3.models import S3Backend
    from moto.s3.responses import S3Response

    def list_object_versions(response: Any) -> Any:
        asked = {name: values[0] for name, values in response.querystring.items()}
        bucket = response.backend.get_bucket(response.bucket_name)
        return 200, {"Content-Type": "application/xml"}, _listed(bucket, asked)

    original = S3Backend.delete_objects

    def delete_objects(self: Any, bucket_name: str, objects: list[dict], bypass_retention: bool = False) -> Any:
        """A delete marker that is deleted by its version is told as one."""
        keys = self.get_bucket(bucket_name).keys
        markers = {
            (each["Key"], each["VersionId"])
            for each in objects
            if each.get("VersionId")
            and any(
                _is_marker(there) and there.version_id == each["VersionId"] for there in keys.getlist(each["Key"], [])
            )
        }
        deleted, errors = original(self, bucket_name, objects, bypass_retention)
        told = [(key, version, version if (key, version) in markers else marker) for key, version, marker in deleted]
        return told, errors

    original_post = S3Response._key_response_post

    def key_response_post(
        response: Any, request: Any, body: bytes, bucket_name: str, query: dict, key_name: str
    ) -> Any:
        """RestoreObject is of the version that it names, where moto takes the current one."""
        version = query.get("versionId", [None])[0]
        if "restore" not in query or version is None:
            return original_post(response, request, body, bucket_name, query, key_name)
        versions = response.backend.get_bucket(bucket_name).keys.getlist(key_name)
        # The last of the list is the current one; nobody sees the list meanwhile.
        versions.append(response.backend.get_object(bucket_name, key_name, version_id=version))
        try:
            return original_post(response, request, body, bucket_name, query, key_name)
        finally:
            versions.pop()

    S3Response._key_response_post = key_response_post
    S3Response.list_object_versions = list_object_versions
    S3Backend.delete_objects = delete_objects
    world.gates.append(_hold_back)


def seed(world: World) -> None:
    _limit.clear()
    region = world.regions[0]
    client = world.client("s3", region)
    for bucket in (BUCKET, BACKUP):
        client.create_bucket(Bucket=bucket)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    world.state["regions"][region] |= {"uploads_bucket": BUCKET, "uploads_backup_bucket": BACKUP}


def _is_marker(version: Any) -> bool:
    return not hasattr(version, "storage_class")


def _listed(bucket: Any, asked: dict[str, str]) -> bytes:
    """One page: keys in the order of their UTF-8 bytes, the versions of each newest first, delete markers among them."""
    prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
    after, after_version = asked.get("key-marker", ""), asked.get("version-id-marker", "")
    most = min(int(asked.get("max-keys", MOST_KEYS)), MOST_KEYS)
    if after_version and not after:
        raise ApiError("InvalidArgument", "A version-id marker cannot be specified without a key marker.")
    encoded = asked.get("encoding-type") == "url"
    shown = _encoded if encoded else escape
    entries, last, cut = [], ("", ""), False
    for key, version, latest in _walk(bucket.keys, prefix, delimiter, after, after_version):
        if len(entries) == most:
            cut = True
            break
        entries.append(_entry(shown(key), version, latest))
        last = (key, version.version_id if version is not None else "")
    head = [
        ("Name", escape(bucket.name)),
        ("Prefix", shown(prefix)),
        ("KeyMarker", shown(after)),
        ("VersionIdMarker", escape(after_version)),
        ("MaxKeys", most),
        *([("Delimiter", shown(delimiter))] if delimiter else []),
        *([("EncodingType", "url")] if encoded else []),
        ("IsTruncated", "true" if cut else "false"),
        *([("NextKeyMarker", shown(last[0]))] if cut else []),
        *([("NextVersionIdMarker", last[1])] if cut and last[1] else []),
    ]
    told = "".join(f"<{name}>{value}</{name}>" for name, value in head)
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<ListVersionsResult xmlns="{space}">{told}{"".join(entries)}</ListVersionsResult>'.encode()


def _encoded(text: str) -> str:
    return quote(text, safe="/*-._").replace("%20", "+")


def _walk(keys: Any, prefix: str, delimiter: str, after: str, after_version: str) -> Iterator[tuple[str, Any, bool]]:
    """(key, version, whether it is the latest), from behind the markers on; a common prefix has no version."""
    names = sorted((name for name in keys if name.startswith(prefix)), key=str.encode)
    first = (bisect_left if after_version else bisect_right)(names, after.encode(), key=str.encode)
    folder = None
    for name in names[first:]:
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        if cut >= 0:
            found = name[: cut + len(delimiter)]
            if found not in (folder, after):
                folder = found
                yield folder, None, False
            continue
        versions = keys.getlist(name)[::-1]
        place = 0
        if name == after:
            ids = [each.version_id for each in versions]
            place = ids.index(after_version) + 1 if after_version in ids else len(ids)
        for number, version in enumerate(versions[place:], place):
            yield name, version, number == 0


def _entry(key: str, version: Any, latest: bool) -> str:
    if version is None:
        return f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"
    told = (
        f"<Key>{key}</Key><VersionId>{version.version_id}</VersionId><IsLatest>{'true' if latest else 'false'}</IsLatest>"
        f"<LastModified>{version.last_modified:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
    )
    if _is_marker(version):
        return f"<DeleteMarker>{told}{_OWNER}</DeleteMarker>"
    return (
        f"<Version>{told}<ETag>{escape(version.etag)}</ETag><Size>{version.size}</Size>{_OWNER}"
        f"<StorageClass>{version.storage_class}</StorageClass></Version>"
    )


# ---- too many requests ----------------------------------------------------------------------------------------------


def _hold_back(call: Call) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html: 503 until requests come more slowly."""
    if not _limit or call.service != "s3":
        return
    now = int(time.time())
    _second[:] = [now, _second[1] + 1] if _second[0] == now else [now, 1]
    if _second[1] > _limit[0]:
        raise ApiError("SlowDown", "Please reduce your request rate.", 503)


# ---- a past ---------------------------------------------------------------------------------------------------------


def _remember(world: World, args: dict) -> dict:
    """Give a bucket a past: no API sets when a version was made.

    `versions`, oldest first: {key, seconds_ago, body (absent: a delete marker), storage_class, etag}. Returns how many.
    """
    from moto.s3.models import FakeDeleteMarker, FakeKey

    now = datetime.now(UTC).replace(tzinfo=None)
    with world.lock:
        backend = world.backend("s3", "aws")
        bucket = backend.get_bucket(args["bucket"])
        for told in args["versions"]:
            there = bucket.keys.getlist(told["key"], [])
            if "body" in told:
                version = backend.put_object(
                    args["bucket"],
                    told["key"],
                    told["body"].encode(),
                    storage=told.get("storage_class"),
                    etag=told.get("etag"),
                    disable_notification=True,
                )
                assert isinstance(version, FakeKey)
            else:
                version = FakeDeleteMarker(key=there[-1] if there else FakeKey(told["key"], b"", world.account_id, ""))
                bucket.keys[told["key"]] = version
            version.last_modified = now - timedelta(seconds=float(told["seconds_ago"]))
    return {"versions": len(args["versions"])}


def _lose(world: World, count: str | int = 12) -> None:
    """What a clean-up job has done five minutes ago to COUNT photos that had been there for an hour."""
    photos = [f"dogs/photos/{number}.jpg" for number in range(int(count))]
    third = len(photos) // 3
    past = [{"key": key, "seconds_ago": 3600, "body": f"photo {key}"} for key in photos]
    past += [{"key": key, "seconds_ago": 300} for key in photos[:third]]
    past += [{"key": key, "seconds_ago": 300, "body": "spoilt"} for key in photos[third : 2 * third]]
    past += [{"key": "dogs/photos/clean-up.log", "seconds_ago": 300, "body": "done"}]
    _remember(world, {"bucket": BUCKET, "versions": past})


control = {"s3_history": _remember}


faults = {
    "objects-lost": Fault(
        f"a job has deleted a third of the photos in {BUCKET} five minutes ago, spoilt a third, and left a file of its own",
        _lose,
        lambda world: None,
        (),
        ("count",),
    ),
    "s3-slow-down": Fault(
        "S3 takes RATE requests a second, and answers 503 SlowDown to those that come too fast",
        lambda world, rate: _limit.__setitem__(slice(None), [float(rate)]),
        lambda world: _limit.clear(),
        ("rate",),
    ),
}

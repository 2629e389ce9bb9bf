# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One version copied over its object, as it is: metadata, tags, storage class, encryption and redirect.

What S3 never copies stays behind: the ACL, and lock and legal hold of that version (the bucket's default lock applies).
https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/CopyingObjectsMPUapi.html
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlencode

from . import object_versions
from .aws import attempt
from .errors import Stop
from .object_versions import ARCHIVED

# Beyond this one CopyObject does not go.
MOST_IN_ONE = 5 * 2**30
PART = 512 * 2**20
MOST_PARTS = 10_000
# Says on a copy of which ETag it is one, where its own must differ (parts, KMS): so that nobody copies it again.
MARK = "sre-restored-from"
_SYSTEM = (
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "ContentType",
    "ExpiresString",
)


class Archived(Exception):
    """The version has to be brought back by RestoreObject before it can be read."""


def is_archived(head):
    """Whether a HeadObject speaks of what cannot be read now: archive classes, or archive tiers of Intelligent-Tiering."""
    away = head.get("StorageClass") in ARCHIVED or head.get("ArchiveStatus")
    return bool(away) and 'ongoing-request="false"' not in head.get("Restore", "")


def is_marked(head, wanted):
    """Whether this HeadObject is that of a copy of `wanted`."""
    return head.get("Metadata", {}).get(MARK) == wanted.etag.strip('"')


def keeps_etag(head, kms_by_default):
    """Whether a copy of what `head` tells has the same ETag: the MD5 of what was sent whole and not encrypted by KMS."""
    encryption = head.get("ServerSideEncryption")
    return "-" not in head["ETag"] and (encryption == "AES256" or (encryption is None and not kms_by_default))


def attributes(head, wanted, kms_by_default, whole=True):
    """Pure: arguments of CopyObject (`whole`) or CreateMultipartUpload that carry over what `head` tells."""
    carried = {
        "StorageClass": wanted.storage_class,
        "ServerSideEncryption": head.get("ServerSideEncryption"),
        "SSEKMSKeyId": head.get("SSEKMSKeyId"),
        "BucketKeyEnabled": head.get("BucketKeyEnabled"),
        "WebsiteRedirectLocation": head.get("WebsiteRedirectLocation"),
    }
    if whole and keeps_etag(head, kms_by_default):
        carried |= {"MetadataDirective": "COPY", "TaggingDirective": "COPY"}
    else:
        carried |= {name: head.get(name) for name in _SYSTEM}
        carried["Expires"] = carried.pop("ExpiresString")
        carried["Metadata"] = {**head.get("Metadata", {}), MARK: wanted.etag.strip('"')}
        if whole:
            carried |= {"MetadataDirective": "REPLACE", "TaggingDirective": "COPY"}
    return {name: value for name, value in carried.items() if value not in (None, "")}


def parts(size, part=PART):
    """Pure: the ranges in which an object of `size` bytes is copied, as CopySourceRange wants them."""
    part = max(part, math.ceil(size / MOST_PARTS))
    return [f"bytes={start}-{min(start + part, size) - 1}" for start in range(0, size, part)]


@dataclass(frozen=True)
class Backup:
    """Another bucket that has the objects, below `prefix` in place of `ours`."""

    bucket: str
    region: str | None
    ours: str
    prefix: str


class Copier:
    """Copies versions into `bucket`, from itself or from a Backup."""

    def __init__(self, aws, bucket, kms_by_default, backup=None):
        self._aws, self._bucket, self._kms, self._backup = aws, bucket, kms_by_default, backup

    def source(self, action):
        """(region, arguments that name the version to copy)."""
        backup, key = self._backup, action.key
        if backup is not None:
            return backup.region, {"Bucket": backup.bucket, "Key": backup.prefix + key.removeprefix(backup.ours)}
        return None, {"Bucket": self._bucket, "Key": key, "VersionId": action.wanted.id}

    def __call__(self, action, lost):
        """The id of the version that is now current (None in a bucket without versions).

        Raises:
            Archived: and what `Aws.once` raises.
        """
        if lost:
            done = self._is_done(action)
            if done:
                return done
        wanted = action.wanted
        region, source = self.source(action)
        head = self._aws.once("s3", "head_object", region=region, **source)
        if is_archived(head):
            raise Archived
        if head["ETag"] != wanted.etag:
            raise Stop(f"{source['Key']} in {source['Bucket']} has changed since it was listed")
        if wanted.size > MOST_IN_ONE:
            return self._in_parts(action, region, source, head)
        answer = self._aws.once(
            "s3",
            "copy_object",
            Bucket=self._bucket,
            Key=action.key,
            CopySource=source,
            **attributes(head, wanted, self._kms),
        )
        return answer.get("VersionId")

    def _is_done(self, action):
        """The version that the call whose answer was lost has made, or None."""
        newest = object_versions.newest(self._aws, self._bucket, action.key)
        if newest is None or newest.is_marker or (action.top and newest.id == action.top.id):
            return None
        if newest.etag == action.wanted.etag:
            return newest.id
        head = self._aws.read("s3", "head_object", Bucket=self._bucket, Key=action.key)
        return newest.id if is_marked(head, action.wanted) else None

    def _in_parts(self, action, region, source, head):
        """As CopyObject would, for what is too large for it."""
        target = {"Bucket": self._bucket, "Key": action.key}
        tags = self._aws.read("s3", "get_object_tagging", region=region, **source)["TagSet"]
        upload = self._aws.change(
            "s3",
            "create_multipart_upload",
            **target,
            **attributes(head, action.wanted, self._kms, whole=False),
            **({"Tagging": urlencode([(tag["Key"], tag["Value"]) for tag in tags])} if tags else {}),
        )["UploadId"]
        try:
            # Read, as it may be repeated: a part that is sent again takes the place of the first.
            made = [
                {
                    "PartNumber": number,
                    "ETag": self._aws.read(
                        "s3",
                        "upload_part_copy",
                        **target,
                        UploadId=upload,
                        PartNumber=number,
                        CopySource=source,
                        CopySourceRange=span,
                    )["CopyPartResult"]["ETag"],
                }
                for number, span in enumerate(parts(action.wanted.size), 1)
            ]
            answer = self._aws.once(
                "s3", "complete_multipart_upload", **target, UploadId=upload, MultipartUpload={"Parts": made}
            )
        except Exception:
            # What went wrong is to be told, not that there is nothing to abort.
            attempt(lambda: self._aws.change("s3", "abort_multipart_upload", **target, UploadId=upload), Exception)
            raise
        return answer.get("VersionId")

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bucket for evidence with Object Lock, and what moto lets pass that S3 refuses about it.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .wire import ApiError

if TYPE_CHECKING:
    from .world import World

EVIDENCE_BUCKET = "regami-evidence"
_moto: dict[str, Any] = {}


def install(world: World) -> None:
    from moto.s3.exceptions import AccessDeniedByLock
    from moto.s3.models import S3Backend
    from moto.s3.responses import S3Response

    AccessDeniedByLock.code = 403
    for owner, function in (
        (S3Response, put_object),
        (S3Response, put_object_retention),
        (S3Backend, put_bucket_versioning),
    ):
        _moto[function.__name__] = getattr(owner, function.__name__)
        setattr(owner, function.__name__, function)


def seed(world: World) -> None:
    world.client("s3", world.regions[0]).create_bucket(Bucket=EVIDENCE_BUCKET, ObjectLockEnabledForBucket=True)
    world.state["evidence_bucket"] = EVIDENCE_BUCKET


def put_object(response: Any) -> Any:
    """What does not arrive as it was sent is refused."""
    said = response.headers.get("x-amz-checksum-sha256")
    if said and said != base64.b64encode(hashlib.sha256(response.body or b"").digest()).decode():
        raise ApiError("BadDigest", "The SHA256 you specified did not match the calculated checksum.")
    return _moto["put_object"](response)


def put_object_retention(response: Any) -> Any:
    """A lock is made longer; shorter or weaker only in governance mode, by who may bypass it."""
    key = response.backend.get_object(
        response.bucket_name, response.parse_key_name(), version_id=response._get_param("versionId")
    )
    mode, until = response._mode_until_from_body()
    if key is not None and key.is_locked(governance_bypass=False):
        bypass = response.headers.get("x-amz-bypass-governance-retention", "").lower() == "true"
        weaker = (key.lock_mode == "COMPLIANCE" and mode != "COMPLIANCE") or _moment(until) < _moment(key.lock_until)
        if weaker and not (key.lock_mode == "GOVERNANCE" and bypass):
            raise ApiError("AccessDenied", "Access Denied because object protected by object lock.", 403)
    return _moto["put_object_retention"](response)


def put_bucket_versioning(backend: Any, bucket_name: str, status: str) -> None:
    if status != "Enabled" and backend.get_bucket(bucket_name).object_lock_enabled:
        raise ApiError(
            "InvalidBucketState",
            "An Object Lock configuration is present on this bucket, so the versioning state cannot be changed.",
            409,
        )
    _moto["put_bucket_versioning"](backend, bucket_name, status)


def _moment(text: str | None) -> datetime:
    return datetime.fromisoformat((text or "1970-01-01T00:00:00Z").replace("Z", "+00:00"))

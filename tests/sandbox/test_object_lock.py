# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bucket for evidence: what is locked in it is neither deleted nor unlocked, and what comes damaged is refused."""

from __future__ import annotations

import datetime
import hashlib
from base64 import b64encode

import pytest
from botocore.exceptions import ClientError
from compute_helpers import EAST

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def locked(sandbox):
    """(client, an object's address with its version) of an object that is locked for two days."""
    s3, bucket = sandbox.boto("s3", EAST), sandbox.state["evidence_bucket"]

    def put(mode, key):
        digest = b64encode(hashlib.sha256(b"seen").digest()).decode()
        until = NOW + datetime.timedelta(days=2)
        lock = {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until, "ChecksumAlgorithm": "SHA256"}
        made = s3.put_object(Bucket=bucket, Key=key, Body=b"seen", ChecksumSHA256=digest, **lock)
        return {"Bucket": bucket, "Key": key, "VersionId": made["VersionId"]}

    return s3, put


def refused(code, call, **asked):
    with pytest.raises(ClientError) as caught:
        call(**asked)
    answer = caught.value.response
    assert answer["Error"]["Code"] == code
    return answer["ResponseMetadata"]["HTTPStatusCode"]


def retention(mode, days):
    return {"Mode": mode, "RetainUntilDate": NOW + datetime.timedelta(days=days)}


def test_what_is_locked_for_good_stays(locked):
    s3, put = locked
    there = put("COMPLIANCE", "for-good")
    assert refused("AccessDenied", s3.delete_object, **there) == 403
    refused("AccessDenied", s3.delete_object, **there, BypassGovernanceRetention=True)
    refused("AccessDenied", s3.put_object_retention, **there, Retention=retention("COMPLIANCE", 1))
    bypassing = {"Retention": retention("GOVERNANCE", 9), "BypassGovernanceRetention": True}
    refused("AccessDenied", s3.put_object_retention, **there, **bypassing)
    s3.put_object_retention(**there, Retention=retention("COMPLIANCE", 3))
    # A marker hides it, and the version is still there.
    s3.delete_object(Bucket=there["Bucket"], Key=there["Key"])
    assert s3.get_object(**there)["Body"].read() == b"seen"


def test_governance_leaves_a_way_to_who_may(locked):
    s3, put = locked
    there = put("GOVERNANCE", "governed")
    refused("AccessDenied", s3.delete_object, **there)
    refused("AccessDenied", s3.put_object_retention, **there, Retention=retention("GOVERNANCE", 1))
    s3.put_object_retention(**there, Retention=retention("GOVERNANCE", 1), BypassGovernanceRetention=True)
    s3.delete_object(**there, BypassGovernanceRetention=True)
    refused("NoSuchKey", s3.get_object, Bucket=there["Bucket"], Key=there["Key"])


def test_the_bucket_keeps_its_versions_and_takes_nothing_damaged(locked):
    s3, put = locked
    there = put("GOVERNANCE", "first")
    bucket = there["Bucket"]
    suspended = {"Status": "Suspended"}
    refused("InvalidBucketState", s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration=suspended)
    wrong = b64encode(hashlib.sha256(b"sent").digest()).decode()
    refused("BadDigest", s3.put_object, Bucket=bucket, Key="damaged", Body=b"came", ChecksumSHA256=wrong)
    assert refused("PreconditionFailed", s3.put_object, Bucket=bucket, Key="first", Body=b"", IfNoneMatch="*") == 412

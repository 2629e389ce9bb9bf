# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the bucket of the records should be, and how it is: with versions, encrypted, and never public."""

from __future__ import annotations

from .aws import code_of, explain, is_denied
from .errors import Refusal
from .verb import Plan, Step

BLOCKED = dict(BlockPublicAcls=True, IgnorePublicAcls=True, BlockPublicPolicy=True, RestrictPublicBuckets=True)
NOTHING = {"exists": False, "versioning": None, "encryption": None, "key": None, "blocked": False}


class KeptBucket:
    """A bucket as S3 describes it.

    Args:
        name, region: of the bucket.
        owner: the account that it has to belong to; None for any.
    """

    def __init__(self, aws, name, region, owner=None):
        self.aws, self.name, self.region = aws, name, region
        self.named = {"Bucket": name, **({"ExpectedBucketOwner": owner} if owner else {})}

    def observe(self):
        return dict(self._found() if self._exists() else NOTHING, region=self.region)

    def _exists(self):
        name = self.name
        try:
            self._read("head_bucket")
        except Exception as error:
            if code_of(error) in ("404", "NoSuchBucket"):
                return False
            if code_of(error) in ("301", "PermanentRedirect"):
                there = error.response["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", "another region")
                raise Refusal(
                    f"bucket {name} is in {there}, not in {self.region}: set its region, or name another"
                ) from error
            if is_denied(error):
                # S3 tells nobody which of the two it is.
                raise Refusal(
                    f"{explain(error)}; where it has it, bucket {name} is of another account: name another"
                ) from error
            raise
        return True

    def _found(self):
        encryption = self._or_none("get_bucket_encryption", "ServerSideEncryptionConfigurationNotFoundError")
        rules = encryption["ServerSideEncryptionConfiguration"]["Rules"] if encryption else [{}]
        default = rules[0].get("ApplyServerSideEncryptionByDefault", {})
        block = self._or_none("get_public_access_block", "NoSuchPublicAccessBlockConfiguration") or {}
        return {
            "exists": True,
            "versioning": self._read("get_bucket_versioning").get("Status"),
            "encryption": default.get("SSEAlgorithm"),
            "key": default.get("KMSMasterKeyID"),
            "blocked": all(block.get("PublicAccessBlockConfiguration", {}).get(name) for name in BLOCKED),
        }

    def _or_none(self, operation, absent):
        try:
            return self._read(operation)
        except Exception as error:
            if code_of(error) == absent:
                return None
            raise

    def _read(self, operation):
        return self.aws.read("s3", operation, region=self.region, **self.named)


def plan(observed, wanted):
    """Pure: the Plan of steps that are left, for {bucket, kms_key_arn}."""
    name, key = wanted["bucket"], wanted["kms_key_arn"]
    steps, after = [], {"exists": True, "versioning": "Enabled", "blocked": True}
    if not observed["exists"]:
        # S3 encrypts what comes to a new bucket, so what is left to do is known once it is there.
        what = f"make the bucket {name} in {observed['region']}"
        steps.append(Step("create", what, False, True, look_again=True))
    if observed["versioning"] != "Enabled":
        what = f"keep all versions of what is in {name}"
        steps.append(Step("keep_versions", what, observed["versioning"], "Enabled"))
    if key and observed["key"] != key:
        after |= {"encryption": "aws:kms", "key": key}
        steps.append(Step("encrypt", f"encrypt what comes to {name} with {key}", observed["key"], key))
    elif not observed["encryption"]:
        after["encryption"] = "AES256"
        steps.append(Step("encrypt", f"encrypt what comes to {name}", None, "AES256"))
    if not observed["blocked"]:
        steps.append(Step("block", f"let nothing in {name} become public", False, True))
    return Plan(tuple(steps), after)

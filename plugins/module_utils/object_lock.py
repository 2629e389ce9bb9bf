# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Objects that nobody can delete before their time: Object Lock of S3.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass

from .aws import code_of
from .errors import Overtaken, Refusal

# In the order in which they bind: who has s3:BypassGovernanceRetention can take the first back, nobody the second.
MODES = ("GOVERNANCE", "COMPLIANCE")
# What one PutObject takes, and what fits the memory of a controller. A disk goes into a snapshot instead.
LARGEST = 1 << 30


@dataclass(frozen=True)
class Retention:
    """How an object is held, and for how many days."""

    mode: str
    days: int


def longer(wanted, usual):
    """Pure: the Retention that satisfies both what is wanted and what the bucket does by default (None for nothing).

    One that is named on an object replaces the bucket's own, even by a weaker one.
    """
    if usual is None:
        return wanted
    return Retention(max(wanted.mode, usual.mode, key=MODES.index), max(wanted.days, usual.days))


class Store:
    """A bucket with Object Lock, in `region`."""

    def __init__(self, aws, bucket, region=None):
        self._aws, self.bucket, self._region = aws, bucket, region

    def usual(self):
        """The Retention of objects for which nobody says another one, None for none.

        Raises:
            Refusal: there is no such bucket, or it has no Object Lock, so that evidence in it could be deleted.
        """
        try:
            found = self._read("get_object_lock_configuration")["ObjectLockConfiguration"]
        except Exception as error:
            if code_of(error) == "NoSuchBucket":
                raise Refusal(f"there is no bucket {self.bucket}: check its name") from error
            if code_of(error) != "ObjectLockConfigurationNotFoundError":
                raise
            found = {}
        if found.get("ObjectLockEnabled") != "Enabled":
            raise Refusal(
                f"bucket {self.bucket} has no Object Lock, so that what is in it can be deleted or replaced: name another, or "
                f"turn it on (aws s3api put-object-lock-configuration --bucket {self.bucket} "
                f"--object-lock-configuration ObjectLockEnabled=Enabled; versioning has to be on)"
            )
        rule = found.get("Rule", {}).get("DefaultRetention")
        return rule and Retention(rule["Mode"], rule.get("Days") or 365 * rule["Years"])

    def sha256(self, key):
        """What S3 measured of an object when it came, in hexadecimal digits; None where there is no such object."""
        try:
            found = self._read("head_object", Key=key, ChecksumMode="ENABLED")
        except Exception as error:
            if code_of(error) in ("404", "NoSuchKey"):
                return None
            raise
        return base64.b64decode(found.get("ChecksumSHA256", "")).hex()

    def put(self, key, content, sha256, retention):
        """Store `content` where nothing is yet; S3 refuses it where it arrives as anything but `sha256`.

        Raises:
            Overtaken: something is there by now.
            LostAnswer: it may or may not be there.
        """
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=retention.days)
        try:
            self._aws.change(
                "s3",
                "put_object",
                region=self._region,
                Bucket=self.bucket,
                Key=key,
                Body=content,
                IfNoneMatch="*",
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                ObjectLockMode=retention.mode,
                ObjectLockRetainUntilDate=until,
            )
        except Exception as error:
            # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
            if code_of(error) in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise Overtaken(f"another run stores {key} in {self.bucket}") from error
            raise

    def _read(self, operation, **arguments):
        return self._aws.read("s3", operation, region=self._region, Bucket=self.bucket, **arguments)

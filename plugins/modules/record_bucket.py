#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: record_bucket
version_added: 0.2.0
short_description: The S3 bucket that keeps the records of runs
description:
  - Makes the bucket where there is none, keeps all versions of what is in it, encrypts what comes without a word about
    encryption, and lets nothing in it become public.
  - What is stricter already stays as it is. A bucket of another region, or of another account, is refused.
options:
  bucket:
    description: Name of the bucket.
    type: str
    required: true
  account_id:
    description: The account that it has to belong to, twelve digits. Without it any bucket that the caller may reach will do.
    type: str
  kms_key_arn:
    description: ARN of the key of KMS to encrypt with. Without it S3 uses keys of its own where the bucket names none.
    type: str
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(s3:ListBucket), C(s3:GetBucketVersioning), C(s3:GetEncryptionConfiguration), C(s3:GetBucketPublicAccessBlock), and for
    what it changes C(s3:CreateBucket), C(s3:PutBucketVersioning), C(s3:PutEncryptionConfiguration), C(s3:PutBucketPublicAccessBlock).
seealso:
  - name: Blocking public access
    description: What each of the four settings keeps out.
    link: https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
"""

EXAMPLES = r"""
- name: A place for the records of all controllers
  sre.runbooks.record_bucket:
    bucket: regami-incident-records
    account_id: "123456789012"
    region: us-west-2
"""

RETURN = r"""
verification:
  description: That the bucket is as it should be, where something was changed.
  returned: unless refused
  type: list
  elements: dict
  sample: [{name: record bucket regami-incident-records, ok: true}]
before:
  description: What there was.
  returned: unless refused
  type: dict
  sample: {exists: false, versioning: null, encryption: null, blocked: false}
after:
  description: What there is; in check mode as predicted.
  returned: success
  type: dict
  sample: {exists: true, versioning: Enabled, encryption: AES256, blocked: true}
steps:
  description: What was done, or would be done in check mode.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: create, what: make the bucket regami-incident-records in us-west-2, before: false, after: true}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: make the bucket regami-incidents in us-west-2
      instead: "records lie in it; where nobody needs them any more: empty it, then aws s3api delete-bucket"
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 0.0
"""

from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, explain, is_denied
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("s3",)
ARGUMENTS = dict(
    bucket=dict(type="str", required=True),
    account_id=dict(type="str"),
    kms_key_arn=dict(type="str", no_log=False),
)
BLOCKED = dict(BlockPublicAcls=True, IgnorePublicAcls=True, BlockPublicPolicy=True, RestrictPublicBuckets=True)
NOTHING = {"exists": False, "versioning": None, "encryption": None, "key": None, "blocked": False}


class RecordBucket(Verb):
    """Make the bucket, and keep what is in it."""

    INSTEAD = "records lie in it; where nobody needs them any more: empty it, then aws s3api delete-bucket"

    def observe(self):
        return dict(self._found() if self._exists() else NOTHING, region=self.aws.region)

    def _exists(self):
        name = self.params["bucket"]
        try:
            self._read("head_bucket")
        except Exception as error:
            if code_of(error) in ("404", "NoSuchBucket"):
                return False
            if code_of(error) in ("301", "PermanentRedirect"):
                there = error.response["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region", "another region")
                raise Refusal(
                    f"bucket {name} is in {there}, not in {self.aws.region}: set its region, or name another"
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

    @staticmethod
    def plan(observed, wanted):
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

    def create(self):
        region, name = self.aws.region, self.params["bucket"]
        # https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        try:
            self.aws.change("s3", "create_bucket", Bucket=name, **where)
        except Exception as error:
            if code_of(error) == "BucketAlreadyOwnedByYou":
                raise Overtaken(f"another run makes {name}") from error
            if code_of(error) == "BucketAlreadyExists":
                raise Refusal(f"the name {name} is taken by another account: name another as record_bucket") from error
            raise

    def keep_versions(self):
        self._change("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})

    def encrypt(self):
        key = self.params["kms_key_arn"]
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}
        # A bucket key asks KMS once for many objects. https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html
        rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bool(key)}
        self._change("put_bucket_encryption", ServerSideEncryptionConfiguration={"Rules": [rule]})

    def block(self):
        self._change("put_public_access_block", PublicAccessBlockConfiguration=BLOCKED)

    def view(self, observed):
        return {name: observed[name] for name in NOTHING}

    made = None

    def observe_end(self):
        self.made = self.observe()
        return self.made

    def returned(self):
        if self.made is None:
            return {"verification": []}
        ok = not self.plan(self.made, self.params).steps
        return {"verification": [{"name": f"record bucket {self.params['bucket']}", "ok": ok}]}

    def _read(self, operation):
        return self.aws.read("s3", operation, **self._named())

    def _change(self, operation, **arguments):
        self.aws.change("s3", operation, **self._named(), **arguments)

    def _named(self):
        owner = self.params["account_id"]
        return {"Bucket": self.params["bucket"], **({"ExpectedBucketOwner": owner} if owner else {})}


def main():
    run(verb_module(ARGUMENTS), RecordBucket)


if __name__ == "__main__":
    main()

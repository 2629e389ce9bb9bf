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

from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.kept_bucket import BLOCKED, NOTHING, KeptBucket, plan
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("s3",)
ARGUMENTS = dict(
    bucket=dict(type="str", required=True),
    account_id=dict(type="str"),
    kms_key_arn=dict(type="str", no_log=False),
)


class RecordBucket(Verb):
    """Make the bucket, and keep what is in it."""

    INSTEAD = "records lie in it; where nobody needs them any more: empty it, then aws s3api delete-bucket"

    plan = staticmethod(plan)
    made = None

    def __init__(self, module):
        super().__init__(module)
        self.bucket = KeptBucket(self.aws, self.params["bucket"], self.aws.region, self.params["account_id"])

    def observe(self):
        return self.bucket.observe()

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

    def observe_end(self):
        self.made = self.observe()
        return self.made

    def returned(self):
        if self.made is None:
            return {"verification": []}
        ok = not self.plan(self.made, self.params).steps
        return {"verification": [{"name": f"record bucket {self.params['bucket']}", "ok": ok}]}

    def _change(self, operation, **arguments):
        self.aws.change("s3", operation, **self.bucket.named, **arguments)


def main():
    run(verb_module(ARGUMENTS), RecordBucket)


if __name__ == "__main__":
    main()

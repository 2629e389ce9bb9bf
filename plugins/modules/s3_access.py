#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: s3_access
version_added: 0.1.0
short_description: Find why a role cannot upload to a bucket, and mend it when asked
description:
  - Looks whether the bucket is there and in which region; weighs the policies of role, permissions boundary, bucket, KMS key and VPC
    endpoint for an upload and a download, down to the statement that denies; looks at object ownership and at the public access
    block for the ACL that the application sends; and asks AWS Health, where the account's support plan has it.
  - Where the role lets this caller assume it, an object is put and got under the role, and removed again by its version. In check
    mode nothing is put.
  - With O(remediate=true) it takes a denying statement out of the bucket's policy, or grants the role what is missing, and tries
    again until it works. All else it names, since others may depend on it.
  - A Deny whose condition asks for what only the request itself can tell is named in RV(blind) and decides nothing.
  - B(Risk:) with O(remediate=true) permissions change. A denial may have been meant; read RV(findings) first.
options:
  bucket:
    description: The bucket, in O(region).
    type: str
    required: true
  role:
    description: Name of the role that uploads, such as the task role.
    type: str
    required: true
  prefix:
    description: What the names of uploads begin with.
    type: str
    default: ""
  acl:
    description: The canned ACL that the application sends with an upload, if any.
    type: str
  vpc_id:
    description: The network that the application runs in, for its VPC endpoint for S3.
    type: str
  remediate:
    description: Mend what this verb can mend.
    type: bool
    default: false
  restore:
    description:
      - The undo of a run with O(remediate=true). Nothing is looked at, and what is named here is put back as it was.
    type: dict
    suboptions:
      bucket_policy:
        description: The bucket's policy as JSON; empty where it had none. Left alone when not given.
        type: str
      role_policy:
        description: The role's policy C(sre-runbooks-uploads) as JSON; empty where it had none. Left alone when not given.
        type: str
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - name: Troubleshoot access denied errors in Amazon S3
    description: AWS documentation.
    link: https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html
"""

EXAMPLES = r"""
- name: Why the application cannot upload
  sre.runbooks.s3_access:
    bucket: regami-uploads
    role: regami-uploads
    region: us-east-1
  register: access

- name: Mend it
  sre.runbooks.s3_access:
    bucket: regami-uploads
    role: regami-uploads
    region: us-east-1
    remediate: true
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
findings:
  description: What stands against an upload, and what mends it. C(can_mend) says whether O(remediate=true) does.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {where: policy of bucket regami-uploads, problem: "s3:PutObject is denied by statement KeepOut of policy of bucket
         regami-uploads", fix: take the statement out of the policy of regami-uploads, can_mend: true}
blind:
  description: What could not be read or decided, and why.
  returned: unless refused
  type: list
  elements: str
  sample: ["events: missing permission health:DescribeEvents in us-east-1"]
probe:
  description: What became of the real put and get under the role; C(tried) is false where the role may not be assumed.
  returned: unless refused
  type: dict
  sample: {tried: true, ok: false, message: "PutObject answered AccessDenied: with an explicit deny in a resource-based policy"}
before:
  description: Whether an upload works (null where that is not known), and the number of findings.
  returned: unless refused
  type: dict
  sample: {bucket: regami-uploads, role: regami-uploads, works: false, findings: 1}
after:
  description: The same at the end.
  returned: success
  type: dict
  sample: {bucket: regami-uploads, role: regami-uploads, works: true, findings: 0}
steps:
  description: What was done, or would be done in check mode.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: lift_denial, what: take 1 statements out of the policy of bucket regami-uploads, before: null, after: null}
undo:
  description: The same verb with the policies as they were.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.s3_access
      arguments: {bucket: regami-uploads, role: regami-uploads, region: us-east-1, restore: {bucket_policy: "{}"}}
notes:
  description: What was left for a person.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 0.4
"""

import json
import uuid

try:
    from botocore import exceptions as boto_errors
except ImportError:
    pass

from ansible_collections.sre.runbooks.plugins.module_utils import upload_access
from ansible_collections.sre.runbooks.plugins.module_utils.aws import Aws, code_of, explain, reason
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds that a change of a policy usually takes to be everywhere.
USUAL = 10
# Seconds that a probe's credentials last: the least that STS gives.
CREDENTIAL_SECONDS = 900

SERVICES = ("s3", "iam", "sts", "kms", "ec2", "health", "dynamodb")
ARGUMENTS = dict(
    bucket=dict(type="str", required=True),
    role=dict(type="str", required=True),
    prefix=dict(type="str", default=""),
    acl=dict(type="str"),
    vpc_id=dict(type="str"),
    remediate=dict(type="bool", default=False),
    restore=dict(type="dict", options=dict(bucket_policy=dict(type="str"), role_policy=dict(type="str"))),
)
# Which policy a remedy writes.
PUTS = {"lift_denial": "bucket_policy", "grant": "role_policy"}
NOT_TRIED = {"tried": False, "ok": None, "message": "not tried"}


class S3Access(Verb):
    """A role that can upload."""

    def __init__(self, module):
        super().__init__(module)
        self.bucket, self.role = self.params["bucket"], self.params["role"]
        self._connection = self.connection(module)
        self._probe, self._former, self._told = None, {}, {}

    def observe(self):
        if self.params["restore"]:
            return {"now": self._policies(), "findings": [], "blind": [], "is_certain": False}
        seen = upload_access.look(self.aws, self.bucket, self.role, self.params["vpc_id"])
        findings, blind = upload_access.assess(seen, self.params, self.aws.region)
        unread = [name for name in ("bucket", "role", "policy", "key") if isinstance(seen[name], Exception)]
        arn = None if "role" in unread else seen["role"]["arn"]
        certain = {"is_certain": not unread}
        return {"findings": findings, "blind": blind, "probe": self._probe, "role_arn": arn, **certain}

    def _policies(self, *wanted):
        """Those that are `wanted`, or both, as they are: "" where there is none."""
        read = {"bucket_policy": ("s3", "get_bucket_policy", {"Bucket": self.bucket}, "Policy")}
        named = {"RoleName": self.role, "PolicyName": upload_access.GRANT}
        read["role_policy"] = ("iam", "get_role_policy", named, "PolicyDocument")
        found = {}
        for name in wanted or read:
            api, operation, arguments, key = read[name]
            try:
                policy = self.aws.read(api, operation, **arguments)[key]
                found[name] = policy if isinstance(policy, str) else json.dumps(policy)
            except boto_errors.ClientError as error:
                if not code_of(error).startswith("NoSuch"):
                    raise
                found[name] = ""
        return found

    @staticmethod
    def plan(observed, wanted):
        if wanted["restore"]:
            return _restoring(observed["now"], wanted)
        bucket, role, probe = wanted["bucket"], wanted["role"], observed["probe"]
        steps, left = [], []
        if probe is None and observed["role_arn"]:
            what = f"put and get an object in {bucket} as {role}, and remove it again"
            steps.append(Step("try_it", what, waits=True, look_again=True))
        if wanted["remediate"]:
            steps += _remedies(observed["findings"], bucket, role)
            left = [finding["fix"] for finding in observed["findings"] if not finding["remedy"]]
            if not left and probe and probe["tried"] and not probe["ok"]:
                what = f"try again until {role} can put and get an object in {bucket}"
                steps.append(Step("await_it", what, waits=True))
        works = {"works": True, "findings": 0} if wanted["remediate"] and steps and not left else {}
        return Plan(tuple(steps), works, tuple(f"left for you: {fix}" for fix in left))

    # The steps, named as in the plan.

    def try_it(self):
        self._probe = self._attempt()

    def await_it(self):
        self._probe = self.wait(
            self._attempt,
            lambda seen: seen["ok"],
            f"{self.role} can upload",
            usual=USUAL,
            state=lambda seen: seen["message"],
        )

    def _attempt(self):
        """{tried, ok, message} of a put and a get under the role."""
        try:
            answer = self.aws.read(
                "sts",
                "assume_role",
                RoleArn=self._told["role_arn"],
                RoleSessionName="sre-runbooks-probe",
                DurationSeconds=CREDENTIAL_SECONDS,
            )
        except boto_errors.ClientError as error:
            return {"tried": False, "ok": None, "message": f"the role cannot be assumed: {explain(error)}"}
        given = answer["Credentials"]
        region, endpoint, params = self._connection
        params = {name: value for name, value in params.items() if name != "profile_name"}
        params |= {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }
        as_role = Aws((region, endpoint, params))
        target = {"Bucket": self.bucket, "Key": f"{self.params['prefix']}sre-runbooks-probe-{uuid.uuid4().hex[:12]}"}
        acl = {"ACL": self.params["acl"]} if self.params["acl"] else {}
        put, said = None, "put and got an object"
        try:
            put = as_role.change("s3", "put_object", **target, **acl, Body=b"probe")
            as_role.read("s3", "get_object", **target)["Body"].read()
        except boto_errors.ClientError as error:
            said = f"{error.operation_name} answered {code_of(error)}: {error.response['Error'].get('Message', '')}"
        except Stop as stop:
            said = str(stop)
        finally:
            if put is not None:
                self._remove(target, put.get("VersionId"))
        return {"tried": True, "ok": said.startswith("put and got"), "message": said}

    def _remove(self, target, version):
        """As the caller, since the role itself seldom may; by its version, so that no delete marker stays."""
        try:
            self.aws.change("s3", "delete_object", **target, **({"VersionId": version} if version else {}))
        except (boto_errors.ClientError, Stop) as error:
            self.notes.append(
                f"the probe {target['Key']} could not be removed from {self.bucket}, remove it by hand: {reason(error)}"
            )

    def lift_denial(self, statements):
        policy = self.aws.read("s3", "get_bucket_policy", Bucket=self.bucket)["Policy"]
        left = upload_access.without(policy, statements)
        # What there was at first, however often something is taken out.
        self._former.setdefault("bucket_policy", policy)
        self.put_bucket_policy(left or "")

    def grant(self, remedies):
        former = self._policies("role_policy")["role_policy"]
        self._former.setdefault("role_policy", former)
        document = json.loads(upload_access.grant(remedies))
        if former:
            document["Statement"] = json.loads(former)["Statement"] + document["Statement"]
        self.put_role_policy(json.dumps(document))

    def put_bucket_policy(self, policy):
        if policy:
            self.aws.change("s3", "put_bucket_policy", Bucket=self.bucket, Policy=policy)
        else:
            self.aws.change("s3", "delete_bucket_policy", Bucket=self.bucket)

    def put_role_policy(self, policy):
        named = {"RoleName": self.role, "PolicyName": upload_access.GRANT}
        if policy:
            self.aws.change("iam", "put_role_policy", **named, PolicyDocument=policy)
        else:
            self.aws.change("iam", "delete_role_policy", **named)

    def undo(self, before, done):
        former = self._former
        if self.check_mode:
            # What a run that is killed in the middle of it leaves stands nowhere else.
            puts = [PUTS[step["do"]] for step in done if step["do"] in PUTS]
            former = self._policies(*puts) if puts else {}
        if not former:
            return []
        arguments = {"bucket": self.bucket, "role": self.role, "region": self.aws.region, "restore": dict(former)}
        return [{"verb": "sre.runbooks.s3_access", "arguments": arguments}]

    def returned(self):
        told = self._told
        if not told:
            return {}
        findings = [
            {**{name: finding[name] for name in ("where", "problem", "fix")}, "can_mend": finding["remedy"] is not None}
            for finding in told["findings"]
        ]
        return {"findings": findings, "blind": told["blind"], "probe": self._probe or NOT_TRIED}

    @staticmethod
    def _guess(observed):
        """False where something stands against it, None where it is not known."""
        if observed["findings"]:
            return False
        return True if observed["is_certain"] else None

    def view(self, observed):
        self._told = observed
        probe = self._probe or NOT_TRIED
        return {
            "bucket": self.bucket,
            "role": self.role,
            "works": probe["ok"] if probe["tried"] else self._guess(observed),
            "findings": len(observed["findings"]),
        }


def _remedies(findings, bucket, role):
    """Steps. Behind a denial that is lifted another may stand, or a permission be missing: it is looked again."""
    remedies = [finding["remedy"] for finding in findings if finding["remedy"]]
    lifted = [remedy["statement"] for remedy in remedies if remedy["do"] == "lift_denial"]
    granted = [remedy for remedy in remedies if remedy["do"] == "grant"]
    if lifted:
        what = f"take {len(lifted)} statements out of the policy of bucket {bucket}"
        yield Step("lift_denial", what, arguments={"statements": lifted}, look_again=True)
    if granted:
        actions = ", ".join(sorted({remedy["action"] for remedy in granted}))
        yield Step("grant", f"allow {actions} to role {role}", arguments={"remedies": granted})


def _restoring(now, wanted):
    steps = []
    for name, whose in (("bucket_policy", f"bucket {wanted['bucket']}"), ("role_policy", f"role {wanted['role']}")):
        former = wanted["restore"].get(name)
        if former is not None and not _same(former, now[name]):
            steps.append(Step(f"put_{name}", f"put the policy of {whose} back", arguments={"policy": former}))
    return Plan(tuple(steps))


def _same(one, other):
    """Whether two policies say the same, however they are written."""
    return (json.loads(one) if one else None) == (json.loads(other) if other else None)


def main():
    run(verb_module(ARGUMENTS), S3Access)


if __name__ == "__main__":
    main()

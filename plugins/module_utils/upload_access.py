# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a role cannot put into or get from a bucket (mangu runbook 3.5): what is read, and what it comes to."""

from __future__ import annotations

import json
import urllib.parse

from .aws import attempt, code_of, is_denied, reason, tried_together
from .errors import Stop
from .policy import Policy, Request, Verdict, judge, lets_in

# The grant that a fix adds to a role.
GRANT = "sre-runbooks-uploads"
_PUT = ("s3:PutObject", "s3:GetObject")
_KMS = ("kms:GenerateDataKey", "kms:Decrypt")


def look(aws, bucket, role, vpc):
    """{what: answer, or the exception that a read ended in}; None where nothing of the kind is configured.

    Args:
        role: name of the role.
        vpc: id of the network that the service runs in, or None.
    """

    def document(text):
        return json.loads(urllib.parse.unquote(text)) if isinstance(text, str) else text

    def managed(arn):
        version = aws.read("iam", "get_policy", PolicyArn=arn)["Policy"]["DefaultVersionId"]
        found = aws.read("iam", "get_policy_version", PolicyArn=arn, VersionId=version)
        return document(found["PolicyVersion"]["Document"])

    def of_role():
        told = aws.read("iam", "get_role", RoleName=role)["Role"]
        names = aws.read("iam", "list_role_policies", RoleName=role)["PolicyNames"]
        attached = aws.read("iam", "list_attached_role_policies", RoleName=role)["AttachedPolicies"]
        boundary = told.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn")
        return {
            "arn": told["Arn"],
            "inline": {
                name: document(aws.read("iam", "get_role_policy", RoleName=role, PolicyName=name)["PolicyDocument"])
                for name in names
            },
            "managed": {each["PolicyName"]: managed(each["PolicyArn"]) for each in attached},
            "boundary": boundary and (boundary.rpartition("/")[2], managed(boundary)),
        }

    def configured(operation, key):
        def read():
            try:
                return aws.read("s3", operation, Bucket=bucket)[key]
            except Exception as error:
                if code_of(error).startswith("NoSuch") or "NotFound" in code_of(error):
                    return None
                raise

        return read

    def endpoints():
        name = f"com.amazonaws.{aws.region}.s3"
        filters = [{"Name": "service-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
        return aws.read("ec2", "describe_vpc_endpoints", Filters=filters)["VpcEndpoints"] if vpc else []

    def events():
        # The API of AWS Health has one endpoint, whichever region is meant.
        # https://docs.aws.amazon.com/health/latest/ug/health-api.html
        found = aws.read(
            "health",
            "describe_events",
            region="us-east-1",
            filter={"services": ["S3", "IAM", "KMS"], "eventStatusCodes": ["open"], "eventTypeCategories": ["issue"]},
        )
        return [each for each in found["events"] if each.get("region") in (aws.region, "global")]

    seen = tried_together(
        {
            "bucket": lambda: _where(aws, bucket),
            "role": of_role,
            "policy": configured("get_bucket_policy", "Policy"),
            "ownership": configured("get_bucket_ownership_controls", "OwnershipControls"),
            "public_access": configured("get_public_access_block", "PublicAccessBlockConfiguration"),
            "encryption": configured("get_bucket_encryption", "ServerSideEncryptionConfiguration"),
            "endpoints": endpoints,
            "events": events,
        }
    )
    seen["key"] = attempt(lambda: _key(aws, seen["encryption"]), Exception)
    return seen


def _where(aws, bucket):
    """{region} of a bucket, or None where there is none. HeadBucket tells the region even to who may not enter."""
    try:
        headers = aws.read("s3", "head_bucket", Bucket=bucket)["ResponseMetadata"]["HTTPHeaders"]
    except Exception as error:
        if code_of(error) in ("404", "NoSuchBucket"):
            return None
        if code_of(error) not in ("301", "403"):
            raise
        if is_denied(error):
            aws.do_without(error)
        headers = error.response["ResponseMetadata"]["HTTPHeaders"]
    return {"region": headers.get("x-amz-bucket-region")}


def _key(aws, encryption):
    """{id, state, policy} of the KMS key that the bucket encrypts with by default, or None."""
    if not encryption or isinstance(encryption, Exception):
        return None
    default = encryption["Rules"][0].get("ApplyServerSideEncryptionByDefault", {})
    name = default.get("KMSMasterKeyID")
    if not default.get("SSEAlgorithm", "").startswith("aws:kms") or not name:
        return None  # the key of AWS itself lets every user of the account in
    told = aws.read("kms", "describe_key", KeyId=name)["KeyMetadata"]
    policy = aws.read("kms", "get_key_policy", KeyId=told["KeyId"], PolicyName="default")["Policy"]
    return {"arn": told["Arn"], "state": told["KeyState"], "policy": json.loads(policy)}


def assess(seen, asked, region):
    """Pure: ([finding], [what could not be read]). A finding: {where, problem, fix, remedy}; remedy is what a step needs to
    apply the fix, None where a person must.

    Args:
        asked: {bucket, prefix, role, acl}.
    """
    blind = [f"{name}: {reason(found)}" for name, found in seen.items() if isinstance(found, Exception)]
    told = {name: None if isinstance(found, Exception) else found for name, found in seen.items()}
    bucket, findings = asked["bucket"], []

    def find(where, problem, fix, remedy=None):
        findings.append({"where": where, "problem": problem, "fix": fix, "remedy": remedy})

    if seen["bucket"] is None:
        find("bucket", f"there is no bucket {bucket}", "check the name that the application uses, or make it again")
        return findings, blind
    there = told["bucket"] and told["bucket"]["region"]
    if there and there != region:
        find(
            "bucket",
            f"{bucket} is in {there}, and the application asks in {region}",
            f"have the application ask in {there}",
        )
    for each in told["events"] or ():
        find(
            "AWS Health",
            f"{each['service']} {each['eventTypeCode']} in {each['region']}",
            "wait, or use another region",
        )
    _ownership(told, asked, find)
    if told["key"] and told["key"]["state"] != "Enabled":
        key = told["key"]
        find("KMS key", f"{key['arn']} is {key['state']}", "enable it, or cancel its deletion (aws kms enable-key)")
    if told["role"] is None:
        return findings, blind
    for action, verdict in _verdicts(told, asked):
        if not verdict.allowed:
            find(*_denied(action, verdict, told, asked))
        for name in verdict.undecided:
            blind.append(f"whether {name} denies {action} depends on a condition of the request")
    return _once(findings), blind


def _ownership(told, asked, find):
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html"""
    rules = (told["ownership"] or {}).get("Rules", [])
    acl = asked["acl"]
    # Private and the owner's full control mean nothing new, and pass.
    if acl in (None, "private", "bucket-owner-full-control"):
        return
    if any(rule.get("ObjectOwnership") == "BucketOwnerEnforced" for rule in rules):
        find(
            "object ownership",
            f"{asked['bucket']} takes no ACLs (BucketOwnerEnforced), and the application sends {acl}",
            "have the application send no ACL, and grant by the bucket policy",
        )
    elif acl.startswith("public") and (told["public_access"] or {}).get("BlockPublicAcls"):
        find(
            "public access block",
            f"{asked['bucket']} blocks public ACLs, and the application sends {acl}",
            "have the application send no ACL; serve in public by CloudFront",
        )


def _verdicts(told, asked):
    """Yields (action, Verdict) of all that an upload needs."""
    role, key = told["role"], told["key"]
    account = role["arn"].split(":")[4]
    endpoint = (told["endpoints"] or [None])[0]
    context = {
        "aws:principalarn": role["arn"],
        "aws:principalaccount": account,
        "aws:securetransport": "true",
        "s3:x-amz-acl": asked["acl"],
        **({"aws:sourcevpce": endpoint["VpcEndpointId"], "aws:sourcevpc": endpoint["VpcId"]} if endpoint else {}),
    }
    own = [Policy.of("identity", f"policy {name} of the role", each) for name, each in role["inline"].items()]
    own += [Policy.of("identity", f"managed policy {name}", each) for name, each in role["managed"].items()]
    if role["boundary"]:
        own.append(Policy.of("boundary", f"permissions boundary {role['boundary'][0]}", role["boundary"][1]))
    limits = []
    if endpoint and endpoint.get("PolicyDocument"):
        limits.append(
            Policy.of("endpoint", f"VPC endpoint {endpoint['VpcEndpointId']}", json.loads(endpoint["PolicyDocument"]))
        )
    of_bucket = Policy.of("resource", f"policy of bucket {asked['bucket']}", json.loads(told["policy"] or "{}"))
    resource = f"arn:aws:s3:::{asked['bucket']}/{asked['prefix']}sre-runbooks-probe"
    for action in _PUT:
        yield action, judge(Request(action, resource, role["arn"], context), [of_bucket, *own, *limits])
    if not key:
        return
    of_key = Policy.of("resource", "key policy", key["policy"])
    for action in _KMS:
        request = Request(action, key["arn"], role["arn"], context)
        verdict = judge(request, [of_key, *own])
        if verdict.allowed and not lets_in(of_key, request):
            # The key's own policy always has a say: without it the role's policy means nothing.
            verdict = Verdict(False, "key", "key policy")
        yield action, verdict


def _denied(action, verdict, told, asked):
    """(where, problem, fix, remedy) of one refusal."""
    bucket, statement = asked["bucket"], verdict.statement
    if statement is not None:
        sid = statement.get("Sid") or json.dumps(statement, sort_keys=True)[:200]
        problem = f"{action} is denied by statement {sid} of {verdict.policy}"
        if verdict.kind == "resource" and action.startswith("s3:"):
            fix = f"take the statement out of the policy of {bucket}"
            return verdict.policy, problem, fix, {"do": "lift_denial", "statement": statement}
        return verdict.policy, problem, "take the statement out, or narrow it", None
    if verdict.kind in ("boundary", "endpoint"):
        return verdict.policy, f"{verdict.policy} does not allow {action}", f"allow {action} in {verdict.policy}", None
    if verdict.kind == "key":
        return (
            "key policy",
            f"the policy of the KMS key does not let the role {action}",
            "let the account or the role in",
            None,
        )
    where = f"role {asked['role']}"
    resource = told["key"]["arn"] if action.startswith("kms:") else f"arn:aws:s3:::{bucket}/{asked['prefix']}*"
    fix = f"allow {action} on {resource} to the role"
    return where, f"no policy of the role or of the bucket allows {action}", fix, {
        "do": "grant",
        "action": action,
        "resource": resource,
    }  # fmt: skip


def _once(findings):
    """A statement that denies both put and get is lifted once, but told for both."""
    seen, kept = [], []
    for finding in findings:
        remedy = finding["remedy"]
        if remedy in seen and remedy is not None:
            finding = dict(finding, remedy=None)
        seen.append(remedy)
        kept.append(finding)
    return kept


def without(policy, statements):
    """A bucket policy without some of its statements; None where nothing is left of it.

    Raises:
        Stop: they are not there (any more).
    """
    document = json.loads(policy)
    listed = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    if any(each not in listed for each in statements):
        raise Stop("the bucket policy was changed meanwhile: look again")
    left = [each for each in listed if each not in statements]
    return json.dumps(dict(document, Statement=left)) if left else None


def grant(remedies):
    """The role policy of the remedies that grant."""
    found = {}
    for remedy in remedies:
        found.setdefault(remedy["resource"], []).append(remedy["action"])
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": actions, "Resource": resource} for resource, actions in found.items()
            ],
        }
    )

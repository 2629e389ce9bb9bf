# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which permissions a call needs, how policies are weighed, and a user who may do what his policy says and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.filter.iam_policy import iam_policy
from sandbox.client import Sandbox
from sandbox.permissions import Need, Observed, needed
from sandbox.policies import decide
from sandbox.wire import Call

ACCOUNT = "123456789012"


def call(service: str, method: str = "POST", target: str = "/", body: str = "", **headers: str) -> Call:
    scope = f"AWS4-HMAC-SHA256 Credential=x/20260101/eu-west-1/{service}/aws4_request"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call(method, target, {"authorization": scope, **named}, body.encode())


def form(service: str, **fields: str) -> Call:
    body = "&".join(f"{name.replace('__', '.')}={value}" for name, value in fields.items())
    return call(service, body=body, content_type="application/x-www-form-urlencoded")


def asked(api: str, action: str, /, **parameters: Any) -> Call:
    return call(api, body=json.dumps(parameters), x_amz_target=f"X.{action}")


@pytest.mark.parametrize(
    ("made", "needs"),
    [
        (form("sts", Action="GetCallerIdentity"), []),
        (
            form("rds", Action="ModifyDBInstance", DBInstanceIdentifier="db-1"),
            [("rds:ModifyDBInstance", f"arn:aws:rds:eu-west-1:{ACCOUNT}:db:db-1")],
        ),
        (
            form("elasticloadbalancing", Action="ModifyRule", RuleArn="arn:r"),
            [("elasticloadbalancing:ModifyRule", "arn:r")],
        ),
        (
            asked(
                "ecs", "UpdateService", cluster="arn:aws:ecs:eu-west-1:1:cluster/c", service="s", taskDefinition="t:1"
            ),
            [("ecs:UpdateService", f"arn:aws:ecs:eu-west-1:{ACCOUNT}:service/c/s")],
        ),
        (
            asked("ecs", "RegisterTaskDefinition", family="f", taskRoleArn="arn:role"),
            [
                ("ecs:RegisterTaskDefinition", f"arn:aws:ecs:eu-west-1:{ACCOUNT}:task-definition/f:*"),
                ("iam:PassRole", "arn:role"),
            ],
        ),
        (
            asked("ssm", "SendCommand", DocumentName="d", InstanceIds=["i-1", "i-2"]),
            [
                ("ssm:SendCommand", f"arn:aws:ssm:eu-west-1:{ACCOUNT}:document/d"),
                ("ssm:SendCommand", f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-1"),
                ("ssm:SendCommand", f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-2"),
            ],
        ),
        (
            form("ec2", Action="CreateTags", ResourceId__1="i-1", Tag__1__Key="k", Tag__1__Value="v"),
            [("ec2:CreateTags", f"arn:aws:ec2:eu-west-1:{ACCOUNT}:instance/i-1")],
        ),
        (
            form("ec2", Action="CreateSnapshots", TagSpecification__1__ResourceType="snapshot"),
            ["ec2:CreateSnapshots", "ec2:CreateTags"],
        ),
        (call("s3", "HEAD", "/b"), [("s3:ListBucket", "arn:aws:s3:::b")]),
        (call("s3", "GET", "/b?versions"), [("s3:ListBucketVersions", "arn:aws:s3:::b")]),
        (call("s3", "GET", "/b/k?versionId=1"), [("s3:GetObjectVersion", "arn:aws:s3:::b/k")]),
        (call("s3", "GET", "/b/k?tagging&versionId=1"), [("s3:GetObjectVersionTagging", "arn:aws:s3:::b/k")]),
        (
            call("s3", "PUT", "/b/k", x_amz_copy_source="/c/k%20l?versionId=1"),
            [("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:GetObjectVersion", "arn:aws:s3:::c/k l")],
        ),
        (
            call("s3", "PUT", "/b/k", x_amz_object_lock_mode="GOVERNANCE"),
            [("s3:PutObject", "arn:aws:s3:::b/k"), ("s3:PutObjectRetention", "arn:aws:s3:::b/k")],
        ),
        (call("s3", "POST", "/b?delete", "<Key>k</Key>"), [("s3:DeleteObject", "arn:aws:s3:::b/*")]),
    ],
    ids=lambda each: each.action if isinstance(each, Call) else None,
)
def test_what_a_call_needs(made: Call, needs: list) -> None:
    found = needed(made, ACCOUNT)
    wanted = [each if isinstance(each, tuple) else (each, None) for each in needs]
    assert [(each.action, each.resource) for each in found] == wanted


def allow(action: str, resource: str = "*", effect: str = "Allow", **condition: Any) -> dict:
    return {"Statement": [{"Effect": effect, "Action": action, "Resource": resource, "Condition": condition}]}


@pytest.mark.parametrize(
    ("policies", "verdict"),
    [
        ([], None),
        ([allow("rds:Modify*")], True),
        ([allow("RDS:modifydbinstance")], True),
        ([allow("rds:*", "arn:aws:rds:*:*:db:other")], None),
        # A dot is a dot: as a regular expression it would be any letter.
        ([allow("rds:*", "arn:aws:rds:*:*:db.d-1")], None),
        ([allow("rds:*"), allow("rds:ModifyDBInstance", effect="Deny")], False),
        ([allow("rds:*", StringEquals={"aws:RequestedRegion": ["eu-west-1"]})], True),
        # An Allow that does not hold is no Deny.
        ([allow("rds:*", StringEquals={"aws:RequestedRegion": "us-east-1"}), allow("*")], True),
        ([allow("rds:*", StringEquals={"aws:PrincipalTag/team": "x"})], None),
        # Of a key with many values each must be named; without any there is nothing to be named.
        ([allow("rds:*", **{"ForAllValues:StringLike": {"aws:TagKeys": ["ours:*"]}})], True),
        ([allow("rds:*", **{"ForAllValues:StringLike": {"aws:TagKeys": ["ours:a"]}})], None),
        ([allow("rds:*", **{"ForAllValues:StringLike": {"aws:Other": ["ours:a"]}})], True),
    ],
)
def test_how_policies_are_weighed(policies: list[dict], verdict: bool | None) -> None:
    about = (
        "rds:ModifyDBInstance",
        "arn:aws:rds:eu-west-1:1:db:d-1",
        {"aws:requestedregion": "eu-west-1", "aws:tagkeys": ["ours:a", "ours:b"]},
    )
    assert decide(policies, *about) is verdict


def test_a_resource_that_nobody_knows_is_denied_by_what_denies_all() -> None:
    assert decide([allow("rds:*", "arn:x")], "rds:X", None, {}) is True
    assert decide([allow("rds:*"), allow("rds:*", "arn:x", "Deny")], "rds:X", None, {}) is True
    assert decide([allow("rds:*"), allow("rds:*", "*", "Deny")], "rds:X", None, {}) is False


def test_each_permission_of_a_playbook_is_noted_once(tmp_path: Any) -> None:
    seen = Observed(str(tmp_path / "seen"))
    for action in ("s3:A", "s3:B", "s3:A"):
        seen.add("triage", [Need(action, None)])
    assert [json.loads(line)["action"] for line in (tmp_path / "seen").read_text().splitlines()] == ["s3:A", "s3:B"]


def a_user(sandbox: Sandbox, document: dict) -> dict[str, str]:
    """The key of one with this policy."""
    iam = sandbox.boto("iam")
    iam.create_user(UserName="oncall")
    iam.put_user_policy(UserName="oncall", PolicyName="p", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName="oncall")["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def test_a_user_may_do_what_the_policy_says_once_that_is_enforced(fresh_sandbox: Sandbox) -> None:
    document = {"Version": "2012-10-17", **allow("rds:Describe*", StringEquals={"aws:RequestedRegion": "us-east-1"})}
    mine = a_user(fresh_sandbox, document)

    def refused(service: str, region: str, operation: str, **arguments: Any) -> str:
        import boto3

        client = boto3.client(service, region, endpoint_url=fresh_sandbox.state["endpoint_url"], **mine)
        try:
            getattr(client, operation)(**arguments)
        except ClientError as error:
            return f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"
        return ""

    assert refused("ecs", "us-east-1", "list_clusters") == ""
    fresh_sandbox.control("enforce", user="oncall")
    assert refused("rds", "us-east-1", "describe_db_instances") == ""
    assert refused("sts", "us-east-1", "get_caller_identity") == ""
    why = "because no identity-based policy allows the"
    assert f"perform: rds:DescribeDBInstances {why}" in refused("rds", "us-west-2", "describe_db_instances")
    assert refused("ecs", "us-east-1", "list_clusters").startswith(
        f"AccessDeniedException: User: arn:aws:iam::{ACCOUNT}:user/oncall is not authorized to perform: ecs:ListClusters {why}"
    )
    assert refused("ec2", "us-east-1", "describe_instances").startswith("UnauthorizedOperation: ")
    assert refused("s3", "us-east-1", "head_bucket", Bucket="b") == "403: Forbidden"


def test_what_a_user_may_do_is_simulated_as_it_is_judged(sandbox: Sandbox) -> None:
    """A page at a time; nobody has the policies of a user who is not there."""
    iam = sandbox.boto("iam", "us-east-1")
    user = iam.create_user(UserName="simulated")["User"]["Arn"]
    statement = {"Effect": "Allow", "Action": "rds:*", "Resource": f"arn:aws:rds:*:{ACCOUNT}:db:shop"}
    policy = {
        "Version": "2012-10-17",
        "Statement": [statement, statement | {"Effect": "Deny", "Action": "rds:Delete*"}],
    }
    iam.put_user_policy(UserName="simulated", PolicyName="some", PolicyDocument=json.dumps(policy))
    sandbox.control("enforce", user="simulated")
    asked = {
        "PolicySourceArn": user,
        "ActionNames": ["rds:RebootDBInstance", "rds:DeleteDBInstance", "ecs:UpdateService"],
        "ResourceArns": [f"arn:aws:rds:us-east-1:{ACCOUNT}:db:shop", f"arn:aws:rds:us-east-1:{ACCOUNT}:db:other"],
    }
    pages = iam.get_paginator("simulate_principal_policy").paginate(**asked, PaginationConfig={"PageSize": 1})
    results = [result for page in pages for result in page["EvaluationResults"]]
    assert [[each["EvalResourceDecision"] for each in result["ResourceSpecificResults"]] for result in results] == [
        ["allowed", "implicitDeny"],
        ["explicitDeny", "implicitDeny"],
        ["implicitDeny", "implicitDeny"],
    ]
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.simulate_principal_policy(**asked | {"PolicySourceArn": user.replace("simulated", "nobody")})
    iam.delete_user_policy(UserName="simulated", PolicyName="some")
    iam.delete_user(UserName="simulated")


def test_what_is_allowed_on_instances_with_a_tag_is_denied_on_others(fresh_sandbox: Sandbox) -> None:
    """By the policy of contain_instance, as the team of the batch has it filled in."""
    import boto3

    host = {"aws_account_id": ACCOUNT, "aws_region": "us-east-1", "service_tags": ["regami-batch"]}
    text = (Path(__file__).parents[2] / "iam" / "contain_instance.json").read_text()
    mine = a_user(fresh_sandbox, iam_policy(json.loads(text), [host]))
    ec2, ssm = (
        boto3.client(service, "us-east-1", endpoint_url=fresh_sandbox.state["endpoint_url"], **mine)
        for service in ("ec2", "ssm")
    )
    fresh_sandbox.control("enforce", user="oncall")
    found, second = fresh_sandbox.state["batch"]["instance_ids"]
    made = fresh_sandbox.boto("ec2").run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)
    other = made["Instances"][0]["InstanceId"]
    script = {"DocumentName": "AWS-RunShellScript", "Parameters": {"commands": ["true"]}}
    remembered, stolen = ({"Key": key, "Value": "regami-batch"} for key in ("sre.runbooks:isolation", "service"))

    ec2.modify_instance_attribute(InstanceId=found, DisableApiTermination={"Value": True})
    ec2.create_tags(Resources=[found], Tags=[remembered])
    ssm.send_command(InstanceIds=[found, second], **script)
    for denied in (
        lambda: ec2.modify_instance_attribute(InstanceId=other, DisableApiTermination={"Value": True}),
        lambda: ec2.create_tags(Resources=[other], Tags=[remembered]),
        # The tag that opens the others is not given either, nor taken by one call for both.
        lambda: ec2.create_tags(Resources=[found], Tags=[stolen]),
        lambda: ec2.create_tags(Resources=[found, other], Tags=[remembered]),
        lambda: ssm.send_command(InstanceIds=[found, other], **script),
        lambda: ssm.send_command(InstanceIds=[found], **(script | {"DocumentName": "AWS-RunRemoteScript"})),
    ):
        with pytest.raises(ClientError, match="no identity-based policy allows"):
            denied()

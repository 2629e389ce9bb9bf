# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""network_diagnosis.yml: ways are closed as people close them; it says where, and the command that it prints opens them again."""

from __future__ import annotations

import shlex
import subprocess
import time

from runbook import BIN, Result
from world import EAST, World

FLOWS = "/aws/vpc/flowlogs"
OPENS = "  would open it, nothing was run: "


def diagnose(world: World, *flags: str, **variables: object) -> Result:
    run = world.runbook.run("network_diagnosis", *flags, **variables)
    assert (run.returncode, run.mutations, run.lease_calls) == (0, [], []), run.output
    return run


def carry_out(world: World, run: Result) -> None:
    """The command that it prints, as a person would after judging it."""
    (command,) = [note.removeprefix(OPENS) for note in run.report["notes"] if note.startswith(OPENS)]
    words = [BIN / "aws", *shlex.split(command)[1:]]
    environment = {**world.runbook.environment, "AWS_ENDPOINT_URL": world.sandbox.state["endpoint_url"]}
    keys = {"AWS_ACCESS_KEY_ID": "sandbox", "AWS_SECRET_ACCESS_KEY": "sandbox"}
    subprocess.run(words, env=environment | keys, check=True, capture_output=True)


def keep_flows(world: World) -> None:
    """A flow log in a format of its own, with a packet that was refused and one of somebody else."""
    ec2, logs = world.aws("ec2"), world.aws("logs")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    names = world.names(EAST)
    (address, *_more) = [
        detail["value"]
        for task in world.aws("ecs").describe_tasks(
            cluster=names["cluster"], tasks=world.aws("ecs").list_tasks(cluster=names["cluster"])["taskArns"]
        )["tasks"]
        for detail in task["attachments"][0]["details"]
        if detail["name"] == "privateIPv4Address"
    ]
    database = world.database(EAST)["Endpoint"]
    logs.create_log_group(logGroupName=FLOWS)
    logs.create_log_stream(logGroupName=FLOWS, logStreamName="eni-1-all")
    ec2.create_flow_logs(
        ResourceType="VPC",
        ResourceIds=[vpc],
        TrafficType="ALL",
        LogGroupName=FLOWS,
        DeliverLogsPermissionArn="arn:aws:iam::123456789012:role/flows",
        LogFormat="${action} ${srcaddr} ${dstaddr} ${dstport} ${packets} ${start}",
    )
    now = int(time.time())
    lines = [
        f"REJECT {address} {database['Address']} {database['Port']} 7 {now}",
        f"ACCEPT {address} {database['Address']} {database['Port']} 9 {now}",
        f"REJECT 198.51.100.4 {database['Address']} 22 1 {now}",
    ]
    logs.put_log_events(
        logGroupName=FLOWS,
        logStreamName="eni-1-all",
        logEvents=[{"timestamp": now * 1000, "message": line} for line in lines],
    )


def test_a_rule_that_somebody_removed(world: World) -> None:
    group, ec2 = world.names(EAST)["db_security_group"], world.aws("ec2")
    usual = diagnose(world, "--check", "--diff").report["notes"]
    assert [note.partition(":")[0] for note in usual if " is open" in note] == [
        "regami-alb to regami-service (tcp 8000) is open",
        f"regami-service to regami-db-primary (tcp {world.database(EAST)['Endpoint']['Port']}) is open",
    ]
    assert any(note.startswith("database answers in ") for note in usual)
    rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=rules)
    keep_flows(world)
    run = diagnose(world)
    notes = run.report["notes"]
    assert f"is CLOSED at security group {group} (regami-db) of regami-db-primary, inbound: no rule lets in" in notes[0]
    assert notes[2].startswith("  7 packets refused from ") and "198.51.100.4" not in str(notes)
    # The call names the group that was let in, too.
    assert "ec2:RevokeSecurityGroupIngress of " in notes[3] and notes[3].endswith("by user/sandbox")
    assert any(note.startswith("database is down: ") for note in notes)
    page = (run.folder / "investigation.html").read_text()
    assert "aws ec2 authorize-security-group-ingress" in page and "RevokeSecurityGroupIngress" in page
    carry_out(world, run)
    opened = diagnose(world).report["notes"]
    assert not any("CLOSED" in note for note in opened)
    assert any(note.startswith("database answers in ") for note in opened)


def test_any_two_places_whether_there_or_not_and_a_network_acl_that_denies_the_answers(world: World) -> None:
    ec2, state = world.aws("ec2"), world.sandbox.state
    acl = ec2.describe_network_acls()["NetworkAcls"][0]["NetworkAclId"]
    ec2.create_network_acl_entry(
        NetworkAclId=acl,
        Egress=False,
        RuleNumber=50,
        Protocol="6",
        PortRange={"From": 30000, "To": 50000},
        CidrBlock="203.0.113.0/24",
        RuleAction="deny",
    )
    ends = {"source": state["batch"]["instance_ids"][0], "destination": "203.0.113.9", "port": 443}
    run = diagnose(world, **ends)
    assert f"is CLOSED at network ACL {acl} of subnet-" in run.report["notes"][0]
    assert "inbound: rule 50 denies tcp 1024 to 65535 from 203.0.113.9/32" in run.report["notes"][0]
    carry_out(world, run)
    assert " is open: 4 rules and routes looked at" in diagnose(world, **ends).report["notes"][0]

    # A name that is mistyped is blindness, not a verdict.
    lost = diagnose(world, source="regami-db-primary", destination="regami-db-primry")
    assert (
        "cannot see regami-db-primry: there is no RDS instance and no load balancer regami-db-primry in us-east-1: write "
        "service/CLUSTER/NAME, group/NAME, an id, an address or an ARN for anything else"
    ) in lost.report["notes"]

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run Command as AWS documents it: scripts run, and limits, statuses and pages are those of the real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from core_helpers import wait_until

from sandbox.client import Sandbox

DOCUMENT = "AWS-RunShellScript"
DISK = "df --output=pcent,ipcent / | tail -1"


@pytest.fixture(scope="module")
def ssm(sandbox: Sandbox) -> Any:
    return sandbox.boto("ssm")


@pytest.fixture(scope="module")
def batch(sandbox: Sandbox) -> list[str]:
    names = sandbox.state["batch"]["instance_ids"]
    if "allows no file systems" in sandbox.control("instance", instance=names[0], script="true")["stderr"]:
        pytest.skip("this machine allows no file systems of its own")
    return names


def send(ssm: Any, script: str, **how: Any) -> str:
    parameters = {"commands": [script], "executionTimeout": [str(how.pop("seconds", 60))]}
    return ssm.send_command(DocumentName=DOCUMENT, Parameters=parameters, **how)["Command"]["CommandId"]


def command(ssm: Any, command_id: str) -> dict:
    found = ssm.list_commands(CommandId=command_id)["Commands"]
    return found[0] if found else {"Status": "not shown yet"}


def ended(ssm: Any, command_id: str) -> dict:
    over = ("Success", "Failed", "Cancelled", "TimedOut")
    wait_until(lambda: command(ssm, command_id)["Status"] in over, "the command is over")
    return command(ssm, command_id)


def invocations(ssm: Any, command_id: str) -> list[dict]:
    pages = ssm.get_paginator("list_command_invocations").paginate(CommandId=command_id, Details=True)
    return [each for page in pages for each in page["CommandInvocations"]]


def output(invocation: dict) -> str:
    return invocation["CommandPlugins"][0]["Output"]


def refused(call: Callable, **arguments: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"]


def test_a_script_really_runs_on_a_disk_of_its_own(ssm: Any, batch: list[str]) -> None:
    text = "echo $AWS_SSM_INSTANCE_ID; df --output=size -m / | tail -1; echo wrong >&2; exit 3"
    command_id = send(ssm, text, InstanceIds=batch, MaxErrors="100%")
    assert ended(ssm, command_id)["StatusDetails"] == "Incomplete"  # no more errors than were allowed
    found = {each["InstanceId"]: each for each in invocations(ssm, command_id)}
    for name in batch:
        assert output(found[name]).split() == [name, "16", "----------ERROR-------", "wrong"]
        whole = ssm.get_command_invocation(CommandId=command_id, InstanceId=name)
        assert (whole["ResponseCode"], whole["StandardErrorContent"]) == (3, "wrong\n")


def test_no_script_reaches_the_files_of_this_machine(ssm: Any, batch: list[str], tmp_path: Any) -> None:
    canary = tmp_path / "canary"
    canary.write_text("alive")
    command_id = send(ssm, f"rm -rf {tmp_path}; rm -f /usr/bin/env /etc/passwd; ls /root /tmp", InstanceIds=batch[:1])
    ended(ssm, command_id)
    assert canary.read_text() == "alive"
    assert "Read-only file system" in output(invocations(ssm, command_id)[0])


def test_output_is_cut_where_aws_cuts_it(ssm: Any, batch: list[str]) -> None:
    command_id = send(ssm, "head -c 30000 /dev/zero | tr '\\0' x", InstanceIds=batch[:1])
    ended(ssm, command_id)
    (found,) = invocations(ssm, command_id)
    assert len(output(found)) == 2500 and output(found).endswith("---Output truncated---")
    whole = ssm.get_command_invocation(CommandId=command_id, InstanceId=batch[0])
    assert len(whole["StandardOutputContent"]) == 24000


def test_the_execution_timeout_ends_a_script(ssm: Any, batch: list[str]) -> None:
    command_id = send(ssm, "sleep 30", InstanceIds=batch[:1], seconds=1)
    assert ended(ssm, command_id)["ErrorCount"] == 1
    assert invocations(ssm, command_id)[0]["StatusDetails"] == "Execution Timed Out"


def test_what_aws_refuses(ssm: Any, batch: list[str]) -> None:
    good = {"DocumentName": DOCUMENT, "Parameters": {"commands": ["true"]}}
    assert refused(ssm.send_command, **good, InstanceIds=["i-0123456789abcdef0"]) == "InvalidInstanceId"
    assert refused(ssm.send_command, **good, InstanceIds=[batch[0], batch[0]]) == "DuplicateInstanceId"
    assert refused(ssm.send_command, **good | {"DocumentName": "AWS-RunPython"}, InstanceIds=batch) == "InvalidDocument"
    assert refused(ssm.get_command_invocation, CommandId="0" * 36, InstanceId=batch[0]) == "InvalidCommandId"
    filters = [{"key": "ExecutionStage", "value": "Executing"}]
    assert refused(ssm.list_command_invocations, Filters=filters) == "InvalidFilterKey"


def test_a_command_is_shown_a_moment_after_it_was_sent(ssm: Any, batch: list[str]) -> None:
    command_id = send(ssm, "true", InstanceIds=batch[:1], Comment="mine")
    wait_until(lambda: command(ssm, command_id).get("Comment") == "mine", "the command is shown")
    ended(ssm, command_id)
    executing = [{"key": "ExecutionStage", "value": "Executing"}]
    shown = [each["CommandId"] for each in ssm.list_commands(Filters=executing)["Commands"]]
    assert command_id not in shown


def test_an_agent_that_is_lost_holds_its_command_up_until_that_is_cancelled(
    sandbox: Sandbox, ssm: Any, batch: list[str]
) -> None:
    sandbox.fault("agent-lost", instance=batch[0])
    try:
        nodes = ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": batch}])
        pings = {each["InstanceId"]: each["PingStatus"] for each in nodes["InstanceInformationList"]}
        assert pings == {batch[0]: "ConnectionLost", batch[1]: "Online"}
        command_id = send(ssm, "true", InstanceIds=batch)
        wait_until(lambda: command(ssm, command_id).get("CompletedCount") == 1, "the other one is through")
        assert command(ssm, command_id)["Status"] == "InProgress"
        ssm.cancel_command(CommandId=command_id)
        assert ended(ssm, command_id)["Status"] == "Cancelled"
    finally:
        sandbox.heal("agent-lost")


def test_what_a_script_leaves_running_outlives_it(sandbox: Sandbox, batch: list[str]) -> None:
    """Whoever asked hangs up as soon as the script has ended; twenty times, since that is a race."""
    leave = "(sleep 0.2; echo >>/tmp/left) >/dev/null 2>&1 &"
    for _time in range(20):
        sandbox.control("instance", instance=batch[0], script=leave)
    count = {"instance": batch[0], "script": "wc -l </tmp/left"}
    wait_until(lambda: sandbox.control("instance", **count)["stdout"].strip() == "20", "each of them has written")


def test_a_disk_without_any_room_stops_the_agent_too(sandbox: Sandbox, ssm: Any, batch: list[str]) -> None:
    sandbox.fault("disk-full", what="database", instance=batch[1], reserve="no")
    try:
        command_id = send(ssm, DISK, InstanceIds=[batch[1]])
        assert ended(ssm, command_id)["Status"] == "Failed"
        assert "Plugin with name aws:runShellScript not found" in output(invocations(ssm, command_id)[0])
    finally:
        sandbox.heal("disk-full")


def test_each_way_to_fill_a_disk_fills_it(sandbox: Sandbox, batch: list[str]) -> None:
    for what in ("logs", "inodes", "deleted", "database"):
        sandbox.fault("disk-full", what=what, instance=batch[0])
        blocks, inodes = sandbox.control("instance", instance=batch[0], script=DISK)["stdout"].split()
        assert (inodes if what == "inodes" else blocks) == "100%", what
        sandbox.heal("disk-full")
    assert "100%" not in sandbox.control("instance", instance=batch[0], script=DISK)["stdout"]


def test_thousands_are_simulated_with_concurrency_errors_and_pages(
    sandbox: Sandbox, ssm: Any, batch: list[str]
) -> None:
    tags = {"service": "many"}
    names = sandbox.control("simulated-fleet", count=2000, tags=tags, seconds=0.02, failing=30)["instance_ids"]
    targets = [{"Key": "tag:service", "Values": ["many"]}]
    limits = {"MaxConcurrency": "50%", "MaxErrors": "100%"}
    command_id = send(ssm, "echo $AWS_SSM_INSTANCE_ID", Targets=targets, **limits)
    counts = ended(ssm, command_id)
    assert (counts["TargetCount"], counts["CompletedCount"], counts["ErrorCount"]) == (2000, 2000, 30)
    assert counts["StatusDetails"] == "Incomplete"
    # One stands for all: what a script says is what it said there.
    found = invocations(ssm, command_id)
    assert {output(each).strip() for each in found if each["Status"] == "Success"} == {names[0]}
    assert refused(ssm.send_command, DocumentName=DOCUMENT, InstanceIds=names[:51]) == "ValidationException"
    # Beyond MaxErrors nothing further is sent.
    stopped = send(ssm, "true", InstanceIds=names[-30:], MaxConcurrency="2", MaxErrors="0")
    assert ended(ssm, stopped)["StatusDetails"] == "Failed"
    details = [each["StatusDetails"] for each in invocations(ssm, stopped)]
    assert details.count("Failed") <= 2 and details.count("Terminated") >= 28

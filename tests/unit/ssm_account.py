# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSM with instances and commands in memory: a command ends when it is looked at for the second time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer

ERROR_TITLE = "\n----------ERROR-------\n"


def refused(code: str, operation: str) -> ClientError:
    problem = {"Error": {"Code": code, "Message": "not in a valid state"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return ClientError(problem, operation)


def at_once(look: Callable, done: Callable, *_args: Any, tick: Callable, **_how: Any) -> tuple[Any, float]:
    """Stands for wait_until."""
    for _attempt in range(100):
        tick()
        if done(seen := look()):
            return seen, 0.0
    raise AssertionError("never over")


class Account:
    """Stands for Aws. `script(instance id, sh text)` returns (exit code, stdout, stderr) of an instance."""

    region, silent, missed = "us-east-1", frozenset(), ()

    def __init__(self, script: Callable[[str, str], tuple[int, str, str]] = lambda _id, _text: (0, "done", "")) -> None:
        self.script = script
        self.nodes: dict[str, dict] = {}
        self.commands: dict[str, dict] = {}
        self.groups: dict[str, list[str]] = {}
        self.calls: list[tuple[str, dict]] = []
        self.trouble: list[str] = []  # of the next SendCommands: "lost" (sent, no answer), "reset" (not sent) or ""
        self.looks_until_end = 2
        self._numbers = itertools.count(1)

    def __call__(self, connection: object) -> Account:
        return self

    def add(self, count: int, tags: dict | None = None, **about: Any) -> list[str]:
        names = [f"i-{next(self._numbers):017x}" for _number in range(count)]
        for each in names:
            self.nodes[each] = {"InstanceId": each, "PingStatus": "Online", "PlatformType": "Linux", **about}
            self.nodes[each]["tags"] = tags or {}
        return names

    def count(self, operation: str) -> int:
        return Counter(name for name, _arguments in self.calls)[operation]

    def sent(self) -> list[dict]:
        return [arguments for name, arguments in self.calls if name == "send_command"]

    def read(self, service: str, operation: str, **arguments: Any) -> dict:
        self.calls.append((operation, arguments))
        return getattr(self, f"_{operation}")(**arguments)

    change = read

    def _page(self, key: str, items: list, MaxResults: int, NextToken: str = "0") -> dict:
        assert MaxResults <= 50
        first = int(NextToken)
        more = {"NextToken": str(first + MaxResults)} if first + MaxResults < len(items) else {}
        return {key: items[first : first + MaxResults], **more}

    def _describe_auto_scaling_groups(self, AutoScalingGroupNames: list | None = None, **_page: Any) -> dict:
        found = [each for each in self.groups if not AutoScalingGroupNames or each in AutoScalingGroupNames]
        return {
            "AutoScalingGroups": [
                {
                    "AutoScalingGroupName": each,
                    "Instances": [{"InstanceId": name, "LifecycleState": "InService"} for name in self.groups[each]],
                }
                for each in found
            ]
        }

    def _describe_instance_information(self, Filters: list, **page: Any) -> dict:
        found = list(self.nodes.values())
        for each in Filters:
            if each["Key"] == "InstanceIds":
                if set(each["Values"]) - self.nodes.keys():
                    raise refused("InvalidInstanceId", "DescribeInstanceInformation")
                found = [node for node in found if node["InstanceId"] in each["Values"]]
            else:
                tag = each["Key"].removeprefix("tag:")
                found = [node for node in found if node["tags"].get(tag) in each["Values"]]
        return self._page("InstanceInformationList", found, **page)

    def _send_command(self, **arguments: Any) -> dict:
        trouble = self.trouble.pop(0) if self.trouble else ""
        if trouble == "reset":
            raise LostAnswer("ssm:SendCommand got no answer")
        chosen = arguments.get("InstanceIds", [])
        assert len(chosen) <= 50
        if set(chosen) - self.nodes.keys():
            raise refused("InvalidInstanceId", "SendCommand")
        if "Targets" in arguments:
            chosen = [node["InstanceId"] for node in self._matching(arguments["Targets"])]
        command_id = f"{next(self._numbers):036d}"
        self.commands[command_id] = {
            "CommandId": command_id,
            "Status": "InProgress",
            "Comment": arguments["Comment"],
            "TargetCount": len(chosen),
            "CompletedCount": 0,
            "ErrorCount": 0,
            "looks": 0,
            "invocations": [self._invocation(command_id, each, arguments) for each in chosen],
        }
        if trouble == "lost":
            raise LostAnswer("ssm:SendCommand got no answer")
        return {"Command": {"CommandId": command_id}}

    def _matching(self, targets: list) -> list[dict]:
        return [
            node
            for node in self.nodes.values()
            if all(node["tags"].get(each["Key"].removeprefix("tag:")) in each["Values"] for each in targets)
        ]

    def _invocation(self, command_id: str, instance_id: str, arguments: dict) -> dict:
        code, output, error = self.script(instance_id, arguments["Parameters"]["commands"][0])
        both = output + (ERROR_TITLE + error if error else "")
        if len(both) > 2500:
            both = both[:2400] + "\n---Output truncated---"
        return {
            "CommandId": command_id,
            "InstanceId": instance_id,
            "StatusDetails": "Failed" if code else "Success",
            "CommandPlugins": [{"Output": both, "ResponseCode": code}],
            "whole": (output, error),
        }

    def _list_commands(self, CommandId: str | None = None, Filters: list | None = None, **page: Any) -> dict:
        for each in self.commands.values():
            each["looks"] += each["CommandId"] == CommandId
            if each["looks"] >= self.looks_until_end and each["Status"] == "InProgress":
                self._end(each)
        if CommandId:
            return {"Commands": [self.commands[CommandId]]}
        wanted = {each["key"]: each["value"] for each in Filters or []}
        found = [
            each
            for each in self.commands.values()
            if wanted.get("ExecutionStage") != "Executing" or each["Status"] == "InProgress"
        ]
        return self._page("Commands", found, **page)

    def _end(self, command: dict) -> None:
        errors = sum(each["StatusDetails"] != "Success" for each in command["invocations"])
        command |= {
            "Status": "Failed" if errors else "Success",
            "CompletedCount": command["TargetCount"],
            "ErrorCount": errors,
        }

    def _list_command_invocations(self, CommandId: str, Details: bool, **page: Any) -> dict:
        return self._page("CommandInvocations", self.commands[CommandId]["invocations"], **page)

    def _get_command_invocation(self, CommandId: str, InstanceId: str) -> dict:
        (found,) = [each for each in self.commands[CommandId]["invocations"] if each["InstanceId"] == InstanceId]
        output, error = found["whole"]
        return {"StandardOutputContent": output[:24000], "StandardErrorContent": error[:8000]}

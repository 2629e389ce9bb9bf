# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls of Run Command as documented, in place of moto's, where nothing runs.

https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_SendCommand.html and its neighbours
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..wire import ApiError
from .commands import Command, Invocation, Journey
from .nodes import Nodes

if TYPE_CHECKING:
    from ..world import World

BY_ID = 50  # instance ids in one call
PAGE = 50
DOCUMENT = "AWS-RunShellScript"
_INSTANCE_ID = re.compile(r"i-(\w{8}|\w{17})|mi-\w{17}")
_LIMIT = re.compile(r"[1-9]\d*|[1-9]\d?%|100%|0%?")

_world: World
regions: dict[str, Region] = {}


class Region:
    """SSM in one region. Called with the world's lock held."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.nodes = Nodes(world, name)
        self.commands: dict[str, Command] = {}

    # ---- commands -------------------------------------------------------------------------------------------------

    def send_command(self, given: dict) -> dict:
        names, targets = given.get("InstanceIds") or [], given.get("Targets") or []
        if given.get("DocumentName") != DOCUMENT:
            raise ApiError("InvalidDocument", f"Document with name {given.get('DocumentName')} does not exist.")
        if len(names) > BY_ID:
            raise _invalid(f"Value at 'instanceIds' must have length less than or equal to {BY_ID}")
        if len(targets) > 5 or bool(names) == bool(targets):
            raise _invalid("Either InstanceIds or one to five Targets must be specified")
        if len(given.get("Comment", "")) > 100:
            raise _invalid("Value at 'comment' must have length less than or equal to 100")
        if not 30 <= given.get("TimeoutSeconds", 3600) <= 2592000:
            raise _invalid("Value at 'timeoutSeconds' must be between 30 and 2592000")
        for key in ("MaxConcurrency", "MaxErrors"):
            if not _LIMIT.fullmatch(str(given.get(key, "50"))):
                raise _invalid(f"Value at '{key}' failed to satisfy constraint")
        if len(set(names)) < len(names):
            raise ApiError("DuplicateInstanceId", "an instance id was given twice")
        there = self.nodes.tags()
        if bad := [each for each in names if each not in there]:
            raise ApiError("InvalidInstanceId", f"Instances [[{', '.join(bad)}]] not in a valid state for account")
        chosen = names or self.nodes.matching(targets)
        command = Command(given, {each: Invocation(each) for each in chosen})
        if "{{" in command.script:
            raise ApiError("InvalidParameters", "a parameter of the form {{ssm:name}} or {{name}} cannot be resolved")
        self.commands[command.id] = command
        self._world.background(Journey(self._world, command, self.nodes.is_reachable, self.nodes.start).run)
        return {"Command": _describe(command)}

    def list_commands(self, given: dict) -> dict:
        found = [each for each in reversed(self.commands.values()) if each.is_shown]
        if given.get("CommandId"):
            found = [each for each in found if each.id == given["CommandId"]]
        if given.get("InstanceId"):
            found = [each for each in found if given["InstanceId"] in each.invocations]
        for each in given.get("Filters") or []:
            found = [command for command in found if _passes(command, each["key"], each["value"])]
        return _page("Commands", found, given, PAGE, _describe)

    def list_command_invocations(self, given: dict) -> dict:
        filters = given.get("Filters") or []
        if any(each["key"] == "ExecutionStage" for each in filters):
            raise ApiError("InvalidFilterKey", "ExecutionStage cannot be used with ListCommandInvocations")
        wanted = given.get("CommandId")
        commands = [each for each in reversed(self.commands.values()) if each.is_shown and wanted in (None, each.id)]
        found = [
            (command, invocation)
            for command in commands
            for invocation in command.invocations.values()
            if given.get("InstanceId") in (None, invocation.instance_id)
            and all(_passes(command, each["key"], each["value"], invocation) for each in filters)
        ]
        details = bool(given.get("Details"))
        return _page("CommandInvocations", found, given, PAGE, lambda each: _describe_invocation(*each, details))

    def get_command_invocation(self, given: dict) -> dict:
        command, name = self._command(given), given["InstanceId"]
        if name not in command.invocations or not command.is_shown:
            raise ApiError("InvocationDoesNotExist", "")
        invocation = command.invocations[name]
        return {
            "CommandId": command.id,
            "InstanceId": name,
            "Comment": command.arguments.get("Comment", ""),
            "DocumentName": DOCUMENT,
            "PluginName": "aws:runShellScript",
            "ResponseCode": invocation.code,
            "Status": invocation.status,
            "StatusDetails": invocation.details,
            "StandardOutputContent": invocation.stdout if invocation.is_over else "",
            "StandardErrorContent": invocation.stderr if invocation.is_over else "",
        }

    def cancel_command(self, given: dict) -> dict:
        """Keeps the command from where it has not ended; what runs there goes on, and its outcome no longer counts."""
        command = self._command(given)
        names = given.get("InstanceIds") or list(command.invocations)
        command.cancelled.update(each for each in names if not command.invocations[each].is_over)
        return {}

    def _command(self, given: dict) -> Command:
        if given["CommandId"] not in self.commands:
            raise ApiError("InvalidCommandId", "")
        return self.commands[given["CommandId"]]

    # ---- instances ------------------------------------------------------------------------------------------------

    def describe_instance_information(self, given: dict) -> dict:
        filters = given.get("Filters") or []
        by_tag = [each["Key"].startswith("tag") for each in filters]
        if any(by_tag) and not all(by_tag):
            raise ApiError("InvalidFilterKey", "Tag filters can't be combined with other filter types.")
        there = self.nodes.tags()
        for each in filters:
            if each["Key"] == "InstanceIds" and (bad := [name for name in each["Values"] if name not in there]):
                raise ApiError("InvalidInstanceId", f"{', '.join(bad)}: no managed node of this account")
        plain = [each for each in filters if each["Key"] not in ("PingStatus", "PlatformTypes")]
        found = self.nodes.matching(plain)
        for each in filters:
            if each["Key"] == "PingStatus":
                found = [name for name in found if self.nodes.ping(name) in each["Values"]]
            elif each["Key"] == "PlatformTypes" and "Linux" not in each["Values"]:
                found = []
        return _page("InstanceInformationList", found, given, 10, self.nodes.describe)


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationException", f"1 validation error detected: {message}")


def _page(key: str, items: list, given: dict, size: int, describe: Callable) -> dict:
    first, size = int(given.get("NextToken") or 0), int(given.get("MaxResults") or size)
    if size > PAGE:
        raise _invalid(f"Value at 'maxResults' must be less than or equal to {PAGE}")
    page: dict[str, Any] = {key: [describe(each) for each in items[first : first + size]]}
    if len(items) > first + size:
        page["NextToken"] = str(first + size)
    return page


def _passes(command: Command, key: str, value: str, invocation: Invocation | None = None) -> bool:
    match key:
        case "InvokedAfter" | "InvokedBefore":
            is_after = command.requested > datetime.datetime.fromisoformat(value)
            return is_after == (key == "InvokedAfter")
        case "DocumentName":
            return value == DOCUMENT
        case "ExecutionStage":
            return command.is_over == (value == "Complete")
        case "Status":
            status, details = (invocation.status, invocation.details) if invocation else command.state()
            return value in (status, details.replace(" ", ""))
    raise ApiError("InvalidFilterKey", key)


def _describe(command: Command) -> dict:
    status, details = command.state()
    given = command.arguments
    seconds = given.get("TimeoutSeconds", 3600) + command.timeout
    return {
        "CommandId": command.id,
        "DocumentName": DOCUMENT,
        "Comment": given.get("Comment", ""),
        "Parameters": given.get("Parameters", {}),
        "InstanceIds": given.get("InstanceIds") or [],
        "Targets": given.get("Targets") or [],
        "RequestedDateTime": command.requested,
        "ExpiresAfter": command.requested + datetime.timedelta(seconds=seconds),
        "MaxConcurrency": given.get("MaxConcurrency", "50"),
        "MaxErrors": given.get("MaxErrors", "0"),
        "Status": status,
        "StatusDetails": details,
        "TargetCount": len(command.invocations),
        "CompletedCount": sum(each.is_over for each in command.invocations.values()),
        "ErrorCount": command.count("Failed", "Execution Timed Out"),
        "DeliveryTimedOutCount": command.count("Delivery Timed Out"),
    }


def _describe_invocation(command: Command, invocation: Invocation, details: bool) -> dict:
    about = {
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "Comment": command.arguments.get("Comment", ""),
        "DocumentName": DOCUMENT,
        "RequestedDateTime": command.requested,
        "Status": invocation.status,
        "StatusDetails": invocation.details,
        "CommandPlugins": [],
    }
    if details and invocation.details not in ("Pending", "Delayed"):
        about["CommandPlugins"] = [
            {
                "Name": "aws:runShellScript",
                "Status": invocation.status,
                "StatusDetails": invocation.details,
                "ResponseCode": invocation.code,
                "Output": invocation.listed_output if invocation.is_over else "",
            }
        ]
    return about


def _answer(name: str) -> Callable:
    def answer(response: Any) -> Any:
        from moto.core.exceptions import JsonRESTError
        from moto.core.responses import ActionResult

        try:
            return ActionResult(getattr(regions[response.region], name)(json.loads(response.body or "{}")))
        except ApiError as refused:
            raise JsonRESTError(refused.code, refused.message) from refused

    return answer


def install(world: World) -> None:
    from moto.ssm.responses import SimpleSystemManagerResponse

    for name in (
        "send_command",
        "list_commands",
        "list_command_invocations",
        "get_command_invocation",
        "cancel_command",
        "describe_instance_information",
    ):
        setattr(SimpleSystemManagerResponse, name, _answer(name))

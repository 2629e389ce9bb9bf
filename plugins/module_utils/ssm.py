# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Scripts on instances by Run Command of SSM: sent once, followed by their command ids, read in pages.

A command is asked for as a whole (ListCommands) while it runs, and its invocations are read 50 a call when it is over, so
that calls grow with batches and not with instances. SendCommand has no token that makes it repeatable: each command
carries a mark in its comment, by which a lost answer, and a run that was killed, find it again.
https://docs.aws.amazon.com/systems-manager/latest/userguide/send-commands-multiple.html
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import time
import uuid
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial

from .aws import code_of
from .errors import LostAnswer, WaitTimeout
from .waiting import Pace, say

# The most that SendCommand takes by id, and that the List calls answer at once.
BATCH = 50
DOCUMENT = "AWS-RunShellScript"
PACE = Pace(first=0.2, longest=5.0, growth=1.4)
# TimeoutSeconds: until an agent has taken the command, not until it is through. The latter is `execution_timeout`.
# https://docs.aws.amazon.com/systems-manager/latest/userguide/monitor-commands.html#monitor-about-status-timeouts
DELIVERY_SECONDS = 600
# Looks after a command whose answer was lost, at these times in seconds: the API is eventually consistent.
LOOKS = (0.3, 0.7, 1.5, 3.0)
# Our clock may be ahead of that of AWS, in seconds.
SKEW = 300

ENDED = ("Success", "Cancelled", "TimedOut", "Failed")
# Of an invocation, by StatusDetails; both spellings occur.
# https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_CommandInvocation.html
GOING_ON = ("Pending", "In Progress", "InProgress", "Delayed", "Cancelling")
# How the agent puts both streams into one, and what it ends with where that exceeds 2,500 characters; GetCommandInvocation
# has up to 24,000. https://github.com/aws/amazon-ssm-agent
_ERROR_TITLE = "\n----------ERROR-------\n"
_CUT = ("---Output truncated---", "---Error truncated----")
# What an agent answers that could not write the script down: its root volume is full.
# https://github.com/aws/amazon-ssm-agent/issues/90
_AGENT_WITHOUT_DISK = re.compile(r"Plugin with name \S+ not found|failed to create (?:script file|orchestrationDir)")

_LIMIT = re.compile(r"\d+|\d{1,2}%|100%")


def share(text, total):
    """Pure: how many of `total` a limit as AWS writes it stands for, a number or a percentage rounded down.

    Raises ValueError for anything else.
    """
    if not _LIMIT.fullmatch(text):
        raise ValueError(f"{text!r} is neither a number nor a percentage such as 10%")
    return int(text[:-1]) * total // 100 if text.endswith("%") else int(text)


@dataclass(frozen=True)
class Limits:
    """How many instances at a time, how many may fail before no more are tried, and seconds that a script may run.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/send-commands-multiple.html#send-commands-rate
    """

    max_concurrency: str = str(BATCH)
    max_errors: str = "100%"
    execution_timeout: int = 3600


@dataclass(frozen=True)
class Selection:
    """Which instances are meant: those of these ids, or those that have all these tags (five at most)."""

    instance_ids: tuple = ()
    tags: dict = field(default_factory=dict)

    def targets(self):
        """The tags as SendCommand and DescribeInstanceInformation take them."""
        return [{"Key": f"tag:{key}", "Values": [value]} for key, value in sorted(self.tags.items())]

    def key(self):
        """The same eight characters for the same selection, to know a command again by."""
        meant = json.dumps([sorted(self.instance_ids), sorted(self.tags.items())])
        return hashlib.sha256(meant.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Node:
    """An instance as SSM knows it. `ping`: Online, ConnectionLost, or None where it has no agent that ever registered."""

    instance_id: str
    ping: str | None = None
    platform: str | None = None
    last_ping: object = None

    def trouble(self):
        """Why no shell script can run there, None where one can."""
        if self.ping is None:
            return "SSM does not know it: no agent has registered, or the instance is stopped"
        if self.ping != "Online":
            since = f" since {self.last_ping:%Y-%m-%d %H:%M} UTC" if self.last_ping else ""
            return f"its agent has not answered{since} ({self.ping}); a full disk can be the reason"
        if self.platform != "Linux":
            return f"it runs {self.platform}, not Linux"
        return None


@dataclass(frozen=True)
class Result:
    """What came of a script on one instance. `status` is the StatusDetails of SSM, or "Not Sent"."""

    instance_id: str
    status: str
    code: int | None = None
    output: str = ""
    error: str = ""

    @property
    def ok(self):
        return self.status == "Success"

    def trouble(self):
        """Why it did not do its work, None where it did."""
        if self.ok:
            return None
        said = self.error.strip() or self.output.strip()
        if _AGENT_WITHOUT_DISK.search(said):
            return "its agent has no room to write the script down: the root volume is full"
        return f"{self.status}: {said.splitlines()[-1]}" if said else self.status


class RunCommand:
    """Sends, follows and reads commands.

    Args:
        aws: the Aws to ask.
        purpose: what the commands are for, without spaces; with `Selection.key` it is what a later run finds them by.
    """

    def __init__(self, aws, purpose):
        self._aws, self._purpose = aws, purpose
        self.sent = []  # command ids, in the order in which this run sent or took over them

    # ---- who is there ---------------------------------------------------------------------------------------------

    def nodes(self, selection):
        """{instance id: Node}: those named, whether SSM knows them or not, or those that have the tags."""
        if not selection.instance_ids:
            return {each.instance_id: each for each in self._described(selection.targets())}
        found = {instance_id: Node(instance_id) for instance_id in selection.instance_ids}
        for some in _batches(selection.instance_ids):
            found.update((each.instance_id, each) for each in self._named(some))
        return found

    def _named(self, instance_ids):
        """Nodes of those ids; an id that AWS objects to is left out, and not all that were named with it."""
        try:
            return self._described([{"Key": "InstanceIds", "Values": list(instance_ids)}])
        except Exception as error:
            if code_of(error) != "InvalidInstanceId":
                raise
        if len(instance_ids) == 1:
            return []
        middle = len(instance_ids) // 2
        return self._named(instance_ids[:middle]) + self._named(instance_ids[middle:])

    def _described(self, filters):
        pages = self._pages("describe_instance_information", Filters=filters)
        return [
            Node(each["InstanceId"], each.get("PingStatus"), each.get("PlatformType"), each.get("LastPingDateTime"))
            for page in pages
            for each in page["InstanceInformationList"]
        ]

    # ---- commands -------------------------------------------------------------------------------------------------

    def running(self, selection):
        """Ids of the commands of this purpose for the selection that have not ended, whichever run sent them."""
        filters = [{"key": "ExecutionStage", "value": "Executing"}, {"key": "DocumentName", "value": DOCUMENT}]
        mark = self._mark(selection)
        found = [each for page in self._pages("list_commands", Filters=filters) for each in page["Commands"]]
        return [each["CommandId"] for each in found if each.get("Comment", "").startswith(mark)]

    def send(self, script, selection, targets, limits):
        """Send `script` once, whatever becomes of the answer; returns the command id.

        Args:
            script: text for sh; must not hold two opening braces in a row, which SSM takes for a parameter of its own.
            selection: the Selection that the command is found again by.
            targets: {"InstanceIds": [...]}, 50 at most, or {"Targets": [...]}.
            limits: Limits.

        Raises:
            LostAnswer: neither the answer nor, on looking for it, the command ever came.
            ClientError: AWS refused.
        """
        comment = f"{self._mark(selection)} {uuid.uuid4().hex[:8]}"
        arguments = {
            "DocumentName": DOCUMENT,
            "Comment": comment,
            "TimeoutSeconds": DELIVERY_SECONDS,
            "MaxConcurrency": limits.max_concurrency,
            "MaxErrors": limits.max_errors,
            "Parameters": {"commands": [script], "executionTimeout": [str(limits.execution_timeout)]},
            **targets,
        }
        began = datetime.datetime.now(datetime.UTC)
        try:
            command_id = self._aws.change("ssm", "send_command", **arguments)["Command"]["CommandId"]
        except LostAnswer:
            command_id = self._look_for(comment, began)
            if command_id is None:
                raise
        self.sent.append(command_id)
        # In the record before anything is waited for.
        say(f"SSM command {command_id}: {self._purpose}")
        return command_id

    def _look_for(self, comment, began):
        """Id of the command with this comment, None where none appears."""
        since = (began - datetime.timedelta(seconds=SKEW)).strftime("%Y-%m-%dT%H:%M:%SZ")
        for pause in LOOKS:
            time.sleep(pause)
            pages = self._pages("list_commands", Filters=[{"key": "InvokedAfter", "value": since}])
            for each in (command for page in pages for command in page["Commands"]):
                if each.get("Comment") == comment:
                    return each["CommandId"]
        return None

    def state(self, command_id):
        """{Status, TargetCount, CompletedCount, ErrorCount}; a command that AWS does not show yet is pending."""
        found = self._aws.read("ssm", "list_commands", CommandId=command_id)["Commands"]
        return found[0] if found else {"Status": "Pending", "TargetCount": 0, "CompletedCount": 0, "ErrorCount": 0}

    def results(self, command_id):
        """[Result] of every instance of a command, as far as it has ended there."""
        pages = self._pages("list_command_invocations", CommandId=command_id, Details=True)
        return [self._result(each) for page in pages for each in page["CommandInvocations"]]

    def _result(self, invocation):
        plugin = next(iter(invocation.get("CommandPlugins", [])), {})
        output, _title, error = plugin.get("Output", "").partition(_ERROR_TITLE)
        if any(mark in output or mark in error for mark in _CUT):
            whole = self._aws.read(
                "ssm",
                "get_command_invocation",
                CommandId=invocation["CommandId"],
                InstanceId=invocation["InstanceId"],
            )
            output, error = whole["StandardOutputContent"], whole["StandardErrorContent"]
        return Result(invocation["InstanceId"], invocation["StatusDetails"], plugin.get("ResponseCode"), output, error)

    # ---- all of it ------------------------------------------------------------------------------------------------

    def run(self, script, selection, instance_ids, wait, what, limits, by_tags=False):
        """Run `script` on `instance_ids`; returns {instance id: Result}, one for each, in whatever way it ended.

        Args:
            script: see `send`.
            selection: the Selection that the instances come from.
            wait: `Verb.wait`.
            what: what is waited for, for people.
            limits: Limits.
            by_tags: send one command by the tags of the selection, because these are all that have them; else 50 ids a
                command, and as many commands at a time as the concurrency allows.
        """
        journey = _Journey(self, limits, len(instance_ids))
        if by_tags:
            journey.plan_tags(script, selection)
        else:
            journey.plan_ids(script, selection, instance_ids)
        return self._follow(journey, wait, what)

    def finish(self, command_ids, wait, what):
        """Follow commands that an earlier run has sent; returns {instance id: Result}."""
        self.sent += command_ids
        journey = _Journey(self, Limits(), 0)
        journey.going_on.update(dict.fromkeys(command_ids, ()))
        return self._follow(journey, wait, what)

    @staticmethod
    def _follow(journey, wait, what):
        try:
            wait(journey.go_on, lambda seen: seen.is_over, what, pace=PACE)
        except WaitTimeout as error:
            going_on = ", ".join(journey.going_on)
            raise WaitTimeout(
                f"{error}; SSM goes on with command {going_on}: the same command here goes on from there"
            ) from error
        return journey.results

    def _mark(self, selection):
        return f"sre.runbooks {self._purpose} {selection.key()}"

    def _pages(self, operation, **arguments):
        more = {}
        while True:
            page = self._aws.read("ssm", operation, MaxResults=BATCH, **arguments, **more)
            yield page
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}


class _Journey:
    """A script on its way over all batches. Each `go_on` looks, reads what has ended and sends what may follow."""

    def __init__(self, commands, limits, total):
        self._commands, self._limits, self._total = commands, limits, total
        self._left, self._width = deque(), 1
        self.going_on, self.results = {}, {}  # command id: the ids that it was sent to; instance id: Result
        self._halfway = {}  # command id: (instances that are through, of them failed)

    def plan_tags(self, script, selection):
        self._left.append(lambda: self._send(script, selection, {"Targets": selection.targets()}, (), self._limits))

    def plan_ids(self, script, selection, instance_ids):
        at_once = max(1, share(self._limits.max_concurrency, self._total))
        self._width = max(1, at_once // BATCH)
        allowed = share(self._limits.max_errors, self._total)

        def send(batch):
            errors = self._errors()
            if errors > allowed:
                told = f"more than max_errors={self._limits.max_errors} had failed before"
                self.results.update((each, Result(each, "Not Sent", error=told)) for each in batch)
                return
            limits = replace(
                self._limits, max_concurrency=str(min(at_once, BATCH)), max_errors=str(max(0, allowed - errors))
            )
            self._send(script, selection, {"InstanceIds": batch}, batch, limits)

        self._left.extend(partial(send, batch) for batch in _batches(instance_ids))

    def __str__(self):
        errors, done = self._errors(), len(self.results) + sum(done for done, _failed in self._halfway.values())
        return f"{done} of {self._total or 'all'} instances" + (f", {errors} failed" if errors else "")

    @property
    def is_over(self):
        return not self._left and not self.going_on

    def go_on(self):
        for command_id in list(self.going_on):
            self._look(command_id)
        while self._left and len(self.going_on) < self._width:
            self._left.popleft()()
        return self

    def _errors(self):
        failed = sum(each.status != "Not Sent" and not each.ok for each in self.results.values())
        return failed + sum(failed for _done, failed in self._halfway.values())

    def _look(self, command_id):
        state = self._commands.state(command_id)
        self._halfway[command_id] = (state.get("CompletedCount", 0), state.get("ErrorCount", 0))
        if state["Status"] not in ENDED:
            return
        found = self._commands.results(command_id)
        if len(found) < state["TargetCount"] or any(each.status in GOING_ON for each in found):
            return  # the API is eventually consistent: what has ended here is not shown everywhere yet
        meant = self.going_on.pop(command_id)
        del self._halfway[command_id]
        self.results.update((each, Result(each, "Not Sent", error="SSM left it out")) for each in meant)
        self.results.update((each.instance_id, each) for each in found)

    def _send(self, script, selection, targets, batch, limits):
        """Send one command; an instance that is gone since it was selected does not keep the others from theirs."""
        try:
            command_id = self._commands.send(script, selection, targets, limits)
        except Exception as error:
            if code_of(error) != "InvalidInstanceId" or not batch:
                raise
            nodes = self._commands.nodes(Selection(tuple(batch)))
            gone = [each for each in batch if nodes[each].ping is None]
            if not gone:
                raise
            self.results.update((each, Result(each, "Not Sent", error=nodes[each].trouble())) for each in gone)
            rest = [each for each in batch if each not in gone]
            if rest:
                self._left.appendleft(partial(self._send, script, selection, {"InstanceIds": rest}, rest, limits))
            return
        self.going_on[command_id] = tuple(batch)


def _batches(items):
    items = list(items)
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]

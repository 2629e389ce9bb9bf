# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One run at a time for each target: a lease in DynamoDB, held in the region that survives.

An item `{name, holder, run, token, acquired, expires, ttl}`. Taking it is one conditional write, so two runs cannot both
win; `token` grows by one with every new holder (a fencing token): a run that lost its lease finds that out at its next
renewal, before its next change. Times are seconds since the epoch by the clock of the run that writes; `expires` is
compared against the reader's clock, so clocks must agree within the margin below.
"""

from __future__ import annotations

import getpass
import os
import socket
import time

from . import masking
from .aws import code_of, explain
from .errors import LeaseLost, LostAnswer, Refusal

# Seconds by which the clocks of two controllers may differ.
CLOCK_MARGIN = 5
# A renewal is sent once a third of the lease has passed.
RENEW_AFTER = 1 / 3


def identity():
    """Who is running: {holder: user@host, run: id of this ansible-playbook process}.

    The callback of the collection puts the process that lives as long as the playbook into SRE_RUNBOOKS_RUN
    (host:pid:start time); without it (a module on another host) only expiry frees a dead run's lease.
    """
    try:
        user = os.environ.get("AWX_USER") or os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    host = socket.gethostname().partition(".")[0]
    return {"holder": f"{masking.name_of(user)}@{host}", "run": os.environ.get("SRE_RUNBOOKS_RUN", "")}


def process_start(pid):
    """When process `pid` started, in clock ticks since boot ("" where it is gone, a zombie included)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def run_id(pid):
    """The identity of one process of this machine, safe against a pid that is used again."""
    return f"{socket.gethostname()}:{pid}:{process_start(pid)}"


def is_dead(run):
    """True where `run` names a process of this very machine that is gone (killed, or out of memory)."""
    host, _separator, rest = run.partition(":")
    pid, _separator, start = rest.partition(":")
    return bool(pid.isdigit() and start and host == socket.gethostname() and process_start(pid) != start)


def may_take(item, me, now):
    """Pure: may `me` take the lease whose present item is `item` (None: nobody holds it)?"""
    if item is None or item["run"] == "released":
        return True
    if me["run"] and item["run"] == me["run"]:
        return True
    return now > item["expires"] + CLOCK_MARGIN or is_dead(item["run"])


class Lease:
    """A lease on `name` in `table`.

    Args:
        aws: the Aws whose credentials are used.
        table, name, region: where it is.
        ttl: seconds that it lasts without renewal.
        token: fencing token of the holder, where the lease is already held.
    """

    def __init__(self, aws, table, name, region, ttl, token=None):
        self._aws, self.table, self.name, self.region, self.ttl, self.token = aws, table, name, region, ttl, token
        self._renewed = None

    def observe(self):
        """The present item, or None. Read consistently: an old answer here would be a second winner."""
        try:
            answer = self._aws.read(
                "dynamodb",
                "get_item",
                region=self.region,
                TableName=self.table,
                Key={"name": {"S": self.name}},
                ConsistentRead=True,
            )
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                raise Refusal(
                    f"the lease table {self.table} does not exist in {self.region}: create it once with "
                    f"hash key name (S), or set lock_table"
                ) from error
            raise
        item = answer.get("Item")
        return (
            None
            if item is None
            else {
                "holder": item["holder"]["S"],
                "run": item["run"]["S"],
                "token": int(item["token"]["N"]),
                "acquired": float(item["acquired"]["N"]),
                "expires": float(item["expires"]["N"]),
            }
        )

    def take(self, before, now):
        """Write ourselves as holder, on the condition that the item is still what was observed."""
        me = identity()
        self.token = (before["token"] if before else 0) + 1
        item = {
            "name": {"S": self.name},
            "holder": {"S": me["holder"]},
            "run": {"S": me["run"]},
            "token": {"N": str(self.token)},
            "acquired": {"N": f"{now:.3f}"},
            "expires": {"N": f"{now + self.ttl:.3f}"},
        }
        condition = {"ConditionExpression": "attribute_not_exists(#n)", "ExpressionAttributeNames": {"#n": "name"}}
        if before:
            condition = {
                "ConditionExpression": "#t = :t AND #e = :e AND #r = :r",
                "ExpressionAttributeNames": {"#t": "token", "#e": "expires", "#r": "run"},
                "ExpressionAttributeValues": {
                    ":t": {"N": str(before["token"])},
                    ":r": {"S": before["run"]},
                    ":e": {"N": f"{before['expires']:.3f}"},
                },
            }
        try:
            self._write("put_item", Item=item, **condition)
        except LostAnswer:
            seen = self.observe()
            if not seen or seen["token"] != self.token or seen["run"] != me["run"] or seen["acquired"] != round(now, 3):
                raise
        self._renewed = now

    def renew(self, now=None, always=False):
        """Prolong our lease when a third of it has passed, or now; raises LeaseLost when it is no longer ours.

        `always` is for the moment before a change: a lease that was broken a second ago must stop it.
        """
        now = time.time() if now is None else now
        if not always and self._renewed is not None and now - self._renewed < self.ttl * RENEW_AFTER:
            return
        try:
            self._write(
                "update_item",
                Key={"name": {"S": self.name}},
                UpdateExpression="SET #e = :e",
                ConditionExpression="#t = :t AND #r <> :gone",
                ExpressionAttributeNames={"#e": "expires", "#t": "token", "#r": "run"},
                ExpressionAttributeValues={
                    ":e": {"N": f"{now + self.ttl:.3f}"},
                    ":t": {"N": str(self.token)},
                    ":gone": {"S": "released"},
                },
            )
        except LostAnswer:
            return  # not renewed, not lost: the next tick asks again
        self._renewed = now

    def release(self):
        """Give the lease back if it is still ours. The item stays, so that the token keeps growing."""
        try:
            self._write(
                "update_item",
                Key={"name": {"S": self.name}},
                UpdateExpression="SET #r = :gone",
                ConditionExpression="#t = :t",
                ExpressionAttributeNames={"#r": "run", "#t": "token"},
                ExpressionAttributeValues={":gone": {"S": "released"}, ":t": {"N": str(self.token)}},
            )
            return True
        except LeaseLost:
            return False

    def _write(self, operation, **arguments):
        try:
            self._aws.change("dynamodb", operation, region=self.region, TableName=self.table, **arguments)
        except Exception as error:
            if code_of(error) == "ConditionalCheckFailedException":
                raise LeaseLost(self.lost_message(self.observe())) from error
            if code_of(error):
                raise Refusal(explain(error, "dynamodb", operation, self.region)) from error
            raise

    def lost_message(self, item):
        """Who has it now, since when, and the way out."""
        if item is None:
            return f"the lease {self.name} is gone from {self.table}: somebody deleted it; start again"
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(item["acquired"]))
        left = max(0, item["expires"] + CLOCK_MARGIN - time.time())
        return (
            f"{item['holder']} has held the lease {self.name} since {since} (free in {left:.0f} s if that run is "
            f"dead): wait for it, or break it with -e break_lease=true after asking them"
        )

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The recovery API that a service brings along (courtcase runbook, "Critical Commands" and "API Endpoints"), and how far
its answers can be trusted.

What that API does with the runbook's own commands decides what is sent here: it answers 200 with status "failed" where a
rollback failed, it takes the word "latest" for the name of a snapshot that does not exist, and it takes a snapshot of the
present state before each rollback, so that the newest one may hold the very thing that shall be left.
"""

from __future__ import annotations

import json
import time
from urllib.parse import quote, urlsplit

from . import history, waiting, web
from .aws import together
from .errors import LostAnswer, Stop, Unreachable
from .masking import masked, snippet

# Times that a request which changes nothing is sent, and the pause between two in seconds.
TRIES, PAUSE = 3, 0.3
COMPLETED, FAILED = ("completed", "success"), ("failed", "error", "cancelled")
# How many snapshots are looked into, newest first: the API keeps ten.
SNAPSHOTS = 10


class Missing(Stop):
    """The API has no such path."""


class RecoveryApi:
    """The API as it is asked about one service.

    Args:
        url: where /api/v1 begins, without it.
        token: bearer token, or None.
        cluster, service: as the API names them in its paths.
        within: seconds that one answer may take.
        dns_servers: who is asked for the host of the URL.
    """

    def __init__(self, url, token, cluster, service, within, dns_servers=()):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise Stop(f"url: {masked(url)} is no URL with http or https and without a login")
        self._base, self._within, self._dns_servers = url.rstrip("/"), within, tuple(dns_servers)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._names = {"cluster_name": cluster, "service_name": service}
        self._target = f"{quote(cluster, safe='')}/{quote(service, safe='')}"

    def status(self):
        """What the deployment orchestration says of the service, as a dict."""
        return self._read("GET", f"deployment-orchestration/status/{self._target}")

    def look(self, path):
        """(answer, seconds) of one of its diagnostics, asked once: what is slow or broken is a finding itself.

        Args:
            path: after /api/v1/; {target} in it stands for the service.

        Raises:
            Missing, Unreachable, Stop.
        """
        path = path.format(target=self._target)
        seen = self._send("GET", path, None)
        if seen.status in (404, 405, 501):
            raise Missing(f"it has no {path} ({seen.status})")
        if seen.status is None or seen.status >= 500 or seen.status == 429:
            raise Unreachable(f"{path}: {_told(seen)}")
        return self._parsed(seen, path), seen.seconds

    def snapshots(self):
        """[{snapshot_id, timestamp, task_definition, desired_count}], the newest first."""
        listed = self._read("GET", f"disaster-recovery/snapshots/{self._target}").get("snapshots") or []
        newest = sorted(listed, key=lambda each: str(each.get("timestamp", "")), reverse=True)[:SNAPSHOTS]
        if not newest:
            return []
        found = together(
            **{each["snapshot_id"]: lambda each=each: self._changes(each["snapshot_id"]) for each in newest}
        )
        return [
            {
                "snapshot_id": each["snapshot_id"],
                "timestamp": each.get("timestamp"),
                "task_definition": found[each["snapshot_id"]].get("task_definition"),
                "desired_count": found[each["snapshot_id"]].get("desired_count"),
            }
            for each in newest
        ]

    def _changes(self, snapshot_id):
        """What a rollback to the snapshot would set: the API's own dry run, which changes nothing."""
        body = {"snapshot_id": snapshot_id, "dry_run": True}
        return self._read("POST", f"disaster-recovery/rollback/{self._target}", body).get("changes") or {}

    def roll_back(self, snapshot_id):
        """Roll back to a snapshot; returns the API's answer, whose status may be "failed".

        Raises:
            LostAnswer: it may have been taken.
        """
        # dry_run is true for this API where it is not given.
        body = {"snapshot_id": snapshot_id, "dry_run": False}
        return self._change(f"disaster-recovery/rollback/{self._target}", body)

    def scale(self, count, reason):
        """Have the API set the desired count; returns its answer, whose status may be "failed". Raises LostAnswer."""
        body = {"target_count": count, "reason": reason}
        return self._change(f"disaster-recovery/emergency-scale/{self._target}", body)

    def execute(self, plan, snapshot_id):
        """Begin a recovery plan; returns the API's answer, with an operation_id. Raises LostAnswer."""
        # Without a snapshot the plan takes the newest, which may be that of the state to be left.
        body = {**self._names, "parameters": {"snapshot_id": snapshot_id}}
        return self._change(f"disaster-recovery/execute-plan/{quote(plan, safe='')}", body)

    def operation(self, operation_id):
        """How a recovery operation stands."""
        return self._read("GET", f"disaster-recovery/operation/{quote(operation_id, safe='')}")

    def _read(self, method, path, body=None):
        """A request that changes nothing; repeated where no answer came, or none of the API's own.

        Raises:
            Unreachable: no answer, or only errors of the server; the API may run in the very service that is broken.
            Stop: the API refuses.
        """
        for tries_left in range(TRIES - 1, -1, -1):
            seen = self._send(method, path, body)
            if seen.status is not None and seen.status < 500 and seen.status != 429:
                return self._parsed(seen, path)
            if tries_left:
                time.sleep(PAUSE)
        raise Unreachable(f"the recovery API does not answer: {_told(seen)} ({self._base}, {path})", answered=False)

    def _change(self, path, body):
        waiting.say(f"recovery API: {path}")
        seen = self._send("POST", path, body)
        if not seen.was_sent:
            raise Unreachable(f"the recovery API does not answer: {seen.text} ({self._base})", answered=False)
        if seen.status is None or seen.status >= 500:
            raise LostAnswer(f"the recovery API gave no good answer to {path}: {_told(seen)}")
        return self._parsed(seen, path)

    def _send(self, method, path, body):
        message = {
            "url": f"{self._base}/api/v1/{path}",
            "method": method,
            "headers": self._headers,
            "json": body,
            "secret_json": None,
            "body": None,
            "within": self._within,
        }
        return web.request(message, self._dns_servers)

    def _parsed(self, seen, path):
        if seen.status in (401, 403):
            raise Stop(
                f"the recovery API refuses the token ({seen.status} from {path}): check token; nothing was changed"
            )
        if 300 <= seen.status < 400:
            raise Stop(
                f"the recovery API sends {path} elsewhere ({seen.status}): redirects are not followed, since the token "
                f"would go along: give the final address as url"
            )
        if seen.status >= 400:
            raise Stop(f"the recovery API refuses {path}: {_told(seen)}: check url, cluster and service")
        try:
            answer = json.loads(seen.text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Stop(f"{self._base} is no recovery API: {path} answered without a JSON object: {snippet(seen.text)}")
        return answer


def _told(seen):
    """An answer in a few words."""
    if seen.status is None:
        return seen.text
    return f"{seen.status} {snippet(seen.text)}".rstrip()


def state_of(answer):
    """Pure: completed, failed or in progress, whatever word the API has for it."""
    status = str(answer.get("status", "")).lower()
    if status in COMPLETED:
        return "completed"
    return "failed" if status in FAILED else "in progress"


def reason_of(answer):
    """Pure: why something failed, as the API says."""
    told = answer.get("error_messages") or [answer.get("error_message") or answer.get("message") or "no reason given"]
    return snippet("; ".join(str(each) for each in told))


def last_good(snapshots, running):
    """Pure: the snapshot to go back to from the task definition `running`; None where that was done already (the API takes a
    snapshot of what is left before each rollback)."""
    index = history.last_other([each["task_definition"] for each in snapshots], running)
    return None if index is None else snapshots[index]

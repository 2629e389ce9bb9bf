# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slack, PagerDuty, Statuspage, Jira and a mail server on loopback, as far as incidents are told to them.

They speak the documented protocols: they check credentials and arguments, answer errors in each one's own way, ask to wait
when they have had too much, and remember what they were told. `ill` makes one of them slow, limited, broken, refusing, or lose the answers to what it has done.
https://docs.slack.dev/apis/web-api/, https://developer.pagerduty.com/docs/events-api-v2/overview/,
https://developer.statuspage.io/, https://developer.atlassian.com/cloud/jira/platform/rest/v2/, RFC 5321
"""

from __future__ import annotations

import base64
import email
import json
import re
import socketserver
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

# Planted where a run gets them, and looked for where they must not be.
SECRETS = {
    "slack": "xoxb-planted-Zq7-slack",
    "pagerduty": "plantedZq7pagerduty0123456789abc",
    "statuspage": "planted-Zq7-statuspage",
    "jira": "planted-Zq7-jira",
    "mail": "planted-Zq7-mail",
}
PERSON = "oncall.person@planted-zq7.example"
COMPONENT, PAGE, PROJECT = "8kbf7d35c070", "qfn30z5r6s5h", "OPS"
CHANNELS = {"slack": "#incidents", "other": "#leadership"}


@dataclass
class Illness:
    """What a service does instead of serving, so many times (None: always)."""

    kind: str
    times: int | None = None
    seconds: float = 30.0


@dataclass
class Answer:
    status: int
    data: Any
    headers: dict[str, str] = field(default_factory=dict)


class Services:
    """All of them, on one port, and the mail server on another. `told` is what they have heard, in that order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[str] = []
        self.ill: dict[str, Illness] = {}
        self.slack, self.pagerduty, self.statuspage, self.jira = Slack(), PagerDuty(), Statuspage(), Jira()
        self.letters: list[email.message.Message] = []
        self.released = threading.Event()
        services = self

        class Handler(_Handler):
            of = services

        class Post(_Smtp):
            of = services

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._smtp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Post)
        for server in (self._http, self._smtp):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        for server in (self._http, self._smtp):
            server.shutdown()
            server.server_close()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/{name}"

    @property
    def inventory(self) -> dict[str, dict]:
        """The variables of the role notify that lead here."""
        return {
            "notify_slack": {"token": SECRETS["slack"], "url": f"{self.url('slack')}/api", "invite": ["U0123ONCALL"]},
            "notify_pagerduty": {"routing_key": SECRETS["pagerduty"], "url": self.url("pagerduty")},
            "notify_statuspage": {"page": PAGE, "token": SECRETS["statuspage"], "url": self.url("statuspage")},
            "notify_mail": {
                "host": "127.0.0.1",
                "port": self._smtp.server_address[1],
                "security": "none",
                "sender": "incidents@regami.test",
            },
            "notify_jira": {
                "url": self.url("jira"),
                "project": PROJECT,
                "user": "robot@regami.test",
                "token": SECRETS["jira"],
            },
        }

    def of(self, name: str) -> list[str]:
        """What one of them was told."""
        return [what for who, what in self.told if who == name]

    def illness(self, name: str, *kinds: str) -> Illness | None:
        """What of these a call meets."""
        found = self.ill.get(name)
        if found is None or found.times == 0 or found.kind not in kinds:
            return None
        if found.times is not None:
            found.times -= 1
        return found


class _Handler(BaseHTTPRequestHandler):
    """One request: to the service that the path begins with."""

    of: Services
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        url = urlsplit(self.path)
        name, _slash, path = url.path.lstrip("/").partition("/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.of.calls.append((name, f"{self.command} {path}"))
        self.of.bodies.append(body)
        if illness := self.of.illness(name, "slow"):
            self.of.released.wait(illness.seconds)
        if illness := self.of.illness(name, "limited", "broken"):
            status, headers = (
                (429, {"Retry-After": f"{illness.seconds:.0f}"}) if illness.kind == "limited" else (503, {})
            )
            self._answer(Answer(status, {"ok": False, "error": "ratelimited"}, headers))
            return
        service = getattr(self.of, name)
        auth = self.headers.get("Authorization", "")
        data = json.loads(body) if body else {}
        if self.of.illness(name, "refusing"):
            auth, data = "", {**data, "routing_key": "wrong"}
        answer, heard = service.serve(self.command, path, query, data, auth)
        if heard:
            self.of.told.append((name, heard))
        if heard and self.of.illness(name, "loses answers"):
            self.connection.shutdown(2)
            self.close_connection = True
            return
        self._answer(answer)

    do_GET = do_POST = do_PUT = do_PATCH = _serve

    def _answer(self, answer: Answer) -> None:
        content = b"" if answer.data is None else json.dumps(answer.data).encode()
        try:
            self.send_response(answer.status)
            for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # whoever asked has not waited


class Slack:
    """A workspace whose app is in #incidents, and not in #leadership, which is private."""

    def __init__(self) -> None:
        self.channels: dict[str, dict] = {}
        self.scopes = "chat:write,channels:manage,channels:join,channels:read,channels:history"
        for number, name in enumerate(CHANNELS.values()):
            self._made(name.lstrip("#"), is_member=not number)

    def _made(self, name: str, is_member: bool = True) -> dict:
        identity = f"C{len(self.channels):07}"
        self.channels[identity] = {
            "id": identity,
            "name": name,
            "is_member": is_member,
            "messages": [],
            "topic": "",
            "guests": [],
        }
        return self.channels[identity]

    def named(self, name: str) -> dict:
        return next(each for each in self.channels.values() if f"#{each['name']}" == name)

    def texts(self, name: str) -> list[str]:
        return [message["text"] for message in self.named(name)["messages"]]

    def serve(self, method: str, path: str, query: dict, body: dict, auth: str) -> tuple[Answer, str]:
        """Slack answers 200 to whatever it understands. https://docs.slack.dev/apis/web-api/#responses"""
        try:
            if auth != f"Bearer {SECRETS['slack']}":
                raise _Error("invalid_auth")
            name = path.removeprefix("api/")
            data, heard = getattr(self, f"_{name.replace('.', '_')}")({**query, **body})
            return Answer(200, {"ok": True, **data}, {"X-OAuth-Scopes": self.scopes}), heard
        except _Error as error:
            return Answer(200, {"ok": False, "error": str(error)}), ""

    def _channel(self, asked: str, names: bool = False) -> dict:
        for channel in self.channels.values():
            if asked == channel["id"] or (names and asked.lstrip("#") == channel["name"]):
                return channel
        raise _Error("channel_not_found")

    def _auth_test(self, body: dict) -> tuple[dict, str]:
        """https://docs.slack.dev/reference/methods/auth.test"""
        return {"team": "regami", "user_id": "U0123ROBOT"}, ""

    def _chat_postMessage(self, body: dict) -> tuple[dict, str]:
        channel = self._channel(body["channel"], names=True)
        if not channel["is_member"]:
            raise _Error("not_in_channel")
        if not body.get("text"):
            raise _Error("no_text")
        if not re.fullmatch(r"[\w]{1,255}", body["metadata"]["event_type"]):
            raise _Error("invalid_metadata_format")
        stamp = f"{time.time():.6f}"
        channel["messages"].insert(
            0, {"type": "message", "ts": stamp, "text": body["text"], "metadata": body["metadata"]}
        )
        return {"channel": channel["id"], "ts": stamp}, f"#{channel['name']}: {body['text'].splitlines()[0]}"

    def _conversations_create(self, body: dict) -> tuple[dict, str]:
        if not re.fullmatch(r"[a-z0-9_-]{1,80}", body["name"]):
            raise _Error("invalid_name_specials")
        if any(each["name"] == body["name"] for each in self.channels.values()):
            raise _Error("name_taken")
        return {"channel": self._made(body["name"])}, ""

    def _conversations_list(self, query: dict) -> tuple[dict, str]:
        """One at a time, however many are asked for: "fewer than the requested number of items may be returned"."""
        known, at = list(self.channels.values()), int(query.get("cursor") or 0)
        following = str(at + 1) if at + 1 < len(known) else ""
        return {"channels": known[at : at + 1], "response_metadata": {"next_cursor": following}}, ""

    def _conversations_history(self, query: dict) -> tuple[dict, str]:
        messages = [each for each in self._channel(query["channel"])["messages"] if each["ts"] > query["oldest"]]
        if query.get("include_all_metadata") != "true":
            messages = [{key: value for key, value in each.items() if key != "metadata"} for each in messages]
        return {"messages": messages[: int(query["limit"])]}, ""

    def _conversations_join(self, body: dict) -> tuple[dict, str]:
        self._channel(body["channel"])["is_member"] = True
        return {}, ""

    def _conversations_setTopic(self, body: dict) -> tuple[dict, str]:
        if len(body["topic"]) > 250:
            raise _Error("too_long")
        self._channel(body["channel"])["topic"] = body["topic"]
        return {}, ""

    def _conversations_invite(self, body: dict) -> tuple[dict, str]:
        self._channel(body["channel"])["guests"] = body["users"].split(",")
        return {}, ""


class _Error(Exception):
    """In Slack's own word."""


class PagerDuty:
    """A service with one integration key. `alerts` by their dedup_key: triggered, acknowledged or resolved."""

    def __init__(self) -> None:
        self.alerts: dict[str, str] = {}

    def serve(self, method: str, path: str, query: dict, body: dict, auth: str) -> tuple[Answer, str]:
        """https://developer.pagerduty.com/docs/events-api-v2/trigger-events/"""
        errors = []
        if body.get("routing_key") != SECRETS["pagerduty"]:
            errors.append("Invalid routing key")
        action, key = body.get("event_action"), body.get("dedup_key")
        if action not in ("trigger", "acknowledge", "resolve"):
            errors.append("'event_action' must be one of trigger, acknowledge, resolve")
        if action == "trigger":
            payload = body.get("payload") or {}
            errors += [
                f"'payload.{name}' is missing or blank"
                for name in ("summary", "source", "severity")
                if not payload.get(name)
            ]
            if payload.get("severity") not in ("critical", "error", "warning", "info"):
                errors.append("'payload.severity' is invalid")
        if (method, path) != ("POST", "v2/enqueue") or errors:
            return Answer(400, {"status": "invalid event", "message": "Event object is invalid", "errors": errors}), ""
        after = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved"}[action]
        if action == "trigger":
            # An event for an alert that is open is added to it.
            if self.alerts.get(key) in (None, "resolved"):
                self.alerts[key] = after
        elif self.alerts.get(key) in ("triggered", "acknowledged"):
            self.alerts[key] = after
        return Answer(202, {"status": "success", "message": "Event processed", "dedup_key": key}), f"{action} {key}"


class Statuspage:
    """A page with one component. `incidents` as its API describes them, the newest first."""

    STATUSES = ("investigating", "identified", "monitoring", "resolved")

    def __init__(self) -> None:
        self.incidents: list[dict] = []
        self.component = "operational"

    def serve(self, method: str, path: str, query: dict, body: dict, auth: str) -> tuple[Answer, str]:
        if auth != f"OAuth {SECRETS['statuspage']}":
            return Answer(401, {"error": "Could not authenticate"}), ""
        if (method, path) == ("GET", f"v1/pages/{PAGE}/components"):
            return Answer(200, [{"id": COMPONENT, "name": "API", "status": self.component}]), ""
        place = path.removeprefix(f"v1/pages/{PAGE}/incidents")
        if place == path:
            return Answer(404, {"error": "Not found"}), ""
        if method == "GET":
            there = [each for each in self.incidents if place != "/unresolved" or each["status"] != "resolved"]
            return Answer(200, there[: int(query.get("limit", 100))]), ""
        asked = body["incident"]
        strange = [name for name in asked.get("components", {}) if name != COMPONENT]
        if asked.get("status", "investigating") not in self.STATUSES or strange:
            return Answer(422, {"error": ["Status is invalid"] if not strange else ["Invalid component"]}), ""
        if method == "POST":
            if not asked.get("name"):
                return Answer(422, {"error": ["Name can't be blank"]}), ""
            incident = {"id": f"p{len(self.incidents)}", "metadata": {}, "incident_updates": []}
            self.incidents.insert(0, incident)
        else:
            incident = next(each for each in self.incidents if f"/{each['id']}" == place)
        incident.update({key: asked[key] for key in ("name", "status", "metadata", "impact_override") if key in asked})
        self.component = asked.get("components", {}).get(COMPONENT, self.component)
        update = {
            "status": incident["status"],
            "body": asked["body"],
            "created_at": f"{len(incident['incident_updates']):09}",
        }
        incident["incident_updates"].insert(0, update)
        return Answer(201 if method == "POST" else 200, incident), f"{method} {incident['status']}"


WAYS = {
    "To Do": [{"id": "11", "name": "Start", "to": {"name": "In Progress", "statusCategory": {"key": "indeterminate"}}}],
    "In Progress": [
        {"id": "21", "name": "Stop", "to": {"name": "To Do", "statusCategory": {"key": "new"}}},
        {"id": "31", "name": "Close", "to": {"name": "Done", "statusCategory": {"key": "done"}}},
    ],
    "Done": [],
}


class Jira:
    """A project of Jira Cloud: the search of old is gone. `issues` as they were asked for, with `key`, `comments`, and `status`.

    Its workflow leads from To Do over In Progress to Done.
    """

    PAGE = 2  # "fewer than the requested number of items may be returned"

    def __init__(self, status: str = "In Progress") -> None:
        """`status` is what new issues have; of To Do, which no way leads from to the end, a test may want one."""
        self.issues: list[dict] = []
        self.status = status

    def serve(self, method: str, path: str, query: dict, body: dict, auth: str) -> tuple[Answer, str]:
        if auth != "Basic " + base64.b64encode(f"robot@regami.test:{SECRETS['jira']}".encode()).decode():
            return Answer(401, {"errorMessages": ["Client must be authenticated to access this resource."]}), ""
        if path == "rest/api/2/myself":
            return Answer(200, {"accountId": "robot"}), ""
        if path.startswith("rest/api/2/project/"):
            known = {"key": PROJECT, "issueTypes": [{"name": "Task"}, {"name": "Bug"}]}
            is_ours = path.endswith(f"/{PROJECT}")
            return Answer(200, known) if is_ours else Answer(404, {"errorMessages": ["No project could be found"]}), ""
        if (method, path) == ("POST", "rest/api/2/search/jql"):
            return self._search(body), ""
        if (method, path) == ("POST", "rest/api/2/issue"):
            return self._make(body["fields"])
        of_one = re.fullmatch(rf"rest/api/2/issue/({PROJECT}-\d+)(?:/(comment|transitions))?", path)
        if not of_one:
            return Answer(410, {"errorMessages": ["The requested API has been removed."]}), ""
        issue = next((each for each in self.issues if each["key"] == of_one[1]), None)
        if issue is None:
            return Answer(404, {"errorMessages": ["Issue does not exist or you do not have permission to see it."]}), ""
        serve = {"comment": self._comment, "transitions": self._transitions, None: self._edit}[of_one[2]]
        return serve(method, issue, body)

    def _search(self, body: dict) -> Answer:
        if set(body) - {"jql", "fields", "maxResults", "nextPageToken"}:
            return Answer(
                400, {"errorMessages": ["Invalid request payload. Refer to the REST API documentation and try again."]}
            )
        label = re.search(r'labels = "([^"]+)"', body["jql"])[1]
        found = [each for each in self.issues if label in each["labels"]]
        if "statusCategory != Done" in body["jql"]:
            found = [each for each in found if each["status"] != "Done"]
        at = int(body.get("nextPageToken", 0))
        page = found[at : at + self.PAGE]
        issues = [{"key": each["key"], "fields": {name: each[name] for name in body["fields"]}} for each in page]
        more = {"nextPageToken": str(at + self.PAGE)} if found[at + self.PAGE :] else {"isLast": True}
        return Answer(200, {"issues": issues, **more})

    def _make(self, fields: dict) -> tuple[Answer, str]:
        errors = {}
        if fields["project"] != {"key": PROJECT}:
            errors["project"] = "valid project is required"
        if "\n" in fields["summary"] or not 0 < len(fields["summary"]) <= 255:
            errors["summary"] = "Summary must be less than 255 characters."
        if any(" " in label for label in fields["labels"]):
            errors["labels"] = "The label can't contain spaces."
        if errors:
            return Answer(400, {"errorMessages": [], "errors": errors}), ""
        key = f"{PROJECT}-{len(self.issues) + 1}"
        self.issues.append({**fields, "key": key, "comments": [], "status": self.status})
        return Answer(201, {"id": "10000", "key": key, "self": ""}), f"{key} {fields['summary']}"

    def _comment(self, method: str, issue: dict, body: dict) -> tuple[Answer, str]:
        issue["comments"].append(body["body"])
        return Answer(201, {"id": "10001", "body": body["body"]}), f"{issue['key']} comment"

    def _edit(self, method: str, issue: dict, body: dict) -> tuple[Answer, str]:
        if method != "PUT":
            return Answer(405, {}), ""
        for change in body["update"]["labels"]:
            ((what, label),) = change.items()
            issue["labels"] = [each for each in issue["labels"] if each != label] + [label] * (what == "add")
        return Answer(204, None), f"{issue['key']} edit"

    def _transitions(self, method: str, issue: dict, body: dict) -> tuple[Answer, str]:
        ways = {each["id"]: each for each in WAYS[issue["status"]]}
        if method == "GET":
            return Answer(200, {"expand": "transitions", "transitions": list(ways.values())}), ""
        way = ways.get(body["transition"]["id"])
        if way is None:
            return Answer(
                400, {"errorMessages": ["It seems that you have tried to perform an illegal workflow operation."]}
            ), ""
        issue["status"] = way["to"]["name"]
        return Answer(204, None), f"{issue['key']} {issue['status']}"


class _Smtp(socketserver.StreamRequestHandler):
    """RFC 5321, as far as one letter needs it."""

    of: Services

    def handle(self) -> None:
        self.of.calls.append(("mail", "connect"))
        if illness := self.of.illness("mail", "slow"):
            self.of.released.wait(illness.seconds)
        try:
            self._say("220 mail.regami.test ESMTP")
            recipients = 0
            while line := self.rfile.readline().decode().rstrip("\r\n"):
                word = line[:4].upper()
                if word == "DATA":
                    self._take(recipients)
                elif word == "QUIT":
                    self._say("221 Bye")
                    return
                elif word == "MAIL" and (illness := self.of.illness("mail", "broken", "limited", "refusing")):
                    self._say("550 refused" if illness.kind == "refusing" else "451 try later")
                else:
                    recipients += word == "RCPT"
                    self._say("250 OK")
        except OSError:
            return

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _take(self, recipients: int) -> None:
        self._say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        letter = email.message_from_bytes(b"".join(lines))
        self.of.letters.append(letter)
        self.of.bodies.append(letter.as_string())
        self.of.told.append(("mail", f"{letter['Subject']} to {recipients}"))
        self._say("250 queued")

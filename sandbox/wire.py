# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading an AWS request off the wire, and writing an error in the format that its sender can parse.

The format follows the request, not the service: one service may be spoken to in several protocols (CloudWatch in
query and in JSON).
"""

from __future__ import annotations

import json
import re
import time
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

# What a request is signed as, where boto3's name for the service differs.
_SIGNED_AS = {"monitoring": "cloudwatch", "elasticloadbalancing": "elbv2"}
_SCOPE = re.compile(r"Credential=([^/]+)/\d{8}/([^/]+)/([^/]+)/aws4_request")
# What the collection's clients say of themselves: which playbook asks.
_PLAYBOOK = re.compile(r"\bsre\.runbooks/([\w-]+)")
_READS = re.compile(
    r"(Describe|List|Get|BatchGet|TransactGet|Head|Query$|Scan$|Filter|Lookup|Search|Test|Simulate|AssumeRole|StartQuery|Check)"
)

# kind of fault -> (HTTP status, {protocol: error code}, message); "" is every other protocol.
_FAULTS: dict[str, tuple[int, dict[str, str], str]] = {
    "throttle": (
        400,
        {"ec2": "RequestLimitExceeded", "json": "ThrottlingException", "": "Throttling"},
        "Rate exceeded",
    ),
    "error500": (500, {"ec2": "InternalError", "json": "InternalServerError", "": "InternalFailure"}, "internal error"),
    "denied": (403, {"ec2": "UnauthorizedOperation", "json": "AccessDeniedException", "": "AccessDenied"}, ""),
    "expired-token": (
        403,
        {"ec2": "RequestExpired", "json": "ExpiredTokenException", "": "ExpiredToken"},
        "The security token included in the request is expired",
    ),
}


class ApiError(Exception):
    """An error that the service answers."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Call:
    """One API call: who asks which service in which region to do what."""

    method: str
    target: str  # path and query string as sent
    headers: dict[str, str]  # names in lower case
    body: bytes
    forced_region: str | None = None  # of a regional listener, for a service whose signature names no region
    came: float = field(default_factory=time.time)  # seconds of the epoch
    source: str = ""  # address of who asks

    @cached_property
    def _scope(self) -> tuple[str, str, str]:
        match = _SCOPE.search(self.headers.get("authorization", ""))
        return match.groups() if match else ("", "us-east-1", "")

    @property
    def access_key(self) -> str:
        return self._scope[0]

    @property
    def playbook(self) -> str | None:
        """The playbook that asks; None for anybody else."""
        match = _PLAYBOOK.search(self.headers.get("user-agent", ""))
        return match[1] if match else None

    @property
    def region(self) -> str:
        return self.forced_region or self._scope[1]

    @property
    def service(self) -> str:
        name = self._scope[2].lower()
        # Signed as S3, at an address of its own.
        if name == "s3" and self.path.startswith("/v20180820/"):
            return "s3control"
        return _SIGNED_AS.get(name, name) or "unsigned"

    @cached_property
    def path(self) -> str:
        return urlsplit(self.target).path

    @cached_property
    def params(self) -> dict[str, Any]:
        """The JSON body, or the form's fields (first value of each)."""
        if self.protocol in ("json", "rest-json"):
            return json.loads(self.body or b"{}")
        fields = parse_qs(self.body.decode(errors="replace") or urlsplit(self.target).query, keep_blank_values=True)
        return {name: values[0] for name, values in fields.items()}

    @cached_property
    def protocol(self) -> str:
        if "x-amz-target" in self.headers:
            return "json"
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return "ec2" if self.service == "ec2" else "query"
        return "rest-xml" if self.service in ("route53", "s3", "s3control", "cloudfront") else "rest-json"

    @cached_property
    def action(self) -> str:
        if self.protocol == "json":
            return self.headers["x-amz-target"].rpartition(".")[2]
        if self.protocol in ("query", "ec2"):
            return self.params.get("Action", "")
        return self._rest_action()

    def _rest_action(self) -> str:
        from moto.core.request import Request
        from moto.core.routing import get_service_router

        try:
            router = get_service_router(self.service)
            return router.match(Request.from_primitives(self.method, f"http://aws{self.target}", self.headers))[0].name
        except Exception:  # an unknown service or path: it has no action
            return f"{self.method} {self.path}"

    @property
    def is_change(self) -> bool:
        return not _READS.match(self.action)


def error(call: Call, code: str, message: str, status: int = 400) -> Response:
    request_id = str(uuid.uuid4())
    headers = {"x-amzn-RequestId": request_id}
    if call.protocol in ("json", "rest-json"):
        version = call.headers.get("content-type", "application/json")
        headers |= {"Content-Type": version, "x-amzn-ErrorType": code}
        return Response(status, headers, json.dumps({"__type": code, "message": message}).encode())
    headers["Content-Type"] = "text/xml"
    inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if call.protocol == "ec2":
        body = f"<Response><Errors><Error>{inner}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    elif call.service == "s3":
        body = f"<Error>{inner}<RequestId>{request_id}</RequestId></Error>"
    else:
        sender = "Sender" if status < 500 else "Receiver"
        body = (
            f"<ErrorResponse><Error><Type>{sender}</Type>{inner}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return Response(status, headers, b'<?xml version="1.0" encoding="UTF-8"?>' + body.encode())


def fault(call: Call, kind: str, code: str | None = None) -> Response:
    """The error of an injected fault; `code` replaces the usual one (PriorRequestNotComplete, SlowDown, ...)."""
    status, codes, message = _FAULTS[kind]
    usual = codes.get(call.protocol.removeprefix("rest-"), codes[""])
    if kind == "denied":
        who = "arn:aws:iam::123456789012:user/sandbox"
        action = f"{call.service}:{call.action}"
        message = f"User: {who} is not authorized to perform: {action} because no identity-based policy allows it"
    if kind == "throttle" and call.service == "s3":
        status, usual, message = 503, "SlowDown", "Please reduce your request rate."
    if call.protocol == "json" and status == 403:
        status = 400  # AWS JSON 1.x services answer 400 to these
    return error(call, code or usual, message, status)


def result(call: Call, answer: dict | None) -> Response:
    """A JSON service's answer."""
    content_type = call.headers.get("content-type", "application/json")
    return Response(200, {"Content-Type": content_type}, json.dumps(answer or {}, default=str).encode())

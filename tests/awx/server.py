# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API of the stand-in for AWX, at a port of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.awx.controller import ASSOCIATIONS, TYPES, Controller
from tests.awx.jobs import Job, Workflow
from tests.awx.rules import BadRequest, check_survey

TOKEN = "a-token-of-the-tests"


def shown_job(job: Job) -> dict[str, Any]:
    kind = "workflow_approvals" if job.type == "workflow_approval" else "jobs"
    at = f"/api/v2/{kind}/{job.number}/"
    over = {"failed": job.status == "failed", "finished": job.is_over, "event_processing_finished": job.is_over}
    return (
        {"id": job.number, "type": job.type, "url": at, "name": job.name, "status": job.status, "related": {}}
        | over
        | {
            "extra_vars": json.dumps(job.extra_vars),
            "job_type": job.job_type,
            "artifacts": job.artifacts,
        }
    )


def shown_workflow(workflow: Workflow) -> dict[str, Any]:
    is_over = workflow.status != "running"
    return {
        "id": workflow.number,
        "type": "workflow_job",
        "url": f"/api/v2/workflow_jobs/{workflow.number}/",
        "status": workflow.status,
        "failed": workflow.status == "failed",
        "finished": is_over,
        "extra_vars": json.dumps(workflow.extra_vars),
    }


def shown_nodes(workflow: Workflow, name: str | None) -> Iterator[dict[str, Any]]:
    for number, job in workflow.jobs.items():
        if name in (None, job.name):
            yield {"id": number, "related": {"job": shown_job(job)["url"]}}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PATCH = do_DELETE = do_GET

    def _answer(self) -> None:
        url = urlsplit(self.path)
        sent = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(HTTPStatus.UNAUTHORIZED, {"detail": "Authentication credentials were not provided."})
        path = url.path.removeprefix("/api/v2/").strip("/").split("/")
        with self.server.lock:
            if self.command != "GET":
                self.server.controller.changes.append(f"{self.command} {url.path}")
            try:
                return self._send(*self._do(path, dict(parse_qsl(url.query)), sent))
            except BadRequest as refused:
                return self._send(HTTPStatus.BAD_REQUEST, refused.args[0])
            except (KeyError, IndexError):
                return self._send(HTTPStatus.NOT_FOUND, {"detail": "Not found."})

    def _do(self, path: list[str], query: dict[str, str], sent: dict[str, Any]) -> tuple[int, Any]:
        there, verb = self.server.controller, self.command
        match verb, path:
            case "GET", ["jobs" | "workflow_approvals", number]:
                return 200, shown_job(there.jobs[int(number)])
            case "GET", ["workflow_jobs", number]:
                return 200, shown_workflow(there.workflows[int(number)])
            case "GET", ["workflow_jobs", number, "workflow_nodes"]:
                nodes = list(shown_nodes(there.workflows[int(number)], query.get("job__name")))
                return 200, {"count": len(nodes), "next": None, "results": nodes}
            case "POST", ["workflow_approvals", number, "approve" | "deny" as decision]:
                there.decide(int(number), decision == "approve")
                return 204, None
            # Updates are over at once, and successful.
            case "POST", ["projects" | "inventory_sources" as kind, number, "update"]:
                if kind == "projects":
                    there.fetch(int(number))
                return 202, {"id": int(number), "status": "pending", "url": f"/api/v2/{kind}/{number}/last_update/"}
            case "GET", [kind, number, "last_update"]:
                revision = there.objects[kind][int(number)].get("scm_revision")
                return 200, {"finished": True, "failed": False, "status": "successful", "scm_revision": revision}
            case "POST", ["job_templates" | "workflow_job_templates" as kind, number, "launch"]:
                launched = there.launch(kind, int(number), sent)
                return 201, shown_job(launched) if isinstance(launched, Job) else shown_workflow(launched)
        return self._do_object(path, query, sent)

    def _do_object(self, path: list[str], query: dict[str, str], sent: dict[str, Any]) -> tuple[int, Any]:
        there, verb = self.server.controller, self.command
        match verb, path:
            case "GET", [kind]:
                found = list(there.listed(kind, query))
                return 200, {"count": len(found), "next": None, "results": found}
            case "GET", [kind, number]:
                return 200, there.shown(kind, int(number))
            case "POST", [kind]:
                return 201, there.shown(kind, there.create(kind, sent)["id"])
            case "PATCH", [kind, number]:
                there.update(kind, int(number), sent)
                return 200, there.shown(kind, int(number))
            case "GET", [_, number, "survey_spec"]:
                return 200, there.surveys.get(int(number), {})
            case "POST", [_, number, "survey_spec"]:
                check_survey(sent)
                there.surveys[int(number)] = sent
                return 200, {}
            case "POST", ["workflow_job_template_nodes", number, "create_approval_template"]:
                made = there.create("workflow_approval_templates", sent)
                there.objects["workflow_job_template_nodes"][int(number)]["unified_job_template"] = made["id"]
                return 201, there.shown("workflow_approval_templates", made["id"])
            case _, [kind, number, of] if (
                of in ASSOCIATIONS
                and int(number) in there.objects[kind]
                and TYPES[kind] != "workflow_approval_template"
            ):
                linked = there.links.setdefault((kind, int(number), of), [])
                if verb == "GET":
                    return 200, {"count": len(linked), "next": None, "results": [{"id": each} for each in linked]}
                there.link(kind, int(number), of, sent["id"])
                return 204, None
        raise KeyError(path)

    def _send(self, status: int, body: Any) -> None:
        text = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-API-Product-Name", "AWX")
        self.send_header("X-API-Product-Version", "24.6.1")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_args: Any) -> None:
        """Nobody reads it."""


class Server(ThreadingHTTPServer):
    """The controller at a port of its own."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.controller, self.lock = Controller(), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

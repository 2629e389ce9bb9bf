# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the API of AWX 24.6.1, as far as awx.awx 24.6.1 asks it to set the runbooks up and to launch a job template.

Its rules are those of AWX's own source: awx/api/views (`_validate_spec_data` of surveys, associations, approval nodes), awx/api/fields.py
(null stands for an empty text), awx/api/serializers.py (rules of schedules, prompts that a template does not ask for) and
awx/main/models/mixins.py (answers to surveys). Fields that it does not know are left out, as AWX does; so what a module sends and never
gets back shows as a change here, too.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

TOKEN = "a-token-of-the-tests"

# Fields of each kind of object with their defaults; a text that is null becomes empty.
_TEMPLATE = {"name": "", "description": "", "organization": None, "extra_vars": "---", "survey_enabled": False}
_TEMPLATE |= {"limit": "", "allow_simultaneous": False, "ask_limit_on_launch": False, "ask_variables_on_launch": False}
_PROMPTS = {"job_type": None, "inventory": None, "extra_data": {}, "limit": None}
FIELDS: dict[str, dict[str, Any]] = {
    "organizations": {"name": "", "description": ""},
    "execution_environments": {"name": "", "description": "", "image": "", "pull": "", "organization": None},
    "credential_types": {"name": "", "description": "", "kind": "", "inputs": {}, "injectors": {}, "managed": False},
    "credentials": {"name": "", "description": "", "organization": None, "credential_type": None, "inputs": {}},
    "projects": {"name": "", "description": "", "organization": None, "scm_type": "", "scm_url": "", "scm_branch": ""}
    | {"scm_update_on_launch": False, "default_environment": None, "scm_revision": ""},
    "inventories": {"name": "", "description": "", "organization": None, "kind": "", "host_filter": None},
    "inventory_sources": {"name": "", "description": "", "inventory": None, "source": "", "source_project": None}
    | {"source_path": "", "overwrite": False, "overwrite_vars": False, "update_on_launch": False},
    "job_templates": _TEMPLATE
    | {"project": None, "playbook": "", "inventory": None, "execution_environment": None, "job_type": "run"}
    | {"job_tags": "", "diff_mode": False, "ask_job_type_on_launch": False},
    "workflow_job_templates": dict(_TEMPLATE),
    "workflow_job_template_nodes": {
        "identifier": "",
        "workflow_job_template": None,
        "unified_job_template": None,
        **_PROMPTS,
    },
    "workflow_approval_templates": {"name": "", "description": "", "timeout": 0},
    "schedules": {
        "name": "",
        "description": "",
        "unified_job_template": None,
        "rrule": "",
        "enabled": True,
        **_PROMPTS,
    },
}
# One table of AWX with a number for each object.
UNIFIED = ("projects", "inventory_sources", "job_templates", "workflow_job_templates", "workflow_approval_templates")
TYPES = {kind: kind.removesuffix("s").replace("inventorie", "inventory") for kind in FIELDS}
ASSOCIATIONS = {"credentials", "success_nodes"}
QUESTIONS = {"text": str, "textarea": str, "multiplechoice": str, "multiselect": str, "integer": int, "float": float}


class BadRequest(Exception):
    """Carries the answer of status 400."""


class Controller:
    """Its objects by kind and number. `changes` counts what was asked to change."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in FIELDS}
        self.surveys: dict[int, dict[str, Any]] = {}
        self.links: dict[tuple[str, int, str], list[int]] = {}
        self.changes: list[str] = []
        self._next = 1

    def named(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = (each for each in self.objects[kind].values() if name in (each.get("name"), each.get("identifier")))
        return found

    def create(self, kind: str, sent: dict[str, Any]) -> dict[str, Any]:
        number, self._next = self._next, self._next + 1
        self.objects[kind][number] = {"id": number, "type": TYPES[kind], "url": f"/api/v2/{kind}/{number}/"}
        return self.update(kind, number, FIELDS[kind] | sent)

    def update(self, kind: str, number: int, sent: dict[str, Any]) -> dict[str, Any]:
        there = self.objects[kind][number]
        fresh = there | {
            name: "" if sent[name] is None and isinstance(FIELDS[kind][name], str) else sent[name]
            for name in FIELDS[kind]
            if name in sent
        }
        if kind == "job_templates" and fresh["project"]:  # read-only, it is that of the project
            fresh["organization"] = self.objects["projects"][fresh["project"]]["organization"]
        self._check(kind, fresh)
        self.objects[kind][number] = fresh
        return fresh

    def _check(self, kind: str, fresh: dict[str, Any]) -> None:
        if kind == "schedules":
            check_rrule(fresh["rrule"])
        if kind == "job_templates" and not fresh["playbook"].endswith(".yml"):
            raise BadRequest({"playbook": ["Playbook not found for project."]})
        template = self.objects["job_templates"].get(fresh.get("unified_job_template"))
        if kind in ("schedules", "workflow_job_template_nodes") and template:
            if fresh["job_type"] and not template["ask_job_type_on_launch"]:
                raise BadRequest({"job_type": ["Field is not configured to prompt on launch."]})
            self.judge(template, fresh["extra_data"], required=kind == "schedules")

    def judge(self, template: dict[str, Any], answers: dict[str, Any], required: bool = True) -> None:
        """Raises BadRequest for answers that the survey does not take, and for variables that are not asked for."""
        questions = self.surveys.get(template["id"], {}).get("spec", []) if template["survey_enabled"] else []
        faults = [fault for each in questions for fault in judged(each, answers, required)]
        if faults:
            raise BadRequest({"variables_needed_to_start": faults})
        strange = set(answers) - {each["variable"] for each in questions}
        if strange and not template["ask_variables_on_launch"]:
            raise BadRequest({"extra_vars": [f"Variables {', '.join(strange)} are not allowed on launch."]})

    def shown(self, kind: str, number: int) -> dict[str, Any]:
        """As a GET has it: secrets hidden, and where to find what belongs to it."""
        there, at = self.objects[kind][number], f"/api/v2/{kind}/{number}/"
        related = {"survey_spec": f"{at}survey_spec/"}
        if kind == "workflow_job_template_nodes" and (template := there["unified_job_template"]):
            of = next(each for each in UNIFIED if template in self.objects[each])
            related["unified_job_template"] = f"/api/v2/{of}/{template}/"
        if kind == "credentials":
            there = there | {"inputs": dict.fromkeys(there["inputs"], "$encrypted$")}
        return there | {"related": related, "summary_fields": {}}

    def listed(self, kind: str, wanted: dict[str, str]) -> Iterator[dict[str, Any]]:
        for of in UNIFIED if kind == "unified_job_templates" else (kind,):
            for number, there in self.objects[of].items():
                if all(str(there.get(name)) == value for name, value in wanted.items()):
                    yield self.shown(of, number)


def judged(question: dict[str, Any], answers: dict[str, Any], required: bool) -> Iterator[str]:
    name, kind = question["variable"], question["type"]
    if name not in answers:
        if question["required"] and required:
            yield f"'{name}' value missing"
        return
    value = answers[name]
    python = {"integer": int, "float": float | int, "multiselect": list}.get(kind, str)
    if not isinstance(value, python) or isinstance(value, bool):
        yield f"Value {value} for '{name}' expected to be of type {kind}."
    elif kind in ("multiplechoice", "multiselect"):
        for one in value if kind == "multiselect" else [value]:
            if one not in question["choices"]:
                yield f"Value {one} for '{name}' expected to be one of {question['choices']}."


def check_survey(spec: dict[str, Any]) -> None:
    """Raises BadRequest for a survey that AWX does not take."""
    for field, kind in (("name", str), ("description", str), ("spec", list)):
        if not isinstance(spec.get(field), kind):
            raise BadRequest({"error": f"Field '{field}' is missing from survey spec, or of another type."})
    if not spec["spec"]:
        raise BadRequest({"error": "'spec' doesn't contain any items."})
    seen = set()
    for number, question in enumerate(spec["spec"]):
        for field, kind in (("type", str), ("question_name", str), ("variable", str), ("required", bool)):
            if not isinstance(question.get(field), kind):
                raise BadRequest({"error": f"'{field}' missing from survey question {number}, or of another type."})
        if question["variable"] in seen:
            raise BadRequest({"error": f"'variable' '{question['variable']}' duplicated in survey question {number}."})
        seen.add(question["variable"])
        check_question(number, question)


def check_question(number: int, question: dict[str, Any]) -> None:
    if question["type"] not in QUESTIONS:
        raise BadRequest({"error": f"'{question['type']}' in survey question {number} is no type for the runbooks."})
    default = question.get("default", "")
    if default != "" and (not isinstance(default, QUESTIONS[question["type"]]) or isinstance(default, bool)):
        raise BadRequest(
            {"error": f"Default value {default} in survey question {number} expected to be {question['type']}."}
        )
    if question["type"] in ("multiplechoice", "multiselect"):
        if "choices" not in question:
            raise BadRequest({"error": f"Survey question {number} must specify choices."})
        if isinstance(
            question["choices"], str
        ):  # blank lines are taken out, so it is read back otherwise than it was sent
            question["choices"] = "\n".join(line for line in question["choices"].splitlines() if line.strip())
        if any(line not in question["choices"] for line in default.splitlines()):
            raise BadRequest({"error": "Default choice must be answered from the choices listed."})


def check_rrule(rule: str) -> None:
    faults = {
        "Valid DTSTART required in rrule.": not re.match(r"DTSTART(:\d{8}T\d{6}Z|;TZID=\S+?:\d{8}T\d{6}) ", rule),
        "One or more rule required in rrule.": "RRULE:" not in rule,
        "INTERVAL required in rrule": "INTERVAL=" not in rule,
        "SECONDLY is not supported": "SECONDLY" in rule,
        "BYDAY with numeric prefix not supported": re.search(r"BYDAY=\d", rule),
    }
    if found := [fault for fault, there in faults.items() if there]:
        raise BadRequest({"rrule": found})


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
            case "GET", [kind]:
                found = list(there.listed(kind, query))
                return 200, {"count": len(found), "next": None, "results": found}
            case "POST", [kind]:
                return 201, there.shown(kind, there.create(kind, sent)["id"])
            case "GET", [kind, number]:
                return 200, there.shown(kind, int(number))
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
            case "POST", ["job_templates" | "workflow_job_templates" as kind, number, "launch"]:
                there.judge(there.objects[kind][int(number)], sent.get("extra_vars", {}))
                return 201, {"job": 1}
            case _, [kind, number, of] if (
                of in ASSOCIATIONS
                and int(number) in there.objects[kind]
                and TYPES[kind] != "workflow_approval_template"
            ):
                linked = there.links.setdefault((kind, int(number), of), [])
                if verb == "GET":
                    return 200, {"count": len(linked), "next": None, "results": [{"id": each} for each in linked]}
                linked.append(sent["id"])
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

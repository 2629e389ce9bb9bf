# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for AWX 24.6.1, as far as awx.awx 24.6.1 asks its API to set the runbooks up and to launch what was set up.

What it takes and refuses is in rules.py, what becomes of a launch in jobs.py, its API in server.py. Its objects behave by AWX's own source: awx/api/views
(associations, approval nodes, launches), awx/api/fields.py (null stands for an empty text), awx/api/serializers.py (names, playbooks,
prompts that a template does not ask for). Fields that it does not know are left out, as AWX does; so what a module sends and never
gets back shows as a change here, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.awx.jobs import LINKS, PROMPTS, Job, Workflow, job_of, told
from tests.awx.rules import (
    BadRequest,
    check_credential_type,
    check_rrule,
    faults_of_answers,
    playbooks,
    with_defaults,
)

ROOT = Path(__file__).parents[2]
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
    | {"scm_update_on_launch": False, "default_environment": None, "scm_revision": "", "timeout": 0},
    "inventories": {"name": "", "description": "", "organization": None, "kind": "", "host_filter": None},
    "inventory_sources": {"name": "", "description": "", "inventory": None, "source": "", "source_project": None}
    | {"source_path": "", "overwrite": False, "overwrite_vars": False, "update_on_launch": False}
    | {"execution_environment": None},
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
ASSOCIATIONS = {"credentials", *LINKS}
# What AWX calls its own when it is new.
MANAGED = {"Amazon Web Services": "cloud", "OpenShift or Kubernetes API Bearer Token": "kubernetes"}


def done(_job: Job) -> tuple[bool, dict[str, Any]]:
    """A job that succeeds and leaves nothing."""
    return True, {}


class Controller:
    """Its objects by kind and number. `changes` counts what was asked to change; `run` carries a job out: (success, artifacts)."""

    def __init__(self, run: Callable[[Job], tuple[bool, dict[str, Any]]] = done) -> None:
        self.objects: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in FIELDS}
        self.surveys: dict[int, dict[str, Any]] = {}
        self.links: dict[tuple[str, int, str], list[int]] = {}
        self.changes: list[str] = []
        self.run = run
        self.jobs: dict[int, Job] = {}
        self.workflows: dict[int, Workflow] = {}
        # What a project is fetched from, as it is now.
        self.revision = "1"
        self._playbooks = playbooks(ROOT)
        self._next = 1
        for name, kind in MANAGED.items():
            self.create("credential_types", {"name": name, "kind": kind, "managed": True})

    def named(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = (each for each in self.objects[kind].values() if name in (each.get("name"), each.get("identifier")))
        return found

    def create(self, kind: str, sent: dict[str, Any]) -> dict[str, Any]:
        number = self._number()
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
        self._check(kind, number, fresh)
        self.objects[kind][number] = fresh
        return fresh

    def _check(self, kind: str, number: int, fresh: dict[str, Any]) -> None:
        one_of = {
            "workflow_job_template_nodes": ("workflow_job_template", "identifier"),
            "inventory_sources": ("inventory", "name"),
            "schedules": ("unified_job_template", "name"),
            "workflow_approval_templates": ("id",),
        }.get(kind, ("organization", "name"))
        for other, there in self.objects[kind].items():
            if other != number and all(there.get(each) == fresh.get(each) for each in one_of):
                raise BadRequest({"__all__": [f"{kind} with this {' and '.join(one_of)} already exists."]})
        if "name" in fresh and not 0 < len(fresh["name"]) <= 512:
            raise BadRequest({"name": ["This field may not be blank, nor have more than 512 characters."]})
        match kind:
            case "schedules":
                check_rrule(fresh["rrule"])
            case "credential_types" if not fresh["managed"]:
                check_credential_type(fresh["kind"], fresh["inputs"], fresh["injectors"])
            case "credentials":
                self._check_credential(fresh)
            case "job_templates":
                self._check_job_template(fresh)
            case "inventory_sources" if fresh["source"] != "scm" and (fresh["source_project"] or fresh["source_path"]):
                raise BadRequest({"detail": "Cannot set source_path if not SCM type."})
            case "workflow_approval_templates" if fresh["timeout"] < 0:
                raise BadRequest({"timeout": ["Ensure this value is greater than or equal to 0."]})
        template = self.objects["job_templates"].get(fresh.get("unified_job_template"))
        if kind in ("schedules", "workflow_job_template_nodes") and template:
            if refused := [name for name, ask in PROMPTS.items() if fresh[name] and not template[ask]]:
                raise BadRequest({name: ["Field is not configured to prompt on launch."] for name in refused})
            self.judge(template, fresh["extra_data"], required=kind == "schedules")

    def _check_credential(self, fresh: dict[str, Any]) -> None:
        of = self.objects["credential_types"][fresh["credential_type"]]
        known = {each["id"] for each in of["inputs"].get("fields", [])}
        if strange := set(fresh["inputs"]) - known:
            raise BadRequest({"inputs": [f"Additional properties are not allowed ({', '.join(strange)})"]})

    def _check_job_template(self, fresh: dict[str, Any]) -> None:
        if not fresh["project"]:
            raise BadRequest({"project": ["This field is required."]})
        if fresh["playbook"] not in self._playbooks:
            raise BadRequest({"playbook": ["Playbook not found for project."]})
        if not fresh["inventory"]:
            raise BadRequest({"inventory": ["Must either set a default value or ask to prompt on launch."]})

    def judge(self, template: dict[str, Any], answers: dict[str, Any], required: bool = True) -> None:
        """Raises BadRequest for answers that the survey does not take, and for variables that are not asked for."""
        questions = self.questions(template)
        if faults := faults_of_answers(questions, answers, required):
            raise BadRequest({"variables_needed_to_start": faults})
        strange = set(answers) - {each["variable"] for each in questions}
        if strange and not template["ask_variables_on_launch"]:
            raise BadRequest({"extra_vars": [f"Variables {', '.join(strange)} are not allowed on launch."]})

    def questions(self, template: dict[str, Any]) -> list[dict[str, Any]]:
        return self.surveys.get(template["id"], {}).get("spec", []) if template.get("survey_enabled") else []

    def link(self, kind: str, number: int, by: str, other: int) -> None:
        """Raises BadRequest for what may not belong together."""
        linked = self.links.setdefault((kind, number, by), [])
        if by == "credentials":
            types = [self.objects["credentials"][each]["credential_type"] for each in linked]
            if self.objects["credentials"][other]["credential_type"] in types:
                raise BadRequest({"error": "Cannot assign multiple credentials of one type."})
        else:
            nodes = self.objects[kind]
            if nodes[number]["workflow_job_template"] != nodes[other]["workflow_job_template"]:
                raise BadRequest({"error": "Nodes of different workflows."})
            if number in self._after(other) or any(other in self.links.get((kind, number, each), []) for each in LINKS):
                raise BadRequest({"error": "Cycle detected, or relationship not allowed."})
        linked.append(other)

    def _after(self, node: int) -> set[int]:
        children = [each for by in LINKS for each in self.links.get(("workflow_job_template_nodes", node, by), [])]
        return {node}.union(*map(self._after, children))

    def launch(self, kind: str, number: int, sent: dict[str, Any]) -> Job | Workflow:
        """Raises BadRequest for what the survey does not take. A job is over when this returns, a workflow waits for whoever approves."""
        template, said = self.objects[kind][number], sent.get("extra_vars", {})
        # A job template leaves out what it does not ask for, a workflow refuses it.
        spec = self.questions(template)
        asked = {name: value for name, value in said.items() if name in {each["variable"] for each in spec}}
        self.judge(template, asked if kind == "job_templates" else said)
        if kind == "job_templates":
            return self._start(job_of(self._number(), template, spec, said, sent))
        workflow = self.workflows[self._next] = self._workflow(
            template, with_defaults(spec, said), sent.get("limit", "")
        )
        self._advance(workflow)
        return workflow

    def _workflow(self, template: dict[str, Any], variables: dict[str, Any], limit: str) -> Workflow:
        of = self.objects["workflow_job_template_nodes"]
        nodes = {number: node for number, node in of.items() if node["workflow_job_template"] == template["id"]}
        links = {
            node: {by: self.links.get(("workflow_job_template_nodes", node, by), []) for by in LINKS} for node in nodes
        }
        return Workflow(self._number(), template["name"], variables, limit, nodes, links)

    def fetch(self, project: int) -> None:
        self.objects["projects"][project]["scm_revision"] = self.revision

    def decide(self, approval: int, approved: bool) -> None:
        """Raises BadRequest where somebody was faster."""
        job = self.jobs[approval]
        if job.status != "pending":
            raise BadRequest({"error": "This workflow step has already been approved or denied."})
        job.status = "successful" if approved else "failed"
        self._advance(next(each for each in self.workflows.values() if job in each.jobs.values()))

    def _advance(self, workflow: Workflow) -> None:
        while ready := workflow.ready():
            for number in ready:
                workflow.jobs[number] = self._of_node(workflow, number)

    def _of_node(self, workflow: Workflow, number: int) -> Job:
        node = workflow.nodes[number]
        template = self.objects["job_templates"].get(node["unified_job_template"])
        if template is None:
            approval = self.objects["workflow_approval_templates"][node["unified_job_template"]]
            return self._note(Job(self._number(), approval["name"], "workflow_approval", "pending"))
        spec = self.questions(template)
        said = told(node, spec, workflow.left_by_those_before(number), workflow.extra_vars)
        prompts = {"job_type": node["job_type"], "limit": workflow.limit or node["limit"]}
        return self._start(job_of(self._number(), template, spec, said, prompts))

    def _start(self, job: Job) -> Job:
        succeeded, job.artifacts = self.run(self._note(job))
        job.status = "successful" if succeeded else "failed"
        return job

    def _note(self, job: Job) -> Job:
        self.jobs[job.number] = job
        return job

    def _number(self) -> int:
        number, self._next = self._next, self._next + 1
        return number

    def shown(self, kind: str, number: int) -> dict[str, Any]:
        """As a GET has it: secrets hidden, and where to find what belongs to it."""
        there, at = self.objects[kind][number], f"/api/v2/{kind}/{number}/"
        related = {each: f"{at}{each}/" for each in ("survey_spec", "launch", "update")}
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

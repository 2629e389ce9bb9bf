# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX 24.6.1 makes of a launch: the extra variables of a job, and in which order the nodes of a workflow run.

By its source: `WorkflowJobNode.get_job_kwargs` (awx/main/models/workflow.py) for what a node's job is told, awx/main/scheduler/dag_workflow.py
for which node is next, `WorkflowApproval` for what a decision is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.awx.rules import faults_of_answers, with_defaults

# Prompts of a launch, and the field of the template that allows each.
PROMPTS = {"job_type": "ask_job_type_on_launch", "limit": "ask_limit_on_launch"}
LINKS = ("success_nodes", "failure_nodes", "always_nodes")


@dataclass
class Job:
    """A job of a template, or an approval, which is one without a playbook."""

    number: int
    name: str
    type: str
    status: str
    extra_vars: dict[str, Any] = field(default_factory=dict)
    job_type: str = "run"
    limit: str = ""
    tags: str = ""
    playbook: str = ""
    artifacts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return self.status in ("successful", "failed")


def job_of(
    number: int, template: dict[str, Any], spec: list[dict[str, Any]], said: dict[str, Any], prompts: dict[str, Any]
) -> Job:
    """The job of a template: what it does not prompt for is not taken from whoever launches it."""
    taken = {name: prompts[name] for name, ask in PROMPTS.items() if prompts.get(name) and template[ask]}
    variables = (
        said
        if template["ask_variables_on_launch"]
        else {each["variable"]: said[each["variable"]] for each in spec if each["variable"] in said}
    )
    return Job(
        number,
        template["name"],
        "job",
        "pending",
        with_defaults(spec, variables),
        taken.get("job_type", template["job_type"]),
        taken.get("limit", ""),
        template["job_tags"],
        template["playbook"],
    )


def told(
    node: dict[str, Any], spec: list[dict[str, Any]], artifacts: dict[str, Any], of_workflow: dict[str, Any]
) -> dict[str, Any]:
    """What a node's job is told: its own, over that what earlier jobs left, over that what the workflow was told."""
    wrong = {
        name
        for name in node["extra_data"]
        if faults_of_answers([each for each in spec if each["variable"] == name], node["extra_data"])
    }
    own = {name: value for name, value in node["extra_data"].items() if name not in wrong}
    return own | artifacts | of_workflow


@dataclass
class Workflow:
    """A workflow that runs: its nodes by number, the job of each that has one, and those that will never have one."""

    number: int
    name: str
    extra_vars: dict[str, Any]
    limit: str
    nodes: dict[int, dict[str, Any]]
    links: dict[int, dict[str, list[int]]]
    jobs: dict[int, Job] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)

    def ready(self) -> list[int]:
        """The nodes whose time has come; those whose time will not come are skipped from now on."""
        found = []
        for node in self.nodes:
            parents = [each for each in self.nodes if any(node in self.links[each][link] for link in LINKS)]
            if node in self.jobs or node in self.skipped or not all(map(self._is_decided, parents)):
                continue
            if not parents or any(self._leads(parent, node) for parent in parents):
                found.append(node)
            else:
                self.skipped.add(node)
                return self.ready()
        return found

    def _is_decided(self, node: int) -> bool:
        return node in self.skipped or (node in self.jobs and self.jobs[node].is_over)

    def _leads(self, parent: int, node: int) -> bool:
        if parent in self.skipped:
            return False
        by = "success_nodes" if self.jobs[parent].status == "successful" else "failure_nodes"
        return node in self.links[parent][by] + self.links[parent]["always_nodes"]

    def left_by_those_before(self, node: int) -> dict[str, Any]:
        """The artifacts of all jobs on the ways that lead here."""
        left: dict[str, Any] = {}
        for parent in self.nodes:
            if any(node in self.links[parent][link] for link in LINKS):
                left |= self.left_by_those_before(parent)
                if parent in self.jobs:
                    left |= self.jobs[parent].artifacts
        return left

    @property
    def status(self) -> str:
        if not all(map(self._is_decided, self.nodes)):
            return "running"
        unhandled = [
            node
            for node, job in self.jobs.items()
            if job.status == "failed" and not self.links[node]["failure_nodes"] + self.links[node]["always_nodes"]
        ]
        return "failed" if unhandled else "successful"

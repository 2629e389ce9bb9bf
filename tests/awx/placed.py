# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What awx_setup.yml puts there, put there at once. That both are the same is shown by the test that types the set-up."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import yaml

from tests.awx.controller import Controller
from tests.awx.rules import check_survey

ROOT = Path(__file__).parents[2]


def read(name: str) -> list[dict[str, Any]]:
    # `!unsafe` keeps ansible from rendering what AWX is to render; it is a text like others.
    text = (ROOT / "awx" / name).read_text().replace("!unsafe ", "")
    (items,) = yaml.safe_load(text).values()
    return items


TEMPLATES = {each["name"]: each for each in read("job_templates.yml")}
WORKFLOWS = {each["name"]: each for each in read("workflows.yml")}
ASKED = dict.fromkeys(("ask_limit_on_launch", "ask_variables_on_launch", "survey_enabled", "allow_simultaneous"), True)


def job_template(there: Controller, template: dict[str, Any]) -> dict[str, Any]:
    """Raises BadRequest for what AWX does not take."""
    made = there.create(
        "job_templates",
        {name: template[name] for name in ("name", "description", "playbook", "job_tags")}
        | ASKED
        | {"ask_job_type_on_launch": True, "diff_mode": True}
        | {"project": _one(there, "projects", scm_type="git"), "inventory": _one(there, "inventories")}
        | {"execution_environment": _one(there, "execution_environments")},
    )
    check_survey(template["survey"])
    there.surveys[made["id"]] = copy.deepcopy(template["survey"])
    return made


def workflow(there: Controller, of: dict[str, Any]) -> dict[str, Any]:
    """With the job template that it runs. Raises BadRequest for what AWX does not take."""
    template = job_template(there, TEMPLATES[of["template"]])["id"]
    made = there.create(
        "workflow_job_templates", {"name": of["name"], "description": of["description"], "organization": 1} | ASKED
    )
    check_survey(of["survey"])
    there.surveys[made["id"]] = copy.deepcopy(of["survey"])
    approval = there.create("workflow_approval_templates", of["approval"])["id"]
    nodes = [
        there.create("workflow_job_template_nodes", {"workflow_job_template": made["id"]} | node)["id"]
        for node in (
            {"identifier": "plan", "unified_job_template": template, "job_type": "check"},
            {"identifier": "approval", "unified_job_template": approval},
            {
                "identifier": "run",
                "unified_job_template": template,
                "job_type": "run",
                "extra_data": {"confirm": "true"},
            },
        )
    ]
    for before, after in itertools.pairwise(nodes):
        there.link("workflow_job_template_nodes", before, "success_nodes", after)
    return made


def _one(there: Controller, kind: str, **fields: Any) -> int:
    return (
        next(iter(there.objects[kind]), None)
        or there.create(kind, {"name": "sre.runbooks", "organization": 1} | fields)["id"]
    )

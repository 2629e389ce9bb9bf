# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Job templates and workflows from the argument specs of the playbooks, what the inventories are and which secrets they need, schedules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from awx.survey import survey

# It lives on the machine of one engineer, where no AWX can see it.
NOT_FOR_AWX = "sandbox"
# Seconds after which a plan that nobody has looked at is no longer approved: the world has moved on.
APPROVAL_TIMEOUT = 3600
# What is asked of prod regularly; times in UTC, rules as AWX takes them: no BYDAY with a number in front.
REGULARLY = (
    {
        "name": "Is prod as it should be",
        "template": "recovery_validation",
        "rrule": "DTSTART:20260105T060000Z RRULE:FREQ=DAILY;INTERVAL=1",
        "extra_data": {"env": "prod"},
    },
    {
        # What would refuse in an incident says so on a quiet morning.
        "name": "What would refuse in prod",
        "template": "readiness",
        "rrule": "DTSTART:20260105T063000Z RRULE:FREQ=DAILY;INTERVAL=1",
        "extra_data": {"env": "prod"},
    },
)


class Template(str):
    """A template that AWX renders, and ansible must not when it reads the file."""


def job_templates(root: Path) -> list[dict[str, Any]]:
    """One for each playbook with hosts of the inventory, and one for each further tag of its play, its way back."""
    return [template for playbook in _playbooks(root) for template in _of_playbook(root, playbook)]


def workflows(root: Path) -> list[dict[str, Any]]:
    """Plan, approval, run: for each playbook whose spec says that it does what cannot be taken back.

    The person who approves has confirmed production, so the survey does not ask that.
    """
    return [
        {
            "name": f"{playbook.stem} after approval",
            "description": spec["short_description"],
            "template": playbook.stem,
            "survey": survey({name: each for name, each in _options(root, playbook).items() if name != "confirm"}),
            "approval": {
                "name": f"Go on with {playbook.stem}?",
                "description": f"It {spec['irreversible']}. Read the plan in the job before this.",
                "timeout": APPROVAL_TIMEOUT,
            },
        }
        for playbook in _playbooks(root)
        if "irreversible" in (spec := _spec(playbook))
    ]


def credential_types(root: Path) -> list[dict[str, Any]]:
    """One type for what the inventories look up in the environment, those that a comment shows included: secrets, all of them; and one
    for what is a file."""
    texts = (
        path.read_text(encoding="utf-8") for each in _inventories(root) for path in sorted(each.glob("*_vars/*.yml"))
    )
    names = sorted({name for text in texts for name in re.findall(r"builtin\.env', '(\w+)'", text)})
    return [
        {
            "name": "sre.runbooks",
            "kind": "cloud",
            "description": "Secrets that the inventories of the runbooks look up in the environment.",
            "inputs": {
                "fields": [
                    {"id": name.lower(), "label": name.replace("_", " ").capitalize(), "type": "string", "secret": True}
                    for name in names
                ]
            },
            "injectors": {"env": {name: Template(f"{{{{ {name.lower()} }}}}") for name in names}},
        },
        {
            # AWX's own type for clusters knows one of them; a service and its peer may run in two.
            "name": "sre.runbooks clusters",
            "kind": "cloud",
            "description": "A kubeconfig with a context for each cluster that kubernetes_context of the inventories names.",
            "inputs": {
                "fields": [
                    {"id": "kubeconfig", "label": "Kubeconfig", "type": "string", "secret": True, "multiline": True}
                ],
                "required": ["kubeconfig"],
            },
            "injectors": {
                "file": {"template": Template("{{ kubeconfig }}")},
                "env": {"KUBECONFIG": Template("{{ tower.filename }}")},
            },
        },
    ]


def inventories(root: Path) -> list[dict[str, str]]:
    """The sources of the one inventory, each an environment of the repository."""
    return [{"name": each.name, "path": str((each / "hosts.yml").relative_to(root))} for each in _inventories(root)]


def schedules() -> list[dict[str, Any]]:
    """What is asked of prod regularly. No drill: somebody has to consent to each, see drills/schedule.yml for when they are due."""
    return list(REGULARLY)


def _of_playbook(root: Path, playbook: Path) -> Iterator[dict[str, Any]]:
    play = yaml.safe_load(playbook.read_text(encoding="utf-8"))[0]
    spec, asked = _spec(playbook), survey(_options(root, playbook))
    for tag in ["", *play.get("tags", [])[1:]]:
        yield {
            "name": f"{playbook.stem} {tag}".strip(),
            "description": spec["short_description"],
            "playbook": f"playbooks/{playbook.name}",
            "job_tags": tag,
            "survey": asked,
        }


def _options(root: Path, playbook: Path) -> dict[str, Any]:
    """What the survey asks. What is said to tasks of other playbooks is left to the variables at launch: rare, and much."""
    spec, shared = _spec(playbook), _specs(root / "playbooks/shared.meta.yml")
    of_all = {name: option for part in spec["shared"] for name, option in shared[part]["options"].items()}
    return {"env": of_all.pop("env") | {"choices": environments(root)}} | spec["options"] | of_all


def environments(root: Path) -> list[str]:
    """The groups of the inventories that are environments, as the filter `environment` has it."""
    hosts = (yaml.safe_load((each / "hosts.yml").read_text()) for each in _inventories(root))
    return sorted({group for groups in hosts for group in groups if not group.startswith("service_")})


def _playbooks(root: Path) -> list[Path]:
    """Those with an argument spec of the environment that they act on; AWX is not set up from AWX."""
    return [
        path.with_name(path.name.replace(".meta.yml", ".yml"))
        for path in sorted((root / "playbooks").glob("*.meta.yml"))
        if "run" in _specs(path).get(path.name.partition(".")[0], {}).get("shared", [])
    ]


def _inventories(root: Path) -> list[Path]:
    return sorted(each.parent for each in root.glob("inventories/*/hosts.yml") if each.parent.name != NOT_FOR_AWX)


def _spec(playbook: Path) -> dict[str, Any]:
    return _specs(playbook.with_suffix(".meta.yml"))[playbook.stem]


def _specs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]

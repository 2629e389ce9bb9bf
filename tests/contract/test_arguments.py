# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The argument specs beside the playbooks say what the playbooks read, what their header comments show, and what the README lists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.sre.runbooks.plugins.module_utils.extra_vars import Arguments, arguments
from tests.contract import checks, variables

ROOT = Path(__file__).parents[2]
PLAYBOOKS = [pytest.param(path, id=path.stem) for path in checks.Tree(ROOT).playbooks()]

# kubernetes/rollout.yml serves all actions, and the role log writes all events; these are not of those that a playbook takes. Nor has
# every playbook that tells something a guard, or one that ends a lease.
OF_OTHER_ACTIONS = {"kubernetes_replicas", "to_revision", "guard_target", "lock"}
OF_OTHER_ACTIONS |= {"action_items", "alert_id", "cause", "detected", "impact", "public", "severity", "text", "title"}
# What ansible-core reads of an option, and of a spec; the last three are ours.
OPTION_KEYS = {"choices", "default", "description", "elements", "required", "type"}
SPEC_KEYS = {"examples", "options", "short_description", "irreversible", "shared", "tasks_of"}


@cache
def spec(playbook: Path) -> dict[str, Any]:
    specs = yaml.safe_load(playbook.with_suffix(".meta.yml").read_text())["argument_specs"]
    assert list(specs) == [playbook.stem], "the one spec has the name of its playbook"
    return specs[playbook.stem]


@cache
def known(playbook: Path) -> Arguments:
    return arguments(str(playbook))


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_spec_has_the_form_that_ansible_reads(playbook: Path) -> None:
    assert set(spec(playbook)) <= SPEC_KEYS
    assert spec(playbook)["short_description"] == yaml.safe_load(playbook.read_text())[0]["name"]
    for name, option in spec(playbook)["options"].items():
        assert set(option) <= OPTION_KEYS, name
        assert option["description"].endswith("."), name
        # The type of a default and of choices is that of the option.
        values = [*option.get("choices", []), *([option["default"]] if "default" in option else [])]
        python = {"str": str, "path": str, "bool": bool, "int": int, "float": int | float, "list": str}
        assert all(isinstance(value, python[option["type"]]) for value in values), name


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_what_a_playbook_reads_may_be_said(playbook: Path) -> None:
    named, read = variables.read_by(playbook)
    there = known(playbook)
    if playbook.stem == "readiness":  # it asks the steps of the others as they are, with nothing said
        read -= {name for each in PLAYBOOKS for name in known(each.values[0]).options}
    assert not read - set(there.options) - set(there.others) - OF_OTHER_ACTIONS
    assert not set(spec(playbook)["options"]) - named, "in the spec only"


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_default_is_that_of_the_playbook(playbook: Path) -> None:
    """Where a template of it has one; a survey gives its own as an answer."""
    text = "\n".join(path.read_text() for path in variables.reached(playbook))
    for name, option in spec(playbook)["options"].items():
        for found in re.findall(rf"\b{name} \| default\(([\d.]+|true|false|'\w+')\)", text):
            assert "default" not in option or yaml.safe_load(found) == option["default"], name


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_header_comment_says_what_may_be_said(playbook: Path) -> None:
    there = known(playbook)
    header = playbook.read_text().partition("\n- name:")[0]
    for name, value in re.findall(r"-e '?(?:\{\")?(\w+)(?:=|\": )(\S*)", header):
        option = (there.others | there.options).get(name)
        assert option, f"{name} is in no spec"
        if "choices" in option and "|" in value:
            assert set(value.split("|")) <= set(option["choices"]), f"{name}={value}"


def test_readme_lists_no_variable_that_no_playbook_has() -> None:
    table = (ROOT / "README.md").read_text().partition("What you may have to say")[2].partition("\nOverrides stand")[0]
    said = {name for cell in re.findall(r"(?m)^\| (.*?) \|", table) for name in re.findall(r"`(\w+)=?", cell)}
    there = {name for each in PLAYBOOKS for name in known(each.values[0]).options | known(each.values[0]).others}
    assert said - there == set()


def test_every_variable_of_the_inventories_has_a_type() -> None:
    """With those that a comment shows for a team to turn on."""
    of_inventories = set()
    for path in [*ROOT.glob("inventories/prod/*_vars/*.yml"), *ROOT.glob("inventories/secondary/*_vars/*.yml")]:
        of_inventories |= set(re.findall(r"(?m)^(?:# )?(\w+):", path.read_text()))
    there = known(ROOT / "playbooks/triage.yml")
    assert {name for name in of_inventories if not name.startswith("ansible_")} <= {*there.options, *there.others}

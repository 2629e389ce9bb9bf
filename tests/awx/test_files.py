# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of awx/: as the playbooks are, and such as AWX takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from awx import templates
from awx.__main__ import files
from awx.survey import survey
from tests.awx.controller import Controller
from tests.awx.placed import ROOT, TEMPLATES, WORKFLOWS, job_template, read
from tests.awx.rules import check_credential_type, check_rrule, render
from tests.awx.runner import BIN


def test_files_are_made_from_the_playbooks_as_they_are() -> None:
    stale = [name for name, text in files(ROOT).items() if (ROOT / "awx" / name).read_text() != text]
    assert not stale, "make awx writes them anew"


def test_every_playbook_of_the_inventories_has_a_template() -> None:
    there = {path.stem for path in ROOT.glob("playbooks/*.yml") if not path.stem.endswith(".meta")}
    assert {Path(each["playbook"]).stem for each in TEMPLATES.values()} == there - {"awx_setup"}
    assert TEMPLATES["emergency_scale restore"]["job_tags"] == "restore"


def test_workflow_waits_for_a_person_before_what_nothing_takes_back() -> None:
    workflow = WORKFLOWS["db_failover after approval"]
    assert workflow["approval"]["description"].startswith("It promotes the replica, which nothing takes back.")
    # Who approves has confirmed.
    assert "confirm" not in {each["variable"] for each in workflow["survey"]["spec"]}


def test_no_question_asks_for_a_secret() -> None:
    secret = re.compile("password|secret|token")
    asked = {each["variable"] for template in TEMPLATES.values() for each in template["survey"]["spec"]}
    assert not {name for name in asked if secret.search(name)}
    assert "password" not in {each["type"] for all_ in TEMPLATES.values() for each in all_["survey"]["spec"]}
    kinds = read("credential_types.yml")
    for kind in kinds:
        check_credential_type(kind["kind"], kind["inputs"], kind["injectors"])
        assert all(field["secret"] for field in kind["inputs"]["fields"])
    kind = kinds[0]
    # A secret that nobody has filled in is empty in the environment of a job, as it is where nothing is set.
    assert {render(template, {}) for template in kind["injectors"]["env"].values()} == {""}
    assert {"DB_ADMIN_PASSWORD", "RECOVERY_API_TOKEN", "SLACK_TOKEN"} <= set(kind["injectors"]["env"])


def test_no_default_of_a_survey_takes_the_place_of_what_an_inventory_has() -> None:
    """AWX makes an extra variable of each default, and extra variables win over those of a host."""
    shared = yaml.safe_load((ROOT / "playbooks/shared.meta.yml").read_text())["argument_specs"]
    of_inventories = {name for part in set(shared) - {"run", "change"} for name in shared[part]["options"]}
    for path in ROOT.glob("inventories/*/*_vars/*.yml"):
        of_inventories |= set(re.findall(r"(?m)^(?:# )?(\w+):", path.read_text()))
    asked = [question for template in TEMPLATES.values() for question in template["survey"]["spec"]]
    assert not {each["variable"] for each in asked if each.get("default", "") != ""} & of_inventories


def test_question_without_an_answer_of_its_own_can_be_left_open() -> None:
    spec = survey(
        {"a": {"type": "str", "choices": ["x"], "description": "A."}, "b": {"type": "bool", "description": "B."}}
    )["spec"]
    assert [(each["choices"], each["default"]) for each in spec] == [(["", "x"], ""), (["", "false", "true"], "")]


def test_schedules_are_such_as_awx_takes() -> None:
    for each in read("schedules.yml"):
        there = Controller()
        template = job_template(there, TEMPLATES[each["template"]])["id"]
        fields = {name: each[name] for name in ("name", "rrule", "extra_data")}
        there.create("schedules", fields | {"unified_job_template": template})
    for each in yaml.safe_load((ROOT / "drills/schedule.yml").read_text())["schedule"]:
        check_rrule(each["rrule"])


def test_each_folder_of_inventories_is_a_source_and_its_groups_are_environments(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "inventories", tmp_path / "inventories", symlinks=True)
    staging = tmp_path / "inventories/staging/hosts.yml"
    staging.parent.mkdir()
    staging.write_text("staging: {hosts: {api-staging: {}}}\nservice_api: {hosts: {api-staging: {}}}\n")
    assert [each["path"] for each in templates.inventories(tmp_path)] == [
        f"inventories/{name}/hosts.yml" for name in ("prod", "secondary", "staging")
    ]
    assert templates.environments(tmp_path) == ["prod", "secondary", "staging"]


def test_execution_environment_has_the_versions_of_the_clone() -> None:
    wanted = yaml.safe_load((ROOT / "awx/execution-environment.yml").read_text())["dependencies"]
    pins = (ROOT / "requirements.txt").read_text()
    assert wanted["ansible_core"]["package_pip"] in pins
    assert all(pin in pins for pin in wanted["python"])
    assert not any(pin.startswith("ansible==") for pin in wanted["python"])


def test_ansible_builder_makes_a_context_of_the_execution_environment(tmp_path: Path) -> None:
    """What it can do without a container engine: judge the definition, and write what an engine would build."""
    definition = ROOT / "awx/execution-environment.yml"
    wanted = yaml.safe_load(definition.read_text())["dependencies"]
    create = [BIN / "ansible-builder", "create", "--file", definition, "--context", tmp_path]
    done = subprocess.run([*create, "--output-filename", "Containerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    steps, build = (tmp_path / "Containerfile").read_text(), tmp_path / "_build"
    assert f'ARG ANSIBLE_INSTALL_REFS="{wanted["ansible_core"]["package_pip"]} ansible-runner==' in steps
    assert (build / "requirements.txt").read_text().splitlines() == wanted["python"]
    assert yaml.safe_load((build / "requirements.yml").read_text()) == wanted["galaxy"]

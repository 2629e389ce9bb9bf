# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX gets: surveys that its API takes, files that are as the playbooks are, and a set-up that changes nothing when typed again."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from awx.__main__ import files
from awx.survey import survey
from tests.awx.controller import TOKEN, BadRequest, Controller, Server, check_rrule, check_survey

ROOT = Path(__file__).parents[2]


def read(name: str) -> list[dict[str, Any]]:
    # `!unsafe` keeps ansible from rendering what AWX is to render; it is a text like others.
    text = (ROOT / "awx" / name).read_text().replace("!unsafe ", "")
    (items,) = yaml.safe_load(text).values()
    return items


TEMPLATES = {each["name"]: each for each in read("job_templates.yml")}
WORKFLOWS = {each["name"]: each for each in read("workflows.yml")}


def test_files_are_made_from_the_playbooks_as_they_are() -> None:
    stale = [name for name, text in files(ROOT).items() if (ROOT / "awx" / name).read_text() != text]
    assert not stale, "make awx writes them anew"


def test_every_playbook_of_the_inventories_has_a_template() -> None:
    there = {path.stem for path in ROOT.glob("playbooks/*.yml") if not path.stem.endswith(".meta")}
    assert {Path(each["playbook"]).stem for each in TEMPLATES.values()} == there - {"awx_setup"}
    assert TEMPLATES["emergency_scale restore"]["job_tags"] == "restore"


@pytest.mark.parametrize("name", [*TEMPLATES, *WORKFLOWS])
def test_awx_takes_the_survey_and_its_defaults_as_answers(name: str) -> None:
    asked = (TEMPLATES | WORKFLOWS)[name]["survey"]
    check_survey(asked)
    defaults = {each["variable"]: each["default"] for each in asked["spec"] if "default" in each}
    needed = {each["variable"]: each.get("choices", ["x"])[0] for each in asked["spec"] if each["required"]}
    launched(asked, defaults | needed)


def launched(asked: dict[str, Any], answers: dict[str, Any]) -> None:
    there = Controller()
    template = there.create("job_templates", {"name": "x", "playbook": "x.yml", "survey_enabled": True})
    there.surveys[template["id"]] = asked
    there.judge(template, answers)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"env": "prod", "remedy": "reboot", "confirm": "true"}, None),
        ({"env": "prod", "remedy": "", "confirm_keys": 4200}, None),
        ({}, "'env' value missing"),
        ({"env": "prd"}, "expected to be one of"),
        ({"env": "prod", "remedy": "pray"}, "expected to be one of"),
        ({"env": "prod", "confirm_keys": "many"}, "expected to be of type integer"),
        ({"env": "prod", "confirm": True}, "expected to be of type multiplechoice"),
    ],
)
def test_answers_good_and_bad(answers: dict[str, Any], told: str | None) -> None:
    asked = TEMPLATES["cache_failure"]["survey"]
    refused = pytest.raises(BadRequest, match=re.escape(told)) if told else contextlib.nullcontext()
    with refused:
        launched(asked, answers)


def test_workflow_waits_for_a_person_before_what_nothing_takes_back() -> None:
    workflow = WORKFLOWS["db_failover after approval"]
    assert workflow["approval"]["description"].startswith("It promotes the replica, which nothing takes back.")
    # Who approves has confirmed.
    assert "confirm" not in {each["variable"] for each in workflow["survey"]["spec"]}


def test_no_question_asks_for_a_secret() -> None:
    secret = re.compile("password|secret|token")
    asked = {each["variable"] for template in TEMPLATES.values() for each in template["survey"]["spec"]}
    assert not {name for name in asked if secret.search(name)}
    (kind,) = read("credential_types.yml")
    assert {"DB_ADMIN_PASSWORD", "SMOKE_PASSWORD"} <= set(kind["injectors"]["env"])
    assert all(field["secret"] for field in kind["inputs"]["fields"])


def test_question_without_an_answer_of_its_own_can_be_left_open() -> None:
    spec = survey(
        {"a": {"type": "str", "choices": ["x"], "description": "A."}, "b": {"type": "bool", "description": "B."}}
    )["spec"]
    assert [(each["choices"], each["default"]) for each in spec] == [(["", "x"], ""), (["", "false", "true"], "")]


def test_schedules_are_such_as_awx_takes() -> None:
    for each in read("schedules.yml"):
        check_rrule(each["rrule"])
        launched(TEMPLATES[each["template"]]["survey"], each["extra_data"])
    for each in yaml.safe_load((ROOT / "drills/schedule.yml").read_text())["schedule"]:
        check_rrule(each["rrule"])


def test_execution_environment_has_the_versions_of_the_clone() -> None:
    wanted = yaml.safe_load((ROOT / "awx/execution-environment.yml").read_text())["dependencies"]
    pins = (ROOT / "requirements.txt").read_text()
    assert wanted["ansible_core"]["package_pip"] in pins
    assert all(pin in pins for pin in wanted["python"])
    assert not any(pin.startswith("ansible==") for pin in wanted["python"])


@pytest.fixture
def awx() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def set_up(awx: Server, *said: str, token: str = TOKEN) -> str:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "CONTROLLER_", "TOWER_"))
    }
    arguments = [argument for each in said for argument in ("-e", each)]
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", "playbooks/awx_setup.yml", *arguments],
        cwd=ROOT,
        env=environment
        | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "CONTROLLER_HOST": awx.url, "CONTROLLER_OAUTH_TOKEN": token}
        | {"DB_ADMIN_PASSWORD": "planted-secret"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout


REQUIRED = ("project_url=https://git.example.com/sre.git", "image=registry.example.com/ee:1")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(REQUIRED[:1], "missing required arguments: image", id="no image"),
        pytest.param(
            (*REQUIRED, "imgae=x"), "imgae is no variable of awx_setup: did you mean image?", id="typing error"
        ),
    ],
)
def test_refuses_before_it_asks(awx: Server, said: tuple[str, ...], told: str) -> None:
    assert told in set_up(awx, *said)
    assert awx.controller.changes == []


def assert_set_up_twice(awx: Server, *said: str) -> None:
    first = set_up(awx, *REQUIRED, *said)
    assert "failed=0" in first, first
    awx.controller.changes.clear()
    again = set_up(awx, *REQUIRED, *said)
    assert "failed=0" in again and "changed=0" in again, again
    assert "[WARNING]" not in again, again
    assert "planted-secret" not in first + again


# Some forty modules, each a process of its own.
@pytest.mark.soak
def test_one_playbook_is_set_up_and_nothing_changes_when_typed_again(awx: Server) -> None:
    assert_set_up_twice(awx, "only=kill_queries")
    there = awx.controller
    template, node = there.named("job_templates", "kill_queries"), there.named("workflow_job_template_nodes", "run")
    assert there.surveys[template["id"]] == TEMPLATES["kill_queries"]["survey"]
    assert node["extra_data"] == {"confirm": "true"} and node["unified_job_template"] == template["id"]
    plan, approval = (there.named("workflow_job_template_nodes", name)["id"] for name in ("plan", "approval"))
    assert there.links["workflow_job_template_nodes", plan, "success_nodes"] == [approval]
    assert there.links["workflow_job_template_nodes", approval, "success_nodes"] == [node["id"]]
    assert there.named("credentials", "sre.runbooks")["inputs"] == {"db_admin_password": "planted-secret"}


@pytest.mark.soak
def test_all_is_set_up_and_nothing_changes_when_typed_again(awx: Server) -> None:
    assert_set_up_twice(awx)
    assert len(awx.controller.objects["job_templates"]) == len(TEMPLATES)
    assert len(awx.controller.objects["workflow_job_templates"]) == len(WORKFLOWS)

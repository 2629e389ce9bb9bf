# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""awx_setup.yml by the modules of awx.awx: it makes what is meant, once, and what it makes can be launched and decided by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.awx.controller import Controller
from tests.awx.placed import ROOT, TEMPLATES, WORKFLOWS, read, workflow
from tests.awx.runner import BIN
from tests.awx.server import TOKEN, Server


@pytest.fixture
def awx() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def environment(awx: Server) -> dict[str, str]:
    others = ("ANSIBLE_", "CONTROLLER_", "TOWER_")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    of_awx = {"CONTROLLER_HOST": awx.url, "CONTROLLER_OAUTH_TOKEN": TOKEN}
    return ours | of_awx | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}


def set_up(awx: Server, *said: str, **exported: str) -> str:
    arguments = [argument for each in said for argument in ("-e", each)]
    done = subprocess.run(
        [BIN / "ansible-playbook", "playbooks/awx_setup.yml", *arguments],
        cwd=ROOT,
        env=environment(awx) | {"DB_ADMIN_PASSWORD": "planted-secret"} | exported,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout


REQUIRED = ("project_url=https://git.example.com/sre.git", "image=registry.example.com/ee:1")


# Each is a second of ansible-playbook.
LONG = pytest.mark.soak


@pytest.mark.parametrize(
    ("said", "exported", "told"),
    [
        pytest.param(REQUIRED[:1], {}, "missing required arguments: image", id="no image"),
        pytest.param(
            (*REQUIRED, "imgae=x"), {}, "imgae is no variable of awx_setup: did you mean image?", id="typing error"
        ),
        pytest.param(
            REQUIRED, {"CONTROLLER_HOST": ""}, "which AWX? Say it by export CONTROLLER_HOST", id="no AWX", marks=LONG
        ),
        pytest.param(
            (*REQUIRED, "only=trage"),
            {},
            "AWX gets no playbook trage: only= takes names of",
            id="only none",
            marks=LONG,
        ),
        pytest.param((*REQUIRED, "aws_credential=sre-asw"), {}, "AWX has no credential sre-asw", id="no credential"),
    ],
)
def test_refuses_before_it_changes(awx: Server, said: tuple[str, ...], exported: dict[str, str], told: str) -> None:
    assert told in " ".join(set_up(awx, *said, **exported).split())
    assert awx.controller.changes == []


def assert_set_up_twice(awx: Server, *said: str) -> None:
    first = set_up(awx, *REQUIRED, *said)
    assert "failed=0" in first, first
    awx.controller.changes.clear()
    again = set_up(awx, *REQUIRED, *said)
    assert "failed=0" in again and "changed=0" in again, again
    assert "[WARNING]" not in again, again
    assert "planted-secret" not in first + again


def module(awx: Server, used: str, **arguments: Any) -> tuple[bool, str]:
    """Whether this module of awx.awx was happy, and what it said."""
    done = subprocess.run(
        [BIN / "ansible", "localhost", "-m", f"awx.awx.{used}", "-a", json.dumps(arguments)],
        env=environment(awx) | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_PYTHON_INTERPRETER": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


# Some forty modules, each a process of its own.
@pytest.mark.soak
def test_one_playbook_is_set_up_launched_and_decided(awx: Server) -> None:
    there = awx.controller
    for name, kind in (("sre-aws", "Amazon Web Services"), ("sre-cluster", "OpenShift or Kubernetes API Bearer Token")):
        there.create("credentials", {"name": name, "credential_type": there.named("credential_types", kind)["id"]})
    assert_set_up_twice(awx, "only=kill_queries", "aws_credential=sre-aws", "kubernetes_credential=sre-cluster")
    used = there.links["job_templates", there.named("job_templates", "kill_queries")["id"], "credentials"]
    assert {there.objects["credentials"][each]["name"] for each in used} == {"sre.runbooks", "sre-aws", "sre-cluster"}
    assert_is_as_placed(there)
    assert there.named("credentials", "sre.runbooks")["inputs"] == {"db_admin_password": "planted-secret"}

    # By the modules that others have for it.
    name = "kill_queries after approval"
    for answers, told in (({}, "'env' value missing"), ({"env": "prod", "kill": "all"}, "expected to be one of")):
        assert told in module(awx, "workflow_launch", name=name, extra_vars=answers, wait=False)[1]
    assert not there.jobs
    for action, ends in (("deny", "failed"), ("approve", "successful")):
        launched, said = module(awx, "workflow_launch", name=name, extra_vars={"env": "prod"}, wait=False)
        assert launched, said
        running = max(there.workflows)
        arguments = {"workflow_job_id": running, "name": WORKFLOWS[name]["approval"]["name"], "action": action}
        assert module(awx, "workflow_approval", **arguments)[0]
        assert there.workflows[running].status == ends
    assert [job.job_type for job in there.jobs.values() if job.type == "job"] == ["check", "check", "run"]

    # What was merged comes with the next set-up, and nothing else does.
    set_up(awx, *REQUIRED, "only=triage")
    there.changes.clear()
    there.revision = "2"
    assert "failed=0" in set_up(awx, *REQUIRED, "only=triage")
    assert {change.rsplit("/", 2)[1] for change in there.changes if change.startswith("POST")} == {"update"}
    assert there.named("projects", "sre.runbooks")["scm_revision"] == "2"


def assert_is_as_placed(there: Controller) -> None:
    """The other tests launch what placed.py makes: it is what the set-up makes."""
    placed = Controller()
    workflow(placed, WORKFLOWS["kill_queries after approval"])
    for kind in ("job_templates", "workflow_job_templates", "workflow_approval_templates"):
        (made,), (other,) = there.objects[kind].values(), placed.objects[kind].values()
        references = ("id", "url", "organization", "project", "inventory", "execution_environment")
        assert made == other | {name: made[name] for name in references if name in made}
        if kind != "workflow_approval_templates":
            assert there.surveys[made["id"]] == placed.surveys[other["id"]]
    for name in ("plan", "approval", "run"):
        made, other = (each.named("workflow_job_template_nodes", name) for each in (there, placed))
        assert [made[each] for each in ("job_type", "extra_data", "limit")] == [
            other[each] for each in ("job_type", "extra_data", "limit")
        ]
        assert successors(there, made) == successors(placed, other)


def successors(there: Controller, node: dict[str, Any]) -> list[str]:
    nodes = there.objects["workflow_job_template_nodes"]
    linked = there.links.get(("workflow_job_template_nodes", node["id"], "success_nodes"), [])
    return [nodes[each]["identifier"] for each in linked]


@pytest.mark.soak
def test_all_is_set_up_and_nothing_changes_when_typed_again(awx: Server) -> None:
    assert_set_up_twice(awx)
    there = awx.controller
    for kind, files in (("job_templates", TEMPLATES), ("workflow_job_templates", WORKFLOWS)):
        made = {each["name"]: there.surveys[number] for number, each in there.objects[kind].items()}
        assert made == {name: each["survey"] for name, each in files.items()}
    assert len(there.objects["schedules"]) == len(read("schedules.yml"))

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets and addresses of people are planted wherever a run looks, and found in nothing that was written, said or started."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from runbook import Result, Runbook
from world import EAST, World, wait_until

from ansible_collections.sre.runbooks.tests.unit.notifier_services import SECRETS, Services

# In all secrets; in no other text.
PLANTED = "planted-Zq7"
PERSON, PERSON_IN_URL = "jane.roe@planted-zq7.example", "jane.roe%40planted-zq7.example"
USERS = ("203.0.113.177", "2001:db8:77::177")
LINES = (
    f"ERROR OperationalError: cannot reach postgresql://regami:{PLANTED}-dsn@10.0.3.7:5432/regami",
    f"ERROR OperationalError: host=10.0.3.7 password='{PLANTED} of dsn' user=regami",
    f"ERROR 403 for https://b.s3.amazonaws.com/k?X-Amz-Credential={PLANTED}%2Fs3&X-Amz-Security-Token={PLANTED}&X-Amz-Signature={PLANTED}",
    f"ERROR cannot post to https://hooks.slack.com/services/T0001/B0002/{PLANTED}",
    f"ERROR no such user {PERSON}, asked from {USERS[0]}",
    f'{{"level": "error", "message": "login of {PERSON} failed", "authorization": "Bearer {PLANTED}", "client": "{USERS[1]}"}}',
    f"ERROR ParamValidationError: [{{'name': 'DB_PASSWORD', 'value': '{PLANTED}'}}]",
    f'{USERS[0]} - - "GET /v1/users?email={PERSON_IN_URL}&token={PLANTED} HTTP/1.1" 500 ERROR',
    f"ERROR in charge: {{'api_key': '{PLANTED}', 'card': 'sk_live_{PLANTED}0123456789'}}",
    f"ERROR -----BEGIN PRIVATE KEY----- {PLANTED} -----END PRIVATE KEY-----",
)
ENVIRONMENT = {
    "DB_PASSWORD": PLANTED,
    "PARTNER_URL": f"https://regami:{PLANTED}@partner.example/v1",
    "SLACK_WEBHOOK": f"https://hooks.slack.com/services/T0001/B0002/{PLANTED}",
    "ADMIN": PERSON,
}
VARIABLES: dict[str, Any] = {
    "aws_secret_access_key": f"{PLANTED}-aws",
    "cache_password": f"{PLANTED}-cache",
    "smoke_tests": [
        {
            "name": "login",
            "url": "{{ simulated.public_url }}/v1/auth/login",
            "method": "POST",
            "headers": {"Authorization": f"Bearer {PLANTED}-bearer", "X-Api-Key": f"{PLANTED}-header"},
            "json": {"email": PERSON},
            "secret_json": {"password": f"{PLANTED}-password"},
            "expect_status": [401],
        },
        {
            "name": "signed",
            "url": f"{{{{ simulated.public_url }}}}/health?X-Amz-Signature={PLANTED}-signature&email={PERSON_IN_URL}",
        },
    ],
    "dependencies": [
        {"name": "cache", "kind": "redis", "host": "127.0.0.1", "port": 1, "login_password": f"{PLANTED}-redis"},
        {
            "name": "partner",
            "kind": "url",
            "url": f"http://127.0.0.1:1/?token={PLANTED}-url",
            "headers": {"X-Key": f"{PLANTED}-key"},
        },
    ],
    "notify_routes": {
        "P0": {"slack": ["#incidents"], "pagerduty": "critical", "statuspage": {}, "mail": [PERSON], "jira": True}
    },
}
SAID = f"{PERSON} pasted password={PLANTED} and https://hooks.slack.com/services/T0001/B0002/{PLANTED}"


@dataclass
class Watched:
    """The runs of one incident at -vvv, and every command line that any process of theirs had.

    All that they write goes to `written`; the inventory's `variables` they have from a file, as they would have them.
    """

    runbook: Runbook
    written: Path
    variables: Path
    runs: dict[str, Result] = field(default_factory=dict)
    commands: set[str] = field(default_factory=set)

    def run(self, playbook: str, environment: dict[str, str] | None = None, **said: Any) -> Result:
        flags = ("-vvv", "--diff", "--extra-vars", f"@{self.variables}")
        running = self.runbook.start(playbook, *flags, environment=environment, **said)
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(psutil.Process(running.process.pid), ended))
        watcher.start()
        try:
            self.runs[playbook] = running.wait()
        finally:
            ended.set()
            watcher.join()
        return self.runs[playbook]

    def _watch(self, run: psutil.Process, ended: threading.Event) -> None:
        while not ended.wait(0.02):
            try:
                self.commands |= {" ".join(each.cmdline()) for each in run.children(recursive=True)}
            except psutil.Error:  # it has just ended
                continue


@pytest.fixture
def services() -> Iterator[Services]:
    there = Services()
    yield there
    there.close()


@pytest.fixture
def watched(world: World, services: Services, tmp_path: Path) -> Watched:
    written, variables = tmp_path / "written", tmp_path / "variables.json"
    variables.write_text(json.dumps(VARIABLES | services.inventory | {"review_folder": str(written / "reviews")}))
    return Watched(Runbook(world.sandbox, written / "incidents"), written, variables)


def plant(world: World) -> None:
    """In the task definition that runs, in the log and in a statement."""
    names, ecs, logs = world.names(EAST), world.aws("ecs"), world.aws("logs")
    running = ecs.describe_task_definition(taskDefinition=world.service(EAST)["taskDefinition"])["taskDefinition"]
    kept = ("family", "networkMode", "cpu", "memory", "requiresCompatibilities", "executionRoleArn", "taskRoleArn")
    (container,) = running["containerDefinitions"]
    container["environment"] += [{"name": name, "value": value} for name, value in ENVIRONMENT.items()]
    made = ecs.register_task_definition(
        containerDefinitions=[container], **{name: running[name] for name in kept if name in running}
    )["taskDefinition"]["taskDefinitionArn"]
    ecs.update_service(cluster=names["cluster"], service=names["service"], taskDefinition=made)
    stream = {"logGroupName": names["log_group"], "logStreamName": "planted"}
    logs.create_log_stream(**stream)
    now = int(time.time() * 1000)
    logs.put_log_events(**stream, logEvents=[{"timestamp": now, "message": line} for line in LINES])
    world.sandbox.fault("long-queries", count=2)
    wait_until(lambda: world.is_settled(EAST), "it is rolled out")


def assert_nowhere(world: World, watched: Watched, services: Services) -> None:
    """Of a key that a service is told by, only that service hears."""
    found = [path for path in watched.written.rglob("*") if path.is_file()]
    texts = {str(path): path.read_text() for path in found}
    texts |= {f"output of {name}": run.output for name, run in watched.runs.items()}
    texts["commands"] = "\n".join(watched.commands)
    texts |= {f"told {at}": body.replace(SECRETS["pagerduty"], "") for at, body in enumerate(services.bodies)}
    texts |= {f"mail {at}": f"{each['Subject']} {each.get_payload()}" for at, each in enumerate(services.letters)}
    wanted = {
        PLANTED,
        PERSON,
        PERSON_IN_URL,
        "jane-roe",
        *USERS,
        *SECRETS.values(),
        *world.secrets(),
        "jane@example.com",
    }
    leaks = [
        f"{where}: {text[max(0, at - 200) : at + 80]!r}"
        for where, text in texts.items()
        for secret in wanted
        if (at := text.find(secret)) >= 0
    ]
    assert not leaks, "\n".join(leaks)


def test_of_an_incident(world: World, watched: Watched, services: Services) -> None:
    plant(world)
    watched.run("incident_open", title=f"Down, says {PERSON}", severity="P0", impact=SAID)
    looked = watched.run("high_error_rate")
    watched.run("incident_close", cause=SAID, action_items=[SAID])
    assert {name: run.returncode for name, run in watched.runs.items()} == dict.fromkeys(watched.runs, 0)
    # It has been seen.
    assert "ERROR no such user ********, asked from ********" in looked.output
    assert len(services.letters) == 2 and services.jira.issues
    assert_nowhere(world, watched, services)


# What AWX keeps of a job, which ansible-playbook prints when it is told to.
ARTIFACTS = {"ANSIBLE_SHOW_CUSTOM_STATS": "true"}
LOOKS_AND_MENDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("incident_open", {"title": "Down", "severity": "P0", "impact": SAID, "public": SAID}),
    ("triage", {"environment": ARTIFACTS}),
    ("service_outage", {}),
    ("kill_queries", {"older_than": 0}),
    ("db_connections", {}),
    ("performance_degradation", {}),
    ("network_diagnosis", {}),
    ("rollback_deployment", {}),
    ("undo", {}),
    ("recovery_validation", {"performance_tests": []}),
    ("incident_note", {"text": SAID}),
    ("incident_close", {"cause": SAID, "text": SAID, "action_items": [SAID]}),
    ("incident_review", {}),
)


@pytest.mark.soak
def test_of_all_that_look_and_mend(world: World, watched: Watched, services: Services) -> None:
    plant(world)
    codes = {playbook: watched.run(playbook, **said).returncode for playbook, said in LOOKS_AND_MENDS}
    assert codes == dict.fromkeys(codes, 0)
    assert "CUSTOM STATS" in watched.runs["triage"].output
    assert_nowhere(world, watched, services)

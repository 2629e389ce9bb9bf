# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of one contestant: the same start for all, the clock, and whether users can write again."""

from __future__ import annotations

import http.client
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import dns.message
import dns.query

from sandbox.client import Sandbox

from .contestants import REPOSITORY, Contestant

# What registers a task definition; the rest of what DescribeTaskDefinition answers is refused.
REGISTERED = {
    "family",
    "taskRoleArn",
    "executionRoleArn",
    "networkMode",
    "containerDefinitions",
    "requiresCompatibilities",
    "cpu",
    "memory",
    "runtimePlatform",
}
PATIENCE = 30.0  # seconds for the sandbox to come into the state from which a run starts, or in which it is judged
LONGEST_RUN = 300.0
REPLAY_SECONDS = 0.5


class NotRecovered(Exception):
    """One line for a person; the run does not count."""


@dataclass(frozen=True)
class Run:
    """Seconds of wall time and of processor time, and the number of AWS calls."""

    contestant: str
    seconds: float
    cpu_seconds: float
    calls: int

    as_dict = asdict


class Race:
    """Runs contestants against one sandbox; `folder` takes their files and their output.

    `environment` is added to that of every contestant.
    """

    def __init__(self, sandbox: Sandbox, folder: Path, environment: dict[str, str]) -> None:
        self.sandbox, self.folder, self.environment, self._number = sandbox, folder, environment, 0

    def run(self, contestant: Contestant) -> Run:
        """Reset, kill the primary database, run, judge.

        Raises:
            NotRecovered: the command failed, or a write through the public name does not reach the promoted database.
        """
        self._number += 1
        place = self.folder / str(self._number)
        place.mkdir()
        self.sandbox.reset()
        environment = self._prepare(place)
        since, cpu = self.sandbox.status()["calls"], _cpu_seconds()
        with open(place / "output", "wb") as output:
            started = time.monotonic()
            try:
                code = subprocess.run(
                    contestant.command,
                    cwd=REPOSITORY if contestant.in_repository else place,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=LONGEST_RUN,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = None
            seconds = time.monotonic() - started
        cpu, calls = _cpu_seconds() - cpu, len(self.sandbox.calls(since))
        if code != 0:
            ended = "did not end" if code is None else f"ended with {code}"
            raise NotRecovered(f"{contestant.name} {ended}: see {place / 'output'}")
        if contestant.recovers:
            _wait(self._recovered, f"{contestant.name}: no write reaches the promoted database: see {place / 'output'}")
        return Run(contestant.name, seconds, cpu, calls)

    def _prepare(self, place: Path) -> dict[str, str]:
        """Users have written, then the primary is killed and RDS has noticed. Returns the contestant's environment."""
        state = self.sandbox.state
        _wait(lambda: self._write() is not None, "users cannot write before the failure")
        # Without any commit that the replica has replayed nothing tells how far it is behind.
        time.sleep(REPLAY_SECONDS)
        home = state["regions"]["us-east-1"]["db_instance"]
        self.sandbox.fault("primary-killed")
        _wait(lambda: self._row(home)["state"] == "failed", "RDS does not notice that the primary is dead")
        facts = self._facts(place)
        (place / "facts.json").write_text(json.dumps(facts))
        (place / "task-definition.json").write_text(json.dumps(self._task_definition()))
        (place / "failover-to-secondary.json").write_text(json.dumps(_change_batch(state)))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "AWS_", "SRE_"))}
        return {
            **kept,
            **{name.upper(): value for name, value in facts.items()},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": state["endpoint_url"],
            "AWS_ACCESS_KEY_ID": "sandbox",
            "AWS_SECRET_ACCESS_KEY": "sandbox",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_PAGER": "",
            # Cheaper modules, as a good user has it.
            "ANSIBLE_PIPELINING": "true",
            "SRE_SANDBOX_HOME": str(self.sandbox.home),
            "SRE_RUNBOOKS_INCIDENTS": str(place / "incidents"),
            **self.environment,
        }

    def _facts(self, place: Path) -> dict[str, str]:
        """The names that a team knows by heart."""
        state = self.sandbox.state
        here, there = state["regions"]["us-east-1"], state["regions"]["us-west-2"]
        endpoint = self._replica()["Endpoint"]
        return {
            "ansible_python_interpreter": sys.executable,
            "primary_region": "us-east-1",
            "primary_db": here["db_instance"],
            "primary_cluster": here["cluster"],
            "primary_service": here["service"],
            "standby_region": "us-west-2",
            "replica_db": there["db_instance"],
            "db_host": endpoint["Address"],
            "db_port": str(endpoint["Port"]),
            "standby_cluster": there["cluster"],
            "standby_service": there["service"],
            "standby_url": there["alb_url"],
            "standby_alb_address": there["alb_url"].removeprefix("http://").partition(":")[0],
            "standby_alb_dns_name": there["alb_dns_name"],
            "standby_alb_zone_id": there["alb_zone_id"],
            "http_port": str(state["http_port"]),
            "task_family": there["task_family"],
            "task_definition_file": str(place / "task-definition.json"),
            "log_group": there["log_group"],
            "hosted_zone_id": state["hosted_zone_id"],
            "public_name": state["public_name"],
            "public_url": state["public_url"],
        }

    def _task_definition(self) -> dict:
        family = self.sandbox.state["regions"]["us-west-2"]["task_family"]
        described = self.sandbox.boto("ecs", "us-west-2").describe_task_definition(taskDefinition=family)
        return {name: value for name, value in described["taskDefinition"].items() if name in REGISTERED}

    def _replica(self) -> dict:
        name = self.sandbox.state["regions"]["us-west-2"]["db_instance"]
        rds = self.sandbox.boto("rds", "us-west-2")
        return rds.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0]

    def _row(self, name: str) -> dict:
        return next(row for row in self.sandbox.status()["rows"] if row["name"] == name)

    def _recovered(self) -> bool:
        """A write through the public name is acknowledged by the database that was the replica, and is one no more."""
        replica = self._replica()
        wanted = f"{replica['Endpoint']['Address']}:{replica['Endpoint']['Port']}"
        return not replica.get("ReadReplicaSourceDBInstanceIdentifier") and self._write() == wanted

    def _write(self) -> str | None:
        """Where one new row was committed, or None; the name is resolved by the sandbox's name server."""
        state = self.sandbox.state
        server, port = state["dns"].split(":")
        try:
            question = dns.message.make_query(state["public_name"], "A")
            answer = dns.query.udp(question, server, port=int(port), timeout=2).answer
            connection = http.client.HTTPConnection(answer[-1][0].to_text(), state["http_port"], timeout=5)
            body = json.dumps({"id": time.time_ns(), "payload": "benchmark"})
            connection.request("POST", "/v1/rows", body, {"Host": state["public_name"]})
            response = connection.getresponse()
            row = json.loads(response.read() or b"{}")
        except (OSError, IndexError, ValueError, http.client.HTTPException):
            return None
        return row.get("database") if response.status == 201 else None


def _change_batch(state: dict) -> dict:
    """The secondary record set becomes PRIMARY and the other way round, at once."""
    changes = []
    for identifier, failover, region in (("primary", "SECONDARY", "us-east-1"), ("secondary", "PRIMARY", "us-west-2")):
        facts = state["regions"][region]
        alias = {
            "HostedZoneId": facts["alb_zone_id"],
            "DNSName": facts["alb_dns_name"],
            "EvaluateTargetHealth": True,
        }
        record = {"Name": state["public_name"], "Type": "A", "SetIdentifier": identifier, "Failover": failover}
        changes.append({"Action": "UPSERT", "ResourceRecordSet": {**record, "AliasTarget": alias}})
    return {"Changes": changes}


def _cpu_seconds() -> float:
    """Of all processes that we started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait(done, otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise NotRecovered(otherwise)
        time.sleep(0.1)

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An incident of the sandbox, and what the verb cause_assess says of it; it sees what any caller of AWS sees, and no more."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import Any
from unittest import mock

from sandbox.client import Sandbox

REGION = "us-east-1"
VERB = "ansible_collections.sre.runbooks.plugins.modules.cause_assess"


@dataclass(frozen=True)
class Outcome:
    """`felt`: requests of users that failed, of how many, and how long the slowest of twenty took, in milliseconds."""

    cause: str
    seed: int
    named: str
    confidence: float
    causes: list[dict[str, Any]]
    felt: dict[str, float]
    answer: dict[str, Any]

    @property
    def is_right(self) -> bool:
        return self.named == self.cause

    @property
    def cannot_tell(self) -> bool:
        return self.named == "unknown"


def play(sandbox: Sandbox, cause: str, seed: int, seconds: float | None = None) -> Outcome:
    """Let it happen, look, and put it right."""
    before = users(sandbox)
    pace = {} if seconds is None else {"seconds": seconds}
    sandbox.fault("incident", cause=cause, seed=seed, **pace)
    try:
        answer = diagnose(sandbox)
        felt = felt_between(before, users(sandbox))
    finally:
        sandbox.heal("incident")
    return Outcome(cause, seed, answer["cause"], answer["confidence"], answer["causes"], felt, answer)


def users(sandbox: Sandbox) -> dict[str, list[dict]]:
    """What users have noted so far."""
    found = {}
    for name in ("acks", "reads", "errors"):
        path = sandbox.home / "load" / f"{name}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        found[name] = [json.loads(line) for line in lines if line.endswith("\n")]
    return found


def felt_between(before: dict[str, list[dict]], after: dict[str, list[dict]]) -> dict[str, float]:
    new = {name: after[name][len(before[name]) :] for name in after}
    took = sorted(1000 * (each["acked"] - each["sent"]) for each in [*new["acks"], *new["reads"]])
    return {
        "requests": len(took) + len(new["errors"]),
        "failed": len(new["errors"]),
        "p95_ms": round(took[int(0.95 * (len(took) - 1))], 1) if took else 0.0,
    }


def arguments(sandbox: Sandbox) -> dict[str, Any]:
    """As the sandbox's inventory has them."""
    state = sandbox.state
    here = state["regions"][REGION]
    return {
        "environment_name": "sandbox",
        "endpoint_url": state["endpoint_url"],
        "access_key": "sandbox",
        "secret_key": "sandbox",
        "region": REGION,
        "load_balancer_arns": [here["load_balancer_arn"]],
        "cluster": here["cluster"],
        "service": here["service"],
        "db_instances": [here["db_instance"]],
        "log_groups": [{"name": here["log_group"], "region": REGION}],
        "checks": [{"name": "health with the database", "url": f"{state['public_url']}/health?check=db"}],
        "dns_servers": [state["dns"]],
        "login_user": state["db_admin_user"],
        "login_password": (sandbox.home / "secrets" / "db_admin").read_text(),
        "login_db": state["db_name"],
        "sslmode": "prefer",
        "dependencies": state["dependencies"],
    }


def diagnose(sandbox: Sandbox) -> dict[str, Any]:
    """What the verb returns. Raises RuntimeError where it fails."""
    from ansible.module_utils import basic

    given = json.dumps({"ANSIBLE_MODULE_ARGS": arguments(sandbox)}).encode()
    outcome: dict[str, Any] = {}

    def record(_module: Any, result: dict[str, Any]) -> None:
        outcome.update(result)

    with (
        mock.patch.object(basic, "_ANSIBLE_ARGS", given),
        mock.patch.object(basic, "_ANSIBLE_PROFILE", "legacy", create=True),
        mock.patch.object(basic.AnsibleModule, "_record_module_result", record, create=True),
    ):
        try:
            importlib.import_module(VERB).main()
        except SystemExit:
            pass
    if outcome.get("failed"):
        raise RuntimeError(outcome["msg"])
    return outcome

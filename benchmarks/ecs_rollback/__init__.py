# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bad build has been deployed to an ECS service (regami runbook 2, "Quick Rollback")."""

from __future__ import annotations

from pathlib import Path

from sandbox.client import Sandbox

from ..contest import Contest, Contestant
from ..race import wait
from ..user import ask
from .polling import quotas

HERE = Path(__file__).resolve().parent
REGION = "us-east-1"

OURS = Contestant("ecs_rollback", ("ansible-playbook", str(HERE / "verb.yml"), "-e", "env=sandbox"), in_repository=True)
# With what no other contestant does: guard, lease, preflight and smoke tests.
PLAYBOOK = Contestant(
    "playbooks/rollback_deployment.yml",
    ("ansible-playbook", "playbooks/rollback_deployment.yml", "-e", "env=sandbox"),
    in_repository=True,
)
CLI = Contestant("runbook 2, AWS CLI", ("bash", str(HERE / "runbook2.sh")))
MODULES = Contestant(
    "community.aws modules", ("ansible-playbook", "-i", "localhost,", "-e", "@facts.json", str(HERE / "modules.yml"))
)


def arrange(sandbox: Sandbox, _place: Path) -> dict[str, str]:
    """The pipeline has rolled out a build that fails half of its requests."""
    state = sandbox.state
    here = state["regions"][REGION]
    good = _service(sandbox)["taskDefinition"]
    sandbox.fault("bad-build", build="erroring")
    wait(lambda: _is_complete(sandbox) and _version(sandbox) == "v3-erroring", "the bad build is not rolled out")
    return {
        "region": REGION,
        "cluster": here["cluster"],
        "service": here["service"],
        "task_family": here["task_family"],
        # Whom nobody tells reads the list of revisions, and takes one that was never deployed.
        "good_revision": good.rpartition("/")[2],
        "alb_address": here["alb_url"].removeprefix("http://").partition(":")[0],
        "alb_url": here["alb_url"],
        "public_name": state["public_name"],
        "public_url": state["public_url"],
    }


def is_over(sandbox: Sandbox) -> bool:
    """The service is complete on the good revision, and users meet its version."""
    return _service(sandbox)["taskDefinition"].endswith(":3") and _is_complete(sandbox) and _version(sandbox) == "v2"


def rollout(sandbox: Sandbox) -> float:
    """Seconds from the deployment that helped to its completion: tasks start, are checked, and the old ones drain."""
    deployment = _service(sandbox)["deployments"][0]
    return (deployment["updatedAt"] - deployment["createdAt"]).total_seconds()


def _service(sandbox: Sandbox) -> dict:
    here = sandbox.state["regions"][REGION]
    ecs = sandbox.boto("ecs", REGION)
    return ecs.describe_services(cluster=here["cluster"], services=[here["service"]])["services"][0]


def _is_complete(sandbox: Sandbox) -> bool:
    return [each["rolloutState"] for each in _service(sandbox)["deployments"]] == ["COMPLETED"]


def _version(sandbox: Sandbox) -> str | None:
    answer = ask(sandbox, "GET", "/health")
    return answer[1].get("X-App-Version") if answer else None


CONTEST = Contest(
    name="ecs_rollback",
    contestants=(OURS, CLI, MODULES, PLAYBOOK),
    arrange=arrange,
    is_over=is_over,
    unavoidable=rollout,
    # Issue "Rollback, every way a service is deployed", Speed.
    limits={CLI.name: 0.3, MODULES.name: 0.3},
    figures=lambda _seconds: quotas(),
)

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of recovery_api_rollback: pure, so without any API."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.recovery_api_rollback import RecoveryApiRollback

ARN = "arn:aws:ecs:us-east-1:123456789012:task-definition/regami-api:{}"


def observed(
    running: int = 5, held: tuple = (3,), desired: int = 2, state: str = "COMPLETED", **service: object
) -> dict:
    """A service that runs a revision, and snapshots of revisions, the newest first."""
    deployment = {"id": "ecs-svc/1", "status": "PRIMARY", "rolloutState": state, "taskDefinition": ARN.format(running)}
    return {
        "service": {
            "serviceName": "regami-service",
            "taskDefinition": ARN.format(running),
            "desiredCount": desired,
            "runningCount": desired,
            "deployments": [deployment],
            **service,
        },
        "status": {},
        "snapshots": [
            {"snapshot_id": f"s{number}", "timestamp": "", "task_definition": ARN.format(number), "desired_count": 2}
            for number in held
        ],
    }


def plan(seen: dict, **wanted: object):
    return RecoveryApiRollback.plan(seen, {"snapshot_id": None, "accept_fewer_tasks": False, **wanted})


def whats(seen: dict, **wanted: object) -> list[str]:
    return [step.what for step in plan(seen, **wanted).steps]


def test_it_goes_to_the_last_other_snapshot_and_waits() -> None:
    found = plan(observed())
    assert [step.do for step in found.steps] == ["roll_back", "settle"]
    assert found.steps[0].what == "roll regami-service back to snapshot s3 (regami-api:3) through its recovery API"
    assert found.after == {"task_definition": "regami-api:3", "desired": 2, "running": 2}
    assert found.returned == {"snapshot_id": "s3", "answered": True}


def test_what_was_rolled_back_stays_so() -> None:
    assert whats(observed(running=3, held=(5, 3))) == []


def test_a_run_that_was_killed_after_the_rollback_goes_on_waiting() -> None:
    assert whats(observed(running=3, held=(5, 3), state="IN_PROGRESS")) == ["wait until regami-service has rolled out"]


def test_a_given_snapshot_wins_even_where_going_back_was_done() -> None:
    assert "snapshot s5 (regami-api:5)" in whats(observed(running=3, held=(5, 3)), snapshot_id="s5")[0]
    assert whats(observed(running=3, held=(5, 3)), snapshot_id="s3") == []


@pytest.mark.parametrize(
    ("seen", "wanted", "message"),
    [
        (observed(), {"snapshot_id": "latest"}, "has no snapshot latest .there are: s3."),
        (observed(running=3), {}, "none of the 1 snapshots of regami-service holds anything else than regami-api:3"),
        (observed(held=()), {}, "none of the 0 snapshots"),
        (observed(desired=6), {}, "snapshot s3 has 2 tasks and regami-service wants 6 now.*accept_fewer_tasks=true"),
        (observed(deploymentController={"type": "CODE_DEPLOY"}), {}, "is deployed by CODE_DEPLOY"),
    ],
)
def test_it_refuses(seen: dict, wanted: dict, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        plan(seen, **wanted)


def test_a_count_that_the_api_changes_is_said() -> None:
    assert plan(observed(desired=1)).notes == ("snapshot s3 sets the desired count of regami-service from 1 to 2",)
    assert plan(observed(desired=6), accept_fewer_tasks=True).notes == (
        "snapshot s3 sets the desired count of regami-service from 6 to 2",
    )

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of asg_rollback, and the verb against a scripted AWS."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils import verb as engine
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal
from ansible_collections.sre.runbooks.plugins.modules import asg_rollback
from ansible_collections.sre.runbooks.plugins.modules.asg_rollback import AsgRollback
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main


def refresh(goal: int | str | None, status: str = "Successful", number: int = 0) -> dict:
    template = {"LaunchTemplateId": "lt-1", "Version": str(goal)}
    return {
        "InstanceRefreshId": f"r{number}",
        "Status": status,
        "StatusReason": "health checks failed" if status == "Failed" else "",
        "DesiredConfiguration": {"LaunchTemplate": template} if goal else None,
        "PercentageComplete": 50,
    }


def observed(*refreshes: dict, version: str | None = "4", instances: tuple = (4, 4), **group: object) -> dict:
    """A group at a version, its refreshes, the newest first, and versions 1 to 4, of which 3 is the default."""
    template = {"LaunchTemplateId": "lt-1"} | ({"Version": version} if version else {})
    return {
        "group": {
            "AutoScalingGroupName": "fleet",
            "LaunchTemplate": template,
            "DesiredCapacity": 2,
            "Instances": [
                {"InstanceId": f"i-{n}", "LifecycleState": "InService", "LaunchTemplate": {"Version": str(each)}}
                for n, each in enumerate(instances)
            ],
            "SuspendedProcesses": [],
            **group,
        },
        "refreshes": list(refreshes),
        "versions": {n: {"is_default": n == 3, "description": f"v{n}"} for n in (1, 2, 3, 4)},
        "irreversible": False,
    }


def plan(seen: dict, version: int | None = None):
    return AsgRollback.plan(seen, {"version": version})


def steps(seen: dict, version: int | None = None) -> list[str]:
    return [step.what for step in plan(seen, version).steps]


BACK_TO_2 = "refresh fleet to version 2 of its launch template"
PAST = (refresh(2), refresh(1))


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (observed(refresh(4), *PAST), [BACK_TO_2]),
        # The draft 3 was never refreshed to, and 4's own refresh failed once before it succeeded.
        (observed(refresh(4), refresh(4, "Failed"), *PAST), [BACK_TO_2]),
        # Done already, by this verb, by AWS, or before anything was replaced.
        (observed(refresh(2), refresh(4), *PAST, version="2", instances=(2, 2)), []),
        (observed(refresh(4, "RollbackSuccessful"), *PAST, version="2", instances=(2, 2)), []),
        (observed(refresh(4, "Cancelled"), *PAST, version="2", instances=(2, 2)), []),
        # A mixture that a refresh left which did not end well.
        (observed(refresh(4, "Cancelled"), *PAST, version="2", instances=(2, 4)), [BACK_TO_2]),
        (observed(refresh(4, "Failed"), *PAST, version="2", instances=(2, 4)), [BACK_TO_2]),
        (observed(refresh(4, "RollbackFailed"), *PAST, version="2", instances=(2, 4)), [BACK_TO_2]),
        # One in progress is turned round; that is not tried where AWS refuses it.
        (
            observed(refresh(4, "InProgress"), *PAST, version="2", instances=(2, 4)),
            ["roll the instance refresh of fleet to version 4 back"],
        ),
        (
            observed(refresh(4, "InProgress"), *PAST, version="2", instances=(2, 4)) | {"irreversible": True},
            ["cancel the instance refresh of fleet to version 4", BACK_TO_2],
        ),
        (
            observed(refresh(None, "InProgress"), *PAST, version="$Latest", instances=(2, 4)),
            ["cancel the instance refresh of fleet to an unknown version", BACK_TO_2],
        ),
        (
            observed(refresh(4, "InProgress"), *PAST, version="$Latest", instances=(2, 4)),
            ["cancel the instance refresh of fleet to version 4", BACK_TO_2],
        ),
        # Ours from a run that was killed is waited for, and never turned round.
        (observed(refresh(2, "InProgress"), refresh(4), *PAST, instances=(4, 2)), ["wait until fleet is refreshed"]),
        (
            observed(refresh(4, "RollbackInProgress"), *PAST, version="2", instances=(2, 4)),
            ["wait until fleet is rolled back"],
        ),
        (
            observed(refresh(4, "Cancelling"), *PAST, version="2", instances=(2, 4)),
            ["wait until fleet is through with Cancelling", BACK_TO_2],
        ),
        # A group that follows its template runs what nobody refreshed to by number, and is pinned.
        (observed(refresh(None), *PAST, version="$Latest"), [BACK_TO_2]),
        (observed(refresh(2), refresh(None), *PAST, version="2", instances=(2, 2)), []),
        (observed(*PAST, version=None, instances=(3, 3)), [BACK_TO_2]),
    ],
)
def test_what_is_left_to_do(seen: dict, wanted: list[str]) -> None:
    assert steps(seen) == wanted


@pytest.mark.parametrize(
    ("seen", "version", "wanted"),
    [
        (observed(refresh(4), *PAST), 1, ["refresh fleet to version 1 of its launch template"]),
        (observed(refresh(4), *PAST), 4, []),
        (
            observed(refresh(2), refresh(4), *PAST, version="2", instances=(2, 2)),
            4,
            ["refresh fleet to version 4 of its launch template"],
        ),
        (
            observed(refresh(4, "InProgress"), *PAST, version="2", instances=(2, 4)),
            1,
            ["cancel the instance refresh of fleet to version 4", "refresh fleet to version 1 of its launch template"],
        ),
        (
            observed(refresh(4, "InProgress"), *PAST, version="2", instances=(2, 4)),
            4,
            ["wait until fleet is refreshed"],
        ),
    ],
)
def test_a_given_version_wins(seen: dict, version: int, wanted: list[str]) -> None:
    assert steps(seen, version) == wanted


@pytest.mark.parametrize(
    ("seen", "version", "message"),
    [
        (
            observed(),
            None,
            "no instance refresh of the last six weeks tells what fleet ran before version 4: give version",
        ),
        (observed(refresh(None)), None, "tells what fleet ran before"),
        (observed(refresh(4), refresh(9)), None, "version 9 of the launch template of fleet does not exist"),
        (observed(refresh(4), *PAST), 7, r"version 7 .* does not exist .there are: 1 .v1., 2"),
        (
            observed(refresh(4), *PAST, SuspendedProcesses=[{"ProcessName": "Launch"}]),
            None,
            "Launch of fleet is suspended.*resume-processes",
        ),
    ],
)
def test_it_refuses(seen: dict, version: int | None, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        plan(seen, version)


def test_a_suspended_process_is_nobodys_business_where_nothing_is_to_do() -> None:
    seen = observed(refresh(4), *PAST, SuspendedProcesses=[{"ProcessName": "Launch"}])
    assert steps(seen, 4) == []


def test_what_a_person_must_know_is_said() -> None:
    assert plan(observed(refresh(None), *PAST, version="$Latest")).notes == (
        "fleet followed $Latest: it stays at version 2 until a deployment says otherwise",
    )
    seen = observed(refresh(4), *PAST)
    seen["group"]["Instances"][0]["ProtectedFromScaleIn"] = True
    assert "i-0 of fleet protected from scale-in" in plan(seen).notes[0]
    done = observed(refresh(2), refresh(4), *PAST, version="2", instances=(2, 2))
    assert "came back to version 2 already" in plan(done).notes[0]


class Fleet:
    """AWS with one group whose refresh ends as the script says; `trouble` happens to the first change of that name."""

    region = "us-east-1"
    silent, missed = frozenset(), ()

    def __init__(self) -> None:
        self.seen = observed(refresh(4), *PAST)
        self.ends, self.trouble, self.changes = "Successful", {}, []

    def __call__(self, connection: object) -> Fleet:
        return self

    def read(self, service: str, operation: str, **arguments: Any) -> dict:
        if operation == "describe_auto_scaling_groups":
            return {"AutoScalingGroups": [self.seen["group"]]}
        if operation == "describe_launch_template_versions":
            versions = [{"VersionNumber": n, "VersionDescription": f"v{n}"} for n in (1, 2, 3, 4)]
            return {"LaunchTemplateVersions": versions}
        wanted = arguments.get("InstanceRefreshIds")
        if wanted:
            self._end(self.seen["refreshes"][0])
        return {
            "InstanceRefreshes": [
                each for each in self.seen["refreshes"] if not wanted or each["InstanceRefreshId"] in wanted
            ]
        }

    def _end(self, newest: dict) -> None:
        if newest["Status"] == "InProgress":
            newest["Status"] = self.ends
            newest["StatusReason"] = "instances failed" if self.ends == "Failed" else ""
            if self.ends == "Successful":
                version = newest["DesiredConfiguration"]["LaunchTemplate"]["Version"]
                self.seen["group"]["LaunchTemplate"]["Version"] = version
                for each in self.seen["group"]["Instances"]:
                    each["LaunchTemplate"]["Version"] = version

    def change(self, service: str, operation: str, **arguments: Any) -> dict:
        self.changes.append((operation, arguments))
        trouble = self.trouble.pop(operation, None)
        if isinstance(trouble, ClientError):
            raise trouble
        assert operation == "start_instance_refresh"
        goal = arguments["DesiredConfiguration"]["LaunchTemplate"]["Version"]
        self.seen["refreshes"].insert(0, refresh(goal, "InProgress", number=9))
        if trouble:
            raise trouble
        return {"InstanceRefreshId": "r9"}


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Fleet:
    there = Fleet()
    monkeypatch.setattr(engine, "Aws", there)
    monkeypatch.setattr(engine.time, "sleep", lambda seconds: None)
    return there


def run(check: bool = False, **arguments: object) -> dict:
    given = {"auto_scaling_group": "fleet", "region": "us-east-1", **arguments}
    return run_main(asg_rollback.main, check, **given)


def test_it_refreshes_waits_and_says_how_to_go_forward_again(fleet: Fleet) -> None:
    result = run(min_healthy_percentage=100)
    assert not result.get("failed"), result
    ((operation, arguments),) = fleet.changes
    assert operation == "start_instance_refresh"
    assert arguments["Preferences"] == {"SkipMatching": True, "MinHealthyPercentage": 100}
    assert arguments["DesiredConfiguration"] == {"LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": "2"}}
    assert (result["changed"], result["version"], result["refresh_id"]) == (True, 2, "r9")
    assert result["before"] == {"version": "4", "instances": {"4": 2}, "refresh": "Successful"}
    assert result["after"] == {"version": "2", "instances": {"2": 2}, "refresh": "Successful"}
    assert result["undo"][0]["arguments"] == {"auto_scaling_group": "fleet", "region": "us-east-1", "version": 4}
    assert run()["changed"] is False


def test_check_mode_changes_nothing_and_predicts(fleet: Fleet) -> None:
    result = run(check=True)
    assert not fleet.changes
    assert result["after"] == {"version": "2", "instances": {"2": 2}, "refresh": "Successful"}


def test_a_lost_answer_is_looked_after_and_not_repeated(fleet: Fleet) -> None:
    fleet.trouble["start_instance_refresh"] = LostAnswer("no answer")
    result = run()
    assert not result.get("failed"), result
    assert len(fleet.changes) == 1
    assert result["after"]["version"] == "2"


def test_a_refresh_that_fails_is_red_with_the_reason(fleet: Fleet) -> None:
    fleet.ends = "Failed"
    result = run()
    assert result["failed"]
    assert "the instance refresh r9 of fleet ended Failed: instances failed" in result["msg"]


def test_another_refresh_that_came_first_is_looked_at(fleet: Fleet) -> None:
    problem = {"Error": {"Code": "InstanceRefreshInProgress", "Message": "already"}, "ResponseMetadata": {}}
    fleet.trouble["start_instance_refresh"] = ClientError(problem, "StartInstanceRefresh")
    result = run()
    assert not result.get("failed"), result
    assert [operation for operation, _arguments in fleet.changes] == ["start_instance_refresh"] * 2

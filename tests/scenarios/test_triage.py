# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""triage.yml: each rule of the decision tree is broken by a real failure, and the right playbook is named; or it says that it
could not see.

The inventory's rules want a failure to last for minutes, which the unit tests of the tree cover; here a minute is enough.
"""

from __future__ import annotations

import json
import math
import time

import pytest
import yaml
from runbook import REPOSITORY, Result
from world import EAST, World, wait_until

INVENTORY = yaml.safe_load((REPOSITORY / "inventories/sandbox/group_vars/service_sandbox.yml").read_text())
RULES = [rule | ({} if rule["signal"] == "restarts" else {"for_minutes": 1}) for rule in INVENTORY["triage_rules"]]
# The first day deploys; this run is told to take nothing for recent.
LONG_DEPLOYED = {"recent_minutes": 0}
COMMAND = "ansible-playbook playbooks/"


def triage(world: World, *flags: str, **variables: object) -> Result:
    run = world.runbook.run("triage", *flags, **{"triage_rules": RULES, **variables})
    assert (run.returncode, run.mutations, run.lease_calls) == (0, [], []), run.output
    return run


def verdict(run: Result) -> tuple[str, str, str]:
    """The severity, what breaks the worst rule, and the command line that it ends with."""
    notes = run.report["notes"]
    words = next(number for number, note in enumerate(notes) if note.startswith(("severity", "no rule is broken")))
    (following,) = (note for note in notes if note.startswith("next: "))
    return notes[words], notes[words + 1], following.removeprefix(f"next: {COMMAND}")


def points(world: World, name: str, stat: str = "Average") -> list[float]:
    """What CloudWatch has of a metric of the service or of its load balancer, lately."""
    names = world.names(EAST)
    dimensions = {"ClusterName": names["cluster"], "ServiceName": names["service"]}
    if name == "TargetResponseTime" or name.startswith("HTTP"):
        dimensions = {"LoadBalancer": names["load_balancer_arn"].partition(":loadbalancer/")[2]}
    metric = {
        "Namespace": "AWS/ECS" if "ClusterName" in dimensions else "AWS/ApplicationELB",
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in dimensions.items()],
    }
    now = time.time()
    (result,) = world.aws("cloudwatch").get_metric_data(
        StartTime=now - 300,
        EndTime=now + 60,
        MetricDataQueries=[{"Id": "m", "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}}],
    )["MetricDataResults"]
    return result["Values"]


def test_nothing_is_wrong_and_nothing_is_changed_in_check_mode_either(untouched: World) -> None:
    cloudwatch = untouched.aws("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="regami-5xx",
        Namespace="AWS/ApplicationELB",
        MetricName="HTTPCode_Target_5XX_Count",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )
    cloudwatch.set_alarm_state(AlarmName="regami-5xx", StateValue="ALARM", StateReason="Threshold Crossed by hand")
    for flags in ((), ("--check", "--diff")):
        run = triage(untouched, *flags)
        (page,) = run.folder.glob("*.html")
        drawn = page.read_text()
        assert "alarm regami-5xx is ALARM: Threshold Crossed by hand" in drawn
        assert "<svg" in drawn and "service memory of" in drawn
        assert page.name in run.output
        assert verdict(run) == (
            "no rule is broken",
            "not judged: data_loss at least 1 (P0)",
            "recovery_validation.yml -e env=sandbox",
        )
        assert [note for note in run.report["notes"] if note.startswith("alarm regami-5xx is on since ")]
    cloudwatch.delete_alarms(AlarmNames=["regami-5xx"])


def test_a_rule_that_would_never_be_broken_is_refused(untouched: World) -> None:
    run = untouched.runbook.run("triage", triage_rules=[{"signal": "p98", "above": 3, "severity": "P1"}])
    assert run.returncode == 2
    (complaint,) = run.complaints
    assert "there is no signal p98 (there are: p9" in complaint


def test_errors_after_a_deployment(world: World) -> None:
    world.start_users()
    world.sandbox.fault("bad-build", build="erroring")
    wait_until(lambda: world.sandbox.control("load", action="report")["failed_requests"] > 40, "users see errors")
    wait_until(lambda: points(world, "HTTPCode_Target_5XX_Count", "Sum"), "the balancer counts errors")
    run = triage(world)
    severity, why, command = verdict(run)
    assert (severity, command) == ("severity P1", "rollback_deployment.yml -e env=sandbox")
    assert why.startswith("P1: error_percent of regami-alb is ")
    notes = "\n".join(run.report["notes"])
    assert "NEW since the deployment" in notes and "ERROR POST /v<n>/rows KeyError: 'tenant'" in notes
    assert "regami-api:5 changed from regami-api:3, the last good one: app: image " in notes
    assert "ecs:UpdateService of regami-service by user/pipeline" in notes


def test_slow_answers_without_a_deployment(world: World) -> None:
    world.start_users(acknowledged=1)
    with world.session(EAST) as query:
        query("BEGIN")
        query("LOCK TABLE rows IN ACCESS EXCLUSIVE MODE")
        query("SELECT pg_sleep(3.4)")
        query("ROLLBACK")
    world.stop_users(more=1)
    wait_until(lambda: max(points(world, "TargetResponseTime", "p99"), default=0) > 3, "the balancer measured it")
    severity, why, command = verdict(triage(world, **LONG_DEPLOYED))
    assert severity == "severity P2"
    assert why.startswith("P2: p99 of regami-alb is 3.")
    assert command == "performance_degradation.yml -e env=sandbox"


def test_a_dead_database_seen_without_the_metrics(world: World) -> None:
    """Partial blindness: what is left to see is enough, and what was not seen is said."""
    world.sandbox.fault("primary-killed")
    world.sandbox.fault("api", service="cloudwatch", action="*", kind="denied")
    run = triage(world, **LONG_DEPLOYED)
    severity, why, command = verdict(run)
    assert (severity, command) == ("severity at least P0", "db_failover.yml -e env=sandbox")
    assert why.startswith("P0: 3 failed checks in a row, at least 3: health with the database: answered 503")
    notes = run.report["notes"]
    assert "not judged: p99 above 3 (P2)" in notes
    assert any("cannot see metrics" in note and "cloudwatch:GetMetricData" in note for note in notes)


def test_no_task_serves(world: World) -> None:
    names = world.names(EAST)
    world.aws("ecs").update_service(cluster=names["cluster"], service=names["service"], desiredCount=0)
    wait_until(lambda: world.healthy_targets(EAST) == 0, "it is drained")
    run = triage(world)
    severity, _why, command = verdict(run)
    assert (severity, command) == ("severity P0", "service_outage.yml -e env=sandbox")
    assert "P0: 0 tasks or pods that serve, below 1" in run.report["notes"]


def test_tasks_that_fail_one_after_the_other_in_a_teams_own_words(world: World) -> None:
    world.sandbox.fault("bad-build", build="crashing")
    names = world.names(EAST)
    stopped = {"cluster": names["cluster"], "serviceName": names["service"], "desiredStatus": "STOPPED"}
    wait_until(lambda: len(world.aws("ecs").list_tasks(**stopped)["taskArns"]) > 2, "they crash")
    rule = {"signal": "restarts", "above": 2, "for_minutes": 10, "severity": "Sev2"}
    severity, why, command = verdict(triage(world, triage_rules=[rule], severities=["Sev1", "Sev2"]))
    assert (severity, command) == ("severity Sev2", "rollback_deployment.yml -e env=sandbox")
    assert "tasks that failed within 10 min, above 2: Essential container in task exited (app: exit code 1)" in why


def test_tasks_with_too_little_memory(world: World) -> None:
    used = 1024 / 100 * wait_until(lambda: points(world, "MemoryUtilization"), "memory is measured")[0]
    ecs, names = world.aws("ecs"), world.names(EAST)
    running = ecs.describe_task_definition(taskDefinition=world.service(EAST)["taskDefinition"])["taskDefinition"]
    small = {key: running[key] for key in ("family", "executionRoleArn", "taskRoleArn", "networkMode", "cpu")}
    made = ecs.register_task_definition(
        **small,
        memory=str(math.ceil(used / 0.88)),
        requiresCompatibilities=["FARGATE"],
        containerDefinitions=[
            {key: value for key, value in each.items() if key != "memory"} for each in running["containerDefinitions"]
        ],
    )
    ecs.update_service(
        cluster=names["cluster"],
        service=names["service"],
        taskDefinition=made["taskDefinition"]["taskDefinitionArn"],
    )
    wait_until(lambda: world.is_settled(EAST), "all tasks run with little")
    # What CloudWatch has of this minute is mostly of the tasks before.
    world.sandbox.fault("metrics-missing")
    world.sandbox.heal("metrics-missing")
    wait_until(lambda: max(points(world, "MemoryUtilization"), default=0) > 85, "that is measured")
    severity, why, command = verdict(triage(world, **LONG_DEPLOYED))
    assert severity == "severity P2"
    assert why.startswith("P2: service_memory of regami-service is ")
    assert command == "performance_degradation.yml -e env=sandbox"


def test_lost_data(world: World) -> None:
    world.start_users(acknowledged=1)
    world.stop_users(more=0)
    row = world.acknowledged()[0]["id"]
    check = {"name": "the first row", "url": f"{world.sandbox.state['public_url']}/v1/rows/{row}"}
    with world.app_session(EAST) as query:
        query("DELETE FROM rows WHERE id = %s", row)
    severity, why, _command = verdict(triage(world, data_checks=[check]))
    assert severity == "severity P0"
    assert why == "P0: 1 signs of lost data, at least 1: the first row: answered 404: " + json.dumps(
        {"error": f"no row {row}"}
    )


@pytest.mark.soak
def test_a_region_that_answers_nothing(world: World) -> None:
    world.sandbox.fault("region-cut", region=EAST)
    check = {"name": "health", "url": "{{ public_url }}/health", "within": 1}
    run = triage(world, smoke_tests=[check])
    severity, _why, command = verdict(run)
    assert (severity, command) == ("severity at least P0", "db_failover.yml -e env=sandbox")
    assert any(note.startswith("cannot see tasks: ") and "got no answer" in note for note in run.report["notes"])

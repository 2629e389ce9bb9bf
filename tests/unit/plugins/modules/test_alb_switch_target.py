# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""alb_switch_target: its plan, and the exact changes it makes, in order."""

from __future__ import annotations

import copy
import datetime
import threading
from collections import Counter

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Unreachable
from ansible_collections.sre.runbooks.plugins.modules import alb_switch_target
from ansible_collections.sre.runbooks.tests.unit.ecs_region import carry_out

PREFIX = "arn:aws:elasticloadbalancing:us-west-2:123456789012:"
BALANCER = f"{PREFIX}loadbalancer/app/regami-alb/1"
BLUE, GREEN, CANARY = (f"{PREFIX}targetgroup/{name}/1" for name in ("blue", "green", "canary"))
HTTP, TEST = f"{PREFIX}listener/app/regami-alb/1/80", f"{PREFIX}listener/app/regami-alb/1/8080"
RULE = f"{PREFIX}listener-rule/app/regami-alb/1/80/10"
SERVICE = {"cluster": "regami-cluster", "service": "regami-service"}


def forward(sticky=None, **groups):
    """groups: blue=1, green=0 ... in their order."""
    names = {"blue": BLUE, "green": GREEN, "canary": CANARY}
    config = {"TargetGroups": [{"TargetGroupArn": names[name], "Weight": weight} for name, weight in groups.items()]}
    if sticky:
        config["TargetGroupStickinessConfig"] = {"Enabled": True, "DurationSeconds": sticky}
    return [{"Type": "forward", "ForwardConfig": config}]


class Region:
    """Elastic Load Balancing in memory: the default action of port 80, one rule there, and a test listener on demand."""

    region = "us-west-2"

    def __init__(self, **actions):
        self.silent = set()
        self.missed = []
        self.actions = {HTTP: forward(blue=1), RULE: forward(blue=1)} | actions
        self.changes, self.calls, self.lock = [], Counter(), threading.Lock()
        self.groups = {arn: {"VpcId": "vpc-1", "Protocol": "HTTP", "LoadBalancerArns": []} for arn in (BLUE, GREEN)}
        self.states = {BLUE: ["healthy"] * 2, GREEN: ["healthy"] * 2}
        self.service = {"serviceName": "regami-service", "status": "ACTIVE", "deployments": [], "taskDefinition": "x:1"}
        self.deployments = {}
        self.errors, self.requests = 0, 0
        self.lose, self.drop = Counter(), Counter()
        self.before_change = lambda: None
        self.after_change = lambda: None
        self.cloudwatch_is_cut = False

    def read(self, _service, operation, /, region=None, **arguments):
        with self.lock:
            self.calls[operation] += 1
            return copy.deepcopy(getattr(self, operation)(**arguments))

    def change(self, _service, operation, /, region=None, **arguments):
        with self.lock:
            arn = arguments.get("RuleArn") or arguments["ListenerArn"]
            actions = arguments.get("Actions") or arguments["DefaultActions"]
            self.changes.append((operation, arn, actions))
            if self.drop[arn]:
                self.drop[arn] -= 1
                raise LostAnswer(f"{operation} got no answer")
            self.actions[arn] = actions
            self.after_change()
            if self.lose[arn]:
                self.lose[arn] -= 1
                raise LostAnswer(f"{operation} got no answer")

    def weights(self, arn=HTTP):
        groups = self.actions[arn][-1]["ForwardConfig"]["TargetGroups"]
        return {each["TargetGroupArn"].split("/")[1]: each["Weight"] for each in groups}

    def describe_listeners(self, LoadBalancerArn):
        ports = ((TEST, 8080), (HTTP, 80))
        return {"Listeners": [{"ListenerArn": arn, "Port": port} for arn, port in ports if arn in self.actions]}

    def describe_rules(self, ListenerArn, Marker=None):
        """One rule a page."""
        default = {"RuleArn": "default", "IsDefault": True, "Priority": "default", "Actions": self.actions[ListenerArn]}
        if ListenerArn == TEST or RULE not in self.actions or Marker:
            return {"Rules": [default]}
        rule = {"RuleArn": RULE, "IsDefault": False, "Priority": "10", "Actions": self.actions[RULE]}
        return {"Rules": [rule], "NextMarker": "more"}

    def describe_target_groups(self, TargetGroupArns):
        return {
            "TargetGroups": [
                {"TargetGroupArn": arn, "TargetGroupName": arn.split("/")[1], **self.groups[arn]}
                for arn in TargetGroupArns
            ]
        }

    def describe_target_health(self, TargetGroupArn):
        return {
            "TargetHealthDescriptions": [
                {"Target": {"Id": f"10.0.0.{number}", "Port": 8080}, "TargetHealth": {"State": state}}
                for number, state in enumerate(self.states[TargetGroupArn], 1)
            ]
        }

    def get_metric_data(self, MetricDataQueries, **_times):
        if self.cloudwatch_is_cut:
            raise Unreachable("CloudWatch got no answer")
        counted = {"RequestCount": self.requests, "HTTPCode_Target_5XX_Count": self.errors}
        minute = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        results = []
        for query in MetricDataQueries:
            value = counted.get(query["MetricStat"]["Metric"]["MetricName"])
            found = {"Timestamps": [minute], "Values": [value]} if value else {"Timestamps": [], "Values": []}
            results.append({"Id": query["Id"], "StatusCode": "Complete", **found})
        return {"MetricDataResults": results}

    def describe_services(self, cluster, services):
        return {"services": [self.service]}

    def get_deployment(self, deploymentId):
        return {"deploymentInfo": self.deployments[deploymentId]}


@pytest.fixture
def switch(monkeypatch):
    def run(region, old=BLUE, new=GREEN, **given):
        arguments = {"load_balancer_arn": BALANCER, "old_target_group_arn": old, "new_target_group_arn": new}
        arguments |= {"step_seconds": 0} | given
        return carry_out(monkeypatch, alb_switch_target, alb_switch_target.AlbSwitchTarget, region, **arguments)

    return run


def dos(result):
    return [step["do"] for step in result["steps"]]


def test_every_rule_moves_at_once_and_undo_brings_back_the_exact_actions(switch):
    found = {HTTP: [{"Type": "forward", "TargetGroupArn": BLUE}], RULE: forward(blue=3, canary=1)}
    region = Region(**copy.deepcopy(found), **{TEST: forward(green=1)})
    result = switch(region, services=[SERVICE])
    assert sorted(change[1] for change in region.changes) == sorted([RULE, HTTP])
    assert region.weights() == {"blue": 0, "green": 1}
    assert region.weights(RULE) == {"blue": 0, "green": 3, "canary": 1}
    assert region.weights(TEST) == {"green": 1}
    assert (dos(result), result["changed"], result["notes"]) == (["shift"], True, [])
    assert result["before"]["rules"] == {
        "port 80 rule 10": {"blue": 3, "canary": 1},
        "port 80 default": {"blue": 1},
        "port 8080 default": {"green": 1},
    }
    assert result["after"]["rules"]["port 80 default"] == {"blue": 0, "green": 1}
    # Observe, look before the change, look at the end.
    assert region.calls["describe_listeners"] == 3

    (undo,) = result["undo"]
    region.changes.clear()
    arguments = {key: value for key, value in undo["arguments"].items() if key != "region"}
    back = switch(region, arguments.pop("old_target_group_arn"), arguments.pop("new_target_group_arn"), **arguments)
    assert not back["failed"] and region.actions == found | {TEST: forward(green=1)}
    again = switch(region, GREEN, BLUE, restore=arguments["restore"])
    assert (again["changed"], again["steps"]) == (False, [])


def test_unchecked_group_is_attached_at_weight_zero_until_it_is_healthy(switch):
    region = Region()
    region.states[GREEN] = ["unused"] * 2

    def checked():
        if region.weights(RULE).get("green") == 0:
            region.states[GREEN] = ["initial", "healthy"]

    region.after_change = checked
    result = switch(region, min_healthy_targets=1)
    assert dos(result) == ["attach", "wait_healthy", "shift"]
    assert region.changes[0] == ("modify_rule", RULE, forward(blue=1, green=0))
    assert result["steps"][0]["what"] == "attach green to port 80 rule 10 at weight 0, which starts its health checks"
    assert region.weights() == region.weights(RULE) == {"blue": 0, "green": 1}


def test_group_that_does_not_become_healthy_is_detached_again(switch):
    region = Region()
    region.states[GREEN] = ["unused"] * 2
    region.after_change = lambda: region.states.update({GREEN: ["unhealthy"] * 2})
    found = copy.deepcopy(region.actions)
    result = switch(region)
    assert result["failed"] and region.actions == found
    assert "green does not become healthy: 10.0.0.1:8080 is unhealthy" in result["msg"]
    assert "Every rule is back at blue" in result["msg"] and "same command again goes on" not in result["msg"]
    assert (dos(result), result["undo"]) == (["attach"], [])


def test_steps_are_watched_one_after_the_other(switch):
    region = Region(**{TEST: forward(green=1)})
    seen = []
    region.after_change = lambda: seen.append(region.weights())
    result = switch(region, steps=[10, 50, 100])
    assert dos(result) == ["shift", "watch"] * 3
    assert region.weights() == region.weights(RULE) == {"blue": 0, "green": 10}
    assert {"blue": 9, "green": 1} in seen and {"blue": 5, "green": 5} in seen
    assert result["checks"] == [
        {"percent": percent, "healthy": 2, "requests": 0, "errors": 0} for percent in (10, 50, 100)
    ]


@pytest.mark.parametrize(
    ("errors", "states", "why"),
    [
        (6, ["healthy"] * 2, "6 of its 100 requests failed with a 5xx (6.0 %, max_error_percent is 5)"),
        (0, ["unhealthy"] * 2, "0 of its targets healthy, 1 needed (10.0.0.1:8080 is unhealthy; 10.0.0.2"),
    ],
)
def test_step_that_turns_bad_goes_back_by_itself(switch, errors, states, why):
    region = Region(**{TEST: forward(green=1)})
    found = copy.deepcopy(region.actions)
    plain = region.get_metric_data

    def worsen(**given):
        answer = plain(**given)  # the first look of a step counts what was before it
        if region.weights().get("green") == 5:
            region.errors, region.requests, region.states[GREEN] = errors, 100, states
        return answer

    region.get_metric_data = worsen
    result = switch(region, steps=[10, 50, 100])
    assert result["failed"] and why in result["msg"] and "green does not serve at 50 %" in result["msg"]
    assert region.actions == found and result["undo"] == []
    assert dos(result) == ["shift", "watch", "shift"]
    assert result["checks"][-1]["percent"] == 50


def test_errors_from_before_the_step_do_not_count(switch):
    region = Region(**{TEST: forward(green=1)})
    region.errors = region.requests = 40
    assert not switch(region, steps=[50, 100])["failed"]


def test_cloudwatch_that_does_not_answer_leaves_the_health_of_the_targets(switch):
    region = Region(**{TEST: forward(green=1)})
    region.cloudwatch_is_cut = True
    result = switch(region, steps=[50, 100])
    assert not result["failed"]
    assert result["checks"][0] == {"percent": 50, "healthy": 2, "requests": None, "errors": None}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"blue": 9, "green": 1}, ["watch", "shift", "watch", "shift", "watch"]),
        ({"blue": 7, "green": 3}, ["shift", "watch", "shift", "watch"]),
    ],
)
def test_interrupted_move_goes_on_from_the_weights_found(switch, found, expected):
    region = Region(**{HTTP: forward(**found), RULE: forward(**found)})
    assert dos(switch(region, steps=[10, 50, 100])) == expected
    assert region.weights() == {"blue": 0, "green": 10}


def test_rules_that_an_interrupted_step_left_behind_catch_up(switch):
    region = Region(**{HTTP: forward(blue=5, green=5), RULE: forward(blue=9, green=1)})
    result = switch(region, steps=[10, 50, 100])
    assert result["steps"][1]["before"] == {"port 80 rule 10": {"blue": 9, "green": 1}}
    assert region.weights() == region.weights(RULE) == {"blue": 0, "green": 10}


def test_interrupted_move_that_turns_bad_goes_back_to_the_old_group_alone(switch):
    region = Region(**{HTTP: forward(blue=9, green=1), RULE: forward(blue=9, green=1)})

    def sicken():
        region.states[GREEN] = ["unhealthy"]

    region.after_change = sicken
    result = switch(region, steps=[10, 50, 100])
    assert result["failed"] and region.weights() == region.weights(RULE) == {"blue": 10, "green": 0}


@pytest.mark.parametrize("way", ["lose", "drop"])
@pytest.mark.parametrize("arn", [HTTP, RULE])
def test_lost_answer_is_looked_up_before_anything_is_sent_again(switch, way, arn):
    region = Region(**{TEST: forward(green=1)})
    getattr(region, way)[arn] = 1
    result = switch(region)
    assert not result["failed"] and dos(result) == ["shift"]
    assert [change[1] for change in region.changes].count(arn) == (1 if way == "lose" else 2)
    assert len(region.changes) == (2 if way == "lose" else 3)


def test_lost_answer_on_the_way_back_is_sent_again(switch):
    region = Region(**{TEST: forward(green=1)})
    found = copy.deepcopy(region.actions)

    def sicken():
        region.states[GREEN] = ["unhealthy"]
        if region.weights() == {"blue": 5, "green": 5}:
            region.drop[HTTP] = 2

    region.after_change = sicken
    result = switch(region, steps=[50, 100])
    assert result["failed"] and "Every rule is back" in result["msg"] and region.actions == found


def test_change_by_somebody_else_is_noticed(switch):
    region = Region(**{TEST: forward(green=1)})
    plain, looks = region.describe_listeners, []

    def meddle(**given):
        looks.append(1)
        if len(looks) == 2:
            region.actions[RULE] = forward(canary=1)
        return plain(**given)

    region.describe_listeners = meddle
    result = switch(region)
    assert "port 80 rule 10 was changed by somebody else" in result["msg"] and region.changes == []


def test_sticky_rule_and_detached_group(switch):
    region = Region(**{HTTP: forward(sticky=60, blue=1), TEST: forward(green=1)})
    result = switch(region)
    assert (region.weights(), region.weights(RULE)) == ({"green": 1}, {"blue": 0, "green": 1})
    assert "port 80 default: sticky, so blue leaves it at the end" in result["notes"][-1]
    assert switch(region, detach_old=True)["steps"][0]["before"] == {"port 80 rule 10": {"blue": 0, "green": 1}}
    assert region.weights(RULE) == {"green": 1}
    assert not switch(region, detach_old=True)["changed"]


def test_client_secret_is_left_as_it_is(switch):
    oidc = {"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": {"ClientId": "me"}}
    region = Region(**{HTTP: [oidc, dict(forward(blue=1)[0], Order=2)], TEST: forward(green=1)})
    switch(region)
    kept, moved = next(change[2] for change in region.changes if change[1] == HTTP)
    assert kept["AuthenticateOidcConfig"] == {"ClientId": "me", "UseExistingClientSecret": True}
    assert moved["Order"] == 2


def test_check_mode_shows_the_plan_and_changes_nothing(switch):
    region = Region()
    region.states[GREEN] = ["unused"] * 2
    result = switch(region, check=True, steps=[25, 100], step_seconds=120, wait_timeout=600)
    assert region.changes == [] and result["changed"]
    assert [step["what"] for step in result["steps"]] == [
        "attach green to port 80 rule 10 at weight 0, which starts its health checks",
        "wait until green has 1 healthy target",
        "send 25 % of the requests for blue to green",
        "watch green for 120 s at 25 %",
        "send 100 % of the requests for blue to green",
        "watch green for 120 s at 100 %",
    ]
    assert result["after"]["rules"]["port 80 default"] == {"blue": 0, "green": 4}


def test_second_run_finds_it_done_whatever_the_health(switch):
    region = Region()
    switch(region)
    region.states[GREEN], region.changes = ["unhealthy"], []
    result = switch(region)
    assert (region.changes, result["changed"], result["steps"], result["undo"]) == ([], False, [], [])


def busy(**service):
    region = Region(**{TEST: forward(green=1)})
    region.service |= service
    region.deployments = {"d-1": {"deploymentId": "d-1", "status": "InProgress"}}
    return region


CODE_DEPLOY = {"deploymentController": {"type": "CODE_DEPLOY"}, "taskSets": [{"externalId": "d-1"}]}


@pytest.mark.parametrize(
    ("region", "why"),
    [
        (
            busy(deployments=[{"rolloutState": "IN_PROGRESS", "taskDefinition": "x/regami-api:4"}]),
            "ECS is deploying regami-service (regami-api:4 is in progress)",
        ),
        (busy(**CODE_DEPLOY), "CodeDeploy is deploying regami-service (d-1 is InProgress)"),
        (busy(taskSets=[{"stabilityStatus": "STABILIZING"}]), "a task set of regami-service is still stabilizing"),
    ],
)
def test_deployment_under_way_is_refused_unless_accepted(switch, region, why):
    result = switch(region, services=[SERVICE])
    assert f"{why}: it moves the listener itself" in result["msg"] and region.changes == []
    result = switch(region, services=[SERVICE], accept_deployment=True)
    assert result["notes"] == [f"accept_deployment: {why}"] and region.weights() == {"blue": 0, "green": 1}


def test_codedeploy_that_has_failed_is_no_obstacle(switch):
    region = busy(**CODE_DEPLOY)
    region.deployments["d-1"]["status"] = "Failed"
    assert not switch(region, services=[SERVICE])["failed"]


@pytest.mark.parametrize(
    ("change", "given", "expected"),
    [
        (lambda region: region.states.update({GREEN: []}), {}, "green has 0 targets, 1 needed"),
        (lambda region: region.states.update({GREEN: ["draining"]}), {}, "green has 0 targets, 1 needed"),
        (lambda region: region.groups[GREEN].update(VpcId="vpc-2"), {}, "green has VPC vpc-2, blue has vpc-1"),
        (lambda region: region.groups[GREEN].update(Protocol="HTTPS"), {}, "green has protocol HTTPS"),
        (
            lambda region: region.groups[GREEN].update(LoadBalancerArns=[f"{PREFIX}loadbalancer/app/other/2"]),
            {},
            "green belongs to the load balancer other",
        ),
        (lambda region: region.actions.update({TEST: forward(green=1)}) or region.states.update({GREEN: ["unhealthy"]}), {},
         "green is not healthy: 10.0.0.1:8080 is unhealthy. regami-alb stays as it is; min_healthy_targets=0"),
        (lambda region: region.actions.update({HTTP: forward(canary=1), RULE: forward(canary=1)}), {},
         "no rule of regami-alb forwards to blue (they forward to: canary)"),
        (lambda _region: None, {"steps": [50]}, "steps is [50]"),
        (lambda _region: None, {"steps": [50, 10, 100]}, "steps is [50, 10, 100]"),
        (lambda _region: None, {"new": BLUE}, "both blue"),
        (lambda _region: None, {"steps": [50, 100], "step_seconds": 60}, "a step must be shorter"),
        (lambda _region: None, {"restore": [{"arn": "gone", "actions": []}]}, "rules that are not there any more: gone"),
    ],
)  # fmt: skip
def test_refused_in_one_line_without_a_change(switch, change, given, expected):
    region = Region()
    change(region)
    result = switch(region, **given)
    assert result["failed"] and expected in result["msg"] and "\n" not in result["msg"]
    assert region.changes == []


def test_sixth_target_group_is_refused(switch):
    full = forward(blue=1)
    full[0]["ForwardConfig"]["TargetGroups"] += [
        {"TargetGroupArn": f"{PREFIX}targetgroup/{n}/1", "Weight": 1} for n in "abcd"
    ]
    region = Region(**{RULE: full, TEST: forward(green=1)})
    assert "port 80 rule 10 would forward to more than 5" in switch(region)["msg"] and region.changes == []
    assert not switch(region, detach_old=True)["failed"]


def test_unhealthy_group_gets_requests_only_when_told(switch):
    region = Region(**{TEST: forward(green=1)})
    region.states[GREEN] = ["unhealthy"] * 2
    result = switch(region, min_healthy_targets=0)
    assert not result["failed"] and region.weights() == {"blue": 0, "green": 1}
    assert "min_healthy_targets is 0: green has 0 healthy targets" in result["notes"][-1]


def test_group_with_fewer_targets_is_noted(switch):
    region = Region(**{TEST: forward(green=1)})
    region.states[GREEN] = ["healthy"]
    assert "green has 1 healthy targets where blue has 2: each gets more requests" in switch(region)["notes"]

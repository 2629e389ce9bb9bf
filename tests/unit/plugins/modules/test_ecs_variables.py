# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ecs_variables: the revision that it wishes for, and its plan to get there."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.ecs_variables import EcsVariables

APP = {
    "name": "app",
    "image": "shop:v1",
    "environment": [{"name": "LOG_LEVEL", "value": "INFO"}, {"name": "REDIS_URL", "value": "redis://:hunter2@cache"}],
    "secrets": [{"name": "TOKEN", "valueFrom": "arn:secret"}],
}


def wish(variables, *containers, container=None):
    request = {"family": "shop", "cpu": "256", "containerDefinitions": [copy.deepcopy(APP), *containers]}
    before = copy.deepcopy(request)
    observed = {"current": {"request": request}}
    made = EcsVariables.wish(observed, {"variables": variables, "container": container}).request
    assert request == before
    return made


def environment(request):
    return request["containerDefinitions"][0]["environment"]


def test_a_variable_comes_and_goes_and_nothing_else_changes():
    bypassed = wish({"DISABLE_REDIS": 1})
    assert environment(bypassed) == [*APP["environment"], {"name": "DISABLE_REDIS", "value": "1"}]
    assert bypassed["cpu"] == "256"
    again = EcsVariables.wish(
        {"current": {"request": bypassed}}, {"variables": {"DISABLE_REDIS": None}, "container": None}
    )
    assert again.request["containerDefinitions"] == [APP]
    assert environment(wish({"LOG_LEVEL": "DEBUG"}))[0] == {"name": "LOG_LEVEL", "value": "DEBUG"}
    assert environment(wish({"NOT_THERE": ""})) == APP["environment"]


def test_only_names_are_shown():
    wanted = {"variables": {"DISABLE_REDIS": "1", "REDIS_URL": "redis://:hunter2@other"}}
    shown = EcsVariables.shown(wish(wanted["variables"]), wanted)
    assert shown == {"variables": ["DISABLE_REDIS", "REDIS_URL"]}
    assert EcsVariables.words(shown) == "the variables DISABLE_REDIS, REDIS_URL"


@pytest.mark.parametrize(
    ("variables", "more", "says"),
    [
        ({}, (), "variables is empty"),
        ({"TOKEN": "x"}, (), "comes from the secret arn:secret"),
        ({"A": "x"}, ({"name": "proxy"},), "several containers (app, proxy)"),
    ],
)
def test_refuses(variables, more, says):
    with pytest.raises(Refusal) as refused:
        wish(variables, *more)
    assert says in str(refused.value)


def test_of_several_containers_the_named_one():
    made = wish({"A": "x"}, {"name": "proxy"}, container="proxy")
    assert made["containerDefinitions"] == [APP, {"name": "proxy", "environment": [{"name": "A", "value": "x"}]}]


def test_plan():
    service = {
        "serviceName": "shop",
        "taskDefinition": "arn:aws:ecs:us-east-1:123456789012:task-definition/shop:3",
        "desiredCount": 2,
        "runningCount": 2,
        "deployments": [
            {"id": "d", "status": "PRIMARY", "rolloutState": "COMPLETED", "runningCount": 2, "desiredCount": 2}
        ],
    }
    current = {"arn": service["taskDefinition"], "active": True, "request": wish({"NOT_THERE": None})}
    wanted = {"variables": {"DISABLE_REDIS": "1"}, "container": None, "task_definition": None, "service": "shop"}
    observed = {"service": service, "current": current, "other": current}
    made = EcsVariables.plan(observed, wanted)
    assert [step.do for step in made.steps] == ["register", "update", "settle"]
    assert made.after == {"desired": 2, "running": 2, "task_definition": "shop:new", "variables": ["DISABLE_REDIS"]}
    assert EcsVariables.plan(observed, wanted | {"variables": {"DISABLE_REDIS": None}}).steps == ()

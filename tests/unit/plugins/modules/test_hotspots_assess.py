# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""hotspots_assess: its plan makes a verdict of what was read, and says what was not."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import metrics, sessions
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.instance_processes import Survey
from ansible_collections.sre.runbooks.plugins.modules.hotspots_assess import ARGUMENTS, HotspotsAssess

NOW = 1763719200
REGION = "us-east-1"
BALANCER = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/shop-alb/1a2b"
WANTED = {name: each.get("default") for name, each in ARGUMENTS.items()}
EATER = {
    "pid": 4711,
    "started": "b:1",
    "elapsed": 240,
    "user": "app",
    "command": "report.py",
    "cpu": 180.0,
    "rss": 9,
    "unit": None,
    "may_end": True,
}


def observed(signals=(), tasks=(), instances=(), there=None, **more):
    read = {signal: metrics.Seen({NOW: value}) for signal, value in signals}
    lists = {"tasks": list(tasks), "instances": list(instances)}
    return {"now": NOW, "there": there or {}, "metrics": (read, {}), **lists, **more}


def balancer(**values):
    return [(each, values[each.name]) for each in metrics.of_load_balancer(BALANCER) if each.name in values]


def of_tasks(**cpu):
    return [(metrics.of_task("c", "shop", task, REGION)[0], value) for task, value in cpu.items()]


def plan(seen, **wanted):
    return HotspotsAssess.plan(seen, WANTED | wanted)


def test_one_hot_task_is_named():
    seen = observed([*balancer(p99=4.1), *of_tasks(t1=97.0, t2=20.0)], ["t1", "t2"])
    found = plan(seen, cluster="c", service="shop")
    assert (found.steps, found.returned["action"], found.returned["arguments"]) == ((), "restart", {"task": "t1"})
    assert found.returned["slow"] == "p99 of shop-alb is 4.1 s, above 3 s since at least 10:00 UTC"
    assert [(each["name"], each["cpu"]) for each in found.returned["parts"]] == [("t1", 97.0), ("t2", 20.0)]
    assert found.returned["blind"] == []


def test_without_figures_of_single_tasks_that_one_stands_out_is_said_and_why_not_which():
    service = [(signal, 30.0) for signal in metrics.of_service("c", "shop", REGION)]
    busiest = [(signal, 96.0) for signal in metrics.of_busiest_task("c", "shop", REGION)[:1]]
    found = plan(observed([*service, *busiest], ["t1", "t2"]), cluster="c", service="shop")
    assert (found.returned["action"], found.returned["arguments"]) == ("restart", {})
    assert found.returned["blind"] == [
        "single tasks of shop: there are no metrics of them: turn on Container Insights with enhanced observability for c"
    ]


def test_what_instances_say_themselves_comes_before_what_cloudwatch_said_minutes_ago():
    surveys = {
        "i-1": Survey("i-1", 2, 97.0, 40.0, 8 * 10**9, (EATER,), ("nginx", "report.py")),
        "i-2": Survey("i-2", 2, 9.0, 40.0, 8 * 10**9, (), ("nginx",)),
        "i-3": Survey("i-3", trouble="its agent has not answered (ConnectionLost)"),
    }
    late = [(metrics.of_instances("InstanceId", name, REGION)[0], 12.0) for name in surveys]
    found = plan(observed(late, instances=surveys, processes=surveys), auto_scaling_group="fleet")
    assert found.returned["action"] == "end_process"
    assert found.returned["arguments"] == {"instance_id": "i-1", "pid": 4711, "started": "b:1"}
    assert {each["name"]: each["cpu"] for each in found.returned["parts"]} == {"i-1": 97.0, "i-2": 9.0, "i-3": 12.0}
    assert found.returned["blind"] == ["processes of i-3: its agent has not answered (ConnectionLost)"]


def session(seconds, blocked_by=(), kind="client backend", protection=None):
    return sessions.Session(
        *(7, None, kind, "shop", "shop", "api", None, "active", None, tuple(blocked_by), seconds, seconds, None),
        *("SELECT * FROM orders WHERE card = '4711'", protection, False),
    )


def of_sessions(*there):
    seen = sessions.Seen(datetime.datetime.now(datetime.UTC), 100, 3, 2, there, ())
    return plan(observed(balancer(p99=4.1), sessions=seen), db_instance="db")


def test_statements_of_the_database_are_told_without_their_values():
    nobodys = (session(900, kind="walsender"), session(900, protection="protected"))
    found = of_sessions(session(400), *nobodys)
    assert found.returned["action"] == "database"
    assert found.returned["arguments"] == {"playbook": "kill_queries", "extra": "-e older_than=60"}
    assert "the longest for 400 s: SELECT * FROM orders WHERE card = ?" in found.returned["why"]
    assert of_sessions(session(9, [3])).returned["arguments"]["extra"] == "-e kill=blocking"
    # A backup takes its time, and for a moment any session waits.
    assert of_sessions(session(0.2, [3]), *nobodys).returned["action"] == "unknown"


def test_what_cannot_be_seen_is_said_and_fails_nothing():
    silent = Unreachable("cloudwatch:GetMetricData in us-east-1 got no answer (ReadTimeoutError)")
    seen = observed(there={"the group": silent}) | {"metrics": silent}
    found = plan(seen, auto_scaling_group="fleet", db_instance="db")
    assert found.returned["action"] == "unknown"
    assert found.returned["blind"] == [
        f"the group: {silent}",
        f"metrics: {silent}",
        "statements of db: give login_user and login_db to see them",
    ]
    assert found.notes[0] == "unknown: nothing is known of its response times, nor of what it uses"


@pytest.mark.parametrize(("p99", "slow"), [(3.1, True), (2.9, False)])
def test_slow_is_what_the_inventory_says(p99, slow):
    found = plan(observed(balancer(p99=p99)))
    assert (found.returned["slow"] is not None, found.returned["action"]) == (slow, "unknown" if slow else "none")

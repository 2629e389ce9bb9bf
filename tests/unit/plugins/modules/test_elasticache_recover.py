# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""elasticache_recover: its plan for each state of a replication group."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.elasticache_recover import ElasticacheRecover

DEAD = "it does not answer"


def observed(trouble=(), primary="c-1", status="available", automatic="enabled", first="c-1", count=2, **more):
    nodes = {
        f"c-{number}": {
            "id": "0001",
            "status": "available",
            "trouble": DEAD if f"c-{number}" in trouble else "",
            "role": "primary" if f"c-{number}" == primary else "replica",
        }
        for number in range(1, count + 1)
    }
    return {
        "group": {"Status": status, "AutomaticFailover": automatic},
        "nodes": nodes,
        "primary": primary,
        "first_primary": first,
        "rebooted": (),
        "endpoint": {"host": "c", "port": 6379},
    } | more


def plan(action, state, node=None):
    return ElasticacheRecover.plan(state, {"replication_group": "c", "action": action, "node": node})


def steps(*given, **more):
    return [(step.do, step.arguments.get("node")) for step in plan(*given, **more).steps]


def test_status_says_who_answers():
    made = plan("status", observed(trouble=["c-2"]))
    assert made.steps == () and made.notes[0] == "c-1 (primary) is available and answers"
    assert made.notes[1].endswith(DEAD)


def test_only_what_does_not_answer_is_rebooted_and_the_primary_last():
    assert steps("reboot", observed()) == []
    assert steps("reboot", observed(["c-2"])) == [("reboot", "c-2"), ("settle_node", "c-2")]
    both = plan("reboot", observed(["c-1", "c-2"]))
    assert [step.arguments["node"] for step in both.steps if step.do == "reboot"] == ["c-2", "c-1"]
    assert "it begins empty" in both.notes[0]
    assert steps("reboot", observed(), "c-1") == [("reboot", "c-1"), ("settle_node", "c-1")]


def test_a_reboot_under_way_is_waited_for():
    state = observed(["c-2"])
    state["nodes"]["c-2"]["status"] = "rebooting cluster nodes"
    assert steps("reboot", state) == [("settle_node", "c-2")]
    # Its answer was lost, and it is still shown as available.
    assert steps("reboot", observed(["c-2"], rebooted=("c-2",))) == [("settle_node", "c-2")]


def test_a_replica_takes_over_from_a_dead_primary():
    assert steps("failover", observed(["c-1"])) == [("fail_over", "c-2"), ("settle", None)]
    healthy = plan("failover", observed())
    assert healthy.steps == () and "node=c-1 has another one take over" in healthy.notes[0]
    assert steps("failover", observed(), "c-1") == [("fail_over", "c-2"), ("settle", None)]
    (step, _wait) = plan("failover", observed(["c-1"], automatic="disabled")).steps
    assert step.arguments == {"node": "c-2", "automatic": False}


@pytest.mark.parametrize(
    ("state", "node", "left"),
    [
        (observed(primary="c-2"), "c-1", []),
        (observed(primary="c-2"), None, []),
        (observed(status="modifying"), "c-1", [("settle", None)]),
        (observed(["c-2"], primary="c-2"), "c-1", [("settle", None)]),
    ],
)
def test_run_again_it_goes_on(state, node, left):
    assert steps("failover", state, node) == left


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("failover", observed(["c-1", "c-2"])), "no replica that answers"),
        (("failover", observed(["c-1"], count=1)), "no replica that answers"),
        (("reboot", observed(), "c-3"), "has no node c-3"),
    ],
)
def test_refuses(given, says):
    with pytest.raises(Refusal) as refused:
        plan(*given)
    assert says in str(refused.value)

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zone_assess: what it makes of what it has read; the verdict itself is tested beside zone_health."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable
from ansible_collections.sre.runbooks.plugins.modules.zone_assess import ZoneAssess, _count

WANTED = {
    "zone": None,
    "db_instance": "db",
    "min_serving_percent": 50,
    "accept_healthy_zone": False,
    "accept_low_capacity": False,
}


def plan(database=None, was_unhealthy=None, state="available"):
    observed = {
        "names": ["e1a", "e1b"],
        "zones": {"e1a": {"state": "available", "messages": []}, "e1b": {"state": state, "messages": ["Power."]}},
        "there": {"desired": 2, "zones": {"e1a": [1, 0], "e1b": [0, 1]}, "failed": {}, "left": ""},
        "was_unhealthy": {} if was_unhealthy is None else was_unhealthy,
        "database": database,
    }
    return ZoneAssess.plan(observed, WANTED)


def test_it_names_the_zone_and_what_speaks_for_it():
    found = plan(state="impaired")
    assert (found.returned["zone"], found.returned["why_not"], found.returned["serving_elsewhere"]) == ("e1b", "", 1)
    assert found.returned["findings"][0] == "AWS says that e1b is impaired: Power."
    assert found.steps == () == found.notes


def test_the_database_is_named_where_it_is_in_that_zone():
    assert plan({"AvailabilityZone": "e1a"}).notes == ()
    assert "rds_zone_failover" in plan({"AvailabilityZone": "e1b", "MultiAZ": True}).notes[0]
    assert "db_failover.yml" in plan({"AvailabilityZone": "e1b", "MultiAZ": False}).notes[0]


def test_what_could_not_be_read_is_said_and_does_not_stop_it():
    found = plan(Unreachable("no answer"), Unreachable("no metrics"))
    assert found.returned["zone"] == "e1b"
    assert found.notes == (
        "the load balancer's metrics are not known: no metrics",
        "where db is is not known: no answer",
    )


def test_targets_are_counted_where_they_are():
    tally = {"e1a": [0, 0]}
    targets = [("1", "healthy"), ("2", "unhealthy"), ("3", "draining"), ("4", "healthy")]
    _count(
        tally,
        [{"target": f"10.0.0.{n}:80", "state": state} for n, state in targets],
        {f"10.0.0.{n}": "e1b" for n in "123"},
    )
    assert tally == {"e1a": [0, 0], "e1b": [1, 1]}

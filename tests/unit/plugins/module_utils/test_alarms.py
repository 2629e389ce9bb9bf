# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Alarms: those that ring, and those that have just changed."""

from __future__ import annotations

from datetime import UTC, datetime

from ansible_collections.sre.runbooks.plugins.module_utils import alarms

TEN = datetime(2025, 11, 21, 10, tzinfo=UTC)


def _alarm(name, state, hour, **more):
    return {"AlarmName": name, "StateValue": state, "StateUpdatedTimestamp": TEN.replace(hour=hour), **more}


class Region:
    """Two pages, and a name that both prefixes have."""

    region = "us-east-1"

    def read(self, _api, _operation, AlarmTypes, AlarmNamePrefix=None, StateValue=None, NextToken=None):
        assert "CompositeAlarm" in AlarmTypes, "CloudWatch leaves them out otherwise"
        if StateValue == "ALARM":
            return {"MetricAlarms": [_alarm("anybodys", "ALARM", 3)]}
        if AlarmNamePrefix == "regami-db":
            return {"CompositeAlarms": [_alarm("regami-db", "ALARM", 9, StateReason="both ring")]}
        if not NextToken:
            moved = _alarm(
                "regami-5xx", "ALARM", 10, StateReason="12 > 1", StateTransitionedTimestamp=TEN.replace(hour=8)
            )
            return {"MetricAlarms": [moved, _alarm("regami-cpu", "OK", 4)], "NextToken": "more"}
        return {"MetricAlarms": [_alarm("regami-lag", "OK", 10)], "CompositeAlarms": [_alarm("regami-db", "ALARM", 9)]}


def test_what_rings_or_has_just_changed_is_told_once_the_earliest_first():
    found = alarms.read(Region(), ["regami-", "regami-db"], TEN.replace(hour=9).timestamp())
    assert [(each["name"], each["state"]) for each in found] == [
        ("regami-5xx", "ALARM"),
        ("regami-db", "ALARM"),
        ("regami-lag", "OK"),
    ]
    assert found[0]["since"] == TEN.replace(hour=8).timestamp() and found[0]["why"] == "12 > 1"
    assert found[1]["why"] == "both ring" and found[2]["why"] == ""


def test_without_a_prefix_all_that_ring_are_told():
    found = alarms.read(Region(), [], TEN.timestamp())
    assert alarms.sentences(found) == ["alarm anybodys is on since 03:00 UTC"]


def test_the_newest_that_ring_are_told_in_words():
    found = [{"name": str(hour), "state": "ALARM" if hour else "OK", "since": 3600 * hour} for hour in range(8)]
    assert alarms.sentences(found)[::4] == ["alarm 7 is on since 07:00 UTC", "alarm 3 is on since 03:00 UTC"]
    assert alarms.sentences(found[:1]) == []

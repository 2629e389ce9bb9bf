# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""user_errors: which minutes are one episode, and that a number that is not to be had fails nothing."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import user_errors
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable
from ansible_collections.sre.runbooks.plugins.modules.user_errors import UserErrors

# 10:00 UTC of some day.
TEN = 1763719200
WANTED = {"error_percent": 1}


def minutes(**counts):
    """{minute: (requests, errors)} by the minute after ten."""
    return {TEN + 60 * int(name[1:]): value for name, value in counts.items()}


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ({}, None),
        ({"m1": (100, 0), "m2": (100, 0)}, None),
        ({"m1": (1000, 10)}, None),
        ({"m1": (100, 0), "m2": (100, 50), "m3": (100, 40), "m4": (100, 0)}, (2, 4, 200, 90)),
        # No request was answered by anyone: the balancer's own errors are all there is.
        ({"m1": (100, 0), "m2": (80, 80), "m3": (90, 0)}, (2, 3, 80, 80)),
        # A pause within an incident belongs to it, an earlier incident does not.
        ({"m1": (100, 100), "m12": (100, 30), "m13": (100, 0), "m16": (100, 9), "m17": (100, 0)}, (12, 17, 300, 39)),
        # The last minute that is known is bad: it may last until now.
        ({"m27": (100, 0), "m28": (100, 7)}, (28, 30, 100, 7)),
    ],
)
def test_the_last_episode(counted, expected):
    found = user_errors.episode(minutes(**counted), TEN + 30 * 60, 1)
    if expected is None:
        assert found is None
        return
    since, until, requests, errors = expected
    assert found == {
        "since": TEN + 60 * since,
        "until": TEN + 60 * until,
        "seconds": 60 * (until - since),
        "requests": requests,
        "errors": errors,
    }


def test_load_balancers_of_both_regions_count_together():
    read = {"a/east/1": minutes(m1=(100, 100), m2=(10, 0)), "a/west/1": minutes(m2=(90, 90), m3=(100, 0))}
    plan = UserErrors.plan({"read": read, "now": TEN + 600}, WANTED)
    assert plan.notes == ("users saw errors for at most 2 min, 10:01 to 10:03 UTC: 190 of 200 requests",)
    assert not plan.steps


def test_what_cannot_be_read_is_said_and_the_rest_still_told():
    read = {"a/east/1": Unreachable("cloudwatch in us-east-1 got no answer"), "a/west/1": minutes(m2=(90, 90))}
    plan = UserErrors.plan({"read": read, "now": TEN + 180}, WANTED)
    assert plan.notes[0] == "how long users of east saw errors is not known: cloudwatch in us-east-1 got no answer"
    assert plan.returned["user_errors"]["errors"] == 90

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan of aurora_global_failover: switchover where it can be, failover only with accepted loss."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Unreachable
from ansible_collections.sre.runbooks.plugins.modules.aurora_global_failover import AuroraGlobalFailover

OLD, NEW = "arn:aws:rds:us-east-1:123456789012:cluster:old", "arn:aws:rds:us-west-2:123456789012:cluster:new"
WANTED = {"accept_data_loss_seconds": 0, "accept_unknown_loss": False}
SILENT = Unreachable("us-east-1 does not answer")


def observed(writer=OLD, **changes):
    base = {
        "name": "regami-global",
        "status": "available",
        "moving": False,
        "members": [{"arn": arn, "writer": arn == writer} for arn in (OLD, NEW)],
        "target": "new",
        "region": "us-west-2",
        "target_arn": NEW,
        "writer_status": "available",
        "lag": 0.5,
    }
    return {**base, **changes}


def plan(seen, **wanted):
    return AuroraGlobalFailover.plan(seen, {**WANTED, **wanted})


def done(result):
    return [step.do for step in result.steps]


def test_available_writer_is_switched_over_without_loss():
    result = plan(observed(), accept_data_loss_seconds=600)
    assert done(result) == ["switchover", "await_writer"]
    assert (result.returned["unfenced"], result.returned["possible_loss_seconds"]) == (False, 0.0)


def test_silent_writer_is_refused_without_accepted_loss():
    with pytest.raises(Refusal, match="accept_data_loss_seconds=40"):
        plan(observed(writer_status=SILENT, lag=10.0))


def test_silent_writer_with_accepted_loss_is_failed_over_unfenced():
    result = plan(observed(writer_status=SILENT, lag=10.0), accept_data_loss_seconds=30)
    assert done(result) == ["failover", "await_writer"]
    assert (result.returned["unfenced"], result.returned["possible_loss_seconds"]) == (True, 10.0)


def test_unknown_lag_takes_its_own_override():
    with pytest.raises(Refusal, match="accept_unknown_loss"):
        plan(observed(writer_status=SILENT, lag=None), accept_data_loss_seconds=9999)
    assert done(plan(observed(writer_status=SILENT, lag=None), accept_unknown_loss=True))[0] == "failover"


def test_target_that_writes_is_done_and_one_on_its_way_is_waited_for():
    assert done(plan(observed(writer=NEW))) == []
    assert done(plan(observed(moving=True))) == ["await_writer"]


def test_unknown_target_names_the_members():
    with pytest.raises(Refusal, match="it has: old, new"):
        plan(observed(target_arn=None, target="nwe"))

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""metrics_assess: its plan tells what is abnormal first, and what was not seen."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import metrics
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.metrics_assess import MetricsAssess

TEN = 1763719200
ALARM = {"name": "regami-memory", "region": "us-east-1", "state": "ALARM", "since": TEN, "why": "Threshold Crossed"}


def test_the_plan_changes_nothing_and_tells_what_is_abnormal_first():
    cpu, memory = metrics.of_service("regami-cluster", "regami-service", "us-east-1")
    observed = {
        "now": TEN + 60,
        "seen": {cpu: metrics.Seen({TEN: 20.0}), memory: metrics.Seen({TEN: 91.0})},
        "alarms": [ALARM],
        "blind": {"us-west-2": "no answer"},
    }
    plan = MetricsAssess.plan(observed, {"limits": {"service_memory": 85}})
    assert plan.steps == ()
    assert [each["name"] for each in plan.returned["metrics"]] == ["service_memory", "service_cpu"]
    assert plan.notes == (
        "service_memory of regami-service is 91 %, above 85 % since at least 10:00 UTC",
        "alarm regami-memory is on since 10:00 UTC",
        "metrics in us-west-2: no answer",
    )


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [({"p98": 3}, "there is no metric p98 .there are: p9"), ({"p99": "three"}, "p99 is three, which is no number")],
)
def test_a_limit_that_would_never_be_missed_is_refused(limits, complaint):
    with pytest.raises(Refusal, match=complaint):
        metrics.refuse_unknown(limits)


def test_what_is_no_load_balancer_is_refused_by_name():
    with pytest.raises(Refusal, match="targetgroup/x/1 is not the ARN of a load balancer"):
        metrics.of_load_balancer("arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/x/1")

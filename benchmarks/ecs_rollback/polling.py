# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What 50 services that are rolled back at once ask of ECS while they wait: the verb's own loop, with a clock that runs fast.

Quotas are those of an account and region, in requests a second once the burst is used up:
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
"""

from __future__ import annotations

SERVICES = 50
SERVICE_READS, TASK_READS = 20.0, 20.0
WATCH_SECONDS = 2.0  # what `watch` in the runbook takes between two looks
BEGIN, END = 300.0, 360.0  # a minute of a long wait


def quotas() -> dict[str, float]:
    from ansible_collections.sre.runbooks.plugins.module_utils import ecs, waiting
    from ansible_collections.sre.runbooks.plugins.modules.ecs_rollback import PACE

    now, looks = [0.0], []

    def pass_time(seconds: float) -> None:
        now[0] += seconds

    waiting.wait_until(
        lambda: looks.append(now[0]),
        lambda _seen: now[0] >= END,
        "the services",
        2 * END,
        pace=PACE,
        clock=lambda: now[0],
        sleep=pass_time,
    )
    a_minute = sum(BEGIN <= at < END for at in looks)
    return {
        "describe_services_a_waited_minute": a_minute,
        "describe_services_a_second_for_50": SERVICES * a_minute / 60,
        "the_same_by_watch_in_the_runbook": SERVICES / WATCH_SECONDS,
        "quota_of_service_reads_a_second": SERVICE_READS,
        # ListTasks, and DescribeTasks where tasks have stopped.
        "task_reads_a_second_for_50_at_most": SERVICES * 2 / ecs.CLOSER_LOOK_SECONDS,
        "quota_of_task_reads_a_second": TASK_READS,
    }

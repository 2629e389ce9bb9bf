# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that eats the processors of one instance: users of that instance wait, CloudWatch sees it, and it can be ended."""

from __future__ import annotations

import time
import urllib.request

from compute_helpers import dig
from core_helpers import wait_until

from sandbox.client import Sandbox

PIDS = """
for each in /proc/[0-9]*; do
    case "$(tr '\\0' ' ' <$each/cmdline)" in "python3 report.py "*) echo ${each#/proc/};; esac
done
"""


def _slowest(sandbox: Sandbox, address: str, seconds: float = 2.0) -> float:
    """The longest that the load balancer takes to answer, asked one time after the other for so many seconds."""
    took, ends = [], time.monotonic() + seconds
    while time.monotonic() < ends:
        asked = urllib.request.Request(
            f"http://{address}:{sandbox.state['http_port']}/health", headers={"Host": "fleet.regami.test"}
        )
        began = time.monotonic()
        urllib.request.urlopen(asked, timeout=10).read()
        took.append(time.monotonic() - began)
        time.sleep(0.02)
    return max(took)


def test_users_of_one_instance_wait_until_the_process_is_ended(sandbox: Sandbox) -> None:
    sandbox.fault("hot-process", stubborn="yes")
    facts = sandbox.state["fleet"]
    group = sandbox.boto("autoscaling").describe_auto_scaling_groups(
        AutoScalingGroupNames=[facts["auto_scaling_group"]]
    )["AutoScalingGroups"][0]
    first, second = sorted(each["InstanceId"] for each in group["Instances"])
    (address,) = dig(sandbox, facts["public_name"])

    def run(instance: str, script: str) -> str:
        return sandbox.control("instance", instance=instance, script=script)["stdout"].strip()

    pid = run(first, PIDS)
    assert pid.isdigit() and run(second, PIDS) == ""
    assert _slowest(sandbox, address) > 0.8

    def cpu(instance: str) -> float:
        points = sandbox.boto("cloudwatch").get_metric_statistics(
            Namespace="AWS/EC2",
            MetricName="CPUUtilization",
            Dimensions=[{"Name": "InstanceId", "Value": instance}],
            StartTime=time.time() - 120,
            EndTime=time.time() + 60,
            Period=60,
            Statistics=["Maximum"],
        )["Datapoints"]
        return max((each["Maximum"] for each in points), default=0.0)

    wait_until(lambda: cpu(first) > 5, "CloudWatch sees the processors of that instance busy")
    run(first, f"kill {pid}; sleep 0.3")
    assert run(first, f"grep -c '^State:.*[RS]' /proc/{pid}/status") == "1", "it does not listen"
    run(first, f"kill -9 {pid}")
    wait_until(lambda: _slowest(sandbox, address) < 0.8, "nobody waits any more")
    sandbox.heal("hot-process")

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The emergency rollback of runbook 2 as the shortest honest script: no gate, no lease, no record, no way back."""

from __future__ import annotations

import http.client
import os
import time

import boto3

POLL_SECONDS = 0.1
WAIT_SECONDS = 60.0


def main(env: dict[str, str]) -> None:
    elbv2, blue = boto3.client("elbv2", region_name=env["REGION"]), env["BLUE_ARN"]
    forward = [{"Type": "forward", "TargetGroupArn": blue}]
    elbv2.describe_target_health(TargetGroupArn=blue)
    for rule in elbv2.describe_rules(ListenerArn=env["LISTENER_ARN"])["Rules"]:
        if rule["IsDefault"]:
            elbv2.modify_listener(ListenerArn=env["LISTENER_ARN"], DefaultActions=forward)
        else:
            elbv2.modify_rule(RuleArn=rule["RuleArn"], Actions=forward)
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_healthy(elbv2.describe_target_health(TargetGroupArn=blue)):
        if time.monotonic() > deadline:
            raise TimeoutError("the targets do not become healthy")
        time.sleep(POLL_SECONDS)
    connection = http.client.HTTPConnection(env["ALB_URL"].removeprefix("http://"), timeout=5)
    connection.request("GET", "/health?check=db", headers={"Host": env["PUBLIC_NAME"]})
    if connection.getresponse().status != 200:
        raise RuntimeError("the version before does not serve")


def is_healthy(answer: dict) -> bool:
    return {each["TargetHealth"]["State"] for each in answer["TargetHealthDescriptions"]} == {"healthy"}


if __name__ == "__main__":
    main(dict(os.environ))

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task definition needs of a region that may be gone when its tasks start. Pure.

https://docs.aws.amazon.com/whitepapers/latest/aws-fault-isolation-boundaries/static-stability.html
"""

from __future__ import annotations

import re


def names(region, text):
    """Whether a text names a region: of one that is called alike it is none."""
    return re.search(rf"(?<![a-z0-9]){re.escape(region)}(?!\d)", text) is not None


def needs(definition, region, moved=()):
    """A line for each thing of `region` without which a task does not start, or does not serve.

    Args:
        definition: `taskDefinition` of DescribeTaskDefinition.
        moved: variables that the failover itself points elsewhere.

    A value of a variable may be a secret: the variable is named, its value is not.
    """
    for container in definition["containerDefinitions"]:
        name = container["name"]
        if names(region, container.get("image", "")):
            yield f"the image of {name} is pulled from {region}: {container['image']}"
        for secret in container.get("secrets", []):
            if names(region, secret["valueFrom"]):
                yield f"{secret['name']} of {name} comes from a secret in {region}"
        for variable in container.get("environment", []):
            if variable["name"] not in moved and names(region, variable["value"]):
                yield f"the variable {variable['name']} of {name} names {region}"
        if (container.get("logConfiguration", {}).get("options") or {}).get("awslogs-region") == region:
            yield f"{name} logs to {region}, and does not start where its log driver cannot reach that"
        for file in container.get("environmentFiles", []):
            if names(region, file.get("value", "")):
                yield f"{name} reads its variables from a file in {region}"

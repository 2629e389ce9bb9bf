# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The secrets and parameters that a task definition names, and whether tasks can start with them. Their values are not read.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/specifying-sensitive-data.html
"""

from __future__ import annotations

from dataclasses import dataclass

from .aws import code_of

SECRET, PARAMETER = "secret", "parameter"


@dataclass(frozen=True)
class Named:
    """What a `valueFrom` names; `name` is the ARN of a secret, without key and version, or the name of a parameter."""

    kind: str
    region: str
    name: str

    def __str__(self):
        return f"{self.kind} {self.name.rpartition(':secret:')[2]} in {self.region}"


def named(value_from, region):
    """Pure: the `Named` of a task definition's valueFrom; a bare name is that of a parameter in the task's own region."""
    parts = value_from.split(":")
    if parts[0] != "arn":
        return Named(PARAMETER, region, value_from)
    if parts[2] == "secretsmanager":
        return Named(SECRET, parts[3], ":".join(parts[:7]))
    return Named(PARAMETER, parts[3], ":".join(parts[5:]).removeprefix("parameter"))


def variables(definition, region):
    """Pure: {Named: [variable of a container]} of the `taskDefinition` of tasks that run in `region`."""
    found = {}
    for container in definition["containerDefinitions"]:
        for each in container.get("secrets", []):
            what = named(each["valueFrom"], region)
            found.setdefault(what, []).append(f"{each['name']} of container {container['name']}")
    return found


def describe(aws, secret):
    """DescribeSecret, None where it is not there."""
    try:
        return aws.read("secretsmanager", "describe_secret", region=secret.region, SecretId=secret.name)
    except Exception as error:
        if code_of(error) == "ResourceNotFoundException":
            return None
        raise


def lack(aws, what):
    """Why no task can start with a `Named`, and what to do about it; None where one can."""
    if what.kind == PARAMETER:
        return None if _is_there(aws, what) else "is not there (put it there)"
    found = describe(aws, what)
    if found is None:
        return "is not there (have it replicated there)"
    if found.get("DeletedDate"):
        return "is to be deleted and cannot be read until then (aws secretsmanager restore-secret, or name another)"
    return None


def _is_there(aws, parameter):
    """By what describes it: its value is none of ours.

    In an ARN the name of a parameter has a slash before it, whether it begins with one or not.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-access.html
    """
    names = sorted({parameter.name, parameter.name.removeprefix("/")})
    only = [{"Key": "Name", "Option": "Equals", "Values": names}]
    found = aws.read("ssm", "describe_parameters", region=parameter.region, ParameterFilters=only)
    return bool(found["Parameters"])

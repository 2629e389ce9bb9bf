# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""DB parameter groups, and what a number of connections asks of an instance's memory."""

from __future__ import annotations

import re

from . import rds
from .aws import code_of, is_denied

NO_GROUP = ("DBParameterGroupNotFound", "DBParameterGroupNotFoundFault")
# Bytes that RDS reckons with for each connection in its own default of max_connections.
# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html#RDS_Limits.MaxConnections
BYTES_OF_A_CONNECTION = 9531392
_FORMULA = re.compile(r"(?:LEAST\()?\{DBInstanceClassMemory/(\d+)\}(?:,(\d+)\))?")


def is_of_aws(group):
    """Whether a group is one of AWS's own, whose values nobody can change."""
    return group.startswith("default.")


def parameter(aws, group, name, region):
    """The value of a parameter in a group, as text; "" where PostgreSQL's own default holds, None without such a group."""
    try:
        answer = aws.read(
            "rds",
            "describe_db_parameters",
            region=region,
            DBParameterGroupName=group,
            Filters=[{"Name": "parameter-name", "Values": [name]}],
        )
    except Exception as error:
        if code_of(error) in NO_GROUP:
            return None
        raise
    return next((raw.get("ParameterValue", "") for raw in answer["Parameters"] if raw["ParameterName"] == name), "")


def names(aws, region):
    """The names of all groups of a region."""
    groups = rds.pages(aws, "describe_db_parameter_groups", "DBParameterGroups", region)
    return [raw["DBParameterGroupName"] for raw in groups]


def family(aws, group, region):
    """The family of a group, such as postgres16."""
    (found,) = aws.read("rds", "describe_db_parameter_groups", region=region, DBParameterGroupName=group)[
        "DBParameterGroups"
    ]
    return found["DBParameterGroupFamily"]


def number(value, memory):
    """What a value comes to on an instance with so many bytes of memory; None where that cannot be told.

    A number, or a formula for the class: https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_ParamValuesRef.html
    """
    text = re.sub(r"\s", "", value or "")
    if text.isdigit():
        return int(text)
    found = _FORMULA.fullmatch(text)
    if found is None or memory is None:
        return None
    result = memory // int(found[1])
    return min(result, int(found[2])) if found[2] else result


def memory_of(aws, instance_class, region):
    """Bytes of memory of an instance class, which is that of the EC2 type of its name; None where EC2 does not tell."""
    name = instance_class.removeprefix("db.")
    try:
        answer = aws.read("ec2", "describe_instance_types", region=region, InstanceTypes=[name])
    except Exception as error:
        if is_denied(error):
            aws.do_without(error)
        elif code_of(error) not in ("InvalidInstanceType", "InvalidParameterValue"):
            raise
        return None
    return answer["InstanceTypes"][0]["MemoryInfo"]["SizeInMiB"] << 20


def most_connections(memory):
    """As many as RDS's own default gives an instance with so many bytes of memory."""
    return memory // BYTES_OF_A_CONNECTION

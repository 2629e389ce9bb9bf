# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the secrets and parameters that the standby's tasks name are there, and as new as where they are replicated from.

Their values are not read. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/specifying-sensitive-data.html
"""

from __future__ import annotations

from dataclasses import dataclass

from .aws import code_of
from .readiness import MOVES, NOT_READY, Found
from .task_definition import short

CHECK, SCENARIOS = "secrets", MOVES
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


def looks(aws, wanted, now):
    """{Named: call}; the call gives what is known of it, None where it is not there."""
    definition = wanted["definitions"].get("standby")
    if not definition:
        return {}
    asked = {SECRET: _secret, PARAMETER: _parameter}
    return {each: lambda each=each: asked[each.kind](aws, each) for each in _variables(definition, wanted)}


def _variables(definition, wanted):
    """{Named: [variable of a container]}"""
    found = {}
    for container in definition["containerDefinitions"]:
        for each in container.get("secrets", []):
            what = named(each["valueFrom"], wanted["standby"]["region"])
            found.setdefault(what, []).append(f"{each['name']} of container {container['name']}")
    return found


def _secret(aws, secret):
    """DescribeSecret, with the ReplicationStatus of this copy where it is one: its primary tells that."""
    try:
        found = aws.read("secretsmanager", "describe_secret", region=secret.region, SecretId=secret.name)
    except Exception as error:
        if code_of(error) == "ResourceNotFoundException":
            return None
        raise
    home = found.get("PrimaryRegion", secret.region)
    told = {"deleted": bool(found.get("DeletedDate")), "from": home, "state": None, "why": ""}
    if home != secret.region:
        there = secret.name.replace(f":{secret.region}:", f":{home}:", 1)
        copies = aws.read("secretsmanager", "describe_secret", region=home, SecretId=there).get("ReplicationStatus", [])
        mine = next((each for each in copies if each["Region"] == secret.region), {})
        told |= {"state": mine.get("Status"), "why": mine.get("StatusMessage", "")}
    return told


def _parameter(aws, parameter):
    """Whether it is there, by what describes it: its value is none of ours.

    In an ARN the name of a parameter has a slash before it, whether it begins with one or not.
    https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-access.html
    """
    names = sorted({parameter.name, parameter.name.removeprefix("/")})
    only = [{"Key": "Name", "Option": "Equals", "Values": names}]
    found = aws.read("ssm", "describe_parameters", region=parameter.region, ParameterFilters=only)["Parameters"]
    return {"deleted": False, "state": None} if found else None


def judge(seen, wanted, now):
    """Pure: each that is not there, or not what it is where it comes from."""
    definition = wanted["definitions"].get("standby")
    if not definition:
        return
    revision, variables = short(definition["taskDefinitionArn"]), _variables(definition, wanted)
    for what, found in seen.items():
        whose = f"{what}, for {' and '.join(variables[what])} in {revision},"
        if found is None:
            because = f"{whose} is not there, so its tasks would not start"
            fix = "have it replicated there" if what.kind == SECRET else "put it there"
            yield Found(NOT_READY, str(what), because, fix)
        elif found["deleted"]:
            because = f"{whose} is to be deleted and cannot be read until then, so its tasks would not start"
            yield Found(NOT_READY, str(what), because, "aws secretsmanager restore-secret, or name another")
        elif found["state"] == "Failed":
            because = f"{whose} is not what it is in {found['from']}: replication failed: {found['why']}"
            yield Found(
                NOT_READY, str(what), because, "mend that, then aws secretsmanager replicate-secret-to-regions again"
            )

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the secrets of the standby's tasks are what they are where they are replicated from.

Whether they are there at all is a gate, that of the verb `standby_assess`.
"""

from __future__ import annotations

from . import task_secrets
from .aws import is_denied
from .readiness import MOVES, NOT_READY, Found
from .task_definition import short

CHECK, SCENARIOS = "secrets", MOVES


def looks(aws, wanted, now):
    """{task_secrets.Named: call} of the secrets; the call gives what is known of its replication."""
    definition = wanted["definitions"].get("standby")
    if not definition:
        return {}
    return {
        each: lambda each=each: _replication(aws, each)
        for each in task_secrets.variables(definition, wanted["standby"]["region"])
        if each.kind == task_secrets.SECRET
    }


def _replication(aws, secret):
    """{from, state, why} of this copy, as its primary tells it; None where it is no copy, or the gate says what is wrong."""
    try:
        home = (task_secrets.describe(aws, secret) or {}).get("PrimaryRegion", secret.region)
    except Exception as error:
        if is_denied(error):
            return None
        raise
    if home == secret.region:
        return None
    there = secret.name.replace(f":{secret.region}:", f":{home}:", 1)
    copies = aws.read("secretsmanager", "describe_secret", region=home, SecretId=there).get("ReplicationStatus", [])
    mine = next((each for each in copies if each["Region"] == secret.region), {})
    return {"from": home, "state": mine.get("Status"), "why": mine.get("StatusMessage", "")}


def judge(seen, wanted, now):
    """Pure: each that is not what it is where it comes from."""
    definition = wanted["definitions"].get("standby")
    if not definition:
        return
    revision = short(definition["taskDefinitionArn"])
    variables = task_secrets.variables(definition, wanted["standby"]["region"])
    for what, found in seen.items():
        if found and found["state"] == "Failed":
            because = (
                f"{what}, for {' and '.join(variables[what])} in {revision}, is not what it is in {found['from']}: "
                f"replication failed: {found['why']}"
            )
            yield Found(
                NOT_READY, str(what), because, "mend that, then aws secretsmanager replicate-secret-to-regions again"
            )

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An API that is as ill as everything else that night, for exactly the calls that an undisturbed run has sent."""

from __future__ import annotations

from collections import Counter

from runbook import Result
from world import World

# Sent again after a lost answer, applied or not: the same tag, the same record set. (Only the answer of the second names
# the change that is waited for.)
IDEMPOTENT = ("AddTagsToResource", "ChangeResourceRecordSets")


def spoil(world: World, run: Result, kind: str, mutations: bool) -> None:
    """Let every kind of call (or of change) of an undisturbed `run` fail once for each time it was sent there."""
    sent = Counter(
        (call["service"], call["action"], call["region"]) for call in run.calls if call["mutation"] or not mutations
    )
    for (service, action, region), count in sent.items():
        # Renewals of a lease come as often as time passes: one of them is enough.
        count = 1 if service == "dynamodb" or not mutations else count
        world.sandbox.fault("api", service=service, action=action, kind=kind, region=region, count=count)


def applied(run: Result) -> list[str]:
    """The changes that AWS carried out, the idempotent ones aside, in their order."""
    return [
        f"{call['action']} {call['region']}"
        for call in run.calls
        if call["mutation"]
        and call["status"] == 200
        and call["service"] != "dynamodb"
        and call["action"] not in IDEMPOTENT
    ]

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Availability zones: what AWS says of them, whose subnets are where, and how something leaves one and comes back.

What leaves writes the subnets that it gives up on itself, as a tag, before it gives them up: any controller can bring it back.
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import Refusal
from .verb import Plan, Step

# The key of that line.
MARK = "sre.runbooks/left-zone"
ARGUMENTS = dict(
    zone=dict(type="str"),
    state=dict(type="str", choices=["left", "back"], default="left"),
)
CONDITIONS = dict(required_if=[("state", "left", ["zone"])])


@dataclass(frozen=True)
class Left:
    """The zone that something left, and the subnets that it had there."""

    zone: str
    subnets: tuple

    def text(self):
        """In characters and a length that every kind of tag takes (256): subnets of one zone, of which there are few."""
        return " ".join((self.zone, *self.subnets))


def parse(text):
    """The Left of a line, None for none."""
    zone, *subnets = (text or "").split() or [""]
    return Left(zone, tuple(subnets)) if subnets else None


def describe(aws):
    """{name: {id, state, messages}} of the zones of the region.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AvailabilityZone.html
    """
    found = aws.read("ec2", "describe_availability_zones")["AvailabilityZones"]
    return {
        each["ZoneName"]: {
            "id": each["ZoneId"],
            "state": each["State"],
            "messages": [message["Message"] for message in each.get("Messages", [])],
        }
        for each in found
    }


def of_subnets(aws, subnets):
    """{subnet: name of its zone}; one that is gone is left out."""
    if not subnets:
        return {}
    found = aws.read("ec2", "describe_subnets", Filters=[{"Name": "subnet-id", "Values": sorted(set(subnets))}])
    return {each["SubnetId"]: each["AvailabilityZone"] for each in found["Subnets"]}


def other_way(before, params):
    """The arguments that undo a verb with `params` that found `before`."""
    if params["state"] == "left":
        return {"state": "back"}
    kept = parse(before["left"])
    return {"state": "left", "zone": kept and kept.zone}


def plan(name, present, kept, where, wanted, settled):
    """Pure: the steps keep, move, settle and forget that bring `name` out of a zone, or back into it.

    Args:
        name: of the service or group, for people.
        present: its subnets, a list.
        kept: Left that it remembers, or None.
        where: {subnet: zone} of the present and the kept subnets.
        wanted: {zone, state}.
        settled: is it at rest in its present subnets?
    """
    return (
        _back(name, present, kept, where)
        if wanted["state"] == "back"
        else _left(name, present, kept, where, wanted["zone"], settled)
    )


def _left(name, present, kept, where, zone, settled):
    if kept is not None and kept.zone != zone:
        raise Refusal(
            f"{name} has left {kept.zone} already, and is not taken out of a second zone: bring it back first "
            f"(--tags restore), or leave the region (playbooks/region_evacuation.yml)"
        )
    going = [subnet for subnet in present if where.get(subnet) == zone]
    staying = [subnet for subnet in present if subnet not in going]
    if going and not staying:
        raise Refusal(
            f"all subnets of {name} are in {zone}, so that it has nowhere to go: give it a subnet in another zone, or leave "
            f"the region (playbooks/region_evacuation.yml)"
        )
    if not going and kept is None:
        return Plan(notes=(f"{name} has no subnet in {zone}: there is nothing to take out",))
    line = Left(zone, tuple(sorted({*going, *(kept.subnets if kept else ())})))
    steps = []
    if line != kept:
        what = f"write down on {name} which subnets it had in {zone}"
        steps.append(Step("keep", what, kept and kept.text(), line.text(), {"line": line.text()}))
    if going:
        what = f"take {', '.join(going)} in {zone} out of {name}"
        steps.append(Step("move", what, sorted(present), sorted(staying), {"subnets": staying}))
    if going or not settled:
        steps.append(Step("settle", f"wait until {name} serves without {zone}", waits=True))
    note = f"{name} stays out of {zone} until it is brought back: the same task with state=back"
    return Plan(tuple(steps), {"subnets": sorted(staying), "left": line.text()}, (note,))


def _back(name, present, kept, where):
    if kept is None:
        return Plan(notes=(f"{name} has not left any zone: there is nothing to bring back",))
    gone = [subnet for subnet in kept.subnets if subnet not in where]
    coming = [subnet for subnet in kept.subnets if subnet in where and subnet not in present]
    goal = [*present, *coming]
    steps = []
    if coming:
        what = f"give {', '.join(coming)} in {kept.zone} back to {name}"
        steps.append(Step("move", what, sorted(present), sorted(goal), {"subnets": goal}))
    # Also where an earlier run gave them back: until the line is gone nobody saw the end.
    steps.append(Step("settle", f"wait until {name} serves with {kept.zone}", waits=True))
    steps.append(Step("forget", f"forget that {name} left {kept.zone}", kept.text(), None))
    notes = (f"{', '.join(gone)} of {name} is gone meanwhile, and is not given back",) if gone else ()
    return Plan(tuple(steps), {"subnets": sorted(goal), "left": None}, notes)

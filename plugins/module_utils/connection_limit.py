# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""max_connections of an RDS instance: which groups to write, which instances to reboot, in which order, at what cost.

A standby must not have fewer connections than what it replicates: it stops replaying, or does not start
(https://www.postgresql.org/docs/16/hot-standby.html#HOT-STANDBY-ADMIN). So replicas go first where the number rises.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import rds, rds_parameters
from .errors import Refusal, near
from .verb import Plan, Step

# What PostgreSQL on RDS takes. https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/CHAP_Limits.html
FEWEST, MOST = 6, 8388607


@dataclass(frozen=True)
class Instance:
    """One instance, with what its parameter group says of max_connections.

    Attributes:
        id, region, status, instance_class: as RDS tells them.
        group, family, applied: its group, the group's family, and whether the instance runs what is in it (in-sync,
            pending-reboot, applying).
        value: what is written in the group, a number or a formula, as text.
        memory: bytes; None where not known.
        running: what PostgreSQL says it has; None where nobody asked it, or it did not answer.
        sharing: other instances with the same group.
    """

    id: str
    region: str
    status: str
    instance_class: str
    group: str
    family: str
    applied: str
    value: str
    memory: int | None
    running: int | None = None
    sharing: tuple = ()

    @property
    def in_group(self):
        return rds_parameters.number(self.value, self.memory)

    @property
    def now(self):
        """What it has at this moment; None where nothing tells."""
        return self.running if self.running is not None else self.in_group if self.applied == "in-sync" else None

    def has(self, number, in_group):
        """Does it run with `number`, given what is in its group?"""
        if self.running is not None:
            return self.running == number
        return self.applied == "in-sync" and in_group == number


@dataclass(frozen=True)
class Group:
    """The group that is to hold the number; `value` is None where there is no such group yet."""

    name: str
    value: str | None


def plan(observed, wanted):
    """Pure: the steps to max_connections.

    Args:
        observed: {main: Instance, replicas: its replicas and theirs, the furthest first, silent: {id: why nothing is known
            of this replica}, source: the Instance that main replicates or None, target: Group, groups: names of groups}.
        wanted: the module's parameters.
    """
    main, target = observed["main"], observed["target"]
    number = _wanted_number(wanted["max_connections"], main)
    for each in (main, *observed["replicas"]):
        _refuse_broken(each)
    rises = main.now is None or number > main.now
    fewer = _with_fewer(observed, number)
    notes = []
    _refuse_closed(observed, wanted, number, rises, fewer)
    _refuse_memory([*fewer, main], number, rises, wanted, notes)
    steps = []
    for each in fewer:
        steps += _steps(each, Group(each.group, each.value), str(number), number, wanted, notes)
    steps += _steps(main, target, wanted["max_connections"], number, wanted, notes)
    if not wanted["reboot"] and any(step.do == "await_notice" for step in steps):
        notes.append(
            f"max_connections stays what it is until the instances are rebooted, which reboot=true does: {main.id}"
        )
    if rises and observed["silent"]:
        notes.append(
            f"replicas with fewer than {number} connections stop replaying when {main.id} has them, and nothing is known "
            f"of {', '.join(sorted(observed['silent']))}"
        )
    after = _view(main, fewer, number, target.name, wanted["reboot"]) if steps else {}
    return Plan(tuple(steps), after, tuple(notes))


def view(observed):
    main = observed["main"]
    return {
        "max_connections": main.now,
        "in_group": main.value,
        "group": main.group,
        "applied": main.applied,
        "replicas": {each.id: {"max_connections": each.now, "in_group": each.value} for each in observed["replicas"]},
    }


def way_back(observed, wanted):
    """The arguments of the verb, once for each instance, that bring back what was in the groups; the primary first."""
    main = observed["main"]
    fewer = _with_fewer(observed, _wanted_number(wanted["max_connections"], main))
    return [
        {
            "db_instance": each.id,
            "region": each.region,
            "max_connections": each.value,
            "parameter_group": each.group,
        }
        for each in (main, *reversed(fewer))
    ]


def _view(main, fewer, number, group, reboot):
    return {
        "max_connections": number if reboot else main.now,
        "in_group": str(number),
        "group": group,
        "applied": "in-sync" if reboot else "pending-reboot",
        "replicas": {
            each.id: {"max_connections": number if reboot else each.now, "in_group": str(number)} for each in fewer
        },
    }


def _wanted_number(value, main):
    found = rds_parameters.number(value, main.memory)
    if found is None or not FEWEST <= found <= MOST:
        raise Refusal(
            f"max_connections is {value!r}: give a number from {FEWEST} to {MOST}, or a formula such as "
            f"LEAST({{DBInstanceClassMemory/{rds_parameters.BYTES_OF_A_CONNECTION}}},5000) for a class whose memory is known"
        )
    return found


def _refuse_broken(instance):
    if instance.status not in rds.SERVING and instance.status not in rds.PASSING:
        raise Refusal(
            f"{instance.id} is {instance.status}, so that it can be neither changed nor rebooted: look at its RDS events"
        )


def _with_fewer(observed, number):
    """The replicas that must be raised before the primary; none where its number does not rise."""
    main = observed["main"]
    if main.now is not None and number <= main.now:
        return []
    return [
        each
        for each in observed["replicas"]
        if any(found is None or found < number for found in (each.in_group, each.now))
    ]


def _refuse_closed(observed, wanted, number, rises, fewer):
    main, target, source = observed["main"], observed["target"], observed["source"]
    if target.value is None and not rds_parameters.is_of_aws(main.group):
        raise Refusal(
            f"there is no DB parameter group {target.name} in {main.region} ({near(target.name, observed['groups'])}); "
            f"{main.id} has {main.group}, which can be changed: leave parameter_group out"
        )
    for each, group in [(main, target), *((each, Group(each.group, each.value)) for each in fewer)]:
        if rds_parameters.is_of_aws(group.name) and rds_parameters.number(group.value, each.memory) != number:
            raise Refusal(
                f"{each.id} has {group.name}, one of AWS's own groups, which nobody can change: with db_instance={each.id} "
                f"region={each.region} and parameter_group=NAME this verb makes a group of that name and attaches it"
            )
    if rises and observed["silent"] and not wanted["accept_replicas_stop"]:
        told = "; ".join(f"{name}: {why}" for name, why in sorted(observed["silent"].items()))
        raise Refusal(
            f"replicas of {main.id} must have as many connections as it has, or they stop replaying, and nothing is known of "
            f"{told}: wait until it answers, or say accept_replicas_stop=true"
        )
    if source is not None and source.now is not None and number < source.now:
        raise Refusal(
            f"{main.id} replicates {source.id}, which has {source.now} connections: with {number} it would stop replaying; "
            f"lower {source.id} first"
        )


def _refuse_memory(instances, number, rises, wanted, notes):
    for each in instances:
        if not rises:
            continue
        if each.memory is None:
            notes.append(f"how many connections {each.instance_class} has memory for is not known")
            continue
        most = rds_parameters.most_connections(each.memory)
        if number <= most:
            continue
        told = (
            f"{each.id} ({each.instance_class}, {each.memory / 2**30:.0f} GiB) has memory for some {most} connections as AWS "
            f"reckons, and {number} may drive it out of memory"
        )
        if not wanted["accept_memory_risk"]:
            raise Refusal(
                f"{told}: say at most {most}, take a larger class first (sre.runbooks.rds_instance_class), or "
                f"say accept_memory_risk=true"
            )
        notes.append(f"accepted: {told}")


def _steps(each, target, value, number, wanted, notes):
    """What one instance needs so that it has `number` connections, written as `value` into the group `target`."""
    steps, where = [], {"id": each.id, "region": each.region}
    if each.status in rds.PASSING and each.status not in rds.SERVING:
        steps.append(
            Step(
                "settle",
                f"wait until {each.id} is available",
                each.status,
                arguments=where,
                waits=True,
                look_again=True,
            )
        )
    in_group = rds_parameters.number(target.value, each.memory)
    changes = []
    if target.value is None:
        changes.append(
            Step(
                "create",
                f"make the DB parameter group {target.name} ({each.family}, {each.region}) with AWS's defaults, as {each.group} has them",
                arguments={"group": target.name, "family": each.family, "region": each.region},
            )
        )
    if in_group != number:
        others = each.sharing if target.name == each.group else ()
        shared = f"; {', '.join(others)} shares it and takes it at its next reboot" if others else ""
        changes.append(
            Step(
                "write",
                f"write max_connections {value} into {target.name} ({each.region}): no outage, and no effect before a reboot{shared}",
                target.value,
                value,
                {"group": target.name, "value": value, "region": each.region},
            )
        )
    if each.group != target.name:
        changes.append(
            Step(
                "attach",
                f"give {each.id} the group {target.name}: no outage, and no effect before a reboot",
                each.group,
                target.name,
                {**where, "group": target.name},
            )
        )
    if not changes and each.has(number, in_group):
        return steps
    steps += changes
    if changes or each.applied != "pending-reboot":
        steps.append(
            Step("await_notice", f"wait until {each.id} knows of it (pending-reboot)", arguments=where, waits=True)
        )
    if wanted["reboot"]:
        steps.append(
            Step(
                "reboot",
                f"reboot {each.id}: ends all its sessions, and nobody is let in for about a minute",
                each.now,
                number,
                {**where, "number": number},
            )
        )
    return steps

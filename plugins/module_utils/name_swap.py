# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that lets a restored RDS instance take the name, and with it the endpoint, of the damaged one. Pure.

Renaming takes minutes and may stop half way. Each of the two is known by its resource id, which no renaming touches, so every
state between is recognised and leads on, or back. (HAZARDS: Restore 2)
https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/USER_RenameInstance.html
"""

from __future__ import annotations

from dataclasses import dataclass

from . import rds
from .errors import Refusal, near
from .verb import Plan, Step


@dataclass(frozen=True)
class Pair:
    """`rds.instance()` of the damaged instance and of the one restored from it."""

    damaged: dict
    fresh: dict


def find(instances, wanted):
    """The Pair among the instances of a region, whatever names they have by now; None where nothing says that two belong together.

    Args:
        instances: {id: `rds.instance()`}.
        wanted: the module's parameters.
    """
    name, replacement, kept = wanted["db_instance"], wanted["restored_instance"], wanted["kept_instance"]
    for fresh, damaged in ((replacement, name), (replacement, kept), (name, kept)):
        fresh, damaged = instances.get(fresh), instances.get(damaged)
        if fresh and damaged and fresh["restored_from"] == damaged["resource_id"]:
            return Pair(damaged, fresh)
    return None


def pair(instances, wanted, restoring=False):
    """The Pair, or with `restoring` what it will be once the restored instance is there.

    Raises:
        Refusal: the two are not there, or nothing says that they belong together.
    """
    found = find(instances, wanted)
    if found:
        return found
    name, replacement, kept = wanted["db_instance"], wanted["restored_instance"], wanted["kept_instance"]
    if replacement in instances:
        raise Refusal(
            f"nothing says that {replacement} was restored from {name}: its tag {rds.RESTORED_FROM} must be the resource id of "
            f"{name}, as sre.runbooks.rds_restore writes it; nothing was changed"
        )
    if name not in instances:
        raise Refusal(
            f"there is neither {name} nor {replacement} in this region ({near(name, instances)}): nothing was changed"
        )
    if restoring:
        damaged = instances[name]
        return Pair(damaged, damaged | {"id": replacement, "resource_id": None, "status": "available", "pending": {}})
    raise Refusal(
        f"there is no {replacement} ({near(replacement, instances)}), and {name} was not restored from {kept}: restore beside "
        f"first (sre.runbooks.rds_restore); nothing was changed"
    )


def plan(observed, wanted):
    """Steps from the names that both have to those that they shall have.

    Args:
        observed: {pair: Pair, instances: {id: instance}, sessions: of the instance whose endpoint moves (None: not asked)}.
        wanted: the module's parameters.
    """
    both, instances = observed["pair"], observed["instances"]
    name, replacement, kept = wanted["db_instance"], wanted["restored_instance"], wanted["kept_instance"]
    # Who has the name gives it up before the other takes it.
    moves = [(both.damaged, kept), (both.fresh, name)]
    if wanted["state"] == "original":
        moves = [(both.fresh, replacement), (both.damaged, name)]
    moves = [(instance, to) for instance, to in moves if instance["id"] != to]
    unsettled = [each for each in (both.damaged, both.fresh) if each["status"] not in rds.SERVING]
    steps, notes = [], []
    for instance in unsettled:
        if moves and instance["status"] not in rds.PASSING:
            raise Refusal(
                f"{instance['id']} is {instance['status']}, and AWS renames no instance that is: switch by the task definition "
                f"instead; nothing was changed"
            )
        rds.is_available(instance)
        what = f"wait until {instance['id']} is available"
        arguments = {"resource_id": instance["resource_id"], "name": None}
        steps.append(Step("settle", what, instance["status"], "available", arguments, look_again=True, waits=True))
    for instance, to in moves:
        _check_free(instances, to, moves)
        if instance["pending"]:
            notes.append(
                f"{', '.join(instance['pending'])} of {instance['id']}, which was pending, is applied with its name"
            )
        arguments = {"name": instance["id"], "to": to, "resource_id": instance["resource_id"]}
        what = f"rename {instance['id']} to {to}, which restarts it"
        steps.append(Step("rename", what, instance["id"], to, arguments, look_again=True))
    if moves:
        _check_sessions(observed, moves[0][0]["id"], wanted)
    if moves and wanted["state"] == "original":
        notes.append(f"what was written since the swap is in the restored instance only, which is {replacement} again")
    notes += _replicas(both, wanted)
    after = (
        {name: "restored", kept: "damaged"}
        if wanted["state"] == "swapped"
        else {name: "damaged", replacement: "restored"}
    )
    returned = {"swapped": wanted["state"] == "swapped", "replicas": both.damaged["replicas"]}
    return Plan(tuple(steps), {"names": after}, tuple(notes), returned)


def _check_free(instances, name, moves):
    """Refuses a name that somebody has who keeps it."""
    if name in instances and name not in [instance["id"] for instance, _to in moves]:
        raise Refusal(
            f"there is an instance {name} already, of an earlier time it seems: say another name with kept_instance=NAME "
            f"(or restored_instance=NAME); nothing was changed"
        )


def _check_sessions(observed, name, wanted):
    """Refuses to take an endpoint away from under somebody who writes."""
    sessions = observed["sessions"]
    if sessions and not wanted["accept_sessions"]:
        raise Refusal(
            f"{sessions} sessions are open on {name}: stop the application first, or what it writes until the end of the renaming "
            f"is in one of the two only; accept_sessions=true goes on all the same; nothing was changed"
        )


def _replicas(both, wanted):
    """Replicas stay with the instance that they follow, whatever it is called."""
    names = [each.rpartition(":")[2] for each in both.damaged["replicas"]]
    if not names or wanted["state"] == "original":
        return []
    return [
        f"{', '.join(names)} goes on following the damaged instance, as {wanted['kept_instance']}: give {wanted['db_instance']} a "
        f"replica in its place (playbooks/db_reprotect.yml of the other env, sre.runbooks.rds_recreate_replica), or the next "
        f"failure has nowhere to go"
    ]


def shown(both):
    """{name: damaged or restored}."""
    return {both.damaged["id"]: "damaged", both.fresh["id"]: "restored"}

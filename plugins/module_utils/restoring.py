# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that restores an RDS instance beside itself: never over the only copy, and the same whatever a killed run has left.

A restored instance remembers in its tags what it was made of, so it is recognised under any name, also when it has already taken
the place of its source. (HAZARDS: Restore 1 and 2)
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from . import rds, restore_points
from .errors import Refusal
from .verb import Plan, Step

# A safety snapshot of an earlier try is good for so long, in seconds: what was written since is in the source itself, which is kept.
SAFETY_LASTS = 24 * 3600


@dataclass(frozen=True)
class Place:
    """Who is who: `rds.instance()` of the source and of what was restored from it, None for what is not there."""

    source: dict | None
    restored: dict | None
    name: str  # of the source in the inventory

    @property
    def switched(self):
        """Whether the restored instance has that name by now."""
        return bool(self.restored) and self.restored["id"] == self.name


def place(instances, name, target, point):
    """Find source and restored instance among those of a region, whatever names they have by now.

    Args:
        instances: {id: `rds.instance()`}.
        name: of the source in the inventory.
        target: of the restored instance, until it takes that name.
        point: text of the snapshot or time that is wanted.

    Raises:
        Refusal: the target's name belongs to another instance.
    """
    by_right = instances.get(name)
    has_switched = by_right and by_right["restored_to"] == point
    restored = by_right if has_switched else instances.get(target)
    if restored is None:
        return Place(by_right, None, name)
    source = next((each for each in instances.values() if each["resource_id"] == restored["restored_from"]), None)
    if restored["restored_to"] != point or (by_right is not restored and source is None):
        made = (
            f"was restored to {restored['restored_to']}" if restored["restored_to"] else "was not restored by this verb"
        )
        raise Refusal(
            f"{target} is there already and {made}: give this one another name with restored_instance=NAME (that one stays as "
            f"it is); nothing was changed"
        )
    return Place(source, restored, name)


def plan(observed, wanted):
    """Steps from what is there to "the restored instance is available beside its source, and like it".

    Args:
        observed: {place: Place, point: Point, snapshots, named, window, settings, left, facts, now}.
        wanted: the module's parameters.
    """
    where, point, target = observed["place"], observed["point"], wanted["restored_instance"]
    if where.restored is not None:
        return _finish(observed)
    source = where.source
    if source["engine"].startswith("aurora"):
        raise Refusal(f"{source['id']} is of Aurora, which restores clusters: this verb restores instances of RDS only")
    if source["source"]:
        raise Refusal(
            f"{source['id']} is a replica of {source['source'].rpartition(':')[2]}: restore that one, whose backups are complete"
        )
    steps = _ready(source, wanted)
    steps += _data_there(observed, wanted)
    if wanted["safety_snapshot"]:
        steps += _safety(observed, target)
    steps.append(
        Step(
            "restore",
            f"restore {source['id']} to {point.text} as {target}",
            None,
            target,
            {"settings": observed["settings"]},
            look_again=True,
        )
    )
    steps.append(_settle(target, "creating"))
    notes = []
    if source["public"]:
        notes.append(
            f"{source['id']} can be reached from the internet, {target} cannot: say so to AWS by hand if it must"
        )
    after = {"restored": target, "status": "available", "restored_to": point.text}
    return Plan(tuple(steps), after, tuple(notes + _notes(source, target, point)))


def _ready(source, wanted):
    """AWS takes no snapshot of an instance that is in the middle of something, and none of one that is ill."""
    if source["status"] in rds.SERVING or not wanted["safety_snapshot"]:
        return []
    if source["status"] not in rds.PASSING:
        raise Refusal(
            f"{source['id']} is {source['status']}, and AWS takes no snapshot of an instance that is: safety_snapshot=false goes "
            f"on without one; {source['id']} itself is not touched either way"
        )
    what = f"wait until {source['id']} is available"
    return [Step("settle", what, source["status"], "available", {"name": source["id"]}, look_again=True, waits=True)]


def _data_there(observed, wanted):
    """Nothing where the snapshot, or the log up to the time, is whole."""
    source, point = observed["place"].source, observed["point"]
    if point.snapshot:
        found = observed["named"]
        restore_points.check_snapshot(
            source, found, point.snapshot, observed["snapshots"], wanted["accept_other_source"]
        )
        missing, what = found["status"] == "creating", f"wait until the snapshot {point.snapshot} is whole"
        step = Step("await_snapshot", what, found["status"], "available", {"name": point.snapshot}, waits=True)
    else:
        missing = restore_points.check_time(
            source, observed["window"], observed["snapshots"], point.time, observed["now"]
        )
        step = Step("await_log", f"wait until the log of {source['id']} reaches {point.text}", waits=True)
    return [step] if missing else []


def _safety(observed, target):
    """A snapshot of what is there now, that an earlier run may have begun."""
    source, now = observed["place"].source, observed["now"]
    prefix = f"{source['id']}-before-{target}"
    for each in observed["snapshots"]:
        is_ours = each["id"].startswith(prefix) and each["status"] in ("available", "creating")
        if is_ours and (each["created"] is None or now - each["created"] < SAFETY_LASTS):
            return [] if each["status"] == "available" else [_await_snapshot(each["id"])]
    name = f"{prefix}-{time.strftime('%Y%m%d%H%M%S', time.gmtime(now))}"
    return [
        Step("snapshot", f"take the safety snapshot {name}", None, name, {"name": name}),
        _await_snapshot(name),
    ]


def _await_snapshot(name):
    return Step(
        "await_snapshot",
        f"wait until the snapshot {name} is whole",
        "creating",
        "available",
        {"name": name},
        waits=True,
    )


def _settle(name, status):
    return Step(
        "settle", f"wait until {name} is available", status, "available", {"name": name}, look_again=True, waits=True
    )


def _finish(observed):
    where, facts = observed["place"], observed["facts"]
    restored, steps, notes = where.restored, [], []
    name = restored["id"]
    if restored["status"] not in rds.SERVING:
        rds.is_available(restored)
        steps.append(_settle(name, restored["status"]))
    elif observed["left"] and not where.switched:
        told = ", ".join(observed["left"])
        steps.append(Step("adjust", f"carry over to {name}: {told}", arguments={"settings": observed["left"]}))
        steps.append(_settle(name, "modifying"))
    elif isinstance(facts, dict) and facts["read_only"] and not where.switched:
        # The source was fenced at that time, and the fence is a setting of the database itself.
        steps.append(
            Step("unfence", f"let {name} take writes: it has the fence of its source", "read-only", "writable")
        )
    if where.switched:
        notes.append(f"{name} is what was restored to {restored['restored_to']}: it has taken its place already")
    else:
        notes += _notes(where.source, name, observed["point"])
    after = {"restored": name, "status": "available", "restored_to": restored["restored_to"]}
    return Plan(tuple(steps), after, tuple(notes))


def _notes(source, target, point):
    notes = [f"{target} knows the passwords of {point.text}: one that was rotated since is the old one there"]
    if source["iam_login"]:
        notes.append(
            f"policies that allow rds-db:connect to {source['resource_id']} must name the resource id of {target}, or nobody "
            f"logs in there by IAM"
        )
    if source["managed_password"]:
        notes.append(
            f"Secrets Manager keeps the master password of {source['id']}, and not that of {target}: aws rds "
            f"modify-db-instance --manage-master-user-password lets it, and makes another secret"
        )
    if source["replicas"]:
        names = ", ".join(each.rpartition(":")[2] for each in source["replicas"])
        notes.append(f"{names} follows {source['id']} for ever: {target} has no replica until it is given one")
    notes.append(
        f"two databases cost what two cost, until somebody deletes one of {source['id']} and {target} by hand",
    )
    return notes

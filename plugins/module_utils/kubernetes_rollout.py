# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of what is done to a rollout, and the patches that do it.

Pure: `plan(observed, wanted)` decides from what was observed alone (alchemorsel runbook, sections 1 and 4).
"""

from __future__ import annotations

import json

from . import kubernetes_history as history
from . import kubernetes_workload as workloads
from . import room
from . import temporary_capacity as temporary
from .errors import Refusal, Stop
from .temporary_capacity import Size
from .verb import Plan, Step

# How many pods a workload had before it was scaled to 0, so that a run that is killed there finds it again.
COUNT = "sre.runbooks/replicas"


def plan(observed, wanted):
    """The steps of one action.

    Args:
        observed: {workload, revisions, pods, autoscaler, failed, reconcilers, sent, overtaken_by, stamp, version} of
            `K8sRollout.observe`.
        wanted: the parameters.

    Raises:
        Refusal: a gate is closed.
        Stop: somebody else deployed while this run was under way.
    """
    workload, kind = observed["workload"], workloads.KINDS[wanted["kind"]]
    name = workload["metadata"]["name"]
    if observed["overtaken_by"]:
        raise Stop(
            f"{name} was changed to {observed['overtaken_by']} by somebody else while this run was under way: talk to "
            f"them, look at it, then repeat the command if it is still wanted"
        )
    made = ACTIONS[wanted["action"]](observed, wanted, kind)
    reconcilers = [*observed["reconcilers"]]
    if any(step.do == "bound" for step in made.steps):
        reconcilers += observed["autoscaler"]["reconcilers"]
    if reconcilers and wanted["action"] in ("undo", "recreate", "scale") and _changes(made.steps):
        who = " and ".join(dict.fromkeys(reconcilers))
        if wanted["when_managed"] == "refuse":
            raise Refusal(
                f"{name} is managed by {who} and would be put back: suspend that and say when_managed=note, or change "
                f"it there"
            )
        made = _noted(made, f"{name} is managed by {who}: what is changed here is put back unless that is suspended")
    release = (workload["metadata"].get("annotations") or {}).get("meta.helm.sh/release-name")
    if release and wanted["action"] == "undo" and _changes(made.steps):
        made = _noted(
            made, f"the Helm release {release} does not know of this: its next upgrade starts from the old values"
        )
    return made


def _undo(observed, wanted, kind):
    workload, revisions = observed["workload"], observed["revisions"]
    name, now = workload["metadata"]["name"], history.current(workload, revisions)
    progress, left = kind.progress(workload, now), history.left_by_us(workload, revisions)
    if observed["sent"]:
        return _finish(observed, kind, now)
    if wanted["to_revision"] is None and left is not None:
        why = _failure(observed, progress)
        if why:
            raise Refusal(
                f"{name} already went back from {left.shown()} to {now.shown()}, which fails too ({why}): "
                f"give to_revision: {history.listed(revisions)}"
            )
        note = f"{name} already went back from {left.shown()}: give to_revision to go elsewhere"
        return _noted(_finish(observed, kind, now), note)
    between = history.came_between(workload, revisions)
    if wanted["to_revision"] is None and between is not None:
        raise Refusal(
            f"{name} runs {now.shown()}, which it had before {between.shown()}, too: somebody went back, or shipped it "
            f"again: give to_revision ({now.number} stays, {between.number} leaves it)"
        )
    target, notes = history.target(workload, revisions, wanted["to_revision"], observed["failed"])
    if history.same(target.template, workload["spec"]["template"]):
        return _finish(observed, kind, target)
    _refuse_paused(workload, kind, "undone")
    _refuse_on_delete(workload)
    images = history.images(target.template)
    triggers = _image_triggers(workload)
    steps = [
        Step(
            "roll_back",
            f"send {name} back to {target.shown()}",
            now.shown() if now else ", ".join(history.images(workload["spec"]["template"])),
            target.shown(),
            {"target": target, "now": now},
        )
    ]
    if triggers:
        notes.append(f"its image triggers ({', '.join(triggers)}) are switched off, or they would bring the image back")
    steps += _by_hand(workload, target) + _unblock(workload, target, observed["pods"])
    newest = max(each.number for each in revisions)
    after = dict(_settled(workload), revision=newest + 1, images=images)
    return Plan((*steps, _settle(workload, f"serves with {target.shown()}")), after, tuple(notes), _returned(observed))


def _finish(observed, kind, revision):
    """The template is right already: wait for the rest of its rollout, if there is any."""
    workload = observed["workload"]
    if kind.progress(workload, revision).done:
        return Plan(returned=_returned(observed))
    _refuse_paused(workload, kind, "finished")
    steps = [
        *_by_hand(workload, revision),
        *_unblock(workload, revision, observed["pods"]),
        _settle(workload, "has rolled out"),
    ]
    return Plan(tuple(steps), _settled(workload), (), _returned(observed))


def _restart(observed, wanted, kind):
    workload = observed["workload"]
    name = workload["metadata"]["name"]
    now = history.current(workload, observed["revisions"])
    progress = kind.progress(workload, now)
    stamps = (workload["spec"]["template"]["metadata"].get("annotations") or {}).get(history.RESTARTED_AT)
    version = workload["status"].get("latestVersion")
    mine = version != observed["version"] if kind.name == "DeploymentConfig" else observed["sent"]
    if mine or (stamps and not progress.done and not _failure(observed, progress)):
        made = _finish(observed, kind, now)
        return made if mine else _noted(made, f"the restart of {stamps} is not over yet: no other is begun")
    _refuse_paused(workload, kind, "restarted")
    _refuse_on_delete(workload)
    do = "instantiate" if kind.name == "DeploymentConfig" else "restart"
    steps = (Step(do, f"restart {name}", stamps, observed["stamp"]), _settle(workload, "has restarted"))
    return Plan(steps, _settled(workload), (), _returned(observed))


def _status(observed, wanted, kind):
    workload = observed["workload"]
    done = kind.progress(workload, history.current(workload, observed["revisions"])).done
    steps = () if done else (_settle(workload, "has rolled out"),)
    return Plan(steps, _settled(workload) if steps else {}, (), _returned(observed))


def _pause(observed, wanted, kind):
    workload, pause = observed["workload"], wanted["action"] == "pause"
    name = workload["metadata"]["name"]
    if not kind.pauses:
        raise Refusal(f"{name} is a {kind.name}, which cannot be paused: only Deployment and DeploymentConfig can")
    is_paused = bool(workload["spec"].get("paused"))
    steps = ()
    if is_paused != pause:
        what = f"pause {name}, so that no change rolls out" if pause else f"resume {name}"
        steps = (Step("pause", what, is_paused, pause, {"paused": pause}),)
    if pause:
        return Plan(steps, {"paused": True}, (), _returned(observed))
    resumed = dict(workload, spec=dict(workload["spec"], paused=False))
    done = kind.progress(resumed, history.current(workload, observed["revisions"])).done and not steps
    steps += () if done else (_settle(workload, "has rolled out"),)
    return Plan(steps, dict(_settled(workload), paused=False) if steps else {}, (), _returned(observed))


def _recreate(observed, wanted, kind):
    workload, scaler = observed["workload"], observed["autoscaler"]
    name, annotations = workload["metadata"]["name"], workload["metadata"].get("annotations") or {}
    if not kind.counts:
        raise Refusal(f"{name} is a {kind.name}, which has no count to scale: restart it instead (action=restart)")
    present, kept = workload["spec"].get("replicas", 1), annotations.get(COUNT)
    count = int(kept) if kept and kept.isdigit() else present
    count = count if wanted["replicas"] is None else wanted["replicas"]
    if count < 1:
        raise Refusal(f"{name} would come back with {count} pods: give the number that it is to have as replicas")
    _refuse_paused(workload, kind, "recreated")
    steps = []
    if kept is None and present:
        steps.append(Step("empty", f"scale {name} to 0: nothing serves from here on", present, 0, {"count": count}))
    if steps or (not present and (observed["pods"] or workload["status"].get("replicas"))):
        steps.append(Step("drain", f"wait until {name} has no pod left", waits=True))
    if steps or not present:
        steps.append(Step("fill", f"scale {name} to {count}", 0, count, {"count": count}))
    steps.append(_settle(workload, f"serves with {count} pods"))
    if kept is not None or present:
        steps.append(Step("forget", f"forget the kept count of {name}"))
    notes = _unknown_autoscaler(name, scaler)
    if scaler and not notes:
        notes.append(
            f"the autoscaler {scaler['name']} is off while {name} is scaled to 0, and takes over again at "
            f"{scaler['floor']} to {scaler['ceiling']} pods"
        )
    return Plan(
        tuple(steps), dict(_settled(workload), replicas=count, available=count), tuple(notes), _returned(observed)
    )


def _scale(observed, wanted, kind):
    """The count, and the bounds under which it lasts: an autoscaler would move it back into its own.

    At 0 the autoscaler is off; it takes over again at the first pod.
    https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#implicit-maintenance-mode-deactivation
    """
    if wanted["capacity"] or wanted["restore"]:
        return _for_a_while(observed, wanted, kind)
    workload, scaler, count = observed["workload"], observed["autoscaler"], wanted["replicas"]
    name, present = workload["metadata"]["name"], workload["spec"].get("replicas", 1)
    if not kind.counts:
        raise Refusal(f"{name} is a {kind.name}, which has no count to scale: its nodes are its count")
    if count is None:
        raise Refusal(f"how many pods {name} is to have is missing: give replicas, or capacity for a while")
    if count < 0 or (count == 0 and wanted["at_least"]):
        raise Refusal(f"replicas is {count}: give 0 to scale to nothing (at_least=true never lowers a count), or more")
    _refuse_paused(workload, kind, "followed while it scales")
    final = max(count, present) if wanted["at_least"] else count
    notes, steps = _unknown_autoscaler(name, scaler), []
    if scaler and not notes:
        bounds = {key: scaler[key] for key in ("floor", "ceiling")}
        goal = wanted["bounds"] or (_fitting(bounds, count, wanted["at_least"]) if count else bounds)
        if goal["floor"] > goal["ceiling"]:
            raise Refusal(f"bounds: the floor {goal['floor']} is above the ceiling {goal['ceiling']}")
        if goal != bounds:
            what = f"let the autoscaler {scaler['name']} keep {name} at {goal['floor']} to {goal['ceiling']} pods"
            steps.append(Step("bound", what, bounds, goal, {"name": scaler["name"], "present": bounds, "goal": goal}))
        if final and not goal["floor"] <= final <= goal["ceiling"]:
            notes.append(f"the autoscaler {scaler['name']} will move {name} back to its bounds")
    elif wanted["bounds"]:
        raise Refusal(f"no autoscaler is known to scale {name}: leave bounds out")
    if final != present:
        steps.append(Step("fill", f"scale {name} to {final}", present, final, {"count": final}))
    if COUNT in (workload["metadata"].get("annotations") or {}):
        # Of a recreate that ended half way: a later one would come back with that count.
        steps.append(Step("forget", f"forget the kept count of {name}"))
    if not final and (steps or observed["pods"]):
        steps.append(Step("drain", f"wait until {name} has no pod left", waits=True))
    elif final and (steps or not kind.progress(workload, history.current(workload, observed["revisions"])).done):
        steps.append(_settle(workload, f"serves with {final} pods"))
    after = dict(_settled(workload), replicas=final, available=final) if steps else {}
    return Plan(tuple(steps), after, tuple(notes), _returned(observed))


def _for_a_while(observed, wanted, kind):
    """Another capacity, or the one before, as the workload remembers it; scaled to as any other count is."""
    workload, scaler = observed["workload"], observed["autoscaler"]
    name, kept = workload["metadata"]["name"], remembered(workload)
    present, line = size(workload, scaler), None
    if wanted["restore"]:
        if kept is None:
            note = f"{name} was not given any capacity for a while: there is nothing to give back"
            return Plan(notes=(note,), returned=_returned(observed))
        goal, notes = temporary.restored(name, present, kept)
    else:
        goal, line, notes = temporary.changed(name, present, kept, wanted["capacity"], None, observed["now"])
        more = goal.count - present.count
        notes += room.check(f"pods of {name}", more, observed["rooms"], wanted["accept_shortage"])
        notes.append(temporary.lasting(name, present, line, None))
    # At 0 the autoscaler is off by that alone, and takes no bounds of 0.
    limits = dict(zip(("floor", "ceiling"), goal.bounds, strict=True)) if goal.bounds and goal.count else None
    made = _scale(
        observed,
        dict(wanted, capacity=None, restore=False, replicas=goal.count, at_least=False, bounds=limits),
        kind,
    )
    steps = made.steps
    if line is not None and line != kept:
        what = f"write down on {name} what it had"
        values = {temporary.MARK: line.text()}
        steps = (Step("annotate", what, kept and kept.text(), line.text(), {"values": values}), *steps)
    if line is None:
        what = f"forget what {name} had before"
        steps = (*steps, Step("annotate", what, kept.text(), None, {"values": {temporary.MARK: None}}))
    return Plan(steps, made.after, (*notes, *made.notes), made.returned)


def size(workload, scaler):
    """The Size of a workload, with the bounds of its autoscaler as far as one is known."""
    bounds = (scaler["floor"], scaler["ceiling"]) if isinstance(scaler, dict) else ()
    return Size(workload["spec"].get("replicas", 1), *bounds)


def remembered(workload):
    """The Kept of a capacity that the workload was given for a while, or None."""
    return temporary.parse((workload["metadata"].get("annotations") or {}).get(temporary.MARK))


def _fitting(bounds, count, at_least):
    """The bounds of an autoscaler under which a count lasts."""
    floor = max(count, bounds["floor"]) if at_least else count
    return {"floor": floor, "ceiling": max(bounds["ceiling"], floor)}


def _unknown_autoscaler(name, scaler):
    return [f"whether an autoscaler scales {name} is not known: {scaler}"] if isinstance(scaler, Stop) else []


ACTIONS = {
    "undo": _undo,
    "restart": _restart,
    "status": _status,
    "pause": _pause,
    "resume": _pause,
    "recreate": _recreate,
    "scale": _scale,
}


def view(observed, kind):
    """The part of a workload that is shown: no template, since its environment may hold secrets."""
    workload = observed["workload"]
    now = history.current(workload, observed["revisions"])
    progress = kind.progress(workload, now)
    return {
        "revision": now.number if now else None,
        "images": history.images(workload["spec"]["template"]),
        "replicas": workloads.wanted(workload),
        "available": workloads.available(workload),
        "paused": bool(workload["spec"].get("paused")),
        "rollout": "complete" if progress.done else progress.failure or progress.text,
    }


def _returned(observed):
    workload, revisions = observed["workload"], observed["revisions"]
    now = history.current(workload, revisions)
    return {
        "history": [
            {
                "revision": each.number,
                "images": history.images(each.template),
                "cause": each.cause,
                "available": each.available,
                "current": each is now,
            }
            for each in revisions
        ]
    }


def _settled(workload):
    return {"rollout": "complete", "available": workloads.wanted(workload)}


def _settle(workload, what):
    return Step("settle", f"wait until {workload['metadata']['name']} {what}", waits=True)


def _unblock(workload, revision, pods):
    """Pods that their StatefulSet would wait for in vain."""
    return [
        Step("unblock", f"delete pod {each['pod']}, which never became ready and blocks the rollout", arguments=each)
        for each in workloads.stuck(workload, revision, pods)
    ]


def _by_hand(workload, revision):
    """A DeploymentConfig without a trigger for changes rolls a template out only when it is told to."""
    latest = workload["status"].get("latestVersion")
    if latest is None or (revision is not None and revision.number == latest):
        return []
    if any(each["type"] == "ConfigChange" for each in workload["spec"].get("triggers") or []):
        return []
    return [Step("instantiate", f"roll {workload['metadata']['name']} out")]


def _image_triggers(workload):
    """Names of the image streams that a DeploymentConfig follows by itself."""
    followed = [each.get("imageChangeParams") or {} for each in workload["spec"].get("triggers") or []]
    return [each["from"]["name"] for each in followed if each.get("automatic")]


def _failure(observed, progress):
    """Why the present rollout will not end well, or None while it may."""
    now = history.current(observed["workload"], observed["revisions"])
    if progress.done or now is None:
        return None
    return progress.failure or observed["failed"].get(now.name)


def _refuse_paused(workload, kind, what):
    if kind.pauses and workload["spec"].get("paused"):
        raise Refusal(
            f"{workload['metadata']['name']} is paused and cannot be {what}: resume it first (action=resume), which "
            f"rolls out what was changed meanwhile"
        )


def _refuse_on_delete(workload):
    if (workload["spec"].get("updateStrategy") or {}).get("type") == "OnDelete":
        raise Refusal(
            f"{workload['metadata']['name']} has the update strategy OnDelete, under which no pod follows its template: "
            f"set RollingUpdate, or delete its pods one by one"
        )


def _noted(made, note):
    return Plan(made.steps, made.after, (*made.notes, note), made.returned)


def _changes(steps):
    return any(not step.waits for step in steps)


# Patches. Each tests the generation, which every change of a spec raises and no change of a status does: an edit that
# somebody else made since the look is noticed, and the rollout's own progress does not get in the way.


def undo_patch(workload, target, now):
    """What `kubectl rollout undo` sends, but for the annotations: those that are no part of the revision stay."""
    operations = [{"op": "replace", "path": "/spec/template", "value": target.template}]
    triggers = workload["spec"].get("triggers") or []
    # https://docs.openshift.com/container-platform/4.17/applications/deployments/managing-deployment-processes.html
    if _image_triggers(workload):
        manual = json.loads(json.dumps(triggers))
        for each in manual:
            if each.get("imageChangeParams"):
                each["imageChangeParams"]["automatic"] = False
        operations.append({"op": "replace", "path": "/spec/triggers", "value": manual})
    return _patch(workload, *operations, *_annotate(workload["metadata"], "/metadata", history.marked(target, now)))


def restart_patch(workload, stamp):
    """What `kubectl rollout restart` changes."""
    return _patch(
        workload,
        *_annotate(workload["spec"]["template"]["metadata"], "/spec/template/metadata", {history.RESTARTED_AT: stamp}),
    )


def restarted(template, stamp):
    """The template after that."""
    annotations = dict(template["metadata"].get("annotations") or {}, **{history.RESTARTED_AT: stamp})
    return dict(template, metadata=dict(template["metadata"], annotations=annotations))


def pause_patch(workload, paused):
    return _patch(workload, {"op": "add", "path": "/spec/paused", "value": paused})


def count_patch(workload, count, kept=None):
    """Scale to `count`; `kept` is written down in the same breath."""
    notes = _annotate(workload["metadata"], "/metadata", {COUNT: str(kept)}) if kept else []
    return _patch(workload, {"op": "add", "path": "/spec/replicas", "value": count}, *notes)


def bounds_patch(present, goal):
    """Of an autoscaler, unless its bounds are no longer `present`. Its status changes all the time, and counts for nothing."""
    fields = {"/spec/minReplicas": "floor", "/spec/maxReplicas": "ceiling"}
    return [{"op": "test", "path": path, "value": present[key]} for path, key in fields.items()] + [
        {"op": "replace", "path": path, "value": goal[key]} for path, key in fields.items()
    ]


def forget_patch(workload):
    return annotate_patch(workload, {COUNT: None})


def annotate_patch(workload, values):
    return _patch(workload, *_annotate(workload["metadata"], "/metadata", values))


def _patch(workload, *operations):
    tested = {"op": "test", "path": "/metadata/generation", "value": workload["metadata"]["generation"]}
    return [tested, *operations]


def _annotate(metadata, path, values):
    """Operations that set annotations (None removes one) and leave all others alone."""
    present = metadata.get("annotations") or {}
    if not present:
        return [
            {"op": "add", "path": f"{path}/annotations", "value": {k: v for k, v in values.items() if v is not None}}
        ]
    operations = []
    for key, value in values.items():
        place = f"{path}/annotations/{key.replace('~', '~0').replace('/', '~1')}"
        if value is not None:
            operations.append({"op": "add", "path": place, "value": value})
        elif key in present:
            operations.append({"op": "remove", "path": place})
    return operations

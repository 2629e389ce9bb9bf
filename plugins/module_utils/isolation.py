# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""In which order an instance is taken out of everything, and put back. Pure, but for a look at its group.

HAZARDS.md, "Security isolation": snapshot, termination protection, detach from the group and the target groups (or it is
replaced and lost), isolate.
"""

from __future__ import annotations

from dataclasses import replace

from . import group_serving, instance_refresh
from .containment import PREFIX, PROTECTED, REPLACEMENT
from .errors import Refusal
from .verb import Plan, Step

# Seconds that a group usually waits for the requests in hand before an instance has left it: the usual deregistration delay.
USUAL_DRAIN = 300
NONE = "none"
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/security-group-connection-tracking.html#automatic-tracking
ALWAYS_TRACKED = (
    "connections by way of a NAT gateway, a Network Load Balancer, a transit gateway or a VPC endpoint are tracked whatever its "
    "groups say, and may live on until they are idle: only a network ACL of its subnet, or stopping it, cuts those"
)


def plan(observed, quarantine):
    """What is left of an isolation of `observed["suspect"]` in the security group `quarantine`."""
    suspect = observed["suspect"]
    memory = suspect.memory or suspect.as_it_is(observed["now"])
    steps = []
    if suspect.memory is None:
        steps.append(_remember("remember what it is, in its tags", memory))
    if memory.replacement:
        # A release had begun; the next one looks anew who goes.
        steps.append(
            Step("forget", "forget who was to go in its place", memory.replacement, None, {"keys": [REPLACEMENT]})
        )
    if unsaved := suspect.unsaved():
        what = f"snapshot its volumes ({', '.join(suspect.volumes)})"
        told = {"since": memory.since, "description": f"{suspect.id}, isolated at {memory.since}"}
        steps.append(Step("snapshot", what, len(suspect.volumes) - len(unsaved), len(suspect.volumes), told))
    if unprotected := {name: value for name, value in PROTECTED.items() if dict(suspect.protections)[name] != value}:
        what = "keep it from being terminated and stopped"
        steps.append(Step("protect", what, dict(suspect.protections), PROTECTED, {"protections": unprotected}))
    steps += _leave(suspect)
    isolated = all(groups == (quarantine,) for _name, groups in suspect.interfaces)
    if not (memory.is_done and isolated):
        names = [name for name, _groups in suspect.interfaces]
        what = f"cut its connections, and isolate it in {quarantine}"
        told = {"interfaces": names, "vpc": suspect.instance["VpcId"]}
        steps.append(Step("cut", what, dict(suspect.interfaces), quarantine, told))
    if not memory.is_done:
        steps.append(_remember("note that it is isolated", replace(memory, is_done=True, replacement=None)))
    if suspect.untracking or any(step.do == "cut" for step in steps):
        steps.append(
            Step("tidy", "delete the security group that its connections were cut by", suspect.untracking, None)
        )
    if suspect.membership:
        steps.append(
            Step("let_go", f"wait until {suspect.membership['AutoScalingGroupName']} has let it go", waits=True)
        )
    after = {
        "isolation": memory.since,
        "groups": {name: [quarantine] for name, _groups in suspect.interfaces},
        "protections": PROTECTED,
        "auto_scaling_group": None,
        "targets": [],
    }
    notes = _role(suspect)
    if any(step.do == "cut" for step in steps):
        notes += (ALWAYS_TRACKED,)
    return Plan(tuple(steps), after, notes)


def _leave(suspect):
    """The steps out of its group and the target groups."""
    member = suspect.membership
    if member and not member["LifecycleState"].startswith("Detach"):
        name, lifecycle = member["AutoScalingGroupName"], member["LifecycleState"]
        if lifecycle not in ("InService", "Standby"):
            raise Refusal(
                f"{suspect.id} is {lifecycle} in {name}, which lets go of it only when it is InService or Standby: "
                + (
                    "it is on its way out; keep its volumes, aws ec2 create-snapshots --instance-specification "
                    f"InstanceId={suspect.id}"
                    if lifecycle.startswith("Terminat")
                    else "repeat the command in a moment"
                )
            )
        steps = [Step("detach", f"detach it from {name}, which launches another", name, None, {"group": name})]
    else:
        steps = []
    return steps + [
        Step("deregister", f"deregister it from {each.shown()}", each.state, "draining", {"target": each})
        for each in suspect.targets
    ]


def _role(suspect):
    profile = suspect.instance.get("IamInstanceProfile")
    if not profile:
        return ()
    name = profile["Arn"].rpartition("/")[2]
    return (
        f"credentials that were taken from instance profile {name} go on to work elsewhere until its sessions are revoked",
    )


def _remember(what, memory):
    return Step("remember", what, None, memory.since, {"tags": memory.tags()})


# ---- the way back ----------------------------------------------------------------------------------------------------


def look_at_group(aws, memory):
    """{group: its Auto Scaling group, None where that is gone; launched: {instance launched there since: when}}."""
    found = aws.read("autoscaling", "describe_auto_scaling_groups", AutoScalingGroupNames=[memory.group])
    group = next(iter(found["AutoScalingGroups"]), None)
    names = [each["InstanceId"] for each in instance_refresh.staying(group)] if group else []
    if not names:
        return {"group": group, "launched": {}}
    there = aws.read("ec2", "describe_instances", InstanceIds=names)["Reservations"]
    launched = {each["InstanceId"]: each["LaunchTime"] for some in there for each in some["Instances"]}
    return {
        "group": group,
        "launched": {name: at for name, at in launched.items() if f"{at:%Y-%m-%dT%H:%M:%SZ}" >= memory.since},
    }


def plan_release(observed):
    """What is left to do until `observed["suspect"]` is what it was."""
    suspect = observed["suspect"]
    memory = suspect.memory
    if memory is None:
        return Plan(notes=(f"{suspect.id} is not isolated: there is nothing to release",))
    steps, notes, group = [], [], observed["group"]
    if memory.group and group is None:
        notes.append(f"Auto Scaling group {memory.group} is gone: it is not attached to any")
    if group and not memory.replacement:
        memory = replace(memory, replacement=_youngest(observed["launched"], suspect.id))
        steps.append(_remember(f"remember that {memory.replacement} goes in its place", memory))
    if changed := _changed(memory.interfaces, suspect.interfaces):
        steps.append(
            Step(
                "restore",
                "give it its security groups back",
                dict(suspect.interfaces),
                changed,
                {"interfaces": changed},
            )
        )
    if group:
        steps += _rejoin(suspect, memory, group)
    attached = (group or {}).get("TargetGroupARNs", [])
    there = {(each.arn, each.id, each.port) for each in suspect.targets}
    steps += [
        Step("register", f"register it with {each.shown()}", None, "initial", {"target": each})
        for each in memory.targets
        if each.arn not in attached and (each.arn, each.id, each.port) not in there
    ]
    former = {name: value for name, value in memory.protections if dict(suspect.protections)[name] != value}
    if former:
        steps.append(
            Step(
                "protect",
                "protect it no more than before",
                dict(suspect.protections),
                dict(memory.protections),
                {"protections": former},
            )
        )
    if suspect.untracking:
        steps.append(
            Step("tidy", "delete the security group that its connections were cut by", suspect.untracking, None)
        )
    keys = sorted({*memory.tags(), *(key for key in suspect.tags if key.startswith(PREFIX))})
    steps.append(Step("forget", "take what it was out of its tags", memory.since, None, {"keys": keys}))
    after = {
        "isolation": None,
        "groups": {name: list(groups) for name, groups in memory.interfaces},
        "protections": dict(memory.protections),
        "auto_scaling_group": memory.group if group else None,
        "targets": [each.shown() for each in memory.targets],
    }
    return Plan(tuple(steps), after, tuple(notes))


def _changed(former, present):
    """{interface: its former groups} of those that are there and have others now."""
    now = dict(present)
    return {name: list(groups) for name, groups in former if name in now and tuple(sorted(groups)) != now[name]}


def _youngest(launched, instance_id):
    return max((name for name in launched if name != instance_id), key=launched.get, default=NONE)


def _rejoin(suspect, memory, group):
    """The steps back into its group, in which `memory.replacement` gives way to it."""
    name, desired, member = group["AutoScalingGroupName"], group["DesiredCapacity"], suspect.membership
    there = {each["InstanceId"] for each in instance_refresh.staying(group)}
    gives_way = memory.replacement if memory.replacement in there else None
    attach = Step("attach", f"attach it to {name}", None, name, {"group": name})
    serve = Step("serve", f"wait until {name} serves with it", arguments={"group": name}, waits=True)
    goes = Step(
        "give_way", f"terminate {gives_way}, launched in its place", gives_way, None, {"replacement": gives_way}
    )
    leave = [goes, replace(serve, what=f"wait until {name} serves without {gives_way}")] if gives_way else []
    if member and member["LifecycleState"].startswith("Detach"):
        wait = Step("let_go", f"wait until {name} has let it go", waits=True)
        return [wait, *_rejoin(replace(suspect, membership=None), memory, group)]
    instance_refresh.refuse_suspended(group, group_serving.UP, f"{suspect.id} would not serve in it")
    if member is None and desired >= group["MaxSize"]:
        if not gives_way or desired <= group["MinSize"]:
            raise Refusal(
                f"{name} has {desired} instances and may have no more: give it room for {suspect.id} "
                f"(aws autoscaling update-auto-scaling-group --max-size {desired + 1}), and repeat the command"
            )
        steps = [*leave, attach, serve]
    else:
        # With it first, or there would be one too few for a while.
        steps = [*([] if member else [attach]), serve, *leave]
    present = member["ProtectedFromScaleIn"] if member else group.get("NewInstancesProtectedFromScaleIn", False)
    if present != memory.scale_in:
        told = {"group": name, "protected": memory.scale_in}
        what = f"{'protect it' if memory.scale_in else 'do not protect it'} from scale-in, as before"
        steps.append(Step("scale_in", what, present, memory.scale_in, told))
    return steps

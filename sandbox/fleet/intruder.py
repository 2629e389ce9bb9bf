# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody who has come into an instance of the fleet: by a rule that nobody should have added, and with a program whose file is
deleted while it runs.

The rule lets a network in that is not everybody's, so that connections from there are tracked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import ssm
from ..faults import Fault
from . import groups, pipeline

if TYPE_CHECKING:
    from ..world import World

# An address of this network is what the intruder connects from.
NETWORK, ADDRESS = "127.66.0.0/16", "127.66.6.6"
PROGRAM = "kdevtmpfsi"
_RULE = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 65535, "IpRanges": [{"CidrIp": NETWORK}]}
_BEGIN = """
mkdir -p /tmp/.x && cd /tmp/.x && cp "$(readlink -f /usr/bin/sleep)" {program} && echo stolen >loot && exec 9<loot
setsid ./{program} 86400 >/dev/null 2>&1 </dev/null &
until grep -q {program} /proc/$!/comm; do kill -0 $! || exit 1; sleep 0.02; done
rm {program} loot
"""


def _enter(world: World, instance: str | None = None) -> None:
    """Raises ValueError where there is no such instance."""
    facts = world.state["fleet"]
    pipeline.await_steady(world, facts)
    there = sorted(name for name, machine in groups.machines.items() if machine.is_healthy)
    chosen = instance or there[0]
    if chosen not in there:
        raise ValueError(f"no instance {chosen} serves: there are {', '.join(there)}")
    group = world.state["regions"][facts["region"]]["app_security_group"]
    world.client("ec2", facts["region"]).authorize_security_group_ingress(GroupId=group, IpPermissions=[_RULE])
    ssm.run(facts["region"], chosen, _BEGIN.format(program=PROGRAM))
    world.state["intruder"] = {
        "instance": chosen,
        "address": ADDRESS,
        "open": [groups.machines[chosen].address, groups.machines[chosen].port],
        "program": PROGRAM,
    }
    world.save_state()


def _leave(world: World) -> None:
    facts = world.state.pop("intruder", None)
    if facts is None:
        return
    region = world.state["fleet"]["region"]
    group = world.state["regions"][region]["app_security_group"]
    world.client("ec2", region).revoke_security_group_ingress(GroupId=group, IpPermissions=[_RULE])
    ssm.forget(region, facts["instance"])
    world.save_state()


faults = {
    "intruder": Fault(
        f"somebody is in an instance of the fleet, and comes in from {ADDRESS}; --instance ID",
        _enter,
        _leave,
        (),
        ("instance",),
    )
}

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SSM's Run Command, for the instances of EC2: scripts really run, each on an instance's own small file system.

    api       the calls
    commands  concurrency, errors and statuses of a command
    nodes     which instances there are, simulated fleets among them
    machine   an instance, which is a root and processes of its own
    agent     what runs in it
    disks     what fills a disk

Two instances of no Auto Scaling group, regami-batch, are there from the first day; an instance boots when it is first sent a
script, which most drills never do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import api, disks

if TYPE_CHECKING:
    from ..world import World

install = api.install
faults = disks.faults
control = disks.control

# An image that moto knows.
IMAGE = "ami-12c6146b"


def seed(world: World) -> None:
    api.regions.update({region: api.Region(world, region) for region in world.regions})
    region = world.regions[0]
    tags = [{"Key": "service", "Value": disks.SERVICE}, {"Key": "Name", "Value": disks.SERVICE}]
    made = world.client("ec2", region).run_instances(
        ImageId=IMAGE,
        MinCount=2,
        MaxCount=2,
        InstanceType="t3.small",
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )["Instances"]
    world.state["batch"] = {
        "region": region,
        "instance_ids": [each["InstanceId"] for each in made],
        "tags": {"service": disks.SERVICE},
    }


def run(region: str, instance_id: str, script: str) -> None:
    """A script past the API. Raises ValueError where it fails."""
    code, _stdout, stderr = api.regions[region].nodes.run(instance_id, script)
    if code:
        raise ValueError(f"{instance_id}: {stderr}")


def pids(region: str, instance_id: str) -> list[int]:
    """The processes of an instance, as this machine numbers them; none of one that no script was ever sent to."""
    machine = api.regions[region].nodes.machines.get(instance_id)
    return machine.pids if machine else []


def forget(region: str, instance_id: str) -> None:
    """The instance is as on its first day, and nothing runs there."""
    api.regions[region].nodes.renew(instance_id)


def stop(world: World) -> None:
    for region in api.regions.values():
        region.nodes.stop()
        region.commands.clear()


def status(world: World) -> list[dict]:
    rows = []
    for region in api.regions.values():
        for name, machine in sorted(region.nodes.machines.items()):
            lost = name in region.nodes.lost
            state = "agent lost" if lost else "online"
            rows.append(
                {
                    "region": region.name,
                    "kind": "disk",
                    "name": name,
                    "state": state,
                    "detail": machine.run("df -h / | tail -1 | tr -s ' '", 5)[1].strip(),
                }
            )
    return rows

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""zone_outage.yml: half of the service stops answering, and users are served all the same."""

from __future__ import annotations

import urllib.error
import urllib.request

from world import EAST, World, wait_until

BAD, GOOD = "us-east-1b", "us-east-1a"
MARK = "sre.runbooks/left-zone"


def served(world: World, requests: int = 12) -> int:
    """How many of so many requests, each on a connection of its own, are answered within a second."""
    answered = 0
    for _request in range(requests):
        try:
            with urllib.request.urlopen(f"{world.names(EAST)['alb_url']}/health", timeout=1) as answer:
                answered += answer.status == 200
        except OSError:
            continue
    return answered


def zones(world: World) -> list[str]:
    """Where the tasks are."""
    ecs, names = world.aws("ecs"), world.names(EAST)
    arns = ecs.list_tasks(cluster=names["cluster"], serviceName=names["service"])["taskArns"]
    return sorted(
        task["availabilityZone"] for task in ecs.describe_tasks(cluster=names["cluster"], tasks=arns)["tasks"]
    )


def mark(world: World) -> str | None:
    tags = world.aws("ecs").list_tags_for_resource(resourceArn=world.service(EAST)["serviceArn"])["tags"]
    return {tag["key"]: tag["value"] for tag in tags}.get(MARK)


def shifts(world: World) -> list[str]:
    """The weights of the load balancer's zones, and no more than that is shifted."""
    found = world.aws("arc-zonal-shift").get_managed_resource(resourceIdentifier=world.names(EAST)["load_balancer_arn"])
    return sorted(found["appliedWeights"].values())


def test_a_zone_fails_is_left_and_is_come_back_to(world: World) -> None:
    definition, subnets = world.service(EAST)["taskDefinition"], world.service(EAST)["networkConfiguration"]
    assert zones(world) == [GOOD, BAD]
    refused = world.runbook.run("zone_outage", zone=BAD)
    assert refused.returncode == 2 and refused.mutations == []
    assert "does not look bad: say -e accept_healthy_zone=true" in refused.complaints[0]

    world.sandbox.fault("zone-fails", zone=BAD)
    assert served(world) < 12
    run = world.runbook.run("zone_outage")
    assert run.returncode == 0, run.output
    assert run.report["outcome"] == "recovered"
    # The traffic first; no task definition, no count is sent.
    assert run.mutations == [
        f"arc-zonal-shift:StartZonalShift {EAST}",
        f"ecs:TagResource {EAST}",
        f"ecs:UpdateService {EAST}",
    ]
    assert served(world) == 12
    assert zones(world) == [GOOD, GOOD] and world.service(EAST)["taskDefinition"] == definition
    assert mark(world).startswith(f"{BAD} subnet-") and shifts(world) == [0.0, 1.0]

    again = world.runbook.run("zone_outage")
    assert again.returncode == 0 and again.recap["changed"] == 0, again.output

    world.sandbox.heal()
    back = world.runbook.run("zone_outage", "--tags", "restore")
    assert back.returncode == 0, back.output
    # The traffic last.
    assert back.mutations[-1] == f"arc-zonal-shift:CancelZonalShift {EAST}"
    wait_until(lambda: zones(world) == [GOOD, BAD], "a task in each zone")
    assert mark(world) is None and shifts(world) == [1.0, 1.0]
    now = world.service(EAST)["networkConfiguration"]["awsvpcConfiguration"]
    before = subnets["awsvpcConfiguration"]
    assert {**now, "subnets": sorted(now["subnets"])} == {**before, "subnets": sorted(before["subnets"])}
    assert served(world) == 12

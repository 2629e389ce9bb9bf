# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Zonal shift of the Application Recovery Controller, for load balancers that have it turned on; the balancers obey.

https://docs.aws.amazon.com/arc-zonal-shift/latest/api/Welcome.html
https://docs.aws.amazon.com/elasticloadbalancing/latest/application/zonal-shift.html
"""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from . import elbv2
from .faults import Fault
from .wire import ApiError, Call

if TYPE_CHECKING:
    from .world import World

SERVICE = "arc-zonal-shift"
LONGEST = 72 * 3600
ATTRIBUTE = "zonal_shift.config.enabled"

_world: World
_shifts: list[Shift] = []


@dataclass
class Shift:
    resource: str
    away_from: str  # the id of a zone
    expiry: float
    comment: str
    kind: str = "ZONAL_SHIFT"
    start: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    canceled: bool = False

    @property
    def status(self) -> str:
        return "CANCELED" if self.canceled else "ACTIVE" if time.time() < self.expiry else "EXPIRED"

    @property
    def is_active(self) -> bool:
        return self.status == "ACTIVE"

    def describe(self) -> dict:
        return {
            "zonalShiftId": self.id,
            "resourceIdentifier": self.resource,
            "awayFrom": self.away_from,
            "expiryTime": self.expiry,
            "startTime": self.start,
            "comment": self.comment,
            "shiftType": self.kind,
        }


# ---- what is in effect ----------------------------------------------------------------------------------------------


def _active(arn: str) -> list[Shift]:
    return [shift for shift in _shifts if shift.resource == arn and shift.is_active]


def _applied(arn: str) -> Any:
    """The Shift in effect: a customer's own before a practice run. https://docs.aws.amazon.com/r53recovery/latest/dg/arc-zonal-autoshift.how-it-works.precedence.html"""
    active = sorted(_active(arn), key=lambda shift: shift.kind != "ZONAL_SHIFT")
    return active[0] if active else None


def away_from(arn: str, region: str) -> str:
    """Name of the zone that a balancer's traffic is shifted away from, "" for none."""
    shift = _applied(arn)
    if shift is None:
        return ""
    return next((name for name, number in _zones(region).items() if number == shift.away_from), "")


def _zones(region: str) -> dict[str, str]:
    """{name: id}."""
    return {zone.name: zone.zone_id for zone in _world.backend("ec2", region).describe_availability_zones()}


# ---- the API --------------------------------------------------------------------------------------------------------


def answer(call: Call) -> dict:
    identity = unquote(call.path.rpartition("/")[2]) if call.path.count("/") > 1 else ""
    if call.path.startswith("/managedresources/") and ":loadbalancer" in unquote(call.path):
        identity = unquote(call.path.removeprefix("/managedresources/"))
    match call.action:
        case "GetManagedResource":
            return _describe(_managed(call.region, identity), call.region)
        case "ListManagedResources":
            return {"items": [_summary(arn, call.region) for arn in _all_managed(call.region)]}
        case "ListZonalShifts":
            wanted = re.search(r"status=(\w+)", call.target)
            found = [each for each in _shifts if not wanted or each.status == wanted[1]]
            return {"items": [each.describe() | {"status": each.status} for each in found]}
        case "StartZonalShift":
            return _start(call.params, call.region)
        case "UpdateZonalShift":
            shift = _shift(identity)
            shift.comment = call.params.get("comment", shift.comment)
            if "expiresIn" in call.params:
                shift.expiry = time.time() + _seconds(call.params["expiresIn"])
            return shift.describe() | {"status": shift.status}
        case "CancelZonalShift":
            shift = _shift(identity)
            shift.canceled = True
            return shift.describe() | {"status": shift.status}
    raise ApiError("ValidationException", f"the sandbox does not know {call.action}")


def _all_managed(region: str) -> list[str]:
    balancers = _world.backend("elbv2", region).load_balancers.values()
    return [each.arn for each in balancers if str(each.attrs.get(ATTRIBUTE)).lower() == "true"]


def _managed(region: str, arn: str) -> str:
    if arn not in _all_managed(region):
        raise ApiError("ResourceNotFoundException", f"The resource {arn} was not found.", 404)
    return arn


def _zones_of(arn: str, region: str) -> list[str]:
    """The ids of a balancer's zones."""
    balancer, ids = _world.backend("elbv2", region).load_balancers[arn], _zones(region)
    return sorted({ids[subnet.availability_zone] for subnet in balancer.subnets})


def _describe(arn: str, region: str) -> dict:
    applied = _applied(arn)
    zones = _zones_of(arn, region)
    return _summary(arn, region) | {
        "appliedWeights": {zone: 0.0 if applied and applied.away_from == zone else 1.0 for zone in zones},
        "zonalShifts": [
            shift.describe() | {"appliedStatus": "APPLIED" if shift is applied else "NOT_APPLIED"}
            for shift in _active(arn)
        ],
        "autoshifts": [],
        "zonalAutoshiftStatus": "DISABLED",
    }


def _summary(arn: str, region: str) -> dict:
    return {"arn": arn, "name": arn.split("/")[-2], "availabilityZones": _zones_of(arn, region)}


def _start(params: dict, region: str) -> dict:
    arn = _managed(region, params["resourceIdentifier"])
    if params["awayFrom"] not in _zones_of(arn, region):
        raise ApiError("ValidationException", f"{params['awayFrom']} is no Availability Zone of the resource.")
    own = [shift for shift in _active(arn) if shift.kind == "ZONAL_SHIFT"]
    if own:
        raise ApiError("ConflictException", f"The resource {arn} has an active zonal shift already.", 409)
    shift = Shift(arn, params["awayFrom"], time.time() + _seconds(params["expiresIn"]), params["comment"])
    _shifts.append(shift)
    return shift.describe() | {"status": shift.status}


def _shift(identity: str) -> Shift:
    found = next((shift for shift in _shifts if shift.id == identity), None)
    if found is None:
        raise ApiError("ResourceNotFoundException", f"The zonal shift {identity} was not found.", 404)
    if not found.is_active or found.kind != "ZONAL_SHIFT":
        raise ApiError("ConflictException", f"The zonal shift {identity} is not active, or is no one's own.", 409)
    return found


def _seconds(text: str) -> int:
    found = re.fullmatch(r"([1-9][0-9]*)(m|h)", text)
    seconds = int(found[1]) * {"m": 60, "h": 3600}[found[2]] if found else 0
    if not 0 < seconds <= LONGEST:
        raise ApiError("ValidationException", f"expiresIn {text} is no time of up to 72 hours.")
    return seconds


# ---- a part of the world --------------------------------------------------------------------------------------------


def install(world: World) -> None:
    global _world
    _world = world
    world.handlers[SERVICE] = answer
    elbv2.shifters.append(away_from)


def seed(world: World) -> None:
    """The service's balancers have it turned on, the others do not, as teams do."""
    _shifts.clear()
    for region in world.regions:
        arn = world.state["regions"][region]["load_balancer_arn"]
        world.client("elbv2", region).modify_load_balancer_attributes(
            LoadBalancerArn=arn, Attributes=[{"Key": ATTRIBUTE, "Value": "true"}]
        )


def _practice(world: World, zone: str) -> None:
    for region in world.regions:
        if zone in _zones(region):
            arn = world.state["regions"][region]["load_balancer_arn"]
            _shifts.append(Shift(arn, _zones(region)[zone], time.time() + 1800, "practice run", "PRACTICE_RUN"))
            return
    raise ValueError(f"unknown zone {zone!r}")


def _end_practice(world: World) -> None:
    for shift in _shifts:
        shift.canceled |= shift.kind == "PRACTICE_RUN"


faults = {
    "practice-run": Fault(
        "AWS practises a shift of the service's load balancer away from ZONE", _practice, _end_practice, ("zone",)
    )
}

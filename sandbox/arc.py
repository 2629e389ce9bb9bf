# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Application Recovery Controller: routing controls behind five regional cluster endpoints, with a safety rule.

The data plane needs no region in particular: any endpoint that answers will do, and clients are to try all five.
https://docs.aws.amazon.com/r53recovery/latest/dg/routing-control.best-practices.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import route53
from .faults import Fault
from .server import listen
from .wire import ApiError, Call

if TYPE_CHECKING:
    from .world import World

SERVICE = "route53-recovery-cluster"
REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2")
PANEL_NAME = "regami"
NAME = f"arc.{route53.ZONE}"

_world: World
_states: dict[str, str] = {}  # ARN of the control -> On or Off
_names: dict[str, str] = {}
_endpoints: list[str] = []  # URLs in the order of REGIONS
_broken: set[str] = set()  # regions whose endpoint fails


def _arn(resource: str) -> str:
    return f"arn:aws:route53-recovery-control::{_world.account_id}:{resource}"


PANEL = "controlpanel/8d2f5c0a7b1e4f63a90c"
RULE = f"{PANEL}/safetyrule/1f0e9d8c7b6a5948"


def is_on(control: str | None) -> bool:
    """A control that does not exist counts as Off."""
    return _states.get(control or "") == "On"


# ---- the data plane ------------------------------------------------------------------------------------------------


def answer(call: Call) -> dict:
    if call.forced_region is None:
        raise ApiError("AccessDeniedException", "routing controls answer at the endpoints of their cluster only", 403)
    if call.forced_region in _broken:
        message = "The cluster endpoint isn't available. Try another cluster endpoint."
        raise ApiError("EndpointTemporarilyUnavailableException", message, 503)
    match call.action:
        case "GetRoutingControlState":
            return _described(_known(call.params["RoutingControlArn"]))
        case "ListRoutingControls":
            panel = call.params.get("ControlPanelArn")
            return {"RoutingControls": [_described(arn, True) for arn in _states] if panel in (None, _panel()) else []}
        case "UpdateRoutingControlState":
            return _update([call.params], call.params.get("SafetyRulesToOverride"))
        case "UpdateRoutingControlStates":
            return _update(call.params["UpdateRoutingControlStateEntries"], call.params.get("SafetyRulesToOverride"))
    raise ApiError("ValidationException", f"unknown operation {call.action}")


def _panel() -> str:
    return _arn(PANEL)


def _known(arn: str) -> str:
    if arn not in _states:
        raise ApiError("ResourceNotFoundException", f"The routing control {arn} was not found.", 404)
    return arn


def _described(arn: str, panel: bool = False) -> dict:
    described = {"RoutingControlArn": arn, "RoutingControlName": _names[arn], "RoutingControlState": _states[arn]}
    return described | ({"ControlPanelArn": _panel(), "ControlPanelName": PANEL_NAME} if panel else {})


def _update(entries: list[dict], override: list[str] | None) -> dict:
    """All entries or none."""
    after = dict(_states)
    for entry in entries:
        if entry["RoutingControlState"] not in ("On", "Off"):
            raise ApiError("ValidationException", "RoutingControlState is On or Off")
        after[_known(entry["RoutingControlArn"])] = entry["RoutingControlState"]
    if "On" not in after.values() and _arn(RULE) not in (override or ()):
        raise ApiError(
            "ConflictException",
            f"RoutingControl could not be updated because the safety rule {_arn(RULE)} (at least one control On) "
            "was not met",
            409,
        )
    _states.update(after)
    return {}


# ---- a part of the world -------------------------------------------------------------------------------------------


def install(world: World) -> None:
    global _world
    _world = world
    world.handlers[SERVICE] = answer


def seed(world: World) -> None:
    _states.clear()
    _names.clear()
    _broken.clear()
    controls, records = {}, []
    for number, region in enumerate(world.regions):
        arn = controls[region] = _arn(f"{PANEL}/routingcontrol/5e1c7a9b3d2f4{number:03}")
        _names[arn], _states[arn] = f"regami-{region}", "Off" if number else "On"
        check = world.client("route53", world.regions[0]).create_health_check(
            CallerReference=arn,
            HealthCheckConfig={"Type": "RECOVERY_CONTROL", "RoutingControlArn": arn},
        )["HealthCheck"]["Id"]
        failover = "SECONDARY" if number else "PRIMARY"
        records.append(
            {
                "Name": NAME,
                "Type": "A",
                "SetIdentifier": failover.lower(),
                "Failover": failover,
                "HealthCheckId": check,
                **route53.alias_of(world.state["regions"][region], evaluate=False),
            }
        )
    route53.create(world, records)
    if not _endpoints:
        _endpoints.extend(listen(world, region) for region in REGIONS)
    world.state["routing"] = {
        "name": NAME,
        "cluster_endpoints": [
            {"region": region, "endpoint_url": url} for region, url in zip(REGIONS, _endpoints, strict=True)
        ],
        "controls": controls,
        "control_panel": _panel(),
        "safety_rule": _arn(RULE),
    }


def status(world: World) -> list[dict]:
    return [
        {"region": region, "kind": "routing control", "name": _names[arn], "state": _states[arn], "detail": ""}
        for region, arn in world.state["routing"]["controls"].items()
    ]


def _break(world: World, number: Any) -> None:
    if not str(number).isdigit() or not 1 <= int(number) <= len(REGIONS):
        raise ValueError(f"endpoint {number!r}: a number from 1 to {len(REGIONS)}")
    _broken.add(REGIONS[int(number) - 1])


faults = {
    "arc-endpoint": Fault(
        "cluster endpoint NUMBER (1 to 5) of the routing controls is not available",
        _break,
        lambda world: _broken.clear(),
        ("number",),
    ),
}

#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: alb_zonal_shift
version_added: 0.3.0
short_description: Shift the traffic of a load balancer away from an availability zone, and back
description:
  - Starts a zonal shift of the Application Recovery Controller for O(load_balancer_arn), or makes one that is there last longer, so
    that no request goes to its node or to targets in O(zone). Nothing is deployed for it, and it works in seconds.
  - A shift ends by itself after O(minutes). V(back) ends it before, if it is one of this verb.
  - Where zonal shift is not turned on for the load balancer, nothing is done, and RV(notes) says how to turn it on.
  - "B(Risk:) the targets in the other zones take all of the traffic."
options:
  load_balancer_arn:
    description: ARN of the load balancer, in O(region).
    type: str
    required: true
  zone:
    description: Name of the zone, needed for O(state=away).
    type: str
  state:
    description: V(away) from O(zone), or V(back).
    type: str
    choices: [away, back]
    default: away
  minutes:
    description: After which the shift ends by itself; three days at most.
    type: int
    default: 720
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(arc-zonal-shift:GetManagedResource), C(arc-zonal-shift:StartZonalShift), C(arc-zonal-shift:UpdateZonalShift),
    C(arc-zonal-shift:CancelZonalShift) and C(ec2:DescribeAvailabilityZones).
seealso:
  - module: sre.runbooks.zone_assess
  - module: sre.runbooks.ecs_zone
  - module: sre.runbooks.asg_zone
"""

EXAMPLES = r"""
- name: No request goes to that zone
  sre.runbooks.alb_zonal_shift:
    load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
    zone: us-east-1b
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Requests go to all zones again
  sre.runbooks.alb_zonal_shift:
    load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
    region: us-east-1
    state: back
"""

RETURN = r"""
before:
  description: As found.
  returned: unless refused
  type: dict
  sample: {shifted_from: null, expires: null}
after:
  description: At the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {shifted_from: us-east-1b, expires: "2026-03-01T14:00:00Z"}
steps:
  description: What was done, or would be done in check mode, in order. A step that only waits is no change.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: start, what: "shift the traffic of regami-alb away from us-east-1b for 720 min", before: null, after: us-east-1b}]
undo:
  description: The same verb with the other state; empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample: [{verb: sre.runbooks.alb_zonal_shift, arguments: {load_balancer_arn: "arn:...", region: us-east-1, state: back}}]
notes:
  description: What a person must know.
  returned: success
  type: list
  elements: str
  sample: ["regami-alb is shifted until 2026-03-01T14:00:00Z, then it goes back by itself"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import elbv2, zones
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.temporary_capacity import moment
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICE = "arc-zonal-shift"
# By which a shift of ours is known again: ARC keeps one comment.
COMMENT = "sre.runbooks: zone outage"
LONGEST_MINUTES = 72 * 60

SERVICES = (SERVICE, "ec2", "dynamodb")
ARGUMENTS = dict(
    load_balancer_arn=dict(type="str", required=True),
    zone=dict(type="str"),
    state=dict(type="str", choices=["away", "back"], default="away"),
    minutes=dict(type="int", default=720),
)


class AlbZonalShift(Verb):
    """Away, or back."""

    def __init__(self, module):
        super().__init__(module)
        self.arn = self.params["load_balancer_arn"]

    def observe(self):
        seen = together(zones=lambda: zones.describe(self.aws), resource=self._resource)
        return dict(seen, name=elbv2.short_name(self.arn), now=time.time())

    def _resource(self):
        """GetManagedResource, or None where zonal shift is not turned on."""
        elbv2.region_of(self.arn)
        try:
            return self.aws.read(SERVICE, "get_managed_resource", resourceIdentifier=self.arn)
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                return None
            raise

    @staticmethod
    def plan(observed, wanted):
        name, resource = observed["name"], observed["resource"]
        if resource is None:
            turn_on = "aws elbv2 modify-load-balancer-attributes --attributes Key=zonal_shift.config.enabled,Value=true"
            return Plan(notes=(f"zonal shift is not turned on for {name}, whose traffic stays as it is ({turn_on})",))
        own = next((each for each in resource["zonalShifts"] if _is_own(each)), None)
        return _back(observed, own) if wanted["state"] == "back" else _away(observed, own, wanted)

    # The steps, named as in the plan.

    def start(self, zone_id, expires_in):
        self.aws.change(
            SERVICE,
            "start_zonal_shift",
            resourceIdentifier=self.arn,
            awayFrom=zone_id,
            expiresIn=expires_in,
            comment=COMMENT,
        )

    def extend(self, shift_id, expires_in):
        self.aws.change(SERVICE, "update_zonal_shift", zonalShiftId=shift_id, expiresIn=expires_in, comment=COMMENT)

    def cancel(self, shift_id):
        self.aws.change(SERVICE, "cancel_zonal_shift", zonalShiftId=shift_id)

    def undo(self, before, done):
        back = {"state": "back"} if self.params["state"] == "away" else {"zone": before["shifted_from"]}
        arguments = dict(back, load_balancer_arn=self.arn, region=self.aws.region)
        return [{"verb": "sre.runbooks.alb_zonal_shift", "arguments": arguments}]

    def view(self, observed):
        shifts = (observed["resource"] or {}).get("zonalShifts", [])
        applied = next((each for each in shifts if each["appliedStatus"] == "APPLIED"), None)
        if applied is None:
            return {"shifted_from": None, "expires": None}
        return {
            "shifted_from": _name(observed, applied["awayFrom"]),
            "expires": moment(applied["expiryTime"].timestamp()),
        }


def _away(observed, own, wanted):
    name, zone, resource = observed["name"], wanted["zone"], observed["resource"]
    if not 1 <= wanted["minutes"] <= LONGEST_MINUTES:
        raise Refusal(f"minutes is {wanted['minutes']}: a zonal shift lasts 1 to {LONGEST_MINUTES}")
    if zone not in observed["zones"]:
        raise Refusal(f"there is no zone {zone} (there are: {', '.join(observed['zones'])}): check zone")
    zone_id, weights = observed["zones"][zone]["id"], resource["appliedWeights"]
    if zone_id not in weights:
        return Plan(notes=(f"{name} is not in {zone}: no traffic goes there",))
    if len(weights) < 2:
        raise Refusal(f"{name} is in {zone} only: there is no other zone to shift its traffic to")
    others = [each for each in resource.get("autoshifts", []) if each["awayFrom"] != zone_id]
    others += [own] if own and own["awayFrom"] != zone_id else []
    if others:
        raise Refusal(
            f"the traffic of {name} is shifted away from {_name(observed, others[0]['awayFrom'])} already, and cannot leave two "
            f"zones: end that shift first, or leave the region (playbooks/region_evacuation.yml)"
        )
    until = observed["now"] + 60 * wanted["minutes"]
    expires_in = f"{wanted['minutes']}m" if wanted["minutes"] < 1000 else f"{wanted['minutes'] // 60}h"
    notes = [f"{name} is shifted until {moment(until)}, then it goes back by itself"]
    notes += [
        f"a practice run away from {_name(observed, each['awayFrom'])} goes on, and this shift wins"
        for each in resource["zonalShifts"]
        if not _is_own(each)
    ]
    after = {"shifted_from": zone, "expires": moment(until)}
    if own is None:
        what = f"shift the traffic of {name} away from {zone} for {wanted['minutes']} min"
        arguments = {"zone_id": zone_id, "expires_in": expires_in}
        return Plan((Step("start", what, None, zone, arguments),), after, tuple(notes))
    left = own["expiryTime"].timestamp() - observed["now"]
    # A second run must not push the end on for ever so little.
    if left >= 30 * wanted["minutes"]:
        return Plan(notes=(f"{name} is shifted until {moment(own['expiryTime'].timestamp())}", *notes[1:]))
    what = f"let the shift of {name} away from {zone} last {wanted['minutes']} min from now"
    arguments = {"shift_id": own["zonalShiftId"], "expires_in": expires_in}
    return Plan((Step("extend", what, f"{left / 60:.0f} min left", zone, arguments),), after, tuple(notes))


def _back(observed, own):
    name = observed["name"]
    if own is None:
        return Plan(notes=(f"no zonal shift of {name} goes on: there is nothing to end",))
    zone = _name(observed, own["awayFrom"])
    if own["comment"] != COMMENT:
        return Plan(notes=(f"{name} was shifted away from {zone} by somebody else ({own['comment']}): that stays",))
    what = f"let the traffic of {name} go to {zone} again"
    step = Step("cancel", what, zone, None, {"shift_id": own["zonalShiftId"]})
    return Plan((step,), {"shifted_from": None, "expires": None})


def _is_own(shift):
    """Is it one that a customer started, and no practice of AWS?"""
    return shift.get("shiftType", "ZONAL_SHIFT") == "ZONAL_SHIFT"


def _name(observed, zone_id):
    return next((name for name, about in observed["zones"].items() if about["id"] == zone_id), zone_id)


def main():
    run(verb_module(ARGUMENTS, required_if=[("state", "away", ["zone"])]), AlbZonalShift)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: route53_failover
version_added: 0.1.0
short_description: Move a public name to another region
description:
  - Makes another record set the one that serves a name, or turns the routing controls that decide it, and waits until
    users have moved too.
  - All sets of the name are written in one atomic change batch, each whole, so that nothing but the role changes.
  - The name moves only where enough targets are healthy. It is done when Route 53 has made this very change known to all
    its name servers, they answer with the new target, and the answers that resolvers still keep have run out.
  - Record changes depend on a control plane in us-east-1. Where O(routing_controls) is given it is used instead, and
    nothing in us-east-1 is needed.
  - A run that finds the move done waits until the name servers answer with the new target, but not for the answers
    that resolvers keep. That part is lost when the run that moved the name was killed.
options:
  record:
    description: The public name, for example V(api.regami.com).
    type: str
    required: true
  type:
    description: Type of the record.
    type: str
    choices: [A, AAAA, CNAME]
    default: A
  hosted_zone_id:
    description: The hosted zone that holds the record. Not used with O(routing_controls).
    type: str
  set_identifier:
    description:
      - The record set that shall serve. Of a failover pair it becomes PRIMARY and the other one SECONDARY, of weighted
        sets it gets the whole weight and the others 0.
    type: str
  alias_target:
    description: Where a simple alias record, one without sets, shall point.
    type: dict
    suboptions:
      hosted_zone_id:
        description: Hosted zone of the target, for a load balancer its canonical hosted zone.
        type: str
        required: true
      dns_name:
        description: DNS name of the target.
        type: str
        required: true
      evaluate_target_health:
        description: Whether Route 53 asks for the health of the target.
        type: bool
        default: true
  routing_controls:
    description:
      - Routing controls of the Application Recovery Controller that decide where the name leads, used instead of a
        change of records. Both are set in one call.
      - Health checks of another kind are not flipped by this verb.
    type: dict
    suboptions:
      cluster_endpoints:
        description: The five regional endpoints of the cluster, tried in turn with 2 seconds for each.
        type: list
        elements: dict
        required: true
        suboptions:
          region:
            description: Region of the endpoint.
            type: str
            required: true
          endpoint_url:
            description: URL of the endpoint.
            type: str
            required: true
      turn_on:
        description: ARN of the control of the target, which is turned on.
        type: str
        required: true
      turn_off:
        description: ARN of the control of the present side, which is turned off.
        type: str
        required: true
  target_groups:
    description:
      - Target groups of the target side. Each must have O(min_healthy_targets) healthy targets before the name moves.
      - With O(routing_controls) the load balancer of the first one also says which answer to wait for.
    type: list
    elements: dict
    default: []
    suboptions:
      arn:
        description: ARN of the target group.
        type: str
        required: true
      region:
        description: Its region.
        type: str
        required: true
  min_healthy_targets:
    description: Number of healthy targets that each of O(target_groups) must have.
    type: int
    default: 1
  allow_unhealthy_target:
    description:
      - Move the name even where O(target_groups) are not healthy enough; RV(notes) says so. B(Risk:) users are sent to a
        side that does not serve them.
    type: bool
    default: false
  dns_servers:
    description:
      - DNS servers to ask for the name, as V(host) or V(host:port). Default are the name servers of the zone, and where
        none of them answers the resolver of the machine. With O(routing_controls) the default is that resolver.
    type: list
    elements: str
    default: []
requirements:
  - dnspython
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: Move the public name to the standby region
  sre.runbooks.route53_failover:
    hosted_zone_id: Z1234567890ABC
    record: api.regami.test
    set_identifier: secondary
    target_groups:
      - arn: arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/regami-tg-secondary/50dc6c495c0c9188
        region: us-west-2
    region: us-west-2

- name: Move it by routing controls, without the control plane in us-east-1
  sre.runbooks.route53_failover:
    record: api.regami.test
    routing_controls:
      cluster_endpoints:
        - {region: us-west-2, endpoint_url: "https://host-1.us-west-2.example.com/v1"}
        - {region: eu-west-1, endpoint_url: "https://host-2.eu-west-1.example.com/v1"}
      turn_on: arn:aws:route53-recovery-control::123456789012:controlpanel/abc/routingcontrol/west
      turn_off: arn:aws:route53-recovery-control::123456789012:controlpanel/abc/routingcontrol/east
    target_groups:
      - arn: arn:aws:elasticloadbalancing:us-west-2:123456789012:targetgroup/regami-tg-secondary/50dc6c495c0c9188
        region: us-west-2
    region: us-west-2

- name: Point a simple alias at another load balancer
  sre.runbooks.route53_failover:
    hosted_zone_id: Z1234567890ABC
    record: admin.regami.test
    alias_target:
      hosted_zone_id: Z1H1FL5HABSF5
      dns_name: regami-alb-secondary-1234567890.us-west-2.elb.amazonaws.com
    region: us-west-2
"""

RETURN = r"""
before:
  description:
    - RV(before.serves) is the set that serves while all is healthy (null where several share the traffic),
      RV(before.sets) shows each set, RV(before.answers) is what the name servers answered (null where none was asked).
      With O(routing_controls) there is RV(before.controls) instead of the first two.
  returned: unless refused
  type: dict
  contains:
    serves:
      description: Identifier of the serving set.
      type: str
      returned: without O(routing_controls)
    sets:
      description: Role and target of each set.
      type: dict
      returned: without O(routing_controls)
    controls:
      description: State of each routing control.
      type: dict
      returned: with O(routing_controls)
    answers:
      description: Values that the name servers gave.
      type: list
      elements: str
      returned: unless refused
  sample:
    serves: primary
    sets:
      primary: PRIMARY regami-alb.us-east-1.elb.amazonaws.com
      secondary: SECONDARY regami-alb-secondary.us-west-2.elb.amazonaws.com
    answers: [192.0.2.10]
after:
  description: The same at the end, or as predicted in check mode.
  returned: success
  type: dict
  sample:
    serves: secondary
    sets:
      primary: SECONDARY regami-alb.us-east-1.elb.amazonaws.com
      secondary: PRIMARY regami-alb-secondary.us-west-2.elb.amazonaws.com
    answers: [198.51.100.20]
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: move_records
      what: move api.regami.test from primary to secondary in one change batch
      before: {primary: PRIMARY regami-alb.us-east-1.elb.amazonaws.com}
      after: {primary: SECONDARY regami-alb.us-east-1.elb.amazonaws.com}
undo:
  description:
    - This verb with the former target. Empty where nothing moved, or where several sets shared the traffic before;
      RV(previous_record_sets) brings that back.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.route53_failover
      arguments: {record: api.regami.test, type: A, hosted_zone_id: Z1234567890ABC, set_identifier: primary}
previous_record_sets:
  description: The record sets exactly as the API gave them before the change; empty with O(routing_controls).
  returned: unless refused
  type: list
  elements: dict
  sample:
    - Name: api.regami.test.
      Type: A
      SetIdentifier: primary
      Failover: PRIMARY
      AliasTarget:
        HostedZoneId: Z35SXDOTRQ7X7K
        DNSName: regami-alb.us-east-1.elb.amazonaws.com.
        EvaluateTargetHealth: true
notes:
  description: Overrides used, and what could not be seen.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 98.4
"""

import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import dns, elbv2, name_move, route53
from ansible_collections.sre.runbooks.plugins.module_utils.arc import RoutingControls
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("route53", "elbv2", "dynamodb")
ARGUMENTS = dict(
    record=dict(type="str", required=True),
    type=dict(type="str", choices=["A", "AAAA", "CNAME"], default="A"),
    hosted_zone_id=dict(type="str"),
    set_identifier=dict(type="str"),
    alias_target=dict(
        type="dict",
        options=dict(
            hosted_zone_id=dict(type="str", required=True),
            dns_name=dict(type="str", required=True),
            evaluate_target_health=dict(type="bool", default=True),
        ),
    ),
    routing_controls=dict(
        type="dict",
        options=dict(
            cluster_endpoints=dict(
                type="list",
                elements="dict",
                required=True,
                options=dict(region=dict(type="str", required=True), endpoint_url=dict(type="str", required=True)),
            ),
            turn_on=dict(type="str", required=True),
            turn_off=dict(type="str", required=True),
        ),
    ),
    target_groups=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(arn=dict(type="str", required=True), region=dict(type="str", required=True)),
    ),
    min_healthy_targets=dict(type="int", default=1),
    allow_unhealthy_target=dict(type="bool", default=False),
    dns_servers=dict(type="list", elements="str", default=[]),
)
# A wait grows its pauses to 2 s; the end of a time that is known is slept through exactly instead.
LAST_SECONDS = 2.5


class Route53Failover(Verb):
    """Move a name, then wait for everybody to follow."""

    plan = staticmethod(name_move.plan)

    def __init__(self, module):
        super().__init__(module)
        self.name, self.type, controls = self.params["record"], self.params["type"], self.params["routing_controls"]
        self.zone = None if controls else route53.Zone(self.aws, self.params["hosted_zone_id"])
        self.controls = RoutingControls(self.aws, controls["cluster_endpoints"]) if controls else None
        self._first = {}  # what was there before any change, and what is read once only
        self._change = self._moved_at = None

    def observe(self):
        once = (
            {} if self._first else {"targets": self._targets, "servers": self._name_servers, "balancer": self._balancer}
        )
        seen = together(moving=self._moving, **once)
        moving = seen.pop("moving")
        if once:
            self._first = dict(
                seen, sets=moving.get("sets", []), expected=self._wanted_values(moving, seen["balancer"])
            )
        answers = self._ask()
        self._first.setdefault("ttl", self._old_ttl(moving, answers))
        self._first.setdefault("askable", bool(self._first["expected"]) and not isinstance(answers, Stop))
        return {
            **moving,
            "targets": self._first["targets"],
            "expected": self._first["expected"],
            "cached": self._first["servers"] == [None],
            "ttl": self._first["ttl"],
            "answers": answers if isinstance(answers, Stop) else [answer.values for answer in answers],
        }

    def _moving(self):
        """What is moved: record sets or routing controls."""
        if self.controls:
            wanted = self.params["routing_controls"]
            return {"controls": self.controls.states([wanted["turn_on"], wanted["turn_off"]])}
        sets = self.zone.record_sets(self.name, self.type)
        return {"sets": sets, "names": [] if sets else self.zone.names()}

    def _targets(self):
        groups = self.params["target_groups"]
        looks = {
            number: lambda group=group: elbv2.target_health(self.aws, group["arn"], group["region"])
            for number, group in enumerate(groups)
        }
        seen = tried_together(looks, Unreachable)
        return [dict(group, seen=seen[number]) for number, group in enumerate(groups)]

    def _name_servers(self):
        if self.params["dns_servers"]:
            for server in self.params["dns_servers"]:
                dns.parse_server(server)
            return self.params["dns_servers"]
        return (self.zone.name_servers() if self.zone else []) or [None]

    def _balancer(self):
        """The name whose addresses tell that routing controls have moved traffic; records say so themselves."""
        groups = self.params["target_groups"]
        if not self.controls or not groups:
            return None
        return attempt(lambda: elbv2.load_balancer_name(self.aws, groups[0]["arn"], groups[0]["region"]), Unreachable)

    def _wanted_values(self, moving, balancer):
        """What the name answers with once it has moved; empty where that cannot be known."""
        alias, values = balancer if isinstance(balancer, str) else None, ()
        if self.params["alias_target"]:
            alias = self.params["alias_target"]["dns_name"]
        for record in moving.get("sets", ()):
            if self.params["set_identifier"] and record.get("SetIdentifier") == self.params["set_identifier"]:
                alias, values = route53.target(record)
        if not alias:
            return frozenset(values)
        try:
            return dns.resolve(alias, [*self.params["dns_servers"], None], self.type)
        except Unreachable:
            return frozenset()

    def _ask(self):
        """[Answer] of the name servers, or the Unreachable; falls back to the resolver of this machine for good."""
        answers = attempt(lambda: dns.ask_all(self._first["servers"], self.name, self.type), Unreachable)
        if isinstance(answers, Unreachable) and not self.params["dns_servers"] and self._first["servers"] != [None]:
            self._first["servers"] = [None]
            return self._ask()
        return answers

    @staticmethod
    def _old_ttl(moving, answers):
        """Seconds that resolvers keep the old answer: an alias has no TTL in the API, so a name server is asked."""
        known = [route53.ttl(record) for record in moving.get("sets", ()) if route53.ttl(record) is not None]
        told = [
            answer.ttl
            for answer in ([] if isinstance(answers, Stop) else answers)
            if answer.authoritative and answer.values
        ]
        return max(known or told or [route53.ALIAS_TTL])

    def move_records(self, old, new):
        self._change = self.zone.send(old, new)
        self._moved_at = time.monotonic()

    def move_controls(self, states):
        self.controls.set(states)
        self._moved_at = time.monotonic()

    def follow(self):
        """Wait for Route 53, for its name servers, and after a move for the resolvers of users."""
        if self._change:
            self.wait(
                lambda: self.zone.status(self._change),
                lambda status: status == "INSYNC",
                f"Route 53 tells its name servers of {self.name}",
                usual=route53.USUAL_SYNC,
            )
            self._moved_at = time.monotonic()
        if self._first["askable"]:
            expected = self._first["expected"]
            self.wait(
                lambda: [answer.values for answer in dns.ask_all(self._first["servers"], self.name, self.type)],
                lambda answers: name_move.has_moved(answers, expected),
                f"the name servers move {self.name}",
                state=lambda answers: f"they answer {name_move.listed(*answers)}",
            )
        if self._moved_at is not None:
            # Health checks take a while to follow a routing control; INSYNC says when all name servers have a record.
            self._outlive_old_answers(self._moved_at if self._change else time.monotonic())

    def _outlive_old_answers(self, since):
        until = since + self._first["ttl"]

        def left():
            remaining = until - time.monotonic()
            if 0 < remaining < LAST_SECONDS:
                time.sleep(remaining)
            return until - time.monotonic()

        self.wait(
            left,
            lambda remaining: remaining <= 0,
            f"resolvers forget the old answer of {self.name}",
            usual=self._first["ttl"],
            state=lambda remaining: "kept" if remaining > 0 else "forgotten",
        )

    def undo(self, before, done):
        if not any(step["do"].startswith("move") for step in done):
            return []
        names = ("record", "type", "hosted_zone_id", "dns_servers")
        keep = {name: self.params[name] for name in names if self.params[name]} | {"region": self.aws.region}
        if self.controls:
            wanted = self.params["routing_controls"]
            return [
                self._again(keep, routing_controls=dict(wanted, turn_on=wanted["turn_off"], turn_off=wanted["turn_on"]))
            ]
        serve = route53.serving(self._first["sets"])
        if serve is None:
            return []
        if "SetIdentifier" in serve:
            return [self._again(keep, set_identifier=serve["SetIdentifier"])]
        alias = serve["AliasTarget"]
        return [
            self._again(
                keep,
                alias_target={
                    "hosted_zone_id": alias["HostedZoneId"],
                    "dns_name": alias["DNSName"],
                    "evaluate_target_health": alias["EvaluateTargetHealth"],
                },
            )
        ]

    @staticmethod
    def _again(keep, **arguments):
        return {"verb": "sre.runbooks.route53_failover", "arguments": {**keep, **arguments}}

    def view(self, observed):
        seen = {"controls": observed["controls"]} if self.controls else name_move.sets_view(observed["sets"])
        answers = observed["answers"]
        return {**seen, "answers": None if isinstance(answers, Stop) else sorted(frozenset().union(*answers))}

    def returned(self):
        return {"previous_record_sets": self._first.get("sets", [])}


def main():
    module = verb_module(
        ARGUMENTS,
        required_one_of=[
            ("hosted_zone_id", "routing_controls"),
            ("set_identifier", "alias_target", "routing_controls"),
        ],
        mutually_exclusive=[("set_identifier", "alias_target")],
    )
    if not dns.HAS_DNSPYTHON:
        module.fail_json(msg=missing_required_lib("dnspython"))
    run(module, Route53Failover)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: alb_traffic
version_added: 0.1.0
short_description: Close an Application Load Balancer to its users, with an answer of its own, and open it again
description:
  - Puts a rule with a fixed response in front of all others on every listener. Rules, default actions and target groups stay as
    they are, so that nothing has to be remembered and nothing can be lost; V(open) takes that rule away again.
  - Where the first numbers are taken, the rules that have them get later ones, in the same order. Each keeps the number that it had
    in a tag, and gets it back.
  - What was put in front is known by the tag C(sre.runbooks/traffic), with the state and the time, so that any controller opens
    what another one has closed. Rules of other people are left alone; one that answers every request by itself is told.
  - "B(Risk:) V(blocked) and V(maintenance) cut the service off from its users. A health check of Route 53 that asks through the
    load balancer fails, and may move the name to another region that is open."
options:
  load_balancer_arn:
    description: ARN of the Application Load Balancer, in O(region).
    type: str
    required: true
  state:
    description:
      - V(blocked) answers in one line, V(maintenance) with a page for people, V(open) sends requests on as before.
    type: str
    choices: [open, blocked, maintenance]
    required: true
  allow_from:
    description:
      - Address ranges that go on being served, such as those of the responders. The load balancer compares them with the address
        that connects to it, which behind a proxy or CloudFront is not the user's.
      - Rules know no "not", so the closing rules name all other addresses, five in each. One address takes seven rules on each
        listener, a /24 network five.
    type: list
    elements: str
    default: []
  status_code:
    description: HTTP status of the answer, 2XX, 4XX or 5XX. A load balancer cannot send C(Retry-After).
    type: int
    default: 503
  body:
    description: The answer in place of the built-in one, 1024 bytes at most.
    type: str
  content_type:
    description: What O(body) is; by default text for V(blocked) and HTML for V(maintenance).
    type: str
    choices: [text/plain, text/html, text/css, application/json, application/javascript]
  when_managed:
    description:
      - What to do where the AWS Load Balancer Controller of a Kubernetes cluster keeps the listeners, and would remove rules that it
        does not know.
    type: str
    choices: [refuse, note]
    default: refuse
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(elasticloadbalancing:DescribeListeners), C(elasticloadbalancing:DescribeRules), C(elasticloadbalancing:DescribeTags),
    C(elasticloadbalancing:DescribeAccountLimits), C(elasticloadbalancing:CreateRule), C(elasticloadbalancing:ModifyRule),
    C(elasticloadbalancing:DeleteRule), C(elasticloadbalancing:SetRulePriorities), C(elasticloadbalancing:AddTags) and
    C(elasticloadbalancing:RemoveTags).
  - Requests in hand are answered. Connections that stay open get the new answer from their next request on; upgraded ones
    (WebSocket) last until they end, so isolate the instance or task as well where an intruder holds one.
  - Terraform shows the additional rules as drift only where it manages rules by priority; applying it meanwhile may fail, and
    does not open the service.
seealso:
  - module: sre.runbooks.k8s_traffic
  - module: sre.runbooks.alb_switch_target
"""

EXAMPLES = r"""
- name: Block all traffic but our own
  sre.runbooks.alb_traffic:
    load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
    state: blocked
    allow_from: [203.0.113.7/32]
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: A page of our own while the database is restored
  sre.runbooks.alb_traffic:
    load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
    state: maintenance
    body: "<h1>Back at 15:00 UTC</h1><p>See https://status.regami.test</p>"
    region: us-east-1

- name: Serve everybody again
  sre.runbooks.alb_traffic:
    load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
    state: open
    region: us-east-1
"""

RETURN = r"""
before:
  description:
    - The state as found, V(partly) where an interrupted run has left some listeners open. C(listeners) is what our rules do on
      each, null where there are none; C(since) is when they were put there.
  returned: unless refused
  type: dict
  sample: {state: open, since: null, allow_from: [], listeners: {port 80: null}}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample:
    state: blocked
    since: "2026-01-01T12:00:00Z"
    allow_from: [203.0.113.7/32]
    listeners: {port 80: {state: blocked, status_code: 503, allow_from: [203.0.113.7/32]}}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: close
      what: "port 80: answer with 503 every request but those from 203.0.113.7/32"
      before: null
      after: {state: blocked, status_code: 503, allow_from: [203.0.113.7/32]}
undo:
  description: The same verb with the state that was found. Empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.alb_traffic
      arguments:
        load_balancer_arn: arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/regami-alb/50dc6c495c0c9188
        region: us-east-1
        state: open
status_code:
  description: What users are answered from now on, null where that is the service's own affair.
  returned: unless refused
  type: int
  sample: 503
notes:
  description: What a person should know, for example who had closed it before, or a rule of somebody else that answers every request.
  returned: success
  type: list
  elements: str
  sample: ["requests in hand are answered, and upgraded connections (WebSocket) last until they end"]
waited_seconds:
  description: Time spent in waits; always 0, since a rule counts at once.
  returned: unless refused
  type: float
  sample: 0.0
"""

import contextlib
import time

from ansible_collections.sre.runbooks.plugins.module_utils import closed_listener, elbv2
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.closed_listener import NUMBER, TRAFFIC
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("elbv2",)
ARGUMENTS = dict(
    load_balancer_arn=dict(type="str", required=True),
    state=dict(type="str", choices=["open", "blocked", "maintenance"], required=True),
    allow_from=dict(type="list", elements="str", default=[]),
    status_code=dict(type="int", default=503),
    body=dict(type="str"),
    content_type=dict(
        type="str", choices=["text/plain", "text/html", "text/css", "application/json", "application/javascript"]
    ),
    when_managed=dict(type="str", choices=["refuse", "note"], default="refuse"),
)


class AlbTraffic(Verb):
    """Rules in front of all others that answer by themselves, or none."""

    plan = staticmethod(closed_listener.plan)

    def __init__(self, module):
        super().__init__(module)
        self.balancer = self.params["load_balancer_arn"]
        self.stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.found = None

    def observe(self):
        if ":loadbalancer/app/" not in self.balancer:
            raise Refusal(f"{self.balancer} is no Application Load Balancer: only those answer by themselves")
        seen = together(
            listeners=lambda: elbv2.listeners(self.aws, self.balancer, self.aws.region),
            most=lambda: elbv2.most_rules(self.aws, self.aws.region),
        )
        rules = [rule["RuleArn"] for each in seen["listeners"] for rule in each["Rules"] if not rule["IsDefault"]]
        observed = dict(
            seen,
            balancer=self.balancer,
            tags=elbv2.tags(self.aws, [self.balancer, *rules], self.aws.region),
            stamp=self.stamp,
        )
        self.found = self.found or observed
        return observed

    # The steps, named as in the plan.

    def renumber(self, kept, numbers):
        for arn, number in kept.items():
            self._tag(arn, NUMBER, number)
        self._number(numbers)

    def close(self, listener, changes, action):
        first = None
        for what, target, conditions in changes:
            if what == "create":
                made = self._send(
                    "create_rule",
                    ListenerArn=listener,
                    Priority=target,
                    Conditions=list(conditions),
                    Actions=[action],
                    Tags=[{"Key": TRAFFIC, "Value": self._value()}],
                )
                first = first or made["Rules"][0]["RuleArn"]
            elif what == "remove":
                self._remove(target)
            else:
                arn = target or first
                self._send("modify_rule", RuleArn=arn, Conditions=list(conditions), Actions=[action])
                if what == "change":
                    self._tag(arn, TRAFFIC, self._value())

    def remove(self, arns):
        for arn in arns:
            self._remove(arn)

    def give_back(self, numbers, forget):
        if numbers:
            self._number(numbers)
        for arn in forget:
            self._send("remove_tags", ResourceArns=[arn], TagKeys=[NUMBER])

    def _remove(self, arn):
        with contextlib.suppress(_Gone):
            self._send("delete_rule", RuleArn=arn)

    def _number(self, numbers):
        pairs = [{"RuleArn": arn, "Priority": number} for arn, number in numbers.items()]
        self._send("set_rule_priorities", RulePriorities=pairs)

    def _tag(self, arn, key, value):
        self._send("add_tags", ResourceArns=[arn], Tags=[{"Key": key, "Value": value}])

    def _value(self):
        return f"{self.params['state']} {self.stamp}"

    def _send(self, operation, **arguments):
        try:
            return self.aws.change("elbv2", operation, **arguments)
        except Exception as error:
            if code_of(error) == "RuleNotFound":
                raise _Gone("a rule was taken away by somebody else since it was looked at") from error
            if code_of(error) == "PriorityInUse":
                raise Overtaken("a rule was added in front by somebody else since it was looked at") from error
            if code_of(error) == "TooManyRules":
                raise Stop(
                    "the load balancer takes no more rules, so everybody is kept out: give fewer or wider ranges in allow_from"
                ) from error
            raise

    # --- telling ---

    def undo(self, before, done):
        arguments = {"load_balancer_arn": self.balancer, "region": self.aws.region, "state": before["state"]}
        if before["state"] == closed_listener.PARTLY:
            arguments["state"] = closed_listener.OPEN  # what half a run had begun is taken back, too
        elif before["state"] != closed_listener.OPEN:
            arguments |= {"allow_from": before["allow_from"], **closed_listener.given(self.found)}
        return [{"verb": "sre.runbooks.alb_traffic", "arguments": arguments}]

    def view(self, observed):
        return closed_listener.view(observed)


class _Gone(Overtaken):
    """The rule is not there any more."""


def main():
    run(verb_module(ARGUMENTS), AlbTraffic)


if __name__ == "__main__":
    main()

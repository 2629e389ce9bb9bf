# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""alb_traffic: its plan for each state that the rules of a listener can be in."""

from __future__ import annotations

import ipaddress
import itertools

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import closed_listener
from ansible_collections.sre.runbooks.plugins.module_utils.closed_listener import NUMBER, TRAFFIC, plan, view
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal

BALANCER = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/shop/50dc6c495c0c9188"
FORWARD = [{"Type": "forward", "TargetGroupArn": "arn:group"}]
STAMP = "2026-01-01T12:00:00Z"


def rule(number, conditions=None, actions=None, arn=None):
    conditions = conditions or [{"Field": "path-pattern", "Values": [f"/{number}/*"]}]
    return {
        "RuleArn": arn or f"theirs-{number}",
        "Priority": str(number),
        "IsDefault": False,
        "Conditions": conditions,
        "Actions": actions or FORWARD,
    }


class Region:
    """One balancer, which carries the steps of a plan out as AWS does, call by call."""

    def __init__(self, *rules, ports=(80,), tags=None):
        default = {"RuleArn": "default", "Priority": "default", "IsDefault": True, "Conditions": [], "Actions": FORWARD}
        self.listeners = [
            {"ListenerArn": f"l-{port}", "Port": port, "Rules": [*(dict(each) for each in rules), default]}
            for port in ports
        ]
        for each in self.listeners[1:]:
            each["Rules"] = [dict(rule, RuleArn=f"{rule['RuleArn']}-{each['Port']}") for rule in each["Rules"]]
        self.tags, self.ids = dict(tags or {}), itertools.count()

    def observed(self, most=100):
        for each in self.listeners:
            each["Rules"].sort(key=lambda rule: (rule["IsDefault"], int(rule["Priority"].replace("default", "0"))))
        rules = [rule["RuleArn"] for each in self.listeners for rule in each["Rules"]]
        tags = {arn: dict(self.tags.get(arn, {})) for arn in [BALANCER, *rules]}
        return {
            "listeners": [dict(each, Rules=[dict(rule) for rule in each["Rules"]]) for each in self.listeners],
            "tags": tags,
            "most": most,
            "balancer": BALANCER,
            "stamp": STAMP,
        }

    def calls(self, step, state):
        """One function a call."""
        arguments, first = step.arguments, []

        def create(listener, number, conditions, action):
            arn = f"ours-{next(self.ids)}"
            first.append(arn)
            self.tags[arn] = {TRAFFIC: f"{state} {STAMP}"}
            self._listener(listener)["Rules"].append(rule(number, list(conditions), [action], arn))

        def change(arn, conditions, action):
            self._rule(arn or first[0]).update(Conditions=list(conditions), Actions=[action])
            self.tags[arn or first[0]] = {TRAFFIC: f"{state} {STAMP}"}

        if step.do == "renumber":
            for arn, number in arguments["kept"].items():
                yield lambda arn=arn, number=number: self.tags.setdefault(arn, {}).update({NUMBER: number})
            yield lambda: self._number(arguments["numbers"])
        elif step.do == "close":
            for what, target, conditions in arguments["changes"]:
                if what == "create":
                    yield lambda t=target, c=conditions: create(arguments["listener"], t, c, arguments["action"])
                elif what == "remove":
                    yield lambda t=target: self._remove(t)
                else:
                    yield lambda t=target, c=conditions: change(t, c, arguments["action"])
        elif step.do == "remove":
            for arn in arguments["arns"]:
                yield lambda arn=arn: self._remove(arn)
        else:
            yield lambda: self._number(arguments["numbers"])
            for arn in arguments["forget"]:
                yield lambda arn=arn: self.tags[arn].pop(NUMBER)

    def run(self, calls=None, **given):
        """Carry a plan out, at most so many calls of it; returns how many there were."""
        wanted = want(**given)
        done = 0
        for step in plan(self.observed(), wanted).steps:
            for call in self.calls(step, wanted["state"]):
                if done == calls:
                    return done
                call()
                self.check_numbers()
                done += 1
        return done

    def served(self, address, path="/x"):
        """What the first listener does with a request: the number of somebody's rule, "default", or our status."""
        for each in self.observed()["listeners"][0]["Rules"]:
            if all(self._matches(condition, address, path) for condition in each["Conditions"]):
                fixed = each["Actions"][0].get("FixedResponseConfig")
                return fixed["StatusCode"] if fixed else each["RuleArn"]
        raise AssertionError("the default rule takes all")

    def shown(self):
        return [
            [(rule["RuleArn"], rule["Priority"], dict(self.tags.get(rule["RuleArn"], {}))) for rule in each["Rules"]]
            for each in self.observed()["listeners"]
        ]

    def check_numbers(self):
        for each in self.listeners:
            numbers = [rule["Priority"] for rule in each["Rules"]]
            assert len(set(numbers)) == len(numbers)

    @staticmethod
    def _matches(condition, address, path):
        if condition["Field"] == "source-ip":
            networks = condition["SourceIpConfig"]["Values"]
            assert len(networks) <= 5
            return any(ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in networks)
        return any(value == "*" or path.startswith(value.rstrip("*")) for value in condition["Values"])

    def _listener(self, arn):
        return next(each for each in self.listeners if each["ListenerArn"] == arn)

    def _rule(self, arn):
        return next(rule for each in self.listeners for rule in each["Rules"] if rule["RuleArn"] == arn)

    def _number(self, numbers):
        for arn, number in numbers.items():
            self._rule(arn)["Priority"] = str(number)

    def _remove(self, arn):
        for each in self.listeners:
            each["Rules"] = [rule for rule in each["Rules"] if rule["RuleArn"] != arn]


def want(state="blocked", **given):
    usual = {"status_code": 503, "body": None, "content_type": None, "allow_from": [], "when_managed": "refuse"}
    return {"load_balancer_arn": BALANCER, "state": state, **usual, **given}


def test_one_rule_in_front_and_nothing_else_changes():
    region = Region(rule(10), rule(20))
    before = region.shown()
    assert region.run() == 1
    assert region.served("198.51.100.1") == "503" and view(region.observed())["state"] == "blocked"
    assert region.run() == 0
    assert region.run(state="open") == 1
    assert region.shown() == before


@pytest.mark.parametrize("numbers", [(1, 2, 3), (1, 5), (2, 3, 9, 40), ()])
@pytest.mark.parametrize("allow_from", [[], ["203.0.113.7/32"], ["203.0.113.0/24", "2001:db8::/32"]])
def test_who_is_allowed_sees_the_rules_as_they_were(numbers, allow_from):
    region = Region(*(rule(number) for number in numbers))
    before = region.shown()
    region.run(allow_from=allow_from)
    paths = [f"/{number}/a" for number in numbers] + ["/else"]
    assert {region.served("198.51.100.1", path) for path in paths} == {"503"}
    assert {region.served("2001:db9::1", path) for path in paths} == {"503"}
    if allow_from:
        assert [region.served("203.0.113.7", path) for path in paths] == [f"theirs-{n}" for n in numbers] + ["default"]
        assert view(region.observed())["allow_from"] == allow_from
    region.run(state="open")
    assert region.shown() == before


@pytest.mark.parametrize("allow_from", [[], ["203.0.113.7/32"]])
def test_killed_after_any_call_and_run_again(allow_from):
    """Both ways; and once the first rule is there, nobody gets through who must not."""
    whole = Region(rule(1), rule(2), ports=(80, 443))
    before = whole.shown()
    count = whole.run(allow_from=allow_from)
    closed = whole.shown()
    back = whole.run(state="open")
    for calls in range(count):
        region = Region(rule(1), rule(2), ports=(80, 443))
        region.run(calls, allow_from=allow_from)
        if view(region.observed())["listeners"]["port 80"]:
            assert region.served("198.51.100.1", "/1/a") == "503"
        region.run(allow_from=allow_from)
        assert [[shown[1:] for shown in each] for each in region.shown()] == [
            [shown[1:] for shown in each] for each in closed
        ]
        region.run(state="open")
        assert region.shown() == before
        # The other way, from half a run.
        region.run(calls, allow_from=allow_from)
        region.run(state="open")
        assert region.shown() == before
    for calls in range(back):
        region = Region(rule(1), rule(2), ports=(80, 443))
        region.run(allow_from=allow_from)
        region.run(calls, state="open")
        region.run(state="open")
        assert region.shown() == before


def test_other_responders_let_in_without_a_gap():
    region = Region(rule(1))
    region.run(allow_from=["203.0.113.7/32"])
    count = region.run(allow_from=["198.51.100.0/24"])
    assert (region.served("203.0.113.7"), region.served("198.51.100.9", "/1/a")) == ("503", "theirs-1")
    for calls in range(count + 1):
        region = Region(rule(1))
        region.run(allow_from=["203.0.113.7/32"])
        region.run(calls, allow_from=["198.51.100.0/24"])
        assert region.served("192.0.2.1", "/1/a") == "503"
    region.run(state="maintenance", status_code=500)
    assert region.served("203.0.113.7") == "500" and view(region.observed())["state"] == "maintenance"
    assert len(region.shown()[0]) == 3


def test_what_others_did_meanwhile():
    region = Region(rule(1), rule(3))
    region.run()
    # A colleague puts a rule in front, and one that answers everything behind ours.
    region._number({"ours-0": 4, "theirs-1": 5})
    region.listeners[0]["Rules"] += [
        rule(1, arn="new"),
        rule(9, [{"Field": "path-pattern", "Values": ["/*"]}], [closed_listener.answer(want())], "panic"),
    ]
    assert region.served("192.0.2.1", "/1/a") == "new"
    region.run()
    assert region.served("192.0.2.1", "/1/a") == "503"
    opened = plan(region.observed(), want("open"))
    assert "rule 9 answers every request with 503, and is none of ours: it stays" in opened.notes[-1]
    region.run(state="open")
    assert [each[0] for each in region.shown()[0]] == ["new", "theirs-3", "theirs-1", "panic", "default"]
    assert not any(NUMBER in tags for tags in region.tags.values())


def test_a_second_block_changes_nothing_and_says_since_when():
    region = Region()
    region.run()
    again = plan(region.observed(), want())
    assert (again.steps, again.after, again.notes) == ((), {}, (f"shop is blocked since {STAMP}",))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"allow_from": ["203.0.113.7/33"]}, "which is no address range"),
        ({"allow_from": ["0.0.0.0/0"]}, "lets everybody through"),
        ({"body": "x" * 1025}, "body has 1025 bytes"),
        ({"status_code": 301}, "status_code is 301"),
        ({"allow_from": ["203.0.113.7"]}, "takes 7 rules on each of 2 listeners, 2 are there"),
    ],
)
def test_refuses(given, says):
    with pytest.raises(Refusal) as refused:
        plan(Region(rule(10), ports=(80, 443)).observed(most=10), want(**given))
    assert says in str(refused.value)


def test_a_balancer_of_a_cluster_is_closed_at_the_ingress():
    tags = {BALANCER: {"elbv2.k8s.aws/cluster": "shop-eks", "ingress.k8s.aws/stack": "shop/api"}}
    with pytest.raises(Refusal) as refused:
        plan(Region(tags=tags).observed(), want())
    assert "the AWS Load Balancer Controller of shop-eks (shop/api)" in str(refused.value)
    noted = plan(Region(tags=tags).observed(), want(when_managed="note"))
    assert len(noted.steps) == 1 and "may put back" in noted.notes[0]

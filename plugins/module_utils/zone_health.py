# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which zone is bad, as a service sees it, and whether the others can do without it. Pure.

A zone that fails does so in part more often than as a whole, and AWS says so late if at all: what counts is how the same thing
fares in one zone and in the others.
https://docs.aws.amazon.com/whitepapers/latest/advanced-multi-az-resilience-patterns/gray-failures.html
"""

from __future__ import annotations

from dataclasses import dataclass

# What AWS calls a zone in which something is wrong. "information" and "constrained" are no failures.
ILL = ("impaired", "unavailable")
# So much of a zone must fare badly for the zone to be bad.
MOSTLY = 0.5


@dataclass(frozen=True)
class Zone:
    """What is known of one zone.

    Attributes:
        state: what AWS says of it, with its messages.
        healthy, unhealthy: targets there, now.
        failed: tasks or instances that failed there lately.
        was_unhealthy: the most targets that were unhealthy there in a minute of the last ones, by the load balancer's metric.
    """

    name: str
    state: str = "available"
    messages: tuple = ()
    healthy: int = 0
    unhealthy: int = 0
    failed: int = 0
    was_unhealthy: float = 0

    def evidence(self):
        """What speaks for it being bad, a line each."""
        if self.state in ILL:
            yield f"AWS says that {self.name} is {self.state}{': ' if self.messages else ''}{' '.join(self.messages)}"
        there = self.healthy + self.unhealthy
        if there and self.unhealthy >= MOSTLY * there:
            yield f"{self.unhealthy} of {there} targets in {self.name} are unhealthy"
        if self.failed and self.failed >= self.healthy:
            yield f"{self.failed} failed in {self.name} lately, and {self.healthy} serve there"
        if self.was_unhealthy and self.was_unhealthy >= self.healthy:
            yield f"up to {self.was_unhealthy:.0f} targets in {self.name} were unhealthy in the last minutes"

    def told(self):
        return f"{self.name}: {self.state}, {self.healthy} healthy and {self.unhealthy} unhealthy targets, {self.failed} failed lately"


@dataclass(frozen=True)
class Verdict:
    """The zone to leave ("" for none), what speaks for that, and why it must not be left as it is ("" if it may)."""

    zone: str
    findings: tuple
    why_not: str
    serving_elsewhere: int


def judge(zones, desired, wanted, left=""):
    """The Verdict on a list of Zone.

    Args:
        desired: how many the service is to have in all.
        left: the zone that an earlier run took it out of, or began to, which nothing needs to speak for any more.
        wanted: {zone: that a person names, or None; min_serving_percent, accept_healthy_zone, accept_low_capacity}.
    """
    bad = {zone.name: list(zone.evidence()) for zone in zones}
    bad = {name: lines for name, lines in bad.items() if lines}
    findings = (*(line for lines in bad.values() for line in lines), *(zone.told() for zone in zones))
    names = [zone.name for zone in zones]
    zone = wanted["zone"] or (next(iter(bad)) if len(bad) == 1 else "" if bad else left)
    serving = sum(each.healthy for each in zones if each.name != zone)
    why_not = _why_not(zone, bad, names, serving, desired, wanted)
    if left and zone == left and set(bad) <= {left}:
        why_not = ""
    return Verdict(zone, findings, why_not, serving)


def _why_not(zone, bad, names, serving, desired, wanted):
    if len(bad) > 1:
        return (
            f"{len(bad)} zones look bad ({', '.join(bad)}), so that it is no zone that fails: look for the cause in the service "
            f"(playbooks/high_error_rate.yml), or leave the region (playbooks/region_evacuation.yml)"
        )
    if not zone:
        return "no zone looks bad: name the one to leave with -e zone=NAME and -e accept_healthy_zone=true"
    if zone not in names:
        return f"there is no zone {zone} that anything of the service is in ({', '.join(names)}): check -e zone"
    if bad and zone not in bad:
        return f"not {zone} looks bad but {', '.join(bad)}: check -e zone"
    if zone not in bad and not wanted["accept_healthy_zone"]:
        return f"{zone} does not look bad: say -e accept_healthy_zone=true if it is to be left all the same"
    if not serving and desired:
        return f"nothing serves outside of {zone}: leave the region instead (playbooks/region_evacuation.yml)"
    if serving * 100 < wanted["min_serving_percent"] * desired and not wanted["accept_low_capacity"]:
        return (
            f"only {serving} of {desired} serve outside of {zone}, less than {wanted['min_serving_percent']:g}%: they may break "
            f"under all the traffic; scale first (playbooks/emergency_scale.yml), or say -e accept_low_capacity=true"
        )
    return ""

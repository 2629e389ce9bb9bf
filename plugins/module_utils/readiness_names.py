# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether users follow the public name in time, and whether Route 53 would notice that what it leads to is down."""

from __future__ import annotations

from . import dns, route53
from .aws import code_of
from .readiness import MOVES, NOT_READY, RISK, Found

CHECK, SCENARIOS = "dns", MOVES
# How often an alias may lead to another record of its zone.
LONGEST_CHAIN = 5


def looks(aws, wanted, now):
    """{name: call}; the call gives {sets, ttl: {name: seconds}, checks: {id: its HealthCheckConfig, or None}}."""
    name, zone = wanted["record"], wanted["hosted_zone_id"]
    return {name: lambda: _name(aws, route53.Zone(aws, zone), name, wanted["type"])} if name and zone else {}


def _name(aws, zone, name, record_type):
    sets = zone.record_sets(name, record_type)
    ids = sorted({each["HealthCheckId"] for each in sets if each.get("HealthCheckId")})
    return {
        "sets": sets,
        "ttl": dict(_ttls(zone, name, record_type, sets)),
        "checks": {each: _health_check(aws, each) for each in ids},
    }


def _ttls(zone, name, record_type, sets, depth=0):
    """(name, seconds that its answers are kept) of a name and of what it is an alias of. That of anything but a load balancer
    or a record of this zone is known to its own name servers only."""
    known = [route53.ttl(each) for each in sets if route53.ttl(each) is not None]
    known += [route53.ALIAS_TTL for each in sets if (route53.target(each)[0] or "").endswith(".elb.amazonaws.com")]
    if known:
        yield dns.plain(name), max(known)
    for each in sets:
        alias = each.get("AliasTarget", {})
        if alias.get("HostedZoneId") == zone.id and depth < LONGEST_CHAIN:
            leads_to = zone.record_sets(alias["DNSName"], record_type)
            yield from _ttls(zone, alias["DNSName"], record_type, leads_to, depth + 1)


def _health_check(aws, identifier):
    try:
        return aws.read("route53", "get_health_check", HealthCheckId=identifier)["HealthCheck"]["HealthCheckConfig"]
    except Exception as error:
        if code_of(error) == "NoSuchHealthCheck":
            return None
        raise


def judge(seen, wanted, now):
    """Pure: what answers are kept for too long, and which PRIMARY set cannot be found to be down.

    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/dns-failover-simple-configs.html
    """
    for name, found in seen.items():
        if wanted["rto_seconds"] is not None:
            for owner, seconds in found["ttl"].items():
                yield from _kept_too_long(owner, seconds, wanted["rto_seconds"])
        for record in found["sets"]:
            why = _blind(record, found["checks"]) if record.get("Failover") == "PRIMARY" else None
            if why:
                because = (
                    f"its PRIMARY set {record['SetIdentifier']} {why}: Route 53 takes it for healthy whatever happens"
                )
                fix = "give it a health check that is there, or for an alias evaluate the health of its target"
                yield Found(RISK, name, because, fix)


def _kept_too_long(name, seconds, promised):
    because = f"resolvers keep its answer for {seconds} s, so users come back that much later than the service"
    if seconds >= promised:
        yield Found(
            NOT_READY,
            name,
            f"{because}, and {promised:g} s are promised for all of it",
            "lower its TTL, or promise no sooner",
        )
    elif seconds > promised / 2:
        yield Found(
            RISK, name, f"{because}: more than half of the {promised:g} s that are promised", "lower its TTL to 60"
        )


def _blind(record, checks):
    """Why nobody would notice that what the set leads to is down, or None."""
    identifier, alias = record.get("HealthCheckId"), record.get("AliasTarget")
    if identifier and checks.get(identifier) is None:
        return f"has the health check {identifier}, which is not there"
    if identifier and checks[identifier].get("Disabled"):
        return f"has the health check {identifier}, which is disabled"
    if not identifier and not (alias and alias["EvaluateTargetHealth"]):
        return (
            "has no health check"
            if not alias
            else "does not evaluate the health of its target, and has no health check"
        )
    return None

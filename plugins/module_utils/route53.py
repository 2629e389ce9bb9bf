# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Moving a name by its Route 53 records: which sets there are, and the one change batch that moves the name.

A record set is what the API calls so: a dict with Name, Type, SetIdentifier and the rest. A move changes one field of it
and keeps all others, since an UPSERT replaces the whole set.
https://docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html
"""

from __future__ import annotations

import difflib
import time

from . import dns, waiting
from .aws import code_of
from .errors import LostAnswer, Refusal, Stop

# Routing policies of sets that share a name, other than the two that a move knows.
OTHER_POLICIES = {
    "Region": "latency",
    "GeoLocation": "geolocation",
    "GeoProximityLocation": "geoproximity",
    "CidrRoutingConfig": "IP-based",
    "MultiValueAnswer": "multivalue",
}
# What the sets of a weighted record share when nothing served before.
FULL_WEIGHT = 100
MOST_WEIGHT = 255  # that Route 53 takes
# Answers of a load balancer's alias live this long, in seconds; the API does not say so.
# https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resource-record-sets-values-alias.html
ALIAS_TTL = 60
# Seconds that a change usually takes to reach all name servers.
USUAL_SYNC = 40
SEND_TRIES = 3


class Zone:
    """One hosted zone. Its API is a control plane in us-east-1: routing controls (arc.py) do without it."""

    def __init__(self, aws, zone_id):
        self._aws, self.id = aws, zone_id

    def record_sets(self, name, record_type):
        """All sets of one name and type."""
        found, at = [], {"StartRecordName": name, "StartRecordType": record_type}
        while at:
            page = self._read("list_resource_record_sets", **at)
            mine = [
                entry
                for entry in page["ResourceRecordSets"]
                if dns.plain(entry["Name"]) == dns.plain(name) and entry["Type"] == record_type
            ]
            found += mine
            more = page["IsTruncated"] and mine and len(mine) == len(page["ResourceRecordSets"])
            at = (
                {
                    f"Start{key[4:]}": page[key]
                    for key in ("NextRecordName", "NextRecordType", "NextRecordIdentifier")
                    if key in page
                }
                if more
                else None
            )
        return found

    def names(self):
        """Names of the zone, as far as one page goes: for a message, not for a decision."""
        page = self._read("list_resource_record_sets")
        return sorted({f"{dns.plain(entry['Name'])} {entry['Type']}" for entry in page["ResourceRecordSets"]})

    def name_servers(self):
        """Its authoritative servers; a private zone has none that could be asked."""
        return self._read("get_hosted_zone", zone="Id").get("DelegationSet", {}).get("NameServers", [])

    def send(self, old, new):
        """One atomic change batch that makes the sets `old` the sets `new`; returns the id of the change.

        A batch of UPSERTs of whole sets can be sent again: it changes nothing twice, and only its answer names the
        change that must be waited for. Before that it is looked at that nobody else changed the sets meanwhile.
        """
        batch = {
            "Comment": "sre.runbooks.route53_failover",
            "Changes": [{"Action": "UPSERT", "ResourceRecordSet": record} for record in new],
        }
        for lost in range(SEND_TRIES + 1):
            try:
                answer = self._aws.change(
                    "route53", "change_resource_record_sets", HostedZoneId=self.id, ChangeBatch=batch
                )
                return answer["ChangeInfo"]["Id"].rpartition("/")[2]
            except LostAnswer as error:
                if lost == SEND_TRIES:
                    # No LostAnswer: to look again could find the change applied and leave out the waits.
                    raise Stop(
                        f"{error}; the change of {dns.plain(new[0]['Name'])} was sent {SEND_TRIES + 1} times: "
                        f"run the same command again when the API answers"
                    ) from error
                time.sleep(0.2 * lost)
                waiting.say(f"no answer from Route 53; looking whether {dns.plain(new[0]['Name'])} has changed")
                there = self.record_sets(new[0]["Name"], new[0]["Type"])
                if any(record not in old and record not in new for record in there):
                    raise Stop(
                        f"{dns.plain(new[0]['Name'])} in zone {self.id} was changed by somebody else meanwhile: "
                        f"look at it, then run the same command again"
                    ) from error
        return None

    def status(self, change):
        """PENDING or INSYNC, of this very change."""
        return self._aws.read("route53", "get_change", Id=change)["ChangeInfo"]["Status"]

    def _read(self, operation, zone="HostedZoneId", **arguments):
        try:
            return self._aws.read("route53", operation, **{zone: self.id}, **arguments)
        except Exception as error:
            if code_of(error) == "NoSuchHostedZone":
                raise Refusal(
                    f"there is no hosted zone {self.id} in this account: check hosted_zone_id and the AWS "
                    f"profile (aws route53 list-hosted-zones)"
                ) from error
            raise


def plan_records(sets, wanted, names=()):
    """Pure: the sets as they shall be, or () where they are so already.

    Args:
        sets: the record sets of the name, all of them.
        wanted: {record, type, hosted_zone_id, set_identifier, alias_target} of the verb.
        names: "name type" of other records of the zone, for the message when there are no sets.

    Raises:
        Refusal: the record is not there, cannot be moved, or the move would not be accepted or not be safe.
    """
    label = f"{wanted['record']} {wanted['type']} in zone {wanted['hosted_zone_id']}"
    if not sets:
        near = (
            difflib.get_close_matches(f"{dns.plain(wanted['record'])} {wanted['type']}", names, n=5, cutoff=0.5)
            or names[:5]
        )
        raise Refusal(
            f"there is no record {label}: it has {', '.join(near) or 'no records'}; check record, type and hosted_zone_id"
        )
    if "SetIdentifier" not in sets[0]:
        return _plan_simple(sets[0], wanted, label)
    for field, policy in OTHER_POLICIES.items():
        if field in sets[0]:
            raise Refusal(
                f"{label} has {policy} routing, which this verb does not move: "
                f"only failover pairs, weighted sets and simple aliases"
            )
    have = {record["SetIdentifier"]: record for record in sets}
    if wanted["set_identifier"] is None:
        raise Refusal(f"{label} has several sets ({', '.join(sorted(have))}): give set_identifier, not alias_target")
    if wanted["set_identifier"] not in have:
        raise Refusal(
            f"{label} has no set {wanted['set_identifier']}: set_identifier is one of {', '.join(sorted(have))}"
        )
    moved = _plan_failover(sets, wanted, label) if "Failover" in sets[0] else _plan_weights(sets, wanted)
    return () if moved == tuple(sets) else moved


def _plan_simple(record, wanted, label):
    if wanted["alias_target"] is None:
        raise Refusal(f"{label} is one record without sets: give alias_target instead of set_identifier")
    if "AliasTarget" not in record:
        raise Refusal(
            f"{label} is no alias, and without a routing policy its values are all there is: "
            f"make it a failover pair or an alias first"
        )
    wanted_target = wanted["alias_target"]
    # The form in which Route 53 gives a name back, so that both can be compared.
    moved = dict(
        record,
        AliasTarget={
            "HostedZoneId": wanted_target["hosted_zone_id"],
            "DNSName": f"{dns.plain(wanted_target['dns_name'])}.",
            "EvaluateTargetHealth": wanted_target["evaluate_target_health"],
        },
    )
    return () if moved == record else (moved,)


def _plan_failover(sets, wanted, label):
    kinds = sorted(record["Failover"] for record in sets)
    if kinds != ["PRIMARY", "SECONDARY"]:
        raise Refusal(
            f"{label} is no failover pair (it has {' and '.join(kinds)}): "
            f"make it one PRIMARY and one SECONDARY set first"
        )
    chosen = next(record for record in sets if record["SetIdentifier"] == wanted["set_identifier"])
    # Route 53 refuses it, and rightly: it would never notice that this PRIMARY is down.
    if "AliasTarget" not in chosen and "HealthCheckId" not in chosen:
        raise Refusal(
            f"set {wanted['set_identifier']} of {label} is no alias and has no health check, so it cannot be "
            f"PRIMARY: give it a health check first"
        )
    return tuple(dict(record, Failover="PRIMARY" if record is chosen else "SECONDARY") for record in sets)


def _plan_weights(sets, wanted):
    total = min(sum(record["Weight"] for record in sets), MOST_WEIGHT) or FULL_WEIGHT
    return tuple(
        dict(record, Weight=total if record["SetIdentifier"] == wanted["set_identifier"] else 0) for record in sets
    )


def serving(sets):
    """The set that serves while all is healthy: the PRIMARY one, the only weighted one, or the simple one (else None)."""
    serve = [
        record
        for record in sets
        if record.get("Failover") == "PRIMARY" or record.get("Weight", 0) > 0 or "SetIdentifier" not in record
    ]
    return serve[0] if len(serve) == 1 else None


def target(record):
    """(alias name or None, values) that a set answers with."""
    alias = record.get("AliasTarget")
    if alias:
        return dns.plain(alias["DNSName"]), ()
    return None, tuple(dns.plain(value["Value"]) for value in record.get("ResourceRecords", ()))


def ttl(record):
    """Seconds that a resolver keeps an answer of this set; None where only the name servers know (an alias)."""
    return record.get("TTL")


def shown(record):
    """A set for people: "PRIMARY regami-alb-secondary.us-west-2.elb.amazonaws.com"."""
    alias, values = target(record)
    role = record.get("Failover") or (f"weight {record['Weight']}" if "Weight" in record else "")
    return f"{role} {alias or ', '.join(values)}".strip()

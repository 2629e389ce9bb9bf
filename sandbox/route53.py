# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Route 53: change batches checked as AWS checks them, changes that take their time, and name servers that follow.

A batch is applied whole or not at all. The name servers answer with it from the moment it is INSYNC.
"""

from __future__ import annotations

import http.client
import secrets
import string
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import elbv2
from .addresses import free_port
from .nameserver import NameServer
from .routing import Answer, Zone, canonical, is_true

if TYPE_CHECKING:
    from .world import World

ZONE = "regami.test"
HOST = "127.0.0.1"
POLICIES = ("Weight", "Region", "Failover", "GeoLocation", "MultiValueAnswer")
_ID = string.ascii_uppercase + string.digits

_world: World
_moto: dict[str, Any] = {}
_changes: dict[str, Change] = {}
# zone id -> what its name servers have, from when on (monotonic), oldest first
_served: dict[str, list[tuple[float, tuple[Any, ...]]]] = {}
_server: NameServer | None = None
_port: int | None = None


@dataclass
class Change:
    id: str
    comment: str | None
    insync: float  # monotonic
    submitted: Any = field(default_factory=lambda: _now())

    def describe(self) -> dict:
        described = {
            "Id": f"/change/{self.id}",
            "Status": "INSYNC" if time.monotonic() >= self.insync else "PENDING",
            "SubmittedAt": self.submitted,
        }
        return described | ({"Comment": self.comment} if self.comment else {})


def _now() -> Any:
    from moto.core.utils import utcnow

    return utcnow()


def _refuse(code: str, message: str) -> Exception:
    from moto.route53.exceptions import Route53ClientError

    return Route53ClientError(code, message)


def create_hosted_zone(backend: Any, *args: Any, **kwargs: Any) -> Any:
    """moto keeps the values of the SOA record in another shape than all others."""
    zone = _moto["create_hosted_zone"](backend, *args, **kwargs)
    for record in zone.rrsets:
        record.name = canonical(record.name)
        record.records = [value["Value"] if isinstance(value, dict) else value for value in record.records]
    return zone


# ---- change batches ------------------------------------------------------------------------------------------------


def change_resource_record_sets(response: Any) -> Any:
    from moto.core.responses import ActionResult

    zone = response.backend.get_hosted_zone(response._get_param("HostedZoneId"))
    changes = response._get_param("ChangeBatch.Changes")
    if not changes:
        raise _refuse("InvalidInput", "Invalid request: the change batch has no changes")
    zone.rrsets = apply(zone, changes, response.backend.health_checks)
    delay = 0.0 if _world.seeding else _world.settings.insync_seconds
    change_id = "C" + "".join(secrets.choice(_ID) for _ in range(20))
    change = Change(change_id, response._get_param("ChangeBatch.Comment"), time.monotonic() + delay)
    _changes[change.id] = change
    _served.setdefault(zone.resource_id, []).append((change.insync, tuple(zone.rrsets)))
    return ActionResult({"ChangeInfo": change.describe()})


def get_change(response: Any) -> Any:
    from moto.core.responses import ActionResult

    change_id = response._get_param("Id").removeprefix("/change/")
    if change_id not in _changes:
        raise _refuse("NoSuchChange", f"Could not find resource with ID: {change_id}")
    return ActionResult({"ChangeInfo": _changes[change_id].describe()})


def apply(zone: Any, changes: list[dict], health_checks: dict[str, Any]) -> list[Any]:
    """The zone's record sets after all changes. Raises InvalidChangeBatch, with every reason, and changes nothing."""
    from moto.route53.models import RecordSet

    records, problems = list(zone.rrsets), []
    for change in changes:
        action, wanted = change["Action"], _normal(change["ResourceRecordSet"])
        _check_form(action, wanted)
        if (check := wanted.get("HealthCheckId")) and check not in health_checks and action != "DELETE":
            raise _refuse("NoSuchHealthCheck", f"No health check exists with the specified ID {check}")
        if not (wanted["Name"] == canonical(zone.name) or wanted["Name"].endswith("." + canonical(zone.name))):
            problems.append(f"RRSet with DNS name {wanted['Name']} is not permitted in zone {canonical(zone.name)}")
            continue
        at = next((n for n, each in enumerate(records) if _key(each) == _key(RecordSet(wanted))), None)
        tried = f"resource record set {_bracketed(wanted)}"
        if action == "CREATE" and at is not None:
            problems.append(f"Tried to create {tried} but it already exists")
        elif action == "DELETE" and at is None:
            problems.append(f"Tried to delete {tried} but it was not found")
        elif action == "DELETE" and _facts(records[at]) != _facts(RecordSet(wanted)):
            problems.append(f"Tried to delete {tried} but the values provided do not match the current values")
        elif action == "DELETE":
            del records[at]
        else:
            problems += _alias_problems(wanted)
            records[at if at is not None else len(records) :] = [
                RecordSet(wanted),
                *(records[at + 1 :] if at is not None else ()),
            ]
    problems += _pair_problems(records)
    if problems:
        raise _refuse("InvalidChangeBatch", f"[{', '.join(dict.fromkeys(problems))}]")
    return records


def _normal(record: dict) -> dict:
    """As AWS keeps it: names in lower case with the final dot, values as a list."""
    normal = {key: value for key, value in record.items() if value is not None}
    normal["Name"] = canonical(record["Name"])
    if "ResourceRecords" in normal:
        normal["ResourceRecords"] = [each["Value"] for each in normal["ResourceRecords"]]
    if "TTL" in normal:
        normal["TTL"] = int(normal["TTL"])
    if alias := normal.get("AliasTarget"):
        normal["AliasTarget"] = {
            "HostedZoneId": alias["HostedZoneId"],
            "DNSName": canonical(alias["DNSName"]),
            "EvaluateTargetHealth": is_true(alias["EvaluateTargetHealth"]),
        }
    return normal


def _key(record: Any) -> tuple:
    return record.name, record.type, record.set_identifier


def _facts(record: Any) -> dict:
    """All that a DELETE must repeat."""
    names = ("ttl", "weight", "region", "health_check_id", "failover", "alias_target", "multi_value_answer")
    return {name: str(getattr(record, name)) for name in names} | {"records": sorted(record.records or [])}


def _bracketed(record: dict) -> str:
    identifier = f", set identifier='{record['SetIdentifier']}'" if "SetIdentifier" in record else ""
    return f"[name='{record['Name']}', type='{record['Type']}'{identifier}]"


def _check_form(action: str, record: dict) -> None:
    where = (
        f"in Change with [Action={action}, Name={record['Name']}, Type={record['Type']}, "
        f"SetIdentifier={record.get('SetIdentifier', 'null')}]"
    )
    if action not in ("CREATE", "UPSERT", "DELETE"):
        raise _refuse("InvalidInput", f"Invalid request: unknown action {where}")
    plain = "TTL" in record and record.get("ResourceRecords")
    if bool(plain) == ("AliasTarget" in record):
        found = "more than one" if plain else "none"
        wanted = "[AliasTarget, all of [TTL, and ResourceRecords], or TrafficPolicyInstanceId]"
        raise _refuse("InvalidInput", f"Invalid request: Expected exactly one of {wanted}, but found {found} {where}")
    policies = [name for name in POLICIES if record.get(name) is not None]
    if "SetIdentifier" in record and len(policies) != 1:
        found = "more than one" if policies else "none"
        wanted = f"[{', '.join(POLICIES)}]"
        raise _refuse("InvalidInput", f"Invalid request: Expected exactly one of {wanted}, but found {found} {where}")
    if policies and "SetIdentifier" not in record:
        raise _refuse("InvalidInput", f"Invalid request: Missing field 'SetIdentifier' {where}")


def _alias_problems(record: dict) -> list[str]:
    alias = record.get("AliasTarget")
    balancer = elbv2.named(alias["DNSName"]) if alias else None
    if balancer is None or alias["HostedZoneId"] == elbv2.ZONES[balancer.region]:
        return []
    return [
        f"Tried to create an alias that targets {alias['DNSName']}, type {record['Type']} in zone "
        f"{alias['HostedZoneId']}, but the alias target name does not lie within the target zone"
    ]


def _pair_problems(records: list[Any]) -> list[str]:
    """What no batch may leave behind among the sets of one name and type."""
    problems = []
    for name, kind in dict.fromkeys((record.name, record.type) for record in records):
        same = [record for record in records if (record.name, record.type) == (name, kind)]
        policies = {_policy(record) for record in same}
        if len(policies) > 1:
            problems.append(
                f"RRSet with DNS name {name}, type {kind}, SetIdentifier {same[-1].set_identifier or 'null'} cannot be "
                "created as other RRSets exist with the same name and type."
            )
        for failover in ("PRIMARY", "SECONDARY"):
            double = [record for record in same if record.failover == failover]
            if len(double) > 1:
                problems.append(
                    f"RRSet with DNS name {name}, type {kind}, SetIdentifier {double[-1].set_identifier}, and failover "
                    f"{failover} cannot be created as another RRSet of the same name and type is {failover}"
                )
        if any(each.failover == "PRIMARY" and not each.alias_target and not each.health_check_id for each in same):
            problems.append("A non-alias primary ResourceRecordSet must have an associated health check.")
    return problems


def _policy(record: Any) -> str | None:
    values = (record.weight, record.region, record.failover, record.geo_location, record.multi_value_answer)
    return next((name for name, value in zip(POLICIES, values, strict=True) if value is not None), None)


def list_resource_record_sets(response: Any) -> Any:
    """Ordered by name with its labels reversed, then type, then set identifier; a start need not exist."""
    from moto.core.responses import ActionResult

    zone = response.backend.get_hosted_zone(response._get_param("HostedZoneId"))
    name, kind, identifier = (response._get_param(f"StartRecord{part}") for part in ("Name", "Type", "Identifier"))
    if (kind and not name) or (identifier and not kind):
        raise _refuse("InvalidInput", "The input is not valid")
    size = min(300, response._get_int_param("MaxItems", 300))

    def order(record_name: str, record_type: str, set_identifier: str) -> tuple:
        return canonical(record_name).split(".")[::-1], record_type, set_identifier

    records = sorted(zone.rrsets, key=lambda each: order(each.name, each.type, each.set_identifier or ""))
    if name:
        first = order(name, kind or "", identifier or "")
        records = [each for each in records if order(each.name, each.type, each.set_identifier or "") >= first]
    page, rest = records[:size], records[size:]
    result = {"ResourceRecordSets": page, "IsTruncated": bool(rest), "MaxItems": size}
    if rest:
        result |= {"NextRecordName": rest[0].name, "NextRecordType": rest[0].type}
        if rest[0].set_identifier:
            result["NextRecordIdentifier"] = rest[0].set_identifier
    return ActionResult(result)


# ---- health checks -------------------------------------------------------------------------------------------------

_failures: dict[str, int] = {}  # health check id -> failed probes in a row


def create_health_check(response: Any) -> Any:
    result = _moto["create_health_check"](response)
    config = response._get_param("HealthCheckConfig")
    result.result["HealthCheck"].routing_control_arn = config.get("RoutingControlArn")
    return result


def _health_check_config(check: Any) -> dict:
    config = _moto["health_check_config"].fget(check)
    if check.type_ == "RECOVERY_CONTROL":
        config = {key: config[key] for key in ("Type", "Inverted", "Disabled")}
        config["RoutingControlArn"] = check.routing_control_arn
    return config


def is_passing(check: Any) -> bool:
    """https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/health-checks-creating-values.html"""
    from . import arc

    if is_true(check.disabled):
        good = True
    elif check.type_ == "RECOVERY_CONTROL":
        good = arc.is_on(check.routing_control_arn)
    else:
        good = _failures.get(check.id, 0) < int(check.failure_threshold)
    return good != is_true(check.inverted)


def get_health_check_status(response: Any) -> Any:
    from moto.core.responses import ActionResult

    check = response.backend.get_health_check(response._get_param("HealthCheckId"))
    text = "Success: HTTP Status Code 200, OK" if is_passing(check) else "Failure: the endpoint did not answer well"
    report = {"Status": text, "CheckedTime": _now()}
    observation = {"Region": "us-east-1", "IPAddress": "127.0.0.1", "StatusReport": report}
    return ActionResult({"HealthCheckObservations": [observation]})


def _probe_health_checks() -> None:
    while True:
        with _world.lock:
            checks = list(_world.backend("route53", "aws").health_checks.values())
        for check in checks:
            if check.type_ == "HTTP":
                _failures[check.id] = 0 if _probe(check) else _failures.get(check.id, 0) + 1
        _world.pause(_world.settings.probe_seconds)


def _probe(check: Any) -> bool:
    host = check.ip_address or next(iter(addresses(check.fqdn or "")), None)
    if host is None:
        return False
    connection = http.client.HTTPConnection(host, int(check.port), timeout=2)
    try:
        connection.request("GET", check.resource_path or "/", headers={"Host": check.fqdn or host})
        return 200 <= connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# ---- name servers --------------------------------------------------------------------------------------------------


class _Around:
    """What the records depend on. Reads only what other threads replace whole: no lock in a query's way."""

    def balancer(self, dns_name: str) -> tuple[str, bool] | None:
        found = elbv2.named(dns_name)
        return (found.address, elbv2.is_healthy(found)) if found else None

    def is_passing(self, health_check_id: str) -> bool:
        check = _world.backend("route53", "aws").health_checks.get(health_check_id)
        return check is None or is_passing(check)


def _zone_of(name: str) -> tuple[Any, Zone] | None:
    """The hosted zone that holds a name, and its records that are in sync."""
    zones = _world.backend("route53", "aws").zones.values()
    matching = [each for each in list(zones) if name == each.name or name.endswith("." + each.name)]
    if not matching:
        return None
    hosted = max(matching, key=lambda each: len(each.name))
    now = time.monotonic()
    records = [kept for since, kept in _served.get(hosted.resource_id, []) if since <= now]
    return hosted, Zone(records[-1] if records else hosted.rrsets, _Around(), _world.settings.dns_ttl)


def lookup(name: str, kind: str) -> tuple[list[Answer], bool, Answer | None] | None:
    if balancer := elbv2.named(name):
        answers = [Answer(name, "A", _world.settings.dns_ttl, (balancer.address,))] if kind == "A" else []
        return answers, True, None
    found = _zone_of(name)
    if found is None:
        return None
    hosted, zone = found
    soa = zone.answer(hosted.name, "SOA")
    return zone.answer(name, kind), zone.has(name), soa[0] if soa else None


def addresses(name: str) -> list[str]:
    found = lookup(canonical(name), "A")
    return [value for each in (found[0] if found else []) if each.kind == "A" for value in each.values]


# ---- a part of the world -------------------------------------------------------------------------------------------


def install(world: World) -> None:
    from moto.route53.models import HealthCheck, Route53Backend
    from moto.route53.responses import Route53

    global _world
    _world = world
    for function in (
        change_resource_record_sets,
        get_change,
        list_resource_record_sets,
        create_health_check,
        get_health_check_status,
    ):
        _moto[function.__name__] = getattr(Route53, function.__name__)
        setattr(Route53, function.__name__, function)
    _moto["create_hosted_zone"] = Route53Backend.create_hosted_zone
    Route53Backend.create_hosted_zone = create_hosted_zone
    _moto["health_check_config"] = HealthCheck.health_check_config
    HealthCheck.health_check_config = property(_health_check_config)
    HealthCheck.routing_control_arn = None


def seed(world: World) -> None:
    _changes.clear()
    _served.clear()
    _failures.clear()
    client = world.client("route53", world.regions[0])
    zone = client.create_hosted_zone(Name=f"{ZONE}.", CallerReference="seed")["HostedZone"]["Id"]
    records = []
    for region, failover, weight in zip(world.regions, ("PRIMARY", "SECONDARY"), (100, 0), strict=True):
        facts = world.state["regions"][region]
        alias = alias_of(facts)
        identifier = failover.lower()
        records += [
            {"Name": f"api.{ZONE}", "Type": "A", "SetIdentifier": identifier, "Failover": failover, **alias},
            {"Name": f"weighted.{ZONE}", "Type": "A", "SetIdentifier": identifier, "Weight": weight, **alias},
        ]
    world.state |= {
        "hosted_zone_id": zone.removeprefix("/hostedzone/"),
        "dns": f"{HOST}:{dns_port()}",
        "public_name": f"api.{ZONE}",
        "public_url": f"http://api.{ZONE}:{elbv2.http_port()}",
    }
    create(world, records)


def alias_of(facts: dict, evaluate: bool = True) -> dict:
    return {
        "AliasTarget": {
            "HostedZoneId": facts["alb_zone_id"],
            "DNSName": facts["alb_dns_name"],
            "EvaluateTargetHealth": evaluate,
        }
    }


def create(world: World, records: list[dict]) -> None:
    world.client("route53", world.regions[0]).change_resource_record_sets(
        HostedZoneId=world.state["hosted_zone_id"],
        ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record} for record in records]},
    )


def dns_port() -> int:
    global _port
    _port = _port or free_port(HOST, keep=True)
    return _port


def start(world: World) -> None:
    global _server
    _server = NameServer(HOST, dns_port(), lookup)
    world.background(_probe_health_checks)


def stop(world: World) -> None:
    global _server
    if _server:
        _server.close()
        _server = None


def status(world: World) -> list[dict]:
    rows = []
    with world.lock:
        pairs = [
            (record.name, record.type)
            for zone in world.backend("route53", "aws").zones.values()
            for record in zone.rrsets
            if record.type not in ("NS", "SOA")
        ]
    for name, kind in dict.fromkeys(pairs):
        answers = lookup(name, kind)[0]
        values = ", ".join(value for each in answers for value in each.values)
        row = {"region": "", "kind": "record", "name": name.rstrip("."), "state": kind}
        rows.append(row | {"detail": f"{values}  TTL {answers[0].ttl if answers else '-'} s"})
    return rows

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load balancers: moto keeps their configuration, proxy.py carries the requests and checks the targets.

Every balancer has a loopback address of its own, 127.0.1.x in the first region and 127.0.2.x in the second. A listener
on port 80 is served at the world's `http_port`, which needs no root, one on another port at `ports[that port]` of the
state; an HTTPS listener whose certificate is not in ACM speaks plain HTTP there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import connection_tracking, elbv2_api, listener_certificates, zones
from .addresses import free_port
from .cloudwatch import publish
from .faults import Fault
from .listeners import Listener, rule_of
from .proxy import NOT_IN_USE, REGISTERING, Balancer, Group, Proxy, Target

if TYPE_CHECKING:
    from .world import World

# The zones in which AWS keeps the names of Application Load Balancers.
# https://docs.aws.amazon.com/general/latest/gr/elb.html
ZONES = {"us-east-1": "Z35SXDOTRQ7X7K", "us-west-2": "Z1H1FL5HABSF5"}
APP_PORT = 8000

balancers: dict[str, Balancer] = {}  # by ARN
groups: dict[str, Group] = {}  # by ARN

# Where a target is that is no address itself: instance id -> address.
hosts: dict[str, str] = {}
# In which zone a target is: registered id -> zone.
zones_of: dict[str, str] = {}
# Shift the traffic of balancers: function(ARN of a balancer, region), which tells the zone that it is shifted away from, "" for
# none. Called with the lock held.
shifters: list[Callable[[str, str], str]] = []

_world: World
_proxy: Proxy | None = None
_ports: dict[int, int] = {}  # port of a listener -> where it is served, for the process's life
_moto: dict[str, Any] = {}


# ---- what other parts ask ------------------------------------------------------------------------------------------


def named(dns_name: str) -> Balancer | None:
    """The balancer behind a DNS name, with or without the prefix `dualstack.`."""
    name = dns_name.rstrip(".").lower().removeprefix("dualstack.")
    return next((balancer for balancer in balancers.values() if balancer.dns_name.lower() == name), None)


def is_healthy(balancer: Balancer) -> bool:
    """As Route 53 evaluates it: each target group has a healthy target; one without targets has none.

    https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/resource-record-sets-values-alias-common.html
    """
    return bool(balancer.groups) and all(group.healthy() for group in balancer.groups)


def register(region: str, group_arn: str, address: str, port: int) -> None:
    """Hold the world's lock."""
    _world.backend("elbv2", region).register_targets(group_arn, [{"Id": address, "Port": port}])
    refresh()


def deregister(region: str, group_arn: str, address: str) -> None:
    """Hold the world's lock."""
    if address in _world.backend("elbv2", region).target_groups[group_arn].targets:
        _world.backend("elbv2", region).deregister_targets(group_arn, [{"Id": address}])
        refresh()


def target(group_arn: str, address: str) -> Target | None:
    """The newest target at an address, registered or draining; None once it has drained."""
    group = groups.get(group_arn)
    found = reversed(group.targets) if group else ()
    return next((each for each in found if each.address == address and not each.drained), None)


# ---- moto's configuration to the proxy's ---------------------------------------------------------------------------


def refresh() -> None:
    """Follow moto's state. Hold the world's lock."""
    seen: set[str] = set()
    for region in _world.regions:
        backend = _world.backend("elbv2", region)
        for arn, configured in backend.target_groups.items():
            seen.add(arn)
            _refresh_group(groups.setdefault(arn, Group(arn, region)), configured)
        for arn, configured in backend.load_balancers.items():
            seen.add(arn)
            if arn not in balancers:
                balancers[arn] = _balancer(region, arn, configured)
            _refresh_balancer(balancers[arn], configured)
    for known in (groups, balancers):
        for arn in known.keys() - seen:
            del known[arn]
    for region in _world.regions:
        backend = _world.backend("elbv2", region)
        for arn, configured in backend.target_groups.items():
            configured.load_balancer_arns = sorted(elbv2_api.users_of(backend, arn))
            users = configured.load_balancer_arns
            groups[arn].use(bool(users))
            groups[arn].source = balancers[users[0]].address if users else None
    if _proxy:
        _serve(_proxy)


def _members(group_id: str) -> list[str]:
    """Addresses of the balancers in a security group."""
    backends = [_world.backend("elbv2", region) for region in _world.regions]
    found = [arn for each in backends for arn, made in each.load_balancers.items() if group_id in made.security_groups]
    return [balancers[arn].address for arn in found if arn in balancers]


def _balancer(region: str, arn: str, configured: Any) -> Balancer:
    network = _world.regions.index(region) + 1
    taken = {each.address for each in balancers.values()}
    free = (address for number in range(10, 20) if (address := f"127.0.{network}.{number}") not in taken)
    address = next(free, None)
    if address is None:
        raise ValueError(f"the sandbox has no address left for another load balancer in {region}")
    return Balancer(arn, configured.name, region, configured.dns_name, address)


def _refresh_balancer(balancer: Balancer, configured: Any) -> None:
    balancer.zones = tuple(sorted({subnet.availability_zone for subnet in configured.subnets}))
    balancer.idle_timeout = float(configured.attrs.get("idle_timeout.timeout_seconds", 60))
    listeners = {}
    for each in configured.listeners.values():
        port = int(each.port)
        listener = listeners[port] = balancer.listeners.get(port) or Listener(port)
        listener.protocol = each.protocol
        listener.tls = listener_certificates.context(_world, balancer.region, balancer.arn, each)
        listener.rules = tuple(
            rule_of(rule.conditions, [action.data for action in rule.actions], groups.__getitem__, balancer.region)
            for rule in sorted(each.rules.values(), key=elbv2_api.order_of)
        )
    balancer.listeners = listeners


def _serve(proxy: Proxy) -> None:
    """Open what is new and close what is gone."""
    wanted = {(arn, port) for arn, balancer in balancers.items() for port in balancer.listeners}
    serving = set(proxy.serving)
    for arn, port in serving - wanted:
        proxy.end(arn, port)
    for arn, port in sorted(wanted - serving):
        proxy.serve(balancers[arn], balancers[arn].listeners[port], served_at(port))


def _refresh_group(group: Group, configured: Any) -> None:
    group.path = configured.health_check_path or "/"
    group.timeout = float(configured.health_check_timeout_seconds)
    group.healthy_threshold = int(configured.healthy_threshold_count)
    group.unhealthy_threshold = int(configured.unhealthy_threshold_count)
    group.codes = _codes(configured.matcher["HttpCode"])
    wanted = {(each["Id"], int(each["Port"])) for each in configured.targets.values()}
    delay = float(configured.attributes.get("deregistration_delay.timeout_seconds", 300))
    now, kept = time.monotonic(), []
    for each in group.targets:
        registered = (each.address, each.port) in wanted
        if each.drain_until is None and not registered:
            each.drain_until = now + delay
            each.become("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")
        if not each.drained:
            kept.append(each)
    known = {(each.address, each.port) for each in kept if each.drain_until is None}
    fresh = [
        Target(
            address,
            port,
            *(REGISTERING if group.in_use else NOT_IN_USE),
            host=hosts.get(address, ""),
            zone=zones_of.get(address, ""),
        )
        for address, port in sorted(wanted - known)
    ]
    group.targets = kept + fresh
    if _proxy:
        for each in fresh:
            _proxy.watch(group, each)


def _codes(matcher: str) -> tuple[range, ...]:
    """ "200,301-399" as ranges."""
    bounds = [part.partition("-") for part in matcher.split(",")]
    return tuple(range(int(low), int(high or low) + 1) for low, _, high in bounds)


# ---- what moto answers ---------------------------------------------------------------------------------------------


def create_load_balancer(backend: Any, *args: Any, **kwargs: Any) -> Any:
    created = _moto["create_load_balancer"](backend, *args, **kwargs)
    created.canonical_hosted_zone_id = ZONES[backend.region_name]
    return created


def describe_target_health(backend: Any, target_group_arn: str, targets: list[dict]) -> list[dict]:
    if target_group_arn not in backend.target_groups:
        return _moto["describe_target_health"](backend, target_group_arn, targets)
    refresh()
    known = groups[target_group_arn].targets
    if not targets:
        away = _shifted_groups(backend).get(target_group_arn, "")
        return [_health(each, away) for each in known if not each.drained]
    answers = []
    for asked in targets:
        found = [
            each
            for each in known
            if each.address == asked["Id"] and int(asked.get("Port", each.port)) == each.port and not each.drained
        ]
        unknown = Target(asked["Id"], int(asked.get("Port", APP_PORT)))
        unknown.become("unused", "Target.NotRegistered", "Target is not registered to the target group")
        answers.append(_health(found[-1] if found else unknown))
    return answers


def shifted(balancer: Balancer) -> str:
    return next(filter(None, (away_from(balancer.arn, balancer.region) for away_from in shifters)), "")


def _shifted_groups(backend: Any) -> dict[str, str]:
    """{ARN of a target group: the zone that its balancer is shifted away from}."""
    return {
        group.arn: zone
        for balancer in balancers.values()
        if balancer.region == backend.region_name and (zone := shifted(balancer))
        for group in balancer.groups
    }


def _health(each: Target, away: str = "") -> dict:
    """https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_AdministrativeOverride.html"""
    health = {"State": each.state}
    if each.reason:
        health |= {"Reason": each.reason, "Description": each.description}
    described = {
        "Target": {"Id": each.address, "Port": each.port},
        "HealthCheckPort": str(each.port),
        "TargetHealth": health,
    }
    if away and each.zone == away:
        override = {"State": "zonal_shift_active", "Reason": "AdministrativeOverride.ZonalShiftActive"}
        described["AdministrativeOverride"] = override | {"Description": "Zonal shift is active for the target"}
    return described


# ---- a part of the world -------------------------------------------------------------------------------------------


def install(world: World) -> None:
    from moto.elbv2.models import ELBv2Backend

    global _world
    _world = world
    elbv2_api.install()
    for function in (create_load_balancer, describe_target_health):
        _moto[function.__name__] = getattr(ELBv2Backend, function.__name__)
        setattr(ELBv2Backend, function.__name__, function)
    world.after_change.append(lambda call: refresh() if call.service in ("acm", "elbv2") else None)
    connection_tracking.members.append(_members)


def http_port() -> int:
    """Where listeners on port 80 are served."""
    return served_at(80)


def served_at(port: int) -> int:
    """One port that is free on the addresses of both regions' first balancers; the same for the process's life."""
    if port not in _ports:
        _ports[port] = free_port("127.0.1.10", "127.0.2.10", keep=True)
    if _world.state.setdefault("ports", {}).get(str(port)) != _ports[port]:
        _world.state["ports"][str(port)] = _ports[port]
        if _world.ready.is_set():
            _world.save_state()
    return _ports[port]


def seed(world: World) -> None:
    balancers.clear()
    groups.clear()
    hosts.clear()
    zones_of.clear()
    listener_certificates.forget()
    world.state["http_port"] = http_port()
    for region, suffix in zip(world.regions, ("", "-secondary"), strict=True):
        _seed_region(world, region, suffix)


def _seed_region(world: World, region: str, suffix: str) -> None:
    client = world.client("elbv2", region)
    with world.lock:
        ec2 = world.backend("ec2", region)
        vpc, subnets = ec2.default_vpc.id, [subnet.id for subnet in ec2.get_default_subnets().values()][:2]
    tags = [{"Key": "service", "Value": "regami"}]
    security = [world.state["regions"][region]["balancer_security_group"]]
    balancer = client.create_load_balancer(
        Name=f"regami-alb{suffix}", Subnets=subnets, SecurityGroups=security, Tags=tags
    )["LoadBalancers"][0]
    client.modify_load_balancer_attributes(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Attributes=[{"Key": "idle_timeout.timeout_seconds", "Value": "10"}],
    )
    group = make_target_group(client, vpc, f"regami-tg{suffix}", drain_seconds=10, tags=tags)
    listener = client.create_listener(
        LoadBalancerArn=balancer["LoadBalancerArn"],
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
    )["Listeners"][0]
    served = named(balancer["DNSName"])
    world.state["regions"][region] |= {
        "load_balancer_arn": balancer["LoadBalancerArn"],
        "listener_arn": listener["ListenerArn"],
        "target_group_arn": group,
        "alb_dns_name": balancer["DNSName"],
        "alb_zone_id": balancer["CanonicalHostedZoneId"],
        "alb_url": f"http://{served.address}:{http_port()}",
    }


def start(world: World) -> None:
    global _proxy
    settings = world.settings
    _proxy = Proxy(
        lambda region: region in world.cut_regions, settings.probe_seconds, settings.hold_seconds, zones.seconds_down
    )
    _serve(_proxy)
    for group in groups.values():
        for each in group.targets:
            _proxy.watch(group, each)
    world.background(_publish)
    world.background(_shift)


def stop(world: World) -> None:
    global _proxy
    if _proxy:
        _proxy.close()
        _proxy = None


def _shift() -> None:
    """Follow the zonal shifts, which end by themselves."""
    while True:
        with _world.lock:
            for balancer in balancers.values():
                balancer.shifted = shifted(balancer)
        _world.pause(0.2)


def make_target_group(
    client: Any,
    vpc: str,
    name: str,
    drain_seconds: int,
    port: int = APP_PORT,
    kind: str = "ip",
    path: str = "/health",
    codes: str = "200",
    tags: Sequence[dict] = (),
) -> str:
    """The ARN of a new target group that is asked for its health often, so that nobody waits long for it."""
    arn = client.create_target_group(
        Name=name,
        Protocol="HTTP",
        Port=port,
        VpcId=vpc,
        TargetType=kind,
        HealthCheckPath=path,
        HealthCheckIntervalSeconds=5,
        HealthCheckTimeoutSeconds=2,
        HealthyThresholdCount=2,
        UnhealthyThresholdCount=2,
        Matcher={"HttpCode": codes},
        **({"Tags": list(tags)} if tags else {}),
    )["TargetGroups"][0]["TargetGroupArn"]
    delay = {"Key": "deregistration_delay.timeout_seconds", "Value": str(drain_seconds)}
    client.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[delay])
    return arn


def _publish() -> None:
    """Counts to CloudWatch; as AWS does, nothing where nothing happened, and each request in the minute in which it was answered."""
    while True:
        minute_ends = (time.time() // 60 + 1) * 60
        _world.pause(min(_world.settings.metric_seconds, minute_ends - time.time()))
        at = min(time.time(), minute_ends - 0.001)
        for balancer in list(balancers.values()):
            if balancer.region in _world.cut_regions:
                continue
            name = balancer.arn.partition(":loadbalancer/")[2]
            totals, times = balancer.counts.copy(), []
            balancer.counts.clear()
            for group in balancer.groups:
                values, durations = dict(group.counts), list(group.response_times)
                group.counts.clear()
                group.response_times.clear()
                dimensions = {"LoadBalancer": name, "TargetGroup": group.arn.rpartition(":")[2]}
                states = [each.state for each in group.targets]
                values |= {"HealthyHostCount": states.count("healthy"), "UnHealthyHostCount": states.count("unhealthy")}
                if durations:
                    values["TargetResponseTime"] = durations
                publish(_world, balancer.region, "AWS/ApplicationELB", dimensions, values, at)
                for zone in balancer.zones:
                    states = [each.state for each in group.targets if each.zone == zone]
                    hosts_there = {
                        "HealthyHostCount": states.count("healthy"),
                        "UnHealthyHostCount": states.count("unhealthy"),
                    }
                    there = {"AvailabilityZone": zone, **dimensions}
                    publish(_world, balancer.region, "AWS/ApplicationELB", there, hosts_there, at)
                totals.update({key: value for key, value in values.items() if key.startswith("HTTPCode_Target")})
                times += durations
            if times:
                totals["TargetResponseTime"] = times
            if totals:
                publish(_world, balancer.region, "AWS/ApplicationELB", {"LoadBalancer": name}, dict(totals), at)


def status(world: World) -> list[dict]:
    rows = []
    for balancer in balancers.values():
        states = [each.state for group in balancer.groups for each in group.targets if not each.drained]
        rows.append(
            {
                "region": balancer.region,
                "kind": "load balancer",
                "name": balancer.name,
                "state": "healthy" if is_healthy(balancer) else "unhealthy",
                "detail": f"{balancer.address}:{http_port()}  targets {', '.join(states) or 'none'}",
            }
        )
    return rows


def _sicken(world: World, region: str | None = None) -> None:
    region = region or world.regions[1]
    if region not in world.regions:
        raise ValueError(f"unknown region {region!r}: one of {', '.join(world.regions)}")
    for group in groups.values():
        if group.region == region:
            group.sick = True


def _cure(world: World) -> None:
    for group in groups.values():
        group.sick = False


faults = {
    "standby-unhealthy": Fault(
        "targets of the standby region (or of --region) pass no health check", _sicken, _cure, options=("region",)
    ),
}

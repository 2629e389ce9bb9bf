# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths as a person asks about them: every way between the subnets of both ends, the packets refused there, who changed it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from urllib.parse import urlsplit

from . import changes, flow_logs, network_view, web
from .aws import reason, tried_together
from .dependencies import PORTS, POSTGRESQL, S3, URL
from .log_search import FILTER_SECONDS, Turns
from .metrics import clock
from .network_path import Network, Traffic, is_open, judge_path

# So many commands, pairs of addresses and changes of a path are told in words; the result has them all.
SHOWN = 3


@dataclass(frozen=True)
class Observed:
    """What judging takes: `places` holds an exception where an end was not found."""

    paths: list
    places: dict
    network: Network
    rejects: list
    changes: list
    blind: list


def to_dependencies(wanted, region):
    """The paths from `dependencies_of` to each dependency that has a place in the network."""
    source = wanted["dependencies_of"]
    return [
        {"source": source, "destination": destination, "port": port, "protocol": "tcp"}
        for each in (wanted["dependencies"] if source else [])
        for destination, port in [_place(each, region)]
    ]


def _place(each, region):
    """(what `network_ends.find` takes, port) of a dependency; a port of None is the destination's own."""
    if each["kind"] == URL:
        url = urlsplit(each["url"])
        return url.hostname, web.port_of(url)
    if each["kind"] == S3:
        return f"s3.{each['region'] or region}.amazonaws.com", 443
    if each["kind"] == POSTGRESQL and each["db_instance"]:
        return each["db_instance"], each["port"]
    return each["host"], each["port"] or PORTS[each["kind"]]


def look(aws, paths, places, since, until):
    """Observed: all that lies between the places that were found."""
    ends = [end for place in places.values() if not isinstance(place, Exception) for end in place.ends]
    network, blind = network_view.look(aws, ends)
    resources = {each for end in ends for each in (end.vpc, end.subnet) if each}
    turns, found = Turns(FILTER_SECONDS), {}
    if resources:
        names = sorted(passed(network, ends))
        found = tried_together(
            {
                "flow logs": lambda: _rejects(aws, resources, since, until, turns),
                "CloudTrail": lambda: changes.of_trail(aws, names, since, until),
            }
        )
    blind += [f"{name}: {reason(each)}" for name, each in found.items() if isinstance(each, Exception)]
    rejects, lines = _or(found.get("flow logs"), ([], []))
    trail, _others, all_read = _or(found.get("CloudTrail"), ([], 0, True))
    blind += lines + (
        [] if all_read else ["CloudTrail: it has more, older writes than were read: narrow within_minutes"]
    )
    return Observed(paths, places, network, rejects, trail, blind)


def _or(found, other):
    return other if found is None or isinstance(found, Exception) else found


def passed(network, ends):
    """The ids of all groups, network ACLs and route tables that the ends have to do with."""
    subnets = {end.subnet for end in ends if end.subnet}
    return (
        {group for end in ends for group in end.groups or ()}
        | {acl["NetworkAclId"] for subnet, acl in (network.acls or {}).items() if subnet in subnets}
        | {table["RouteTableId"] for subnet, table in (network.tables or {}).items() if subnet in subnets}
    )


def _rejects(aws, resources, since, until, turns):
    """([Reject], lines on what could not be read) of all flow logs of these VPCs and subnets."""
    logs, lines = flow_logs.of(aws, resources)
    by_group = {each["LogGroupName"]: each for each in logs}
    found = tried_together(
        {name: lambda each=each: flow_logs.rejected(aws, each, since, until, turns) for name, each in by_group.items()}
    )
    rejects = []
    for name, answer in found.items():
        if isinstance(answer, Exception):
            lines.append(f"the flow log in {name}: {reason(answer)}")
            continue
        some, all_read = answer
        rejects += some
        lines += (
            []
            if all_read
            else [f"the flow log in {name} has more refused packets than were read: narrow within_minutes"]
        )
    return rejects, lines


def judge(observed):
    """Pure: ([path as RETURN of network_assess describes it], blind)."""
    judged, blind = [], list(observed.blind)
    for name, place in observed.places.items():
        if isinstance(place, Exception):
            blind.append(f"{name}: {reason(place)}")
    for path in observed.paths:
        source, destination = observed.places[path["source"]], observed.places[path["destination"]]
        if isinstance(source, Exception) or isinstance(destination, Exception):
            continue
        ports = (path["port"],) if path["port"] else destination.ports
        if not ports:
            blind.append(f"the path from {source.name} to {destination.name}: give its port")
        judged += [_judged(path, source, destination, Traffic(port, path["protocol"]), observed) for port in ports]
    order = {False: 0, None: 1, True: 2}
    # A dependency may be one of the paths too.
    named = {each["name"]: each for each in judged}
    return sorted(named.values(), key=lambda each: order[each["open"]]), list(dict.fromkeys(blind))


def _judged(path, source, destination, traffic, observed):
    ways = [
        judge_path(one, other, traffic, observed.network)
        for one, other in itertools.product(_alike(source.ends), _alike(destination.ends))
    ]
    closed = [hop for hops in ways for hop in hops if hop.open is False]
    states = [is_open(hops) for hops in ways]
    state = False if False in states else None if None in states else True
    ids = passed(observed.network, source.ends + destination.ends)
    rejects = flow_logs.between(observed.rejects, source.ends, destination.ends, traffic.port)
    return {
        "name": f"{source.name} to {destination.name} ({traffic})",
        "source": path["source"],
        "destination": path["destination"],
        "port": traffic.port,
        "open": state,
        "closed_at": list(dict.fromkeys(f"{hop.at}: {hop.why}" for hop in closed)),
        "fix": list(dict.fromkeys(hop.fix for hop in closed if hop.fix)),
        "ways": {"all": len(ways), "not_closed": len(ways) - states.count(False)},
        "hops": [
            vars(hop) for hop in max((hops for hops, each in zip(ways, states, strict=True) if each is state), key=len)
        ],
        "rejects": flow_logs.counted(rejects),
        "changes": [vars(each) for each in observed.changes if any(each_id in each.what for each_id in ids)],
    }


def _alike(ends):
    """One of those that nothing tells apart."""
    return list({(end.subnet, end.groups, end.is_public, end.subnet or end.address): end for end in ends}.values())


def words(judged):
    """Pure: the verdicts as lines for people."""
    for each in judged:
        ways = each["ways"]
        if each["open"] is False:
            part = f" for {ways['all'] - ways['not_closed']} of {ways['all']} ways" if ways["not_closed"] else ""
            yield f"{each['name']} is CLOSED{part} at {each['closed_at'][0]}"
            yield from (f"  and at {line}" for line in each["closed_at"][1:SHOWN])
            yield from (f"  would open it, nothing was run: {command}" for command in each["fix"][:SHOWN])
        elif each["open"] is None:
            unseen = next((hop for hop in each["hops"] if hop["open"] is None), None)
            yield f"{each['name']} is open as far as can be seen; not seen: {unseen['at']}: {unseen['why']}"
        else:
            yield f"{each['name']} is open: {len(each['hops'])} rules and routes looked at, there and back"
        for reject in each["rejects"][:SHOWN]:
            port = "" if reject["port"] is None else f" port {reject['port']}"
            yield (
                f"  {reject['packets']} packets refused from {reject['source']} to {reject['destination']}{port}, "
                f"last at {clock(reject['last'])} UTC"
            )
        for change in each["changes"][-SHOWN:]:
            yield f"  {clock(change['at'])} UTC {change['what']} by {change['who'] or 'somebody'}"

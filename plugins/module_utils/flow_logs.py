# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What flow logs of a VPC have of packets that were refused (ec2-asg runbook, "For Network Issue").

https://docs.aws.amazon.com/vpc/latest/userguide/flow-log-records.html
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from .log_search import pages

# The default format, version 2; others say theirs in LogFormat.
DEFAULT = (
    "${version} ${account-id} ${interface-id} ${srcaddr} ${dstaddr} ${srcport} ${dstport} ${protocol} ${packets} ${bytes} "
    "${start} ${end} ${action} ${log-status}"
)
NEEDED = ("srcaddr", "dstaddr", "action")
TO_CLOUDWATCH = "cloud-watch-logs"


@dataclass(frozen=True)
class Reject:
    """Packets that a security group or a network ACL refused; `at` in seconds of the epoch, `port` is of the destination."""

    at: float
    interface: str
    source: str
    destination: str
    port: int | None
    packets: int


def of(aws, resources):
    """(flow logs in CloudWatch Logs of any of these VPCs, subnets and interfaces, lines on those that are of no use here)."""
    found = aws.read("ec2", "describe_flow_logs", Filters=[{"Name": "resource-id", "Values": sorted(resources)}])[
        "FlowLogs"
    ]
    useful, lines = [], []
    for each in found:
        group, destination = each.get("LogGroupName"), each.get("LogDestinationType", TO_CLOUDWATCH)
        if destination != TO_CLOUDWATCH or not group:
            lines.append(f"the flow log {each['FlowLogId']} goes to {destination}, which is not read here")
        elif each.get("TrafficType") == "ACCEPT":
            lines.append(f"the flow log {each['FlowLogId']} has no refused packets, only accepted ones")
        elif missing := [name for name in NEEDED if name not in fields(each.get("LogFormat") or DEFAULT)]:
            lines.append(f"the format of the flow log {each['FlowLogId']} lacks {', '.join(missing)}")
        else:
            useful.append(each)
            if each.get("DeliverLogsStatus") == "FAILED":
                why = each.get("DeliverLogsErrorMessage", "no reason given")
                lines.append(f"the flow log {each['FlowLogId']} cannot deliver to {group}: {why}")
    if not found:
        lines.append(f"flow logs: there is none of {' or '.join(sorted(resources))}")
    return useful, lines


def fields(log_format):
    """The names of a format, in order."""
    return re.findall(r"\$\{([\w-]+)\}", log_format)


def rejected(aws, flow_log, since, until, turns):
    """The refused packets of a flow log, oldest first, and whether all that there are were read.

    By the one word that each such line has in any format; a pattern by field would have to be written for each.

    Raises:
        Stop: there is no such log group.
    """
    group = {"name": flow_log["LogGroupName"], "region": aws.region}
    events, all_read = pages(aws, group, '"REJECT"', since, until, turns)
    names = fields(flow_log.get("LogFormat") or DEFAULT)
    return [each for event in events if (each := parsed(names, event.message, event.at / 1000))], all_read


def parsed(names, line, at):
    """The Reject that a line tells, None where it tells something else."""
    values = line.split()
    if len(values) != len(names):
        return None
    told = dict(zip(names, values, strict=True))
    if told.get("action") != "REJECT":
        return None
    return Reject(
        float(told["start"]) if told.get("start", "-").isdigit() else at,
        told.get("interface-id", ""),
        told["srcaddr"],
        told["dstaddr"],
        int(told["dstport"]) if told.get("dstport", "-").isdigit() else None,
        int(told["packets"]) if told.get("packets", "-").isdigit() else 1,
    )


def between(rejects, sources, destinations, port):
    """Those of a pair: packets on their way there, and answers on their way back, which name it the other way round."""
    return [
        each
        for each in rejects
        if (_is_any(each.source, sources) and _is_any(each.destination, destinations) and each.port in (port, None))
        or (_is_any(each.source, destinations) and _is_any(each.destination, sources) and each.port != port)
    ]


def _is_any(address, ends):
    """Whether an address is one of an end: one that it has, or where nobody knows those any of its subnet."""
    try:
        place = ipaddress.ip_address(address)
    except ValueError:  # "-", a record without data
        return False
    return any(address in end.addresses if end.addresses else place in end.network for end in ends)


def counted(rejects):
    """[{source, destination, port, packets, last}], the most packets first; `last` in seconds of the epoch."""
    found = {}
    for each in rejects:
        key = (each.source, each.destination, each.port)
        packets, last = found.get(key, (0, 0.0))
        found[key] = (packets + each.packets, max(last, each.at))
    return [
        {"source": source, "destination": destination, "port": port, "packets": packets, "last": last}
        for (source, destination, port), (packets, last) in sorted(found.items(), key=lambda item: -item[1][0])
    ]

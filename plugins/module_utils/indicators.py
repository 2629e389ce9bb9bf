# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Signs of somebody who should not be there, summed up for each source (alchemorsel 2, "Check for indicators of compromise").

Pure functions of lines of logs, of events of CloudTrail and of records of flow logs.
"""

from __future__ import annotations

import ipaddress
import re

from .flow_logs import fields
from .masking import snippet
from .trail import action, who

# What is searched for in logs of applications, ingress controllers and load balancers.
TERMS = (" 401 ", " 403 ", " 404 ", "authentication failed", "Failed password", "invalid password")
_STATUS = re.compile(r"(?<![\d.:])(401|403|404)(?![\d.:])")
_ADDRESS = re.compile(r"(?<![\w.:])((?:\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{0,4}){3,7})(?![\w.])")
SIGN_IN = "sign-in"
# New ways in, and what makes an account blind: from the phases "persistence" and "defense evasion" of an attack.
# https://docs.aws.amazon.com/guardduty/latest/ug/guardduty_finding-types-iam.html
NEW_WAYS = re.compile(
    r"iam:(Create(User|Role|AccessKey|LoginProfile|SAMLProvider|OpenIDConnectProvider|PolicyVersion)|UpdateAssumeRolePolicy"
    r"|UpdateLoginProfile|(Put|Attach)(User|Role|Group)Policy|AddUserToGroup|DeactivateMFADevice)"
)
BLINDING = re.compile(
    r"cloudtrail:(StopLogging|DeleteTrail|UpdateTrail|PutEventSelectors)|ec2:DeleteFlowLogs|guardduty:(Delete|Disassociate|Stop)\w*"
    r"|logs:(DeleteLogGroup|DeleteLogStream|PutRetentionPolicy)|config:(StopConfigurationRecorder|Delete\w+)"
)
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "Client.UnauthorizedOperation")


def refused(events, burst):
    """[{source, counts, total, most_a_minute, burst, first, last, sample}] of the refused requests, the most first.

    Args:
        events: log_patterns.Event; burst: so many in one minute are a burst.
    """
    found = {}
    for event in events:
        status = _STATUS.search(event.message)
        kind = status[1] if status else SIGN_IN
        found.setdefault(source_of(event.message), []).append((event.at, kind, event.message))
    told = []
    for source, lines in found.items():
        minutes = [at // 60_000 for at, _kind, _message in lines]
        most = max(minutes.count(minute) for minute in set(minutes))
        told.append(
            {
                "source": source,
                "counts": {
                    kind: sum(each == kind for _at, each, _m in lines) for kind in sorted({k for _a, k, _m in lines})
                },
                "total": len(lines),
                "most_a_minute": most,
                "burst": most >= burst,
                "first": min(lines)[0] / 1000,
                "last": max(lines)[0] / 1000,
                "sample": snippet(lines[-1][2]),
            }
        )
    return sorted(told, key=lambda each: (-each["total"], each["source"]))


def source_of(line):
    """The first address in a line; behind a load balancer that is the client's, as it is first in X-Forwarded-For."""
    for text in _ADDRESS.findall(line):
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            continue
    return "unknown"


def callers(events):
    """[{who, addresses, denied, failed_sign_ins, new_ways, blinding}] of those in CloudTrail who did anything of it, the worst first."""
    found = {}
    for event in events:
        entry = found.setdefault(
            who(event),
            {"who": who(event), "addresses": set(), "denied": 0, "failed_sign_ins": 0, "new_ways": [], "blinding": []},
        )
        entry["addresses"] |= {event["sourceIPAddress"]} if event.get("sourceIPAddress") else set()
        error, name = event.get("errorCode", ""), action(event)
        if error in DENIED:
            entry["denied"] += 1
        elif _failed_sign_in(event):
            entry["failed_sign_ins"] += 1
        elif not error and NEW_WAYS.fullmatch(name):
            entry["new_ways"].append(_told(event))
        elif not error and BLINDING.fullmatch(name):
            entry["blinding"].append(_told(event))
    odd = [
        dict(each, addresses=sorted(each["addresses"]))
        for each in found.values()
        if each["denied"] or each["failed_sign_ins"] or each["new_ways"] or each["blinding"]
    ]
    return sorted(
        odd,
        key=lambda each: (
            -len(each["blinding"]),
            -len(each["new_ways"]),
            -each["denied"] - each["failed_sign_ins"],
            each["who"],
        ),
    )


def _failed_sign_in(event):
    """https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-aws-console-sign-in-events.html"""
    answer = event.get("responseElements") or {}
    return event["eventName"] == "ConsoleLogin" and "Failure" in str(answer.get("ConsoleLogin", ""))


def _told(event):
    asked = event.get("requestParameters") or {}
    named = [
        str(asked[key])
        for key in sorted(asked)
        if key.lower() in ("username", "rolename", "groupname", "name", "policyarn")
    ]
    return f"{event['eventTime']} {action(event)}{' ' + ' '.join(named) if named else ''}"


def egress(lines, log_format, known=()):
    """[{source, destination, port, bytes}] of accepted packets from private addresses to public ones, the most bytes first.

    Args:
        lines: of a flow log in `log_format`; known: networks that are no news, as CIDRs.
    """
    names, expected, found = fields(log_format), [ipaddress.ip_network(each) for each in known], {}
    for line in lines:
        values = line.split()
        if len(values) != len(names):
            continue
        told = dict(zip(names, values, strict=True))
        try:
            source, target = ipaddress.ip_address(told["srcaddr"]), ipaddress.ip_address(told["dstaddr"])
        except ValueError:  # "-", a record without data
            continue
        if told["action"] != "ACCEPT" or not source.is_private or target.is_private:
            continue
        # The answer to a request from outside goes to a port of the client's choice, and is no news.
        port = int(told.get("dstport", 0)) if told.get("dstport", "-").isdigit() else 0
        if port >= 32768 or any(target in network for network in expected if network.version == target.version):
            continue
        key = (str(source), str(target), port)
        found[key] = found.get(key, 0) + (int(told["bytes"]) if told.get("bytes", "-").isdigit() else 0)
    return [
        {"source": source, "destination": target, "port": port, "bytes": count}
        for (source, target, port), count in sorted(found.items(), key=lambda item: (-item[1], item[0]))
    ]

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What others send, as the rulebook reads it: one shape for the alerts of Alertmanager, PagerDuty and CloudWatch, and for decisions."""

from __future__ import annotations

DOCUMENTATION = r"""
short_description: Reads alerts of Alertmanager, PagerDuty and CloudWatch, and decisions of people
description:
  - Makes one event of each alert in what a webhook or a queue received, with C(alert) as C(source), C(id), C(name), C(kind), C(state)
    (C(firing) or C(resolved)), C(env), C(host), C(title), C(since) (UTC) and C(url). Alertmanager sends several at once; what is no
    alert, such as a note in PagerDuty, makes no event.
  - An alert may say what its name does not tell, as a label or annotation of Alertmanager, or as C(name=value) in the title
    or the description of the others. C(runbook_kind) says what is the matter, C(runbook_env) in which environment, and
    C(runbook_host) for which host of the inventory.
  - With O(what=decisions) it reads C(proposal), C(by) and C(deny) instead. So whoever may send alerts cannot approve what they
    lead to, as long as both come in through sources with tokens of their own.
  - Nothing in the events can be taken for a template by Ansible, to which they are given as variables.
options:
  what:
    description: Whether alerts or decisions come from the source.
    type: str
    choices: [alerts, decisions]
    default: alerts
"""

EXAMPLES = r"""
- eda.builtin.webhook:
    port: 5000
    token: "{{ ALERTS_TOKEN }}"
  filters:
    - sre.runbooks.incoming:
        what: alerts
"""

import datetime
import json
import logging
import re

logger = logging.getLogger(__name__)

FIRING = "firing"
RESOLVED = "resolved"
OTHER = "other"

# What is the matter, by words of the alert's name, its metric and its title; the first that matches counts. The kinds are the
# rows of courtcase "Alert Response Matrix", mangu "Alert Thresholds" and ec2-asg "Quick Reference". What says "database" is
# about the database, whatever else it says, and so on down to what may have any cause.
KINDS = (
    ("security", r"security|guard ?duty|breach|intrusion|unauthori[sz]ed|malware|waf"),
    ("database", r"database|databases|db|rds|postgres|postgresql|replica|replication|deadlocks?|slow quer(?:y|ies)"),
    ("cache", r"cache|elasticache|redis|valkey"),
    ("disk_full", r"disks?|filesystem|inodes?|volume|no space"),
    ("restarts", r"restarts?|restarting|crash ?loop\w*|oom\w*"),
    ("high_error_rate", r"5 ?xx\w*|5\d\d|errors?|error rate"),
    ("performance", r"latency|response time|slow|p9\d|cpu|memory|load|timeouts?|saturat\w*"),
    ("service_down", r"down|un ?healthy|healthy|health|outage|unavailable|unreachable|dead|probe|absent|not serving"),
)
MARKS = ("runbook_kind", "runbook_env", "runbook_host")
SENT = re.compile(r"\b(runbook_(?:kind|env|host))=([\w.-]+)")
# Of inventory names: nothing that a host pattern or a path gives a meaning to.
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")
MOST = 300  # characters of a text

# https://developer.pagerduty.com/docs/webhooks-overview, "Event Types"
PAGERDUTY = {"incident.triggered": FIRING, "incident.reopened": FIRING, "incident.resolved": RESOLVED}
# An alarm without data tells nothing of the service.
CLOUDWATCH = {"ALARM": FIRING, "OK": RESOLVED}


def main(event, what="alerts"):
    """[event] of what came in, empty where it tells nothing."""
    said = event.get("payload", event.get("body"))
    try:
        found = [decision(said)] if what == "decisions" else alerts(said)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        logger.warning(
            "left out what came in, which is none of the known %s: %s: %s", what, type(error).__name__, error
        )
        return []
    if what == "decisions":
        return [{"decision": each} for each in found]
    return [{"alert": each, "meta": {"hosts": each["host"] or "all"}} for each in found]


def alerts(said):
    """[alert] of one message.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is of none of the known senders, or not as they document it.
    """
    if isinstance(said, str):
        said = json.loads(said)
    if said.get("Type") == "Notification" and "Message" in said:
        return alerts(said["Message"])  # the envelope of SNS
    if "alerts" in said and "groupKey" in said:
        return [_of_alertmanager(each, said) for each in said["alerts"]]
    if "event_type" in said.get("event", {}):
        return _of_pagerduty(said["event"])
    if "AlarmName" in said:
        return _of_cloudwatch(said)
    raise ValueError("no alert of Alertmanager, PagerDuty or CloudWatch")


def decision(said):
    """What a person decided on a proposal: {proposal, by, deny}. Raises ValueError, KeyError, TypeError."""
    proposal, by = str(said["proposal"]), clean(said["by"])
    if not NAME.fullmatch(proposal) or not by:
        raise ValueError("proposal and by are needed")
    return {"proposal": proposal, "by": by, "deny": said.get("deny", False) is True}


def clean(text):
    """One line, not too long, that Ansible cannot take for a template: it templates extra variables."""
    line = " ".join(str(text).split())
    return re.sub(r"\{(?=[{%#])", "(", line)[:MOST]


def _of_alertmanager(each, group):
    """https://prometheus.io/docs/alerting/latest/configuration/#webhook_config"""
    labels, notes = each["labels"], each.get("annotations", {})
    title = notes.get("summary") or notes.get("description") or labels["alertname"]
    return _alert(
        "alertmanager",
        labels["alertname"],
        FIRING if each["status"] == FIRING else RESOLVED,
        title,
        each.get("startsAt", ""),
        each.get("generatorURL") or group.get("externalURL", ""),
        identity=each.get("fingerprint"),
        marks={**notes, **labels},
        about=title,
    )


def _of_pagerduty(event):
    """https://developer.pagerduty.com/docs/webhooks-overview, "Webhook Payload" """
    state = PAGERDUTY.get(event["event_type"])
    if state is None:
        return []
    told = event["data"]
    begun, url = told.get("created_at", ""), told.get("html_url", "")
    return [
        _alert(
            "pagerduty",
            told["title"],
            state,
            told["title"],
            begun,
            url,
            identity=told.get("id"),
            marks=dict(SENT.findall(told["title"])),
        )
    ]


def _of_cloudwatch(alarm):
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html"""
    state = CLOUDWATCH.get(alarm["NewStateValue"])
    if state is None:
        return []
    description, trigger = alarm.get("AlarmDescription") or "", alarm.get("Trigger") or {}
    return [
        _alert(
            "cloudwatch",
            alarm["AlarmName"],
            state,
            SENT.sub("", description) or alarm.get("NewStateReason") or alarm["AlarmName"],
            alarm.get("StateChangeTime", ""),
            alarm.get("AlarmArn", ""),
            identity=alarm.get("AlarmArn"),
            marks=dict(SENT.findall(description)),
            measured=f"{trigger.get('Namespace', '')} {trigger.get('MetricName', '')}",
            about=description,
        )
    ]


def _alert(source, name, state, title, since, url, marks, identity=None, measured="", about=""):
    named = {mark: clean(marks.get(mark, "")) for mark in MARKS}
    for mark, value in named.items():
        if value and not NAME.fullmatch(value):
            raise ValueError(f"{mark} of {clean(name)} is no name")
    return {
        "source": source,
        "id": clean(identity or name),
        "name": clean(name),
        "kind": named["runbook_kind"] or kind(f"{name} {measured}") or kind(about) or OTHER,
        "state": state,
        "env": named["runbook_env"],
        "host": named["runbook_host"],
        "title": clean(title),
        "since": _utc(since),
        "url": clean(url),
    }


def kind(text):
    """The first of KINDS that the words of `text` name, None where none does."""
    apart = re.sub(r"(?<=[a-z\d])(?=[A-Z])|[^A-Za-z\d]+", " ", text).lower()
    return next((name for name, words in KINDS if re.search(rf"\b(?:{words})\b", apart)), None)


def _utc(text):
    """ISO 8601 in UTC; empty where it is no time."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return ""
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

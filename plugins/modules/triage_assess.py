#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: triage_assess
version_added: 0.2.0
short_description: Say how severe an incident is, and which playbook to run next
description:
  - Judges what M(sre.runbooks.metrics_assess) and M(sre.runbooks.outage_assess) have found by the O(rules) of a team, and by what
    it looks at itself, side by side, a service's checks, several times where they fail, whether data that must be there is
    there, and which tasks failed lately. Nothing is changed, so checks with a method that may change
    something are left out.
  - The severity is that of the worst rule that is broken. A rule that could not be judged is told in RV(unjudged), what could
    not be seen in RV(blind); both fail nothing, and the severity is then at least what it says.
  - B(Risk:) the severity is only as good as the rules, and what nobody measures breaks none.
options:
  environment_name:
    description: The environment, for the command line in RV(next).
    type: str
    required: true
  rules:
    description: When something is how severe.
    type: list
    elements: dict
    required: true
    suboptions:
      signal:
        description:
          - A metric as M(sre.runbooks.metrics_assess) calls it, or C(failed_checks) (of one of O(checks), in a row), C(restarts)
            (tasks that failed), C(serving) (tasks or pods that serve) or C(data_loss) (1 when something says that data is lost).
        type: str
        required: true
      above:
        description: The rule is broken above this. In seconds, percent, or a count.
        type: float
      at_least:
        description: The rule is broken from this on.
        type: float
      below:
        description: The rule is broken below this.
        type: float
      for_minutes:
        description: So long every value of a metric must have been out, in minutes; restarts are counted within them.
        type: float
        default: 0
      severity:
        description: One of O(severities).
        type: str
        required: true
  severities:
    description: The team's words, worst first.
    type: list
    elements: str
    default: [P0, P1, P2, P3]
  data_loss:
    description: A person knows that data is being lost.
    type: bool
    default: false
  metrics:
    description: What M(sre.runbooks.metrics_assess) returned, or why it failed as C(msg).
    type: dict
    default: {}
  outage:
    description: What M(sre.runbooks.outage_assess) returned, or why it failed as C(msg).
    type: dict
    default: {}
  log_patterns:
    description: Kinds of errors in the logs, a line each.
    type: list
    elements: str
    default: []
  has_disks:
    description: The service runs on instances whose disks can be cleaned, which is proposed where one is full.
    type: bool
    default: false
  cluster:
    description: Name or ARN of the ECS cluster of O(service), in O(region).
    type: str
  service:
    description: Name of the ECS service whose failed tasks are counted.
    type: str
  recent_minutes:
    description: A deployment is taken for the cause for so many minutes after it began.
    type: int
    default: 60
extends_documentation_fragment:
  - sre.runbooks.checks
  - sre.runbooks.checks.data
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.metrics_assess
  - module: sre.runbooks.outage_assess
"""

EXAMPLES = r"""
- name: How bad it is, and what to do
  sre.runbooks.triage_assess:
    environment_name: prod
    rules:
      - {signal: failed_checks, at_least: 3, severity: P0}
      - {signal: error_percent, above: 1, for_minutes: 5, severity: P1}
      - {signal: restarts, above: 3, for_minutes: 10, severity: P1}
    checks:
      - name: health with the database
        url: https://api.regami.test/health?check=db
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
"""

RETURN = r"""
ansible_stats:
  description: What the artifacts of a job in AWX have as C(sre_runbooks), the severity and what to run next.
  returned: unless refused
  type: dict
  sample: {data: {sre_runbooks: {severity: P1, next: {playbook: db_failover}}}, per_host: false, aggregate: true}
severity:
  description: One of O(severities), null where no rule is broken.
  returned: unless refused
  type: str
  sample: P1
evidence:
  description: Each rule that is broken with what breaks it, the worst first, then what else is abnormal.
  returned: unless refused
  type: list
  elements: str
  sample: ["P1: error_percent of regami-alb is 48 %, above 1 for 6 min, since 08:02 UTC"]
unjudged:
  description: Rules of which nothing was to be seen.
  returned: unless refused
  type: list
  elements: str
  sample: ["p99 above 3 (P2)"]
blind:
  description: What could not be seen, and why, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["metrics in us-east-1: missing permission cloudwatch:GetMetricData in us-east-1"]
next:
  description: The one playbook to run next, with its command line, and why.
  returned: unless refused
  type: dict
  sample:
    playbook: rollback_deployment
    command: ansible-playbook playbooks/rollback_deployment.yml -e env=prod
    because: "regami-api:7 was deployed 12 min ago: 48 % of the requests end in an error"
before:
  description: Always empty, as is RV(after).
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: Always empty; nothing is changed.
  returned: unless refused
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: The verdict in words.
  returned: unless refused
  type: list
  elements: str
  sample: ["P1: error_percent of regami-alb is 48 %, above 1 for 6 min, since 08:02 UTC"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import alarms, ecs, smoke, triage
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.extra_vars import artifacts
from ansible_collections.sre.runbooks.plugins.module_utils.masking import masked
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

# Seconds between two tries of a check that fails: three in a row are an outage, three at once may be one hiccup.
PAUSE = 1.0

SERVICES = ("ecs",)
ONE_LIMIT = [("above", "at_least", "below")]
CHECK_OPTIONS = smoke.CHECK_ARGUMENTS["checks"]["options"]
DATA_CHECK = ("name", "url", "headers", "expect_status", "expect_json", "expect_above", "within")
ARGUMENTS = dict(
    smoke.CHECK_ARGUMENTS,
    environment_name=dict(type="str", required=True),
    rules=dict(
        type="list",
        elements="dict",
        required=True,
        options=dict(
            signal=dict(type="str", required=True),
            above=dict(type="float"),
            at_least=dict(type="float"),
            below=dict(type="float"),
            for_minutes=dict(type="float", default=0),
            severity=dict(type="str", required=True),
        ),
        mutually_exclusive=ONE_LIMIT,
        required_one_of=ONE_LIMIT,
    ),
    severities=dict(type="list", elements="str", default=["P0", "P1", "P2", "P3"]),
    data_checks=dict(
        type="list", elements="dict", default=[], options={name: CHECK_OPTIONS[name] for name in DATA_CHECK}
    ),
    data_loss=dict(type="bool", default=False),
    metrics=dict(type="dict", default={}),
    outage=dict(type="dict", default={}),
    log_patterns=dict(type="list", elements="str", default=[]),
    has_disks=dict(type="bool", default=False),
    cluster=dict(type="str"),
    service=dict(type="str"),
    recent_minutes=dict(type="int", default=60),
)


class TriageAssess(Verb):
    """Look at what nobody has looked at yet, and judge."""

    def __init__(self, module):
        super().__init__(module)
        self.params = dict(module.params)
        for name in ("checks", "data_checks"):
            module.params[name] = masked(module.params[name])  # the result shows them
        self.rules = triage.rules(self.params["rules"], self.params["severities"])

    def observe(self):
        wanted = self.params
        data_checks = [_whole(check) for check in wanted["data_checks"]]
        smoke.refuse_malformed([*wanted["checks"], *data_checks], wanted["dns_servers"])
        looks = dict(failing=self._failing, lost=lambda: self._lost(data_checks))
        if wanted["service"]:
            looks["service"] = self._service
        return dict(tried_together(looks), now=time.time(), rules=self.rules)

    @staticmethod
    def plan(observed, wanted):
        seen = gathered(observed, wanted)
        verdict = triage.judge(observed["rules"], wanted["severities"], seen)
        step = triage.next_step(verdict, seen, wanted["recent_minutes"])
        evidence = [
            f"{finding.severity or 'not yet ' + finding.rule.severity}: {finding.text}" for finding in verdict.findings
        ]
        evidence += wanted["metrics"].get("abnormal", [])
        evidence += alarms.sentences(wanted["metrics"].get("alarms", []))
        blind = [f"cannot see {line}" for line in seen.blind]
        unjudged = [f"not judged: {line}" for line in verdict.unjudged]
        command = step.command(wanted["environment_name"])
        least = "at least " if seen.blind else ""
        well = "no rule is broken yet" if verdict.findings else "no rule is broken"
        word = f"severity {least}{verdict.severity}" if verdict.severity else well
        next_one = {"playbook": step.playbook, "command": command, "because": step.because}
        return Plan(
            notes=(word, *evidence, *unjudged, *blind, f"so far: {step.because}", f"next: {command}"),
            returned={
                "severity": verdict.severity,
                "evidence": evidence,
                "unjudged": list(verdict.unjudged),
                "blind": list(seen.blind),
                "next": next_one,
                **artifacts(severity=verdict.severity, next=next_one),
            },
        )

    def view(self, observed):
        return {}

    def _failing(self):
        """{tries in a row that failed: lines} of the checks; one that passes once is not asked again."""
        tries = max([1, *(rule.reached_at for rule in self.rules if rule.signal == triage.FAILED_CHECKS)])
        lines = smoke.complaints(self.params["checks"], self.params["dns_servers"], tries, PAUSE)
        return (tries if lines else 0), lines

    def _lost(self, checks):
        """What of the data that must be there is not, a line each. A service that fails says nothing of its data."""
        trials = [smoke.Trial(check, tuple(self.params["dns_servers"])) for check in checks]
        smoke.look(trials)
        return tuple(
            f"{trial.check['name']}: {trial.problem}"
            for trial in trials
            if trial.problem and trial.status is not None and trial.status < 500
        )

    def _service(self):
        service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        seen = together(entry=service.describe, failures=service.failures)
        deployment = ecs.primary(seen["entry"]) or {}
        created = deployment.get("createdAt")
        return {
            "failures": seen["failures"],
            "release": ecs.short(seen["entry"]["taskDefinition"]),
            "released": created.timestamp() if created else None,
        }


def _whole(check):
    """A data check as the checks of a service are."""
    return {name: check.get(name, option.get("default")) for name, option in CHECK_OPTIONS.items()}


def gathered(observed, wanted):
    """Pure: triage.Seen of what was looked at here, and of what other verbs have found."""
    measured, out = wanted["metrics"], wanted["outage"]
    blind = [*measured.get("blind", [])]
    blind += [f"metrics: {measured['msg']}"] if "metrics" not in measured and measured.get("msg") else []
    blind += [f"what is down: {out['msg']}"] if "decision" not in out and out.get("msg") else []
    names = {"failing": "checks", "lost": "data", "service": "tasks"}
    blind += [
        f"{name}: {reason(observed[key])}" for key, name in names.items() if isinstance(observed.get(key), Exception)
    ]
    counts, details = {}, {}
    if isinstance(observed["failing"], tuple):
        counts[triage.FAILED_CHECKS], details[triage.FAILED_CHECKS] = observed["failing"]
    lost = observed["lost"] if isinstance(observed["lost"], tuple) else ()
    lost = (*(("a person says so",) if wanted["data_loss"] else ()), *lost)
    if lost or wanted["data_checks"]:
        counts[triage.DATA_LOSS], details[triage.DATA_LOSS] = len(lost), lost
    service = observed.get("service")
    known = service if isinstance(service, dict) else {}
    if known:
        counts[triage.RESTARTS] = [(at, why) for at, why, _deployment in known["failures"]]
    if "serving" in out.get("before", {}):
        counts[triage.SERVING] = out["before"]["serving"]
    return triage.Seen(
        now=observed["now"],
        measured=tuple(measured.get("metrics", ())),
        counts=counts,
        details=details,
        decision=out.get("decision"),
        because=out.get("because", ""),
        blind=tuple(dict.fromkeys(blind)),
        log=tuple(wanted["log_patterns"]),
        silent=isinstance(service, Unreachable),
        has_disks=wanted["has_disks"],
        release=known.get("release", ""),
        released=known.get("released"),
    )


def main():
    run(verb_module(ARGUMENTS, required_together=[("cluster", "service")]), TriageAssess)


if __name__ == "__main__":
    main()

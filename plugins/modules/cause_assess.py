#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cause_assess
version_added: 0.2.0
short_description: Name the likely cause of an incident, with the evidence for it and against
description:
  - Reads side by side the metrics, the errors in the logs, what was changed, the tasks and targets of a service, its database and
    whatever else it cannot do without, and weighs what of it speaks for each cause that the runbooks know, and what against it.
    It changes nothing.
  - The time order counts. Only what came up is taken for a sign, only what happened shortly before it for its cause, and what
    one cause brings about is no other cause.
  - What cannot be read is told in RV(unseen) and fails nothing; it lowers the confidence, and its absence is never taken for a
    sign. Where little speaks for any cause, or as much for two, the cause is V(unknown).
  - B(Risk:) a likely cause is no proof. CloudWatch and CloudTrail are some minutes late.
options:
  environment_name:
    description: The environment, for the command lines in RV(causes).
    type: str
    required: true
  within_minutes:
    description: How far to look back in metrics and logs, in minutes; metrics are compared with as long before, and a week ago.
    type: int
    default: 30
  terms:
    description: A line with any of these words is an error, or a warning of one. Case counts.
    type: list
    elements: str
    default: [ERROR, WARN, Exception, FATAL, CRITICAL]
  changed_within_minutes:
    description: How far to look back for changes, in minutes.
    type: int
    default: 180
extends_documentation_fragment:
  - sre.runbooks.readings
  - sre.runbooks.readings.metrics
  - sre.runbooks.readings.log_groups
  - sre.runbooks.readings.pods
  - sre.runbooks.readings.logs
  - sre.runbooks.readings.changes
  - sre.runbooks.checks
  - sre.runbooks.dependencies
  - sre.runbooks.database_login
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.log_errors
  - module: sre.runbooks.metrics_assess
  - module: sre.runbooks.recent_changes
  - module: sre.runbooks.triage_assess
"""

EXAMPLES = r"""
- name: Why the service fails
  sre.runbooks.cause_assess:
    environment_name: prod
    load_balancer_arns: ["{{ load_balancer_arn }}"]
    cluster: regami-cluster
    service: regami-service
    db_instances: [regami-db-primary]
    log_groups:
      - name: /ecs/regami-api
    checks:
      - name: health with the database
        url: https://api.regami.test/health?check=db
    region: us-east-1
"""

RETURN = r"""
cause:
  description:
    - The likely cause, or V(unknown) where nothing tells. One of V(bad_deployment), V(slow_query), V(memory_leak),
      V(pool_exhausted), V(redis_down), V(s3_denied), V(bad_host), V(network_rule), V(throttled_api), V(traffic_spike),
      V(disk_full), V(certificate_expired), V(dependency_down), V(unhandled_exception).
  returned: unless refused
  type: str
  sample: bad_deployment
confidence:
  description: How sure that is, from 0 to 1; less where something could not be seen. Of V(unknown), how sure the best guess is.
  returned: unless refused
  type: float
  sample: 0.93
because:
  description: Why, in a sentence.
  returned: unless refused
  type: str
  sample: "a bad deployment: regami-api:7 was deployed 12 min ago at 08:01 UTC"
causes:
  description: Each cause for which anything speaks, the likeliest first. C(fix) is null where no playbook mends it; C(advice) is for people.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - cause: bad_deployment
      title: a bad deployment
      score: 0.93
      evidence_for: ["regami-api:7 was deployed 12 min ago at 08:01 UTC, and the trouble began at 08:02"]
      evidence_against: []
      fix:
        playbook: rollback_deployment
        command: ansible-playbook playbooks/rollback_deployment.yml -e env=prod
      advice: ""
onset:
  description: When the trouble began, in seconds of the epoch; null where there is none to be seen.
  returned: unless refused
  type: float
  sample: 1763712122.4
unseen:
  description: What could not be read, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["metrics in us-east-1: missing permission cloudwatch:GetMetricData in us-east-1"]
trouble:
  description: V(on) where it lasts, V(over) where the errors have ended, V(none) where nothing is abnormal.
  returned: unless refused
  type: str
  sample: "on"
part:
  description: The task or instance that nearly all errors come from, by the name of its log stream; empty where they do not come from one.
  returned: unless refused
  type: str
  sample: 3f1c2d5b8a9e4f6c8d7e6f5a4b3c2d1e
metrics:
  description: As M(sre.runbooks.metrics_assess) returns them.
  returned: unless refused
  type: list
  elements: dict
  sample: []
alarms:
  description: As RV(sre.runbooks.metrics_assess#module:alarms); empty where they could not be read.
  returned: unless refused
  type: list
  elements: dict
  sample: []
patterns:
  description: The kinds of errors, as M(sre.runbooks.log_errors) returns them.
  returned: unless refused
  type: list
  elements: dict
  sample: []
changes:
  description: As M(sre.runbooks.recent_changes) returns them.
  returned: unless refused
  type: list
  elements: dict
  sample: []
revision:
  description: What the running task definition has otherwise than the last good one, likewise.
  returned: unless refused
  type: dict
  sample: {from: "regami-api:6", to: "regami-api:7", lines: ["app: image regami-api:v2 -> regami-api:v3"]}
dependencies:
  description: What each of O(dependencies) answered, as M(sre.runbooks.dependencies_assess) returns it.
  returned: unless refused
  type: list
  elements: dict
  sample: []
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
  description: The likely cause, the evidence, the other causes and what could not be seen, in words.
  returned: unless refused
  type: list
  elements: str
  sample: ["likely cause: a bad deployment (bad_deployment, 0.93)"]
waited_seconds:
  description: How long the queries of Logs Insights took, in seconds.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import (
    alarms,
    cause_rules,
    causes,
    changes,
    dependencies,
    dns,
    ecs,
    log_search,
    metrics,
    outage,
    rds,
    sessions,
    smoke,
    waiting,
)
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, reason, together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.masking import masked
from ansible_collections.sre.runbooks.plugins.module_utils.postgres import Line
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

# A check that failed once may have met a target on its way out.
TRIES = 2
# So many causes besides the first are told in words.
SHOWN = 2

SERVICES = (
    *("cloudwatch", "logs", "ecs", "elbv2", "rds", "s3", "secretsmanager"),
    *("autoscaling", "application-autoscaling", "cloudtrail"),
)
ARGUMENTS = dict(
    metrics.ARGUMENTS,
    **{
        name: option
        for name, option in (log_search.ARGUMENTS | changes.ARGUMENTS).items()
        if name not in metrics.ARGUMENTS
    },
    **smoke.CHECK_ARGUMENTS,
    **dependencies.ARGUMENTS,
    **LOGIN_ARGUMENTS,
) | dict(
    environment_name=dict(type="str", required=True),
    terms=dict(type="list", elements="str", default=["ERROR", "WARN", "Exception", "FATAL", "CRITICAL"]),
    changed_within_minutes=dict(type="int", default=180),
)


class CauseAssess(Verb):
    """Look at everything at once, and weigh it."""

    def __init__(self, module):
        super().__init__(module)
        self.params = dict(module.params)
        for name in ("checks", "dependencies"):
            module.params[name] = masked(module.params[name])  # the result shows them

    def observe(self):
        smoke.refuse_malformed(self.params["checks"], self.params["dns_servers"])
        dependencies.refuse_malformed(self.params["dependencies"], self.params["dns_servers"])
        seen = self._look()
        hush = gathered(seen, self.params).hush
        if not hush:
            return seen
        waiting.say(f"no error for a moment: looking again in {hush:.0f} s")
        time.sleep(hush)
        self.waited_seconds += hush
        return self._look()

    def _look(self):
        """All that can be read, side by side."""
        wanted, now = self.params, time.time()
        servers = wanted["dns_servers"]
        signals = metrics.of_all(wanted, self.aws.region)
        logged, changed = (now - 60 * wanted[name] for name in ("within_minutes", "changed_within_minutes"))
        looks = {
            causes.METRICS: lambda: metrics.read(self.aws, signals, now, wanted["within_minutes"]),
            "alarms": lambda: alarms.read(self.aws, wanted["alarm_prefixes"], logged),
            causes.LOGS: lambda: log_search.search(self.aws, wanted, logged, now, None, self.wait),
            causes.CHANGES: lambda: changes.read(self.aws, wanted, changed, now),
            causes.DEPENDENCIES: lambda: dependencies.assess(self.aws, wanted["dependencies"], servers),
            "users": lambda: smoke.complaints(wanted["checks"], servers, TRIES),
        }
        if wanted["service"]:
            looks[causes.TASKS] = self._service
        if wanted["db_instances"]:
            looks[causes.DATABASE] = self._database
        return dict(tried_together(looks), now=now, windows={"logs": (logged, now), "changes": changed})

    @staticmethod
    def plan(observed, wanted):
        signals = gathered(observed, wanted)
        verdict = causes.judge(signals, cause_rules.CAUSES)
        unseen = [line for lines in signals.unseen.values() for line in lines]
        ringing = observed["alarms"]
        if isinstance(ringing, Exception):
            unseen.append(f"alarms: {reason(ringing)}")
            ringing = []
        return Plan(
            notes=tuple(_words(verdict, unseen)),
            returned={
                "cause": verdict.cause,
                "confidence": verdict.confidence,
                "because": verdict.because,
                "causes": [_shown(each, wanted["environment_name"]) for each in verdict.causes],
                "onset": verdict.onset,
                "unseen": unseen,
                "trouble": verdict.trouble,
                "part": cause_rules.part(signals),
                "metrics": list(signals.metrics),
                "alarms": ringing,
                "patterns": list(signals.patterns),
                "changes": [vars(each) for each in signals.changes],
                "revision": signals.revision,
                "dependencies": list(signals.dependencies),
            },
        )

    def view(self, observed):
        return {}

    def _service(self):
        """What the service says of itself, the tasks that failed, and the targets."""
        service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        entry = service.describe()
        seen = together(
            failures=service.failures,
            targets=lambda: service.targets(ecs.target_groups(entry)),
            definition=lambda: (service.definition(entry["taskDefinition"]) or {}).get("taskDefinition", {}),
        )
        return dict(seen, entry=entry)

    def _database(self):
        """(outage.Database, sessions.Seen or None, rds.instance) of the first database."""
        name = self.params["db_instances"][0]
        instance = rds.describe(self.aws, name, self.aws.region)
        if instance is None:
            raise rds.not_found(self.aws, name, self.aws.region)
        login = Login(self.params, self.aws)
        if not login.given or not instance["host"]:
            return outage.Database(name, instance["status"]), None, instance
        look = sessions.Sessions(Line(rds.database(instance, login)), {}).look
        found = attempt(look, Stop)
        if isinstance(found, sessions.Seen):
            return outage.Database(name, instance["status"], True), found, instance
        # A refused password says something of the inventory, and that the database is up.
        return outage.Database(name, instance["status"], not isinstance(found, Unreachable), str(found)), None, instance


def gathered(observed, wanted):
    """Pure: causes.Signals of all that was read."""
    unseen = {
        where: [f"{where}: {reason(observed[where])}"]
        for where in causes.BLINDNESS
        if isinstance(observed.get(where), Exception)
    }
    known = {where: None if where in unseen else observed.get(where) for where in causes.BLINDNESS}
    told = {"metrics": (), "patterns": (), "changes": (), "revision": {}}
    if known[causes.METRICS]:
        seen, blind = known[causes.METRICS]
        told["metrics"] = tuple(metrics.judged(seen, wanted["limits"], observed["now"]))
        unseen |= {causes.METRICS: [f"metrics in {region}: {why}" for region, why in blind.items()]} if blind else {}
    if known[causes.CHANGES]:
        found = changes.told(known[causes.CHANGES], observed["windows"]["changes"])
        told |= {"changes": tuple(found["changes"]), "revision": found["revision"]}
        unseen |= {causes.CHANGES: found["blind"]} if found["blind"] else {}
    service = known[causes.TASKS]
    told |= of_service(service) if service else {}
    if known[causes.LOGS]:
        window, released = observed["windows"]["logs"], told.get("released")
        # A deployment before the window leaves nothing to compare with.
        found = log_search.told(known[causes.LOGS], released if released and released > window[0] else None, window)
        told["patterns"] = tuple(found["patterns"])
        unseen |= {causes.LOGS: found["blind"]} if found["blind"] else {}
    if known[causes.DEPENDENCIES]:
        told["dependencies"] = tuple(known[causes.DEPENDENCIES])
        blind = [f"{each['name']}: {each['reason']}" for each in told["dependencies"] if each["ok"] is None]
        unseen |= {causes.DEPENDENCIES: blind} if blind else {}
    related = [*wanted["db_instances"], *wanted["auto_scaling_groups"], *wanted["names"], *needed(wanted, service)]
    if known[causes.DATABASE]:
        told["database"], told["sessions"], instance = known[causes.DATABASE]
        related += instance["security_groups"]
    return causes.Signals(
        now=observed["now"],
        complaints=observed["users"] if isinstance(observed["users"], tuple) else (),
        related=tuple(related),
        unseen=unseen,
        **told,
    )


def needed(wanted, service):
    """Names and ids of what the service cannot do without: buckets, its role, its security groups."""
    yield from (each["bucket"] for each in wanted["dependencies"] if each["bucket"])
    if service:
        network = (service["entry"].get("networkConfiguration") or {}).get("awsvpcConfiguration") or {}
        yield from network.get("securityGroups", ())
        roles = (service["definition"].get(name, "") for name in ("taskRoleArn", "executionRoleArn"))
        yield from (arn.rpartition("/")[2] for arn in roles if arn)


def of_service(seen):
    """Pure: what Signals has of an ECS service and its newest deployment."""
    entry = seen["entry"]
    deployment = ecs.primary(entry) or {}
    created = deployment.get("createdAt")
    failed = deployment.get("rolloutState") == "FAILED"
    return {
        "release": ecs.short(entry["taskDefinition"]),
        "released": created.timestamp() if created else None,
        "rollout": (deployment.get("rolloutStateReason") or "no reason given") if failed else None,
        "stops": tuple((at, why, by == deployment.get("id")) for at, why, by in seen["failures"]),
        "targets": tuple(target for _group, targets in seen["targets"] for target in targets),
        "running": entry["runningCount"],
    }


def _shown(judged, environment):
    cause = judged.cause
    return {
        "cause": cause.name,
        "title": cause.title,
        "score": judged.score,
        "evidence_for": list(judged.evidence_for),
        "evidence_against": list(judged.evidence_against),
        "fix": {"playbook": cause.playbook, "command": cause.command(environment)} if cause.playbook else None,
        "advice": cause.advice,
    }


def _words(verdict, unseen):
    """The verdict for people."""
    if verdict.trouble == causes.OVER:
        yield "the errors have ended"
    if verdict.cause == causes.UNKNOWN:
        yield f"cannot tell: {verdict.because}"
    for number, each in enumerate(verdict.causes[: SHOWN + 1]):
        likely = "likely cause" if number == 0 and verdict.cause != causes.UNKNOWN else "perhaps"
        yield f"{likely}: {each.cause.title} ({each.cause.name}, {each.score:.2f})"
        yield from (f"  for: {line}" for line in each.evidence_for)
        yield from (f"  against: {line}" for line in each.evidence_against)
    yield from (f"cannot see {line}" for line in unseen)


def main():
    module = verb_module(
        ARGUMENTS,
        required_together=[("cluster", "service")],
        required_by={"login_user": ["login_db"]},
        mutually_exclusive=[PASSWORD_SOURCES],
    )
    if module.params["dns_servers"] and not dns.HAS_DNSPYTHON:
        module.fail_json(msg=missing_required_lib("dnspython"))
    run(module, CauseAssess)


if __name__ == "__main__":
    main()

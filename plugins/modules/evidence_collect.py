#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: evidence_collect
version_added: 0.3.0
short_description: Collect what a service and a principal did, before anything of it is isolated
description:
  - Reads, side by side, the objects, events and container logs of a Kubernetes workload, the tasks, definition and events of an
    ECS service, the lines of log groups, and what CloudTrail has of a principal, and writes each as a file on the controller, for
    M(sre.runbooks.evidence_bundle).
  - Logs of the run before are read, too, where a container was started again.
  - What cannot be read is told in RV(blind) and fails nothing, unless nothing can be read.
  - Nothing of the service is changed. The values of Kubernetes Secrets are not read.
  - B(Risk:) the files hold whatever secrets logs and environments hold; they are for their owner only (mode 0600 in a folder of
    0700). Remove the folder when they are bundled.
options:
  incident:
    description: Name of the incident; letters, digits, dots, C(-) and C(_).
    type: str
    required: true
  dest:
    description:
      - The folder in which the folder C(.INCIDENT) with the files is. Default is C(evidence) beside the records of the runs.
        A file that is there from an earlier look is written anew.
    type: path
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
  service:
    description: Name of the ECS service.
    type: str
  principal:
    description: Role or user whose calls are kept; an ARN, C(role/NAME) or C(user/NAME).
    type: str
  within_minutes:
    description: How far to look back, in minutes.
    type: int
    default: 180
extends_documentation_fragment:
  - sre.runbooks.readings.log_groups
  - sre.runbooks.kubernetes_workload
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - kubernetes (for O(kubernetes))
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - CloudTrail is some minutes late, and its event history has management events of 90 days.
seealso:
  - module: sre.runbooks.evidence_bundle
"""

EXAMPLES = r"""
- name: What the service and its role did in the last two hours
  sre.runbooks.evidence_collect:
    incident: 2026-11-21-api
    cluster: regami-cluster
    service: regami-service
    log_groups: [{name: /ecs/regami-api}]
    principal: role/regami-api
    within_minutes: 120
    region: us-east-1
"""

RETURN = r"""
collected:
  description: The files, as M(sre.runbooks.evidence_bundle) takes them in its option C(items).
  returned: unless refused
  type: list
  elements: dict
  sample:
    - name: cloudtrail-role-regami-api.json
      path: /srv/incidents/evidence/.2026-11-21-api/cloudtrail-role-regami-api.json
      source: "cloudtrail:LookupEvents in us-east-1"
folder:
  description: The folder of the files, to be removed when they are bundled.
  returned: unless refused
  type: str
  sample: /srv/incidents/evidence/.2026-11-21-api
blind:
  description: What could not be read, and why.
  returned: unless refused
  type: list
  elements: str
  sample: []
before:
  description: Always empty.
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: The files that were written, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: write, what: write cloudtrail-role-regami-api.json (41 events), before: null, after: null}]
undo:
  description: Always empty.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: What could not be read.
  returned: unless refused
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import json
import os
import re
import time
from dataclasses import asdict

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import ecs, evidence, log_search, pod_logs, principals, trail
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_reader import WORKLOAD_ARGUMENT, Reader
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("ecs", "logs", "cloudtrail", "dynamodb")
ARGUMENTS = dict(
    incident=dict(type="str", required=True),
    dest=dict(type="path"),
    kubernetes=WORKLOAD_ARGUMENT,
    cluster=dict(type="str"),
    service=dict(type="str"),
    log_groups=log_search.ARGUMENTS["log_groups"],
    principal=dict(type="str"),
    within_minutes=dict(type="int", default=180),
)


class EvidenceCollect(Verb):
    """Read all of it, and write it down."""

    def __init__(self, module):
        super().__init__(module)
        self.until = time.time()
        self.since = self.until - 60 * self.params["within_minutes"]
        self.folder = os.path.join(evidence.home(self.params["dest"]), f".{file_name(self.params['incident'])}")
        self.files = {}  # {name: (content, source, in a few words)}

    def observe(self):
        looks, wanted = {}, self.params
        if wanted["kubernetes"]:
            looks[f"workload {wanted['kubernetes']['name']}"] = self._workload
        if wanted["service"]:
            looks[f"service {wanted['service']}"] = self._service
        turns = {}
        for group in wanted["log_groups"]:
            group = {"name": group["name"], "region": group["region"] or self.aws.region}
            turns.setdefault(group["region"], log_search.Turns(log_search.FILTER_SECONDS))
            looks[f"log group {group['name']}"] = lambda group=group: self._lines(group, turns[group["region"]])
        if wanted["principal"]:
            looks[f"CloudTrail of {wanted['principal']}"] = self._trail
        found = tried_together(looks)
        blind = [f"{name}: {reason(each)}" for name, each in found.items() if isinstance(each, Exception)]
        read = [each for each in found.values() if not isinstance(each, Exception)]
        if found and not read:
            raise Stop(f"nothing can be read: {'; '.join(blind)}")
        self.files = {name: file for files, _unread in read for name, file in files.items()}
        blind += [line for _files, unread in read for line in unread]
        return {"words": {name: words for name, (_content, _source, words) in self.files.items()}, "blind": blind}

    def _workload(self):
        """Its objects, the events of its namespace, and the log of each container."""
        where = self.params["kubernetes"]
        cluster = api.Cluster(where)
        reader = Reader(cluster, where["kind"], where["namespace"], where["name"])
        seen = reader.look()
        about = {
            "events": api.objects(where["namespace"], "events", api="/api/v1"),
            "services": api.objects(where["namespace"], "services", api="/api/v1"),
            "networkpolicies": api.objects(where["namespace"], "networkpolicies", api="/apis/networking.k8s.io/v1"),
        }
        looks = {name: lambda path=path: cluster.read(path)["items"] for name, path in about.items()}
        for pod in seen["pods"]:
            for name, run_of, query in pod_logs.container_runs(pod):
                path = f"{reader.pods(name)}/log"
                looks[f"{name}-{run_of.replace(' ', '-')}.log"] = lambda path=path, query=query: self._log(
                    cluster, path, query
                )
        found = tried_together(looks)
        unread = [
            f"{name} of {where['namespace']}: {reason(each)}"
            for name, each in found.items()
            if isinstance(each, Exception)
        ]
        read = {name: each for name, each in found.items() if not isinstance(each, Exception)}
        source, objects = (
            f"{cluster.host}, namespace {where['namespace']}",
            {"workload": seen["workload"], "pods": seen["pods"]},
        )
        objects |= {name: read.pop(name) for name in about if name in read}
        files = {name: (text, f"{source}: log", f"{text.count(chr(10))} lines") for name, text in read.items()}
        name = f"kubernetes-{where['namespace']}-{where['name']}.json"
        files[name] = (objects, source, f"{len(seen['pods'])} pods, {len(objects.get('events', []))} events")
        return files, unread

    def _log(self, cluster, path, query):
        seconds = round(self.until - self.since)
        return cluster.read(path, timestamps="true", sinceSeconds=seconds, tailLines=pod_logs.LINES, **query)

    def _service(self):
        service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        entry = service.describe()
        arns = together(
            running=lambda: service.task_arns(serviceName=service.name, desiredStatus="RUNNING"),
            stopped=lambda: service.task_arns(serviceName=service.name, desiredStatus="STOPPED"),
        )
        found = together(
            tasks=lambda: service.describe_tasks(arns["running"] + arns["stopped"]),
            definition=lambda: service.definition(entry["taskDefinition"], include=["TAGS"]),
        )
        answer = {"service": entry, "tasks": found["tasks"], "definition": found["definition"]}
        source = f"ecs:DescribeServices, DescribeTasks and DescribeTaskDefinition in {self.aws.region}"
        return {f"ecs-{entry['serviceName']}.json": (answer, source, f"{len(found['tasks'])} tasks")}, []

    def _lines(self, group, turns):
        events, all_read = log_search.pages(self.aws, group, "", self.since, self.until, turns)
        text = "".join(f"{json.dumps(asdict(event))}\n" for event in events)
        unread = [] if all_read else [f"the log {group['name']} has more lines than were read: narrow within_minutes"]
        source = f"logs:FilterLogEvents in {group['region']}"
        return {f"log-{file_name(group['name'])}.jsonl": (text, source, f"{len(events)} lines")}, unread

    def _trail(self):
        principal = principals.parse(self.params["principal"])
        events, all_read = trail.of_principal(self.aws, principal, self.since, self.until)
        name = f"cloudtrail-{principal.kind}-{file_name(principal.name)}.json"
        source = f"cloudtrail:LookupEvents in {self.aws.region}"
        unread = [] if all_read else [f"CloudTrail has more of {principal} than was read: narrow within_minutes"]
        return {name: (events, source, f"{len(events)} events")}, unread

    @staticmethod
    def plan(observed, wanted):
        steps = [
            Step("write", f"write {name} ({words})", arguments={"name": name})
            for name, words in sorted(observed["words"].items())
        ]
        return Plan(
            tuple(steps),
            notes=tuple(f"cannot see {line}" for line in observed["blind"]),
            returned={"blind": observed["blind"]},
        )

    def observe_end(self):
        return {}

    def write(self, name):
        content = self.files[name][0]
        text = content if isinstance(content, str) else json.dumps(content, indent=1, default=str)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        with open(
            os.open(self._path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)

    def _path(self, name):
        return os.path.join(self.folder, name)

    def is_change(self, steps):
        return False

    def returned(self):
        return {
            "folder": self.folder,
            "collected": [
                {"name": name, "path": self._path(name), "source": source}
                for name, (_content, source, _words) in sorted(self.files.items())
            ],
        }

    def view(self, observed):
        return {}


def file_name(text):
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")


def main():
    module = verb_module(
        ARGUMENTS,
        required_together=[("cluster", "service")],
        required_one_of=[("kubernetes", "service", "principal")],
    )
    if module.params["kubernetes"] and not api.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    run(module, EvidenceCollect)


if __name__ == "__main__":
    main()

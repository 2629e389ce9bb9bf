#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hotspots_assess
version_added: 0.2.0
short_description: Say which task, instance, pod or process of a slow service is hot, and what helps
description:
  - Looks side by side at the response times and requests of the load balancer and of each target group, at processors and memory
    of every task, instance or pod of the service, at the processes of its instances over SSM, and at processors, connections,
    blocked sessions and the longest statements of the database. It changes nothing.
  - Single ECS tasks are known where Container Insights with enhanced observability is on. Without it the average and the busiest
    task tell that one stands out, and not which. Memory of instances is what they say themselves, else what the CloudWatch
    agent tells; pods are known where the cluster serves C(metrics.k8s.io).
  - RV(action) is one word, RV(why) the sentence to it. A process that no other instance runs, or that O(own_processes) does not
    name, and that takes most of a busy instance is ended; where sessions wait in the database it is helped first, since more of
    the service makes that worse; one that is hot among others that are not is replaced; memory that is short everywhere takes
    larger ones; processors that are short everywhere take more of them. Where nothing tells, it is V(unknown).
  - Of processes only the name and the script are read, since arguments may hold secrets.
  - What could not be seen is told in RV(blind) and fails nothing.
  - B(Risk:) none. The processes are looked at for two seconds, metrics are a minute or two late, those of EC2 without detailed
    monitoring five, so what began just now, or comes and goes, may not be seen.
options:
  load_balancer_arns:
    description: Application Load Balancers in front of the service, in any regions.
    type: list
    elements: str
    default: []
  target_group_arns:
    description: Target groups behind the first of O(load_balancer_arns) whose response times are told one by one.
    type: list
    elements: str
    default: []
  cluster:
    description: Name or ARN of the ECS cluster of O(service), in O(region).
    type: str
  service:
    description: Name or ARN of an ECS service.
    type: str
  auto_scaling_group:
    description: Name of an Auto Scaling group in O(region) whose instances are the service.
    type: str
  instance_ids:
    description: EC2 instances in O(region) that are the service, or work for it.
    type: list
    elements: str
    default: []
  look_at_processes:
    description: Whether instances are asked for their processes, which sends a script that only looks.
    type: bool
    default: true
  own_processes:
    description:
      - Names of the processes that the service consists of, as RV(parts) shows them and as a shell matches them. Any
        other one that is hot is then a stranger; without it, one that runs on one instance only.
    type: list
    elements: str
    default: []
  db_instance:
    description: Name of the RDS instance that the service needs, in O(region).
    type: str
  cpu_percent:
    description: Processors that are busier than this are hot. Ec2-asg scenario 1 begins at 80.
    type: float
    default: 80
  memory_percent:
    description: Memory that is fuller than this is short. Mangu "Alert Thresholds" begins at 85.
    type: float
    default: 85
  p99_seconds:
    description: The service is slow when one of a hundred answers takes longer. Mangu "Alert Thresholds" begins at 3.
    type: float
    default: 3
  query_seconds:
    description: A statement that runs for longer is why others are slow.
    type: float
    default: 60
  within_minutes:
    description: Metrics are compared with as long before, and with the same time a week ago; in minutes.
    type: int
    default: 30
extends_documentation_fragment:
  - sre.runbooks.database_login
  - sre.runbooks.kubernetes_workload
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - kubernetes (for O(kubernetes))
  - openshift (for O(kubernetes.kind=DeploymentConfig))
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(cloudwatch:GetMetricData); for O(service) C(ecs:DescribeServices) and C(ecs:ListTasks); for O(auto_scaling_group)
    C(autoscaling:DescribeAutoScalingGroups); for processes C(ssm:SendCommand) on the document AWS-RunShellScript and the
    instances, C(ssm:DescribeInstanceInformation), C(ssm:ListCommands), C(ssm:ListCommandInvocations) and
    C(ssm:GetCommandInvocation); for O(db_instance) C(rds:DescribeDBInstances).
seealso:
  - module: sre.runbooks.metrics_assess
  - module: sre.runbooks.ssm_end_process
  - module: sre.runbooks.db_connections_assess
"""

EXAMPLES = r"""
- name: Which task is hot, or is it the database
  sre.runbooks.hotspots_assess:
    load_balancer_arns: ["{{ load_balancer_arn }}"]
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    db_instance: regami-db-primary
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
  register: hotspots

- name: Which process of which instance
  sre.runbooks.hotspots_assess:
    auto_scaling_group: regami-fleet
    region: us-east-1
    own_processes: ["java *", nginx]
    cpu_percent: 70
"""

RETURN = r"""
action:
  description:
    - V(none), nothing is busier than it may be. V(end_process), V(restart) (of the one that RV(where) names), V(resize) and V(scale) say
      what to do with the service. V(database), the database is what it waits for. V(unknown), a person has to look.
  returned: unless refused
  type: str
  sample: end_process
resource:
  description: What is short, V(processes), V(processors), V(memory) or V(database); empty where nothing is.
  returned: unless refused
  type: str
  sample: processes
where:
  description: Which process, task, instance, pod or database; empty where nothing tells.
  returned: unless refused
  type: str
  sample: process 4711 (python3 report.py) on i-0123456789abcdef0
why:
  description: Why, in a sentence.
  returned: unless refused
  type: str
  sample: >-
    i-0123456789abcdef0 is at 97 % of its processors, most of it by 4711 python3 report.py of app, 188 % of a processor, 21.3 MB,
    for 4 min, which runs on no other instance
arguments:
  description: What the action needs to know besides the service itself.
  returned: unless refused
  type: dict
  sample: {instance_id: i-0123456789abcdef0, pid: 4711, started: "9a5fe887:2569181"}
slow:
  description: What of the response times is out, null where nothing is or nothing is known.
  returned: unless refused
  type: str
  sample: "p99 of regami-alb is 4.1 s, above 3 s since 08:02 UTC"
parts:
  description: Tasks, instances or pods, the busiest first, C(cpu) and C(memory) in percent of what each may have.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - kind: instance
      name: i-0123456789abcdef0
      cpu: 97.0
      memory: 41.2
      restarts: 0
      processes:
        - pid: 4711
          started: "9a5fe887:2569181"
          elapsed: 240
          user: app
          command: python3 report.py
          cpu: 188.0
          rss: 21340160
          unit: null
          may_end: true
metrics:
  description: Each metric, as M(sre.runbooks.metrics_assess) returns it.
  returned: unless refused
  type: list
  elements: dict
  sample: []
findings:
  description: All that was seen, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["p99 of regami-alb is 4.1 s, above 3 s since 08:02 UTC", "instance i-0123456789abcdef0: processors 97 %, memory 41.2 %"]
blind:
  description: What could not be seen, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["processes of i-0abc: its agent has not answered (ConnectionLost); a full disk can be the reason"]
command_ids:
  description: The commands of SSM that looked.
  returned: unless refused
  type: list
  elements: str
  sample: [2a9d7bdf-9c0a-4d0e-8a9c-5c3f5a7c2f11]
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
  description: RV(why) and RV(blind).
  returned: unless refused
  type: list
  elements: str
  sample: ["unknown: nothing is known of its response times, nor of what it uses"]
waited_seconds:
  description: Time spent waiting for the instances.
  returned: unless refused
  type: float
  sample: 3.1
"""

import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import (
    ecs,
    hotspots,
    instance_refresh,
    kubernetes_api,
    metrics,
    rds,
    sessions,
)
from ansible_collections.sre.runbooks.plugins.module_utils import instance_processes as processes
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_usage as pods
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_reader import WORKLOAD_ARGUMENT
from ansible_collections.sre.runbooks.plugins.module_utils.postgres import Line
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.sql_text import statement
from ansible_collections.sre.runbooks.plugins.module_utils.ssm import Limits, RunCommand, Selection
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

# Sessions that take their time and are nobody's fault: our own, backups, the provider's.
NOBODYS = ("own", "protected", "provider")
# Statements of the database that are named.
LONGEST = 3
# Response times that make a service slow, and who speaks of how busy it is.
LATENCIES = ("p50", "p95", "p99")
TRAFFIC = "requests"

SERVICES = ("cloudwatch", "ecs", "autoscaling", "ssm", "rds", "secretsmanager")
ARGUMENTS = dict(
    LOGIN_ARGUMENTS,
    load_balancer_arns=dict(type="list", elements="str", default=[]),
    target_group_arns=dict(type="list", elements="str", default=[]),
    cluster=dict(type="str"),
    service=dict(type="str"),
    auto_scaling_group=dict(type="str"),
    instance_ids=dict(type="list", elements="str", default=[]),
    kubernetes=WORKLOAD_ARGUMENT,
    look_at_processes=dict(type="bool", default=True),
    own_processes=dict(type="list", elements="str", default=[]),
    db_instance=dict(type="str"),
    cpu_percent=dict(type="float", default=80),
    memory_percent=dict(type="float", default=85),
    p99_seconds=dict(type="float", default=3),
    query_seconds=dict(type="float", default=60),
    within_minutes=dict(type="int", default=30),
)


class HotspotsAssess(Verb):
    """Find out what there is, look at all of it at once, and say where it is hot."""

    def __init__(self, module):
        super().__init__(module)
        self.commands = RunCommand(self.aws, "process-survey")

    def observe(self):
        wanted = self.params
        looks = {"the service": self._tasks} if wanted["service"] else {}
        looks |= {"the group": self._instances} if wanted["auto_scaling_group"] else {}
        there = tried_together(looks)
        refused = next((each for each in there.values() if isinstance(each, Refusal)), None)
        if refused:  # a name that is not there is a mistake, and no blindness
            raise refused
        seen = {
            "now": time.time(),
            "tasks": _list_of(there.get("the service")),
            "instances": list(dict.fromkeys([*_list_of(there.get("the group")), *wanted["instance_ids"]])),
        }
        looks = {"metrics": lambda: self._metrics(seen)}
        if seen["instances"] and wanted["look_at_processes"]:
            looks["processes"] = lambda: self._surveys(seen["instances"])
        if wanted["kubernetes"]:
            looks["pods"] = lambda: pods.read(wanted["kubernetes"])
        if wanted["db_instance"] and Login(wanted, self.aws).given:
            looks["sessions"] = self._sessions
        return {**seen, "there": there, **tried_together(looks)}

    def _tasks(self):
        """Ids of the tasks that run."""
        service = ecs.Service(self.aws, self.params["cluster"], self.params["service"])
        service.describe()
        return [
            ecs.short(arn) for arn in service.task_arns(serviceName=self.params["service"], desiredStatus="RUNNING")
        ]

    def _instances(self):
        group = instance_refresh.Group(self.aws, self.params["auto_scaling_group"]).describe()
        return [each["InstanceId"] for each in instance_refresh.staying(group)]

    def _metrics(self, seen):
        wanted, region = self.params, self.aws.region
        balancers, target = wanted["load_balancer_arns"], (wanted["cluster"], wanted["service"])
        signals = metrics.of_all(
            {
                **{name: wanted[name] for name in ("load_balancer_arns", "cluster", "service")},
                "db_instances": [wanted["db_instance"]] if wanted["db_instance"] else [],
                "auto_scaling_groups": [],
                "instance_ids": seen["instances"],
                "limits": {},
            },
            region,
        )
        groups = wanted["target_group_arns"] if balancers else []
        signals += [each for arn in groups for each in metrics.of_target_group(balancers[0], arn)]
        signals += metrics.of_busiest_task(*target, region) if wanted["service"] else []
        signals += [each for task in seen["tasks"] for each in metrics.of_task(*target, task, region)]
        signals += [each for name in seen["instances"] for each in metrics.of_agent(name, region)]
        return metrics.read(self.aws, signals, seen["now"], wanted["within_minutes"])

    def _surveys(self, instances):
        """{instance id: Survey} of each, those that cannot be asked included."""
        nodes = self.commands.nodes(Selection(tuple(instances)))
        able = [name for name, node in nodes.items() if not node.trouble()]
        results = {}
        if able:
            script = processes.command("survey", {"seconds": processes.MEASURED_SECONDS, "count": processes.MOST})
            what = f"{len(able)} instances tell of their processes"
            results = self.commands.run(
                script, Selection(tuple(able)), able, self.wait, what, Limits(execution_timeout=60)
            )
        return {
            name: processes.survey_of(results[name])
            if name in results
            else processes.Survey(name, trouble=node.trouble() or "it did not answer")
            for name, node in nodes.items()
        }

    def _sessions(self):
        instance = rds.describe(self.aws, self.params["db_instance"], self.aws.region)
        if instance is None:
            raise rds.not_found(self.aws, self.params["db_instance"], self.aws.region)
        line = Line(rds.database(instance, Login(self.params, self.aws)))
        return sessions.Sessions(line, {"protected_applications": sessions.BACKUPS}).look()

    @staticmethod
    def plan(observed, wanted):
        read, blind_regions = observed["metrics"] if isinstance(observed["metrics"], tuple) else ({}, {})
        judged = metrics.judged(read, {"p99": wanted["p99_seconds"]}, observed["now"])
        seen = _seen(observed, wanted, judged)
        found = hotspots.hottest(
            seen,
            hotspots.Limits(
                wanted["cpu_percent"], wanted["memory_percent"], wanted["p99_seconds"], wanted["query_seconds"]
            ),
        )
        blind = [f"metrics in {region}: {why}" for region, why in blind_regions.items()]
        blind += _blind(observed, wanted, seen)
        parts = sorted(seen.parts, key=lambda each: -(each.cpu or 0))
        return Plan(
            notes=(f"{found.action}: {found.why}", *blind),
            returned={
                **{name: getattr(found, name) for name in ("action", "resource", "where", "why", "arguments")},
                "slow": seen.slow,
                "parts": [_told(each) for each in parts],
                "metrics": judged,
                "findings": hotspots.findings(seen),
                "blind": blind,
            },
        )

    def view(self, observed):
        return {}

    def returned(self):
        return {"command_ids": self.commands.sent}


def _list_of(answer):
    return answer if isinstance(answer, list) else []


def _seen(observed, wanted, judged):
    """Pure: hotspots.Seen of what was read."""
    latencies = [each for each in judged if each["name"] in LATENCIES]
    known = [each for each in latencies if each["now"] is not None]
    requests = [each for each in judged if each["name"] == TRAFFIC and each["abnormal"]]
    risen = [each for each in requests if each["usual"][1] is not None and each["now"] > each["usual"][1]]
    slow = next(
        (each["why"] for name in reversed(LATENCIES) for each in known if each["name"] == name and each["abnormal"]),
        None,
    )
    now = {(each["name"], each["of"]): each["now"] for each in judged}
    service = ecs.short(wanted["service"] or "")
    return hotspots.Seen(
        slow=slow,
        latency_known=bool(known),
        parts=tuple(_parts(observed, now)),
        average={key: now.get((f"service_{key}", service)) for key in ("cpu", "memory")} if service else {},
        busiest={key: now.get((f"busiest_{key}", service)) for key in ("cpu", "memory")} if service else {},
        tasks=len(observed["tasks"]),
        busier=next((each["why"] for each in risen), None),
        database=_database(observed, wanted, now),
        own=tuple(wanted["own_processes"]),
    )


def _parts(observed, now):
    """What is known of each; a task of which nothing is known is none that could be compared."""
    for task in observed["tasks"]:
        part = hotspots.Part("task", task, now.get(("task_cpu", task)), now.get(("task_memory", task)))
        if (part.cpu, part.memory) != (None, None):
            yield part
    surveys = observed.get("processes")
    for name in observed["instances"]:
        survey = surveys.get(name) if isinstance(surveys, dict) else None
        # What the instance says itself is of now.
        own = survey or processes.Survey(name)
        cpu = now.get(("instance_cpu", name)) if own.cpu is None else own.cpu
        memory = now.get(("instance_memory", name)) if own.memory is None else own.memory
        yield hotspots.Part("instance", name, cpu, memory, survey)
    yield from _list_of(observed.get("pods"))


def _database(observed, wanted, now):
    name, seen = wanted["db_instance"], observed.get("sessions")
    if not name:
        return None
    cpu = now.get(("db_cpu", name))
    if not isinstance(seen, sessions.Seen):
        return None if cpu is None else hotspots.Database(name, cpu)
    running = [
        each
        for each in seen.sessions
        if each.is_client and each.runs and each.protection not in NOBODYS and each.query_seconds
    ]
    running.sort(key=lambda each: -each.query_seconds)
    # For a moment any session waits for another one; what makes users wait lasts as long as they do.
    blocked = [each for each in seen.sessions if each.blocked_by and (each.query_seconds or 0) >= wanted["p99_seconds"]]
    return hotspots.Database(
        name,
        cpu,
        seen.free,
        seen.max_connections,
        len(blocked),
        tuple((each.query_seconds, statement(each.query or "")) for each in running[:LONGEST]),
    )


def _blind(observed, wanted, seen):
    """What could not be seen, a line each."""
    reads = {**observed["there"], **{name: observed.get(name) for name in ("metrics", "processes", "pods", "sessions")}}
    for name, answer in reads.items():
        if isinstance(answer, Exception):
            yield f"{name}: {reason(answer)}"
    surveys = observed.get("processes")
    for survey in surveys.values() if isinstance(surveys, dict) else ():
        if survey.trouble:
            yield f"processes of {survey.instance_id}: {survey.trouble}"
    if observed["tasks"] and not seen.parts:
        yield (
            f"single tasks of {ecs.short(wanted['service'])}: there are no metrics of them: turn on Container Insights with "
            f"enhanced observability for {ecs.short(wanted['cluster'])}"
        )
    if wanted["db_instance"] and "sessions" not in observed:
        yield f"statements of {wanted['db_instance']}: give login_user and login_db to see them"


def _told(part):
    return {
        "kind": part.kind,
        "name": part.name,
        "cpu": part.cpu,
        "memory": part.memory,
        "restarts": part.restarts,
        "processes": list(part.survey.processes) if part.survey else [],
    }


def main():
    module = verb_module(
        ARGUMENTS,
        required_together=[("cluster", "service")],
        required_by={"login_user": ["login_db"]},
        required_one_of=[("service", "auto_scaling_group", "instance_ids", "kubernetes")],
        mutually_exclusive=[PASSWORD_SOURCES],
    )
    if module.params["kubernetes"] and not kubernetes_api.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    run(module, HotspotsAssess)


if __name__ == "__main__":
    main()

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

from .kubernetes_workload import CLUSTER


class ModuleDocFragment:
    """Whose metrics, logs and changes are read; ARGUMENTS of `metrics`, `log_search` and `changes` are the same in code."""

    DOCUMENTATION = r"""
options:
  cluster:
    description: Name or ARN of the ECS cluster of O(service), in O(region).
    type: str
  service:
    description: Name or ARN of an ECS service.
    type: str
  db_instances:
    description: Names of RDS instances in O(region).
    type: list
    elements: str
    default: []
  auto_scaling_groups:
    description: Names of Auto Scaling groups in O(region).
    type: list
    elements: str
    default: []
"""

    METRICS = r"""
options:
  load_balancer_arns:
    description: Application Load Balancers, in any regions.
    type: list
    elements: str
    default: []
  instance_ids:
    description: EC2 instances in O(region).
    type: list
    elements: str
    default: []
  alarm_prefixes:
    description: What the names of the service's alarms in O(region) begin with. Without one all alarms that ring there are told.
    type: list
    elements: str
    default: []
  limits:
    description: Above these a value is abnormal however usual it is, by the name of the metric; in seconds and percent.
    type: dict
    default: {}
"""

    LOG_GROUPS = r"""
options:
  log_groups:
    description: Log groups of CloudWatch that are read.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the log group.
        type: str
        required: true
      region:
        description: Its region. Default is O(region).
        type: str
"""

    PODS = r"""
options:
  pods:
    description:
      - Pods of Kubernetes whose logs are read too, a workload's, an ingress controller's or a job's, at most the 50 newest of
        each entry and the last 20,000 lines of each container, and of its run before where it was started again.
    type: list
    elements: dict
    default: []
    suboptions:
      namespace:
        description: Their namespace.
        type: str
        required: true
      selector:
        description: Label selector, such as V(app.kubernetes.io/name=ingress-nginx) or V(job-name=database-migration).
        type: str
        required: true
      terms:
        description: What is looked for in these, in place of what is looked for in the others, such as V(" 502 ") in the lines of an ingress controller.
        type: list
        elements: str
"""
    PODS += CLUSTER

    LOGS = r"""
options:
  terms:
    description: A line with any of these words is an error. Case counts.
    type: list
    elements: str
    default: [ERROR, Exception, FATAL, CRITICAL]
  insights_above_minutes:
    description: A longer window of logs is read by Logs Insights.
    type: int
    default: 60
requirements:
  - kubernetes (for O(pods))
"""

    CHANGES = r"""
options:
  names:
    description:
      - Names of other resources whose writes are listed too, such as a load balancer's or a security group's id. Writes to rules
        of the network and to permissions are listed whatever they name.
    type: list
    elements: str
    default: []
  checkout:
    description:
      - Folder where this runs with a checkout of the service's code, whose commits are listed too, by the C(git) that is there.
        It is read as it is, nothing is fetched.
    type: path
"""

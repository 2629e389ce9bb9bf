#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: network_assess
version_added: 0.2.0
short_description: Tell where the way from one place of a network to another is closed
description:
  - For each path reads the security groups of both ends, network ACLs and route tables of their subnets, there and back, and says
    whether it is open, or where it is closed and which command would open it. It changes nothing, and runs no such command.
  - Beside it stands what flow logs have of refused packets of that pair, and who changed any of these rules lately.
  - It judges what EC2's Describe calls say, of IPv4 in one region. What answers at the other end, a firewall on a host, a DNS
    name or a transit gateway's own tables are not part of it; M(sre.runbooks.dependencies_assess) asks the other end itself.
  - What cannot be read is told in RV(blind) and fails nothing.
  - B(Risk:) none.
options:
  paths:
    description: The paths to judge.
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description:
          - Where it begins. An IPv4 address; the id of an instance or of a network interface; a DNS name;
            C(service/CLUSTER/NAME) of an ECS service, C(group/NAME) of an Auto Scaling group; an ARN of an ECS task or service,
            of a load balancer or of an RDS instance; else the name of an RDS instance or of a load balancer.
        type: str
        required: true
      destination:
        description: Where it ends, likewise.
        type: str
        required: true
      port:
        description:
          - Port of the destination. Default is what it is asked on, a database's, the listeners' of a load balancer, those of a
            service behind one.
        type: int
      protocol:
        description: Protocol of it.
        type: str
        choices: [tcp, udp]
        default: tcp
  dependencies_of:
    description: Where paths to all of O(dependencies) begin, as O(paths[].source). Without it they are not judged.
    type: str
  within_minutes:
    description: How far to look back for refused packets and changed rules, in minutes.
    type: int
    default: 60
  dns_servers:
    description: DNS servers to ask for names, as V(host) or V(host:port). Default is the resolver of the machine.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - sre.runbooks.dependencies
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.dependencies_assess
  - module: sre.runbooks.recent_changes
"""

EXAMPLES = r"""
- name: Can the service reach its database
  sre.runbooks.network_assess:
    paths:
      - source: service/regami-cluster/regami-service
        destination: regami-db-primary
    region: us-east-1

- name: Can this instance reach that address
  sre.runbooks.network_assess:
    paths:
      - source: i-0123456789abcdef0
        destination: 203.0.113.10
        port: 443
    within_minutes: 180
    region: us-east-1
"""

RETURN = r"""
paths:
  description: Each path with its verdict, those that are closed first.
  returned: unless refused
  type: list
  elements: dict
  contains:
    name:
      description: The path in words.
      type: str
      returned: unless refused
    source:
      description: Where it begins, as it was given.
      type: str
      returned: unless refused
    destination:
      description: Where it ends, as it was given.
      type: str
      returned: unless refused
    port:
      description: Port of the destination.
      type: int
      returned: unless refused
    open:
      description: Whether it is open; null where part of it cannot be seen and the rest is open.
      type: bool
      returned: unless refused
    closed_at:
      description: What closes it, and why, a line each.
      type: list
      elements: str
      returned: unless refused
    fix:
      description: The commands that would open it, for a person to judge. None where nothing tells what should be there.
      type: list
      elements: str
      returned: unless refused
    ways:
      description: How many ways there are between the subnets of both ends, and how many of them are not closed.
      type: dict
      returned: unless refused
    hops:
      description: All that was looked at, with C(at), C(open), C(why) and C(fix), of the worst of these ways.
      type: list
      elements: dict
      returned: unless refused
    rejects:
      description: Refused packets of the pair, with C(source), C(destination), C(port), C(packets) and C(last), in seconds of the epoch.
      type: list
      elements: dict
      returned: unless refused
    changes:
      description: Writes of the API that name what it passes, as RV(sre.runbooks.recent_changes#module:changes) has them.
      type: list
      elements: dict
      returned: unless refused
  sample:
    - name: regami-service to regami-db-primary (tcp 5432)
      source: service/regami-cluster/regami-service
      destination: regami-db-primary
      port: 5432
      open: false
      closed_at: ["security group sg-0a1b2c3d (regami-db) of regami-db-primary, inbound: no rule lets in tcp 5432 from sg-0d4e5f6a"]
      fix:
        - >-
          aws ec2 authorize-security-group-ingress --group-id sg-0a1b2c3d --ip-permissions
          'IpProtocol=tcp,FromPort=5432,ToPort=5432,UserIdGroupPairs=[{GroupId=sg-0d4e5f6a}]' --region us-east-1
      ways: {all: 2, not_closed: 0}
      hops: []
      rejects: [{source: 10.0.1.20, destination: 10.0.3.7, port: 5432, packets: 42, last: 1763712360.0}]
      changes: [{at: 1763712060.0, kind: write, what: "ec2:RevokeSecurityGroupIngress of sg-0a1b2c3d", who: user/anna}]
closed:
  description: The names of the paths that are closed.
  returned: unless refused
  type: list
  elements: str
  sample: [regami-service to regami-db-primary (tcp 5432)]
blind:
  description: What could not be read, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["flow logs: there is none of subnet-0a1b2c3d or vpc-0a1b2c3d"]
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
  description: The same in words.
  returned: unless refused
  type: list
  elements: str
  sample:
    - "regami-service to regami-db-primary (tcp 5432) is CLOSED at security group sg-0a1b2c3d (regami-db) of regami-db-primary, inbound:
      no rule lets in tcp 5432 from sg-0d4e5f6a"
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import dependencies, dns, network_ends, network_paths
from ansible_collections.sre.runbooks.plugins.module_utils.aws import tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.masking import masked
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("ec2", "ecs", "elbv2", "rds", "autoscaling", "logs", "cloudtrail")
ARGUMENTS = dict(
    dependencies.ARGUMENTS,
    paths=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            source=dict(type="str", required=True),
            destination=dict(type="str", required=True),
            port=dict(type="int"),
            protocol=dict(type="str", choices=["tcp", "udp"], default="tcp"),
        ),
    ),
    dependencies_of=dict(type="str"),
    within_minutes=dict(type="int", default=60),
    dns_servers=dict(type="list", elements="str", default=[]),
)


class NetworkAssess(Verb):
    """Find both ends of each path, look at what lies between, and judge."""

    def __init__(self, module):
        super().__init__(module)
        self.params = dict(module.params)
        # The result shows the parameters as they were given; those of the module are what is shown.
        module.params["dependencies"] = masked(module.params["dependencies"])

    def observe(self):
        wanted, until = self.params, time.time()
        paths = [*wanted["paths"], *network_paths.to_dependencies(wanted, self.aws.region)]
        if not paths:
            raise Refusal("there is no path to judge: give paths, or dependencies_of with dependencies")
        names = dict.fromkeys(end for path in paths for end in (path["source"], path["destination"]))
        places = tried_together(
            {name: lambda name=name: network_ends.find(self.aws, name, wanted["dns_servers"]) for name in names}
        )
        since = until - 60 * wanted["within_minutes"]
        return network_paths.look(self.aws, paths, places, since, until)

    @staticmethod
    def plan(observed, wanted):
        judged, blind = network_paths.judge(observed)
        return Plan(
            notes=(*network_paths.words(judged), *(f"cannot see {line}" for line in blind)),
            returned={
                "paths": judged,
                "closed": [each["name"] for each in judged if each["open"] is False],
                "blind": blind,
            },
        )

    def view(self, observed):
        return {}


def main():
    module = verb_module(ARGUMENTS)
    if module.params["dns_servers"] and not dns.HAS_DNSPYTHON:
        module.fail_json(msg=missing_required_lib("dnspython"))
    run(module, NetworkAssess)


if __name__ == "__main__":
    main()

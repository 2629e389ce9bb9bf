#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: elasticache_recover
version_added: 0.1.0
short_description: Look at an ElastiCache replication group, reboot its nodes or fail over to a replica
description:
  - "Reads the status of the group and of each node, and sends each node a C(PING): a node can be V(available) and answer nobody."
  - V(reboot) reboots the nodes that do not answer, or O(node), replicas first, one after the other, and waits until each is available
    and answers. V(failover) has a replica take over from a primary that does not answer, or from O(node), with automatic failover by
    C(TestFailover) and without it by naming the replica, and waits until that one answers.
  - Run again, after a kill for example, it goes on waiting for what is under way.
  - "B(Risk:) a rebooted node begins empty; a primary that is rebooted empties its replicas, too. A failover loses what had not reached
    the replica, and cuts every connection."
options:
  replication_group:
    description: Id of the replication group, in O(region), with cluster mode disabled.
    type: str
    required: true
  action:
    description: What to do. V(status) only looks.
    type: str
    choices: [status, reboot, failover]
    default: status
  node:
    description:
      - Id of the cluster whose node is meant, for example V(regami-cache-001). V(reboot) reboots it although it answers. V(failover)
        has another one take over from it although it answers; where it is not the primary any more, nothing is left to do.
    type: str
  login_user:
    description: User of the cache's access control list, where it has one.
    type: str
  login_password:
    description: Password of that user, or the auth token of the cache.
    type: str
  tls:
    description: Connect by TLS, as a cache with encryption in transit needs it.
    type: bool
    default: false
  ca_cert:
    description: Path of a certificate authority to trust, besides those of the system.
    type: path
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - redis
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(elasticache:DescribeReplicationGroups), C(elasticache:DescribeCacheClusters), C(elasticache:RebootCacheCluster),
    C(elasticache:TestFailover) and C(elasticache:ModifyReplicationGroup). TestFailover may be called for 15 node groups in 24 hours.
  - The nodes must be reached from where this runs; one that is not cannot be told from one that is dead.
seealso:
  - module: sre.runbooks.redis_flush
"""

EXAMPLES = r"""
- name: Which nodes answer
  sre.runbooks.elasticache_recover:
    replication_group: regami-cache
    region: us-east-1

- name: Reboot the nodes that do not
  sre.runbooks.elasticache_recover:
    replication_group: regami-cache
    action: reboot
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: A replica takes over
  sre.runbooks.elasticache_recover:
    replication_group: regami-cache
    action: failover
    node: regami-cache-001
    region: us-east-1
"""

RETURN = r"""
endpoint:
  description: The primary endpoint.
  returned: unless refused
  type: dict
  sample: {host: regami-cache.abc123.use1.cache.amazonaws.com, port: 6379}
before:
  description:
    - Status of the group and of its nodes. C(trouble) is why a node does not answer, empty where it does.
  returned: unless refused
  type: dict
  sample:
    status: available
    primary: regami-cache-001
    nodes:
      regami-cache-001: {role: primary, status: available, trouble: ""}
      regami-cache-002: {role: replica, status: available, trouble: ""}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample:
    status: available
    primary: regami-cache-002
    nodes:
      regami-cache-001: {role: replica, status: available, trouble: ""}
      regami-cache-002: {role: primary, status: available, trouble: ""}
steps:
  description: What was done, or would be done in check mode, in order. The steps C(settle) only wait.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: fail_over
      what: make regami-cache-002 the primary of regami-cache in the place of regami-cache-001
      before: regami-cache-001
      after: regami-cache-002
    - {do: settle, what: "wait until regami-cache has another primary than regami-cache-001", before: null, after: null}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "make regami-cache-002 the primary of regami-cache in the place of regami-cache-001"
      instead: "the application fills an empty cache; -e remedy=failover -e cache_node=ID of playbooks/cache_failure.yml moves the primary once more"
notes:
  description: What a person should know; of V(status) a line for each node.
  returned: success
  type: list
  elements: str
  sample: ["regami-cache-001 is the primary: it begins empty, and its replicas after it"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 31.2
"""

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import redis_cache
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal, near
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

# Seconds that a reboot and a failover usually take.
USUAL_REBOOT = 120
USUAL_FAILOVER = 60
# What another change of the same group answers with.
BUSY = ("InvalidReplicationGroupState", "InvalidCacheClusterState")

SERVICES = ("elasticache",)
ARGUMENTS = dict(
    redis_cache.LOGIN_ARGUMENTS,
    replication_group=dict(type="str", required=True),
    action=dict(type="str", choices=["status", "reboot", "failover"], default="status"),
    node=dict(type="str"),
)


class ElasticacheRecover(Verb):
    """Look, reboot, fail over."""

    INSTEAD = "the application fills an empty cache; -e remedy=failover -e cache_node=ID of playbooks/cache_failure.yml moves the primary once more"

    def __init__(self, module):
        super().__init__(module)
        self.group = self.params["replication_group"]
        self.first_primary = None
        self.rebooted = []

    def observe(self):
        group = self._group()
        if group.get("ClusterEnabled"):
            raise Refusal(
                f"{self.group} has cluster mode enabled, which this verb does not fail over: use its shards one by one"
            )
        (shard,) = group["NodeGroups"]
        roles = {each["CacheClusterId"]: each.get("CurrentRole", "primary") for each in shard["NodeGroupMembers"]}
        seen = together(**{name: lambda name=name: self._node(name) for name in group["MemberClusters"]})
        nodes = {name: dict(seen[name], role=roles.get(name, "unknown")) for name in seen}
        primary = next((name for name, role in roles.items() if role == "primary"), None)
        self.first_primary = self.first_primary or primary
        return {
            "group": group,
            "nodes": nodes,
            "primary": primary,
            "first_primary": self.first_primary,
            "rebooted": tuple(self.rebooted),
            "endpoint": {"host": shard["PrimaryEndpoint"]["Address"], "port": shard["PrimaryEndpoint"]["Port"]},
        }

    def _group(self):
        try:
            (group,) = self.aws.read("elasticache", "describe_replication_groups", ReplicationGroupId=self.group)[
                "ReplicationGroups"
            ]
            return group
        except Exception as error:
            if code_of(error) == "ReplicationGroupNotFoundFault":
                found = self.aws.read("elasticache", "describe_replication_groups")["ReplicationGroups"]
                there = [each["ReplicationGroupId"] for each in found]
                raise Refusal(
                    f"there is no replication group {self.group} in {self.aws.region} ({near(self.group, there)}): check cache_group"
                ) from error
            raise

    def _node(self, name):
        found = self.aws.read("elasticache", "describe_cache_clusters", CacheClusterId=name, ShowCacheNodeInfo=True)
        (cluster,) = found["CacheClusters"]
        (node,) = cluster["CacheNodes"]
        endpoint = node.get("Endpoint") or {}
        trouble = (
            redis_cache.ping(self.params, endpoint["Address"], endpoint["Port"])
            if endpoint
            else "it has no endpoint yet"
        )
        return {"id": node["CacheNodeId"], "status": cluster["CacheClusterStatus"], "trouble": trouble}

    @staticmethod
    def plan(observed, wanted):
        returned = {"endpoint": observed["endpoint"]}
        if wanted["action"] == "status":
            return Plan(notes=tuple(_told(name, node) for name, node in observed["nodes"].items()), returned=returned)
        if wanted["node"] and wanted["node"] not in observed["nodes"]:
            raise Refusal(
                f"{wanted['replication_group']} has no node {wanted['node']} ({near(wanted['node'], observed['nodes'])}): check node"
            )
        made = (_reboot if wanted["action"] == "reboot" else _fail_over)(observed, wanted)
        return Plan(made.steps, made.after, made.notes, returned)

    # The steps, named as in the plan.

    def reboot(self, node, number):
        self._change("reboot_cache_cluster", CacheClusterId=node, CacheNodeIdsToReboot=[number])
        self.rebooted.append(node)

    def fail_over(self, node, automatic):
        if automatic:
            (shard,) = self._group()["NodeGroups"]
            self._change("test_failover", ReplicationGroupId=self.group, NodeGroupId=shard["NodeGroupId"])
        else:
            more = {"PrimaryClusterId": node, "ApplyImmediately": True}
            self._change("modify_replication_group", ReplicationGroupId=self.group, **more)

    def _change(self, operation, **arguments):
        try:
            self.aws.change("elasticache", operation, **arguments)
        except Exception as error:
            if code_of(error) in BUSY:
                raise Overtaken(f"{self.group} is being changed by something else") from error
            raise

    def settle_node(self, node):
        def done(seen):
            return seen["status"] == "available" and not seen["trouble"]

        self.wait(
            lambda: self._node(node),
            done,
            f"{node} answers",
            USUAL_REBOOT,
            lambda seen: seen["trouble"] or seen["status"],
        )

    def settle(self, not_primary=None):
        def done(seen):
            moved = not_primary is None or seen["primary"] != not_primary
            return moved and seen["group"]["Status"] == "available" and not seen["nodes"][seen["primary"]]["trouble"]

        def state(seen):
            return f"{seen['group']['Status']}, primary {seen['primary']}"

        self.wait(self.observe, done, f"{self.group} has its primary", USUAL_FAILOVER, state)

    def is_change(self, steps):
        return any(step["do"] in ("reboot", "fail_over") for step in steps)

    def view(self, observed):
        return {
            "status": observed["group"]["Status"],
            "primary": observed["primary"],
            "nodes": {
                name: {key: node[key] for key in ("role", "status", "trouble")}
                for name, node in observed["nodes"].items()
            },
        }


def _reboot(observed, wanted):
    """Replicas first: the one that serves writes goes when the others are well again."""
    steps, notes = [], []
    for name, node in sorted(observed["nodes"].items(), key=lambda each: (each[1]["role"] == "primary", each[0])):
        meant = name == wanted["node"] if wanted["node"] else bool(node["trouble"])
        if meant and node["status"] == "available" and name not in observed["rebooted"]:
            arguments = {"node": name, "number": node["id"]}
            steps.append(
                Step("reboot", f"reboot {name} ({node['role']})", node["trouble"] or "answers", "answers", arguments)
            )
            if node["role"] == "primary":
                notes.append(f"{name} is the primary: it begins empty, and its replicas after it")
        if meant and (steps or node["status"] != "available" or node["trouble"]):
            steps.append(Step("settle_node", f"wait until {name} answers", arguments={"node": name}, waits=True))
    after = {"nodes": {name: _well(node) for name, node in observed["nodes"].items()}} if steps else {}
    return Plan(tuple(steps), after, tuple(notes))


def _fail_over(observed, wanted):
    group, primary, name = observed["group"], observed["primary"], wanted["replication_group"]
    leaving, trouble = wanted["node"] or observed["first_primary"], observed["nodes"][primary]["trouble"]
    if primary != leaving or group["Status"] != "available":
        if group["Status"] == "available" and not trouble:
            return Plan()
        return Plan((Step("settle", f"wait until {name} has its primary", waits=True),), {"status": "available"})
    if not wanted["node"] and not trouble:
        note = f"{primary} is the primary of {name} and answers: node={primary} has another one take over all the same"
        return Plan(notes=(note,))
    replicas = [each for each, node in observed["nodes"].items() if each != primary and not node["trouble"]]
    if not replicas:
        raise Refusal(f"{name} has no replica that answers, so none can take over: reboot its nodes (action=reboot)")
    automatic = group.get("AutomaticFailover") == "enabled"
    target = replicas[0] if len(replicas) == 1 or not automatic else "a replica"
    steps = (
        Step(
            "fail_over",
            f"make {target} the primary of {name} in the place of {primary}",
            primary,
            target,
            {"node": replicas[0], "automatic": automatic},
        ),
        Step(
            "settle",
            f"wait until {name} has another primary than {primary}",
            arguments={"not_primary": primary},
            waits=True,
        ),
    )
    notes = (f"every connection to {primary} is cut, and it begins empty as a replica",)
    return Plan(steps, {"status": "available", "primary": target}, notes)


def _told(name, node):
    does = f"does not serve: {node['trouble']}" if node["trouble"] else "answers"
    return f"{name} ({node['role']}) is {node['status']} and {does}"


def _well(node):
    return {"role": node["role"], "status": "available", "trouble": ""}


def main():
    module = verb_module(ARGUMENTS)
    if not redis_cache.HAS_REDIS:
        module.fail_json(msg=missing_required_lib("redis"))
    run(module, ElasticacheRecover)


if __name__ == "__main__":
    main()

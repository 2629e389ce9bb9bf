# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of type LoadBalancer get a balancer in the region's Elastic Load Balancing, the ready pods as its targets.

https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/service/nlb/#ip-mode

An HTTP balancer, where AWS would give a Service one for TCP: HTTP is what the sandbox's proxy speaks, and what its
counts, health and error pages are about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ... import elbv2
from ..resources import ENDPOINTS, SERVICES
from ..store import Store, place_of

if TYPE_CHECKING:
    from ...world import World

HEALTH_PATH = "service.beta.kubernetes.io/aws-load-balancer-healthcheck-path"
DRAIN_SECONDS = 5


@dataclass(frozen=True)
class Balancer:
    arn: str
    group_arn: str
    dns_name: str
    zone_id: str


class Balancers:
    def __init__(self, world: World, store: Store, region: str) -> None:
        self._world, self._store, self._region = world, store, region
        self._known: dict[str, Balancer] = {}  # by the Service's uid

    def sync(self) -> None:
        wanted = {
            service["metadata"]["uid"]: service
            for service in self._store.list(SERVICES)
            if service["spec"].get("type") == "LoadBalancer"
        }
        for uid in self._known.keys() - wanted.keys():
            self._remove(self._known.pop(uid))
        for service in wanted.values():
            balancer = self.provide(service)
            self._register(service, balancer)

    def provide(self, service: dict) -> Balancer:
        """The Service's balancer, made when it has none yet."""
        uid = service["metadata"]["uid"]
        if uid not in self._known:
            self._known[uid] = self._make(service)
        balancer = self._known[uid]
        status = {"loadBalancer": {"ingress": [{"hostname": balancer.dns_name}]}}
        self._store.change(SERVICES, service, lambda it: it.update(status=status))
        return balancer

    def _make(self, service: dict) -> Balancer:
        client, metadata = self._world.client("elbv2", self._region), service["metadata"]
        name = f"k8s-{metadata['namespace'][:8]}-{metadata['name'][:8]}-{metadata['uid'][:8]}"
        with self._world.lock:
            ec2 = self._world.backend("ec2", self._region)
            vpc, subnets = ec2.default_vpc.id, [subnet.id for subnet in ec2.get_default_subnets().values()][:2]
        tags = [
            {"Key": "elbv2.k8s.aws/cluster", "Value": "sandbox"},
            {"Key": "service.k8s.aws/stack", "Value": f"{metadata['namespace']}/{metadata['name']}"},
        ]
        made = client.create_load_balancer(Name=name, Subnets=subnets, Tags=tags)["LoadBalancers"][0]
        group = elbv2.make_target_group(
            client,
            vpc,
            name,
            DRAIN_SECONDS,
            port=80,
            path=(metadata.get("annotations") or {}).get(HEALTH_PATH, "/"),
            codes="200-399",
            tags=tags,
        )
        client.create_listener(
            LoadBalancerArn=made["LoadBalancerArn"],
            Protocol="HTTP",
            Port=80,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": group}],
        )
        return Balancer(made["LoadBalancerArn"], group, made["DNSName"], made["CanonicalHostedZoneId"])

    def _remove(self, balancer: Balancer) -> None:
        client = self._world.client("elbv2", self._region)
        client.delete_load_balancer(LoadBalancerArn=balancer.arn)
        client.delete_target_group(TargetGroupArn=balancer.group_arn)

    def _register(self, service: dict, balancer: Balancer) -> None:
        found = self._store.find(ENDPOINTS, *place_of(service)) or {}
        ready = {
            address["ip"]: subset["ports"][0]["port"]
            for subset in found.get("subsets") or []
            for address in subset.get("addresses") or []
        }
        with self._world.lock:
            group = self._world.backend("elbv2", self._region).target_groups.get(balancer.group_arn)
            if group is None:
                return  # deleted behind our back
            registered = {each["Id"] for each in group.targets.values()}
            for address in registered - ready.keys():
                elbv2.deregister(self._region, balancer.group_arn, address)
            for address in ready.keys() - registered:
                elbv2.register(self._region, balancer.group_arn, address, ready[address])

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Endpoints: the addresses of a Service's pods, those that are ready apart from those that are not.

https://kubernetes.io/docs/concepts/services-networking/service/#endpoints
https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

from ..probes import port_of
from ..resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from ..store import Store, owner_reference, place_of
from .workloads import is_active, is_ready


class Endpoints:
    def __init__(self, store: Store) -> None:
        self._store = store

    def sync(self) -> None:
        for service in self._store.list(SERVICES):
            if service["spec"].get("selector"):
                self._sync_one(service)
        for known in self._store.list(ENDPOINTS):
            if self._store.find(SERVICES, *place_of(known)) is None:
                self._store.delete(ENDPOINTS, known)

    def _sync_one(self, service: dict) -> None:
        metadata = service["metadata"]
        subsets = self._subsets(service)
        known = self._store.find(ENDPOINTS, *place_of(service))
        if known is None:
            item = {"metadata": {"name": metadata["name"], "namespace": metadata["namespace"]}}
            if metadata.get("labels"):
                item["metadata"]["labels"] = metadata["labels"]
            known = self._store.create(ENDPOINTS, item)
        self._store.change(ENDPOINTS, known, lambda it: it.update(subsets=subsets) if subsets else it.pop("subsets", 0))
        self._slice(service, subsets)

    def _slice(self, service: dict, subsets: list[dict]) -> None:
        """The same once more, in the newer shape; the garbage collector takes it away with the Service."""
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        facts = {
            "addressType": "IPv4",
            "ports": subsets[0]["ports"] if subsets else [],
            "endpoints": [
                {
                    "addresses": [each["ip"]],
                    "conditions": {"ready": ready, "serving": ready, "terminating": False},
                    "nodeName": each["nodeName"],
                    "targetRef": each["targetRef"],
                }
                for subset in subsets
                for ready, kind in ((True, "addresses"), (False, "notReadyAddresses"))
                for each in subset.get(kind, [])
            ],
        }
        known = self._store.find(ENDPOINT_SLICES, namespace, f"{name}-slice")
        if known is None:
            metadata = {
                "name": f"{name}-slice",
                "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name},
                "ownerReferences": [owner_reference(SERVICES.group_version, SERVICES.kind, service)],
            }
            self._store.create(ENDPOINT_SLICES, {"metadata": metadata, **facts})
        else:
            self._store.change(ENDPOINT_SLICES, known, lambda it: it.update(facts))

    def _subsets(self, service: dict) -> list[dict]:
        selector = service["spec"]["selector"].items()
        namespace = service["metadata"]["namespace"]
        pods = [
            pod
            for pod in self._store.list(PODS, namespace, lambda has: selector <= has.items())
            if is_active(pod) and pod["status"].get("podIP")
        ]
        groups: dict[tuple, dict[str, list[dict]]] = {}
        for pod in pods:
            ports = tuple(self._ports(service, pod))
            kind = "addresses" if is_ready(pod) else "notReadyAddresses"
            groups.setdefault(ports, {}).setdefault(kind, []).append(_address(pod))
        return [{**addresses, "ports": [dict(port) for port in ports]} for ports, addresses in sorted(groups.items())]

    @staticmethod
    def _ports(service: dict, pod: dict) -> list[tuple]:
        containers = {"ports": [port for each in pod["spec"]["containers"] for port in each.get("ports") or []]}
        ports = []
        for each in service["spec"].get("ports") or []:
            found = {"port": port_of(containers, each["targetPort"], each["port"]), "protocol": each["protocol"]}
            if "name" in each:
                found = {"name": each["name"], **found}
            ports.append(tuple(found.items()))
        return ports


def _address(pod: dict) -> dict:
    metadata = pod["metadata"]
    reference = {"kind": "Pod", "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"]}
    return {"ip": pod["status"]["podIP"], "nodeName": pod["spec"]["nodeName"], "targetRef": reference}

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NetworkPolicies, enforced by the node on the sockets of a pod's processes.

Policies add up: a pod is cut off in a direction as soon as one of them selects it for that, and then gets what any of them
allows. Of the peers of a rule, only "everybody" is looked at: nobody else speaks to pods here than balancers do, and pods
speak to databases. A node always reaches its pods.
https://kubernetes.io/docs/concepts/services-networking/network-policies/

What reaches the process is dropped, in connections that are open too; a new connection may live for one look of the kubelet.
"""

from __future__ import annotations

from .. import packet_filter
from . import selectors
from .probes import NODE_ADDRESS
from .resources import NETWORK_POLICIES
from .store import Store

EVERYBODY = ("0.0.0.0/0", "::/0")


def cut(store: Store, pod: dict) -> tuple[bool, bool]:
    """Whether the pod hears nothing of connections to it, and of its own ones."""
    found = [
        policy["spec"]
        for policy in store.list(NETWORK_POLICIES, pod["metadata"]["namespace"])
        if selectors.of_object(policy["spec"].get("podSelector") or {})(pod["metadata"].get("labels"))
    ]
    return _is_cut(found, "Ingress", "from"), _is_cut(found, "Egress", "to")


def _is_cut(specs: list[dict], kind: str, peers: str) -> bool:
    concerned = [spec for spec in specs if kind in _kinds(spec)]
    rules = [rule for spec in concerned for rule in spec.get(kind.lower()) or []]
    return bool(concerned) and not any(_is_open(rule.get(peers)) for rule in rules)


def _kinds(spec: dict) -> list[str]:
    return spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"])


def _is_open(peers: list[dict] | None) -> bool:
    return not peers or any((peer.get("ipBlock") or {}).get("cidr") in EVERYBODY for peer in peers)


class Guard:
    """What one pod hears, on its node."""

    def __init__(self, store: Store, address: str) -> None:
        self._store, self._address, self._was_cut = store, address, False

    def enforce(self, pod: dict, pids: list[int]) -> None:
        """Raises OSError where this machine does not let it."""
        incoming, outgoing = cut(self._store, pod)
        if not (incoming or outgoing or self._was_cut):
            return
        for pid in pids:
            try:
                packet_filter.cut(pid, self._address, incoming, outgoing, NODE_ADDRESS)
            except (ProcessLookupError, FileNotFoundError):
                pass  # it has just ended
        self._was_cut = incoming or outgoing

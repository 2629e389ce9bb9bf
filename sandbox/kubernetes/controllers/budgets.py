# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PodDisruptionBudgets: how many pods may be evicted now.

https://kubernetes.io/docs/tasks/run-application/configure-pdb/
"""

from __future__ import annotations

from .. import selectors
from ..resources import DISRUPTION_BUDGETS, PODS
from ..store import Store
from .rolling import of_total
from .workloads import is_active, is_ready


class Budgets:
    def __init__(self, store: Store) -> None:
        self._store = store

    def sync(self) -> None:
        for budget in self._store.list(DISRUPTION_BUDGETS):
            spec = budget["spec"]
            matches = selectors.of_object(spec.get("selector"))
            pods = [pod for pod in self._store.list(PODS, budget["metadata"]["namespace"], matches) if is_active(pod)]
            healthy, expected = sum(is_ready(pod) for pod in pods), len(pods)
            if "maxUnavailable" in spec:
                desired = max(0, expected - of_total(spec["maxUnavailable"], expected, True))
            else:
                desired = of_total(spec.get("minAvailable", 1), expected, True)
            status = {
                "observedGeneration": budget["metadata"]["generation"],
                "currentHealthy": healthy,
                "desiredHealthy": desired,
                "disruptionsAllowed": max(0, healthy - desired),
                "expectedPods": expected,
            }
            self._store.change(DISRUPTION_BUDGETS, budget, lambda it, status=status: it.update(status=status))

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The subresource eviction: a deletion that asks the disruption budgets first.

https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

from __future__ import annotations

from . import errors, selectors
from .api import Api
from .requests import Request, Target
from .resources import DISRUPTION_BUDGETS, PODS
from .store import Store


class Evictions:
    def __init__(self, store: Store, api: Api) -> None:
        self._store, self._api = store, api

    def evict(self, request: Request, target: Target) -> tuple[int, dict]:
        """Raises NotFound, and TooManyRequests when a budget forbids it."""
        if request.verb != "create":
            raise errors.method_not_allowed()
        with self._store.lock:
            pod = self._store.get(PODS, target.namespace, target.name)
            for budget in self._store.list(DISRUPTION_BUDGETS, target.namespace):
                matches = selectors.of_object(budget["spec"].get("selector"))
                if matches(pod["metadata"].get("labels")) and not budget["status"].get("disruptionsAllowed"):
                    raise _refused(budget)
            if not request.is_dry_run:
                self._api.delete(PODS, pod, request.object.get("deleteOptions") or {})
        return 201, errors.success(201)


def _refused(budget: dict) -> errors.ApiError:
    name, status = budget["metadata"]["name"], budget["status"]
    why = (
        f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy pods and has "
        f"{status.get('currentHealthy', 0)} currently"
    )
    return errors.too_many_requests(
        "Cannot evict pod as it would violate the pod's disruption budget.",
        [{"reason": "DisruptionBudget", "message": why}],
    )

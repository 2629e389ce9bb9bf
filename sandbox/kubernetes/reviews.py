# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions about oneself: the sandbox's one user may do everything.

https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from __future__ import annotations

from .api import represent
from .requests import Request, Target
from .resources import SELF_ACCESS_REVIEWS

USER = "sandbox"


def answer(request: Request, target: Target) -> tuple[int, dict]:
    if target.resource == SELF_ACCESS_REVIEWS:
        status = {"allowed": True, "reason": "the sandbox's user may do everything"}
    else:
        status = {"userInfo": {"username": USER, "groups": ["system:masters", "system:authenticated"]}}
    item = {"metadata": {"creationTimestamp": None}, "spec": request.object.get("spec", {}), "status": status}
    return 201, represent(target.resource, item)

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `kubectl get` prints: a server's own choice of columns."""

from __future__ import annotations

from .requests import Request
from .resources import Resource


def of(request: Request, resource: Resource, items: list[dict], metadata: dict | None = None) -> dict | None:
    return None

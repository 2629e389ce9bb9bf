# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who manages which field."""

from __future__ import annotations

from .resources import Resource


def updated(resource: Resource, before: dict | None, item: dict, manager: str, subresource: str = "") -> dict:
    return item

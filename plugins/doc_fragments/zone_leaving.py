# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations


class ModuleDocFragment:
    """Out of a zone and back; `zones.ARGUMENTS` is the same in code."""

    DOCUMENTATION = r"""
options:
  zone:
    description: Name of the availability zone to leave, needed for O(state=left).
    type: str
  state:
    description: V(left) leaves O(zone), V(back) comes back into the one that was left.
    type: str
    choices: [left, back]
    default: left
"""

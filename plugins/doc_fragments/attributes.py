# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The attributes of every verb: they are the same by contract."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    support: full
    description:
      - Makes every read and no change, and returns the plan and the predicted state.
  diff_mode:
    support: full
    description:
      - Prints the steps in order and what they change.
"""

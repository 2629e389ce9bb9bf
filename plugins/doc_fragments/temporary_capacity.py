# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations


class ModuleDocFragment:
    """Capacity for a while; `temporary_capacity.ARGUMENTS` is the same in code."""

    DOCUMENTATION = r"""
options:
  capacity:
    description:
      - How much to have, as a number (V(6)) or as a change (V(+2), V(-1), V(+50%), V(-25%)); a part of one is a whole one.
      - A change counts from what there was before the emergency, as the target remembers it, so that the same task again
        changes nothing. It never takes away what scaling has added meanwhile, nor adds what it has taken.
      - Counts for nothing with O(restore).
    type: str
  restore:
    description:
      - Give back what was given. What is no longer as this verb has set it stays, and RV(notes) says so; where nothing was
        given there is nothing to do.
    type: bool
    default: false
  accept_shortage:
    description:
      - Go on although something will not last for that many, or although nobody can tell whether the database has the
        connections. RV(notes) says what.
      - "B(Risk:) a database without a free connection takes the whole service down."
    type: bool
    default: false
  db_instance:
    description:
      - RDS instance that the service needs, in O(region). The connections that it has left are asked of PostgreSQL itself,
        with O(login_user).
    type: str
  connections_each:
    description: Connections that the pool of each one more may open to O(db_instance). Nothing is checked without it.
    type: int
"""

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations


class ModuleDocFragment:
    """What every verb has in common."""

    DOCUMENTATION = r"""
options:
  wait_timeout:
    description:
      - How long each wait of this verb may last, in seconds. Running into it fails with what was done so far;
        the same task again goes on from there.
    type: int
    default: 1800
  lease:
    description:
      - The lease that RV(sre.runbooks.incident_lock#module:lease) returned. It is renewed before each change and
        during waits, and the verb stops before its next change if another run took it over.
      - Without it nothing keeps two runs apart.
    type: dict
    suboptions:
      name:
        description: Name of the lease.
        type: str
        required: true
      table:
        description: DynamoDB table that holds it.
        type: str
        required: true
      region:
        description: Region of the table.
        type: str
        required: true
      ttl:
        description: Seconds that it lasts without renewal.
        type: int
        default: 60
      token:
        description: Fencing token of this holder.
        type: int
        required: true
requirements:
  - python >= 3.11
"""

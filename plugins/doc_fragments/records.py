# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Where the records of runs are."""

    DOCUMENTATION = r"""
options:
  records:
    description: Folder of the records. Default is the one that this run's own record lies in.
    type: path
  record_bucket:
    description:
      - Bucket that has the records as well, one object for each event, written as it happens by a process of its own. For teams whose
        controllers are many. A bucket that does not answer delays nothing; the next run delivers what is missing.
    type: str
  record_bucket_region:
    description: Region of O(record_bucket). Default is O(region).
    type: str
"""

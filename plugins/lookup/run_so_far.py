# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: run_so_far
author: sre.runbooks contributors (@sre-runbooks)
version_added: 0.2.0
short_description: How the present run has gone so far
description:
  - Reads the timeline of the run, which the callback P(sre.runbooks.incident#callback) writes. Without it nothing is known.
options:
  _terms:
    description: None are taken.
"""

EXAMPLES = r"""
- name: Say how it went
  ansible.builtin.debug:
    msg: "{{ lookup('sre.runbooks.run_so_far').outcome }}"
"""

RETURN = r"""
_raw:
  description:
    - C(outcome) is V(recovered), V(failed), or V(noop) where nothing was changed; empty where nothing is known. C(why) is what the
      last failure said, C(seconds) how long the run has taken, C(by) who runs it.
  type: list
  elements: dict
  sample: [{outcome: failed, why: "regami-db-replica lags 400 s behind", seconds: 12, by: jane@bastion}]
"""

import os

from ansible.plugins.lookup import LookupBase

from ansible_collections.sre.runbooks.plugins.module_utils import record


class LookupModule(LookupBase):
    """One dict."""

    def run(self, terms, variables=None, **kwargs):
        folder = os.environ.get(record.FOLDER_VARIABLE)
        return [record.so_far(record.events(folder)) if folder else {"outcome": "", "why": "", "seconds": 0, "by": ""}]

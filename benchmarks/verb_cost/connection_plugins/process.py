# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The local connection under another name: a verb on it runs as an ordinary module, in a process of its own."""

from __future__ import annotations

DOCUMENTATION = r"""
name: process
short_description: The local connection under another name
description:
  - Does what P(ansible.builtin.local#connection) does.
options: {}
"""

from ansible.plugins.connection import local  # noqa: E402  (Ansible reads DOCUMENTATION first)


class Connection(local.Connection):
    transport = "process"
    has_pipelining = True

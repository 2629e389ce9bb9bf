# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """A project of Jira."""

    DOCUMENTATION = r"""
options:
  jira:
    description: The project in which issues are made.
    type: dict
    suboptions:
      url:
        description: The site, such as V(https://example.atlassian.net).
        type: str
        required: true
      project:
        description: Key of the project.
        type: str
        required: true
      token:
        description: API token of O(jira.user), or a personal access token (Data Center).
        type: str
        required: true
      user:
        description: Whose API token it is (Cloud).
        type: str
      issue_type:
        description: Name of the issues' type.
        type: str
        default: Task
"""

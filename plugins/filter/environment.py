# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: environment
version_added: 0.1.0
short_description: The hosts pattern of an environment that exists
description:
  - Returns its input where that is a group of the inventory. Anything else stops the playbook with the list of
    environments, where a hosts pattern that matches nothing would end it green.
options:
  _input:
    description: Name of the environment, as given with C(-e env=).
    type: str
    required: true
  groups:
    description: The magic variable C(groups).
    type: dict
    required: true
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: Move the database of an environment
  hosts: "{{ env | default('') | sre.runbooks.environment(groups) }}"
  gather_facts: false
"""

RETURN = r"""
_value:
  description: The name of the group.
  type: str
"""

import difflib

from ansible.errors import AnsibleFilterError


def environment(name, groups):
    """The group `name`, or AnsibleFilterError that says which there are.

    Groups without hosts, those that ansible itself makes, and service_* groups, which collect what a service has in
    common in all environments, are no environments: a run on one would move a service to and fro at the same time.
    """
    there = sorted(
        group
        for group, hosts in groups.items()
        if hosts and group not in ("all", "ungrouped") and not group.startswith("service_")
    )
    if name in there:
        return name
    near = difflib.get_close_matches(str(name), there, 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    given = f"env={name} is no environment{meant}" if name else "no environment given"
    raise AnsibleFilterError(f"{given}: say -e env=NAME with one of {', '.join(there)}; nothing was changed")


class FilterModule:
    """Filters of the collection."""

    def filters(self):
        return {"environment": environment}

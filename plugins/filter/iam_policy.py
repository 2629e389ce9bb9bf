# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: iam_policy
version_added: 0.2.0
short_description: An IAM policy of this collection with the names of one inventory
description:
  - Puts the variables of a host, and of its peer, where a policy of the folder C(iam) names them in braces, as in C({lock_table}).
  - A resource that both name alike stands once, and one whose variable is not set is left out; so is a statement without any
    resource left, or with a condition without any value. A list stands for each of its values. What a playbook may not touch here
    it need not be allowed.
  - C({load_balancer}), C({target_group}) and C({secret}) are found in what the host says otherwise, in C(load_balancer_arn),
    C(target_group_arn) and C(standby_target_group_arn), C(db_admin_secret) and C(breach_secrets); C({passed_role}) in the list
    C(passed_roles), of names or ARNs.
options:
  _input:
    description: The policy, as it is in the folder C(iam), or a list of such, which is filled together.
    type: raw
    required: true
  hosts:
    description: Variables of the host, and of its peer.
    type: list
    elements: dict
    required: true
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: What a failover of this service has to be allowed
  ansible.builtin.debug:
    msg: >-
      {{ lookup('ansible.builtin.file', playbook_dir ~ '/../iam/db_failover.json') | from_json
         | sre.runbooks.iam_policy([hostvars['api-prod'], hostvars['api-secondary']]) }}
"""

RETURN = r"""
_value:
  description: The policy, to be attached to the role that runs the playbook; of a list of policies, the list of them.
  type: raw
"""

import re
from collections.abc import Mapping

_NAME = re.compile(r"(?<!\$)\{(\w+)\}")


def iam_policy(policy, hosts):
    """`policy`, or each of a list, with the variables of `hosts` for what stands in braces."""
    known = [_Names(host) for host in hosts]
    return _of_hosts(policy, known) if isinstance(policy, Mapping) else [_of_hosts(each, known) for each in policy]


def _of_hosts(policy, known):
    statements = [_filled(statement, known) for statement in policy["Statement"]]
    return dict(policy, Statement=[each for each in statements if each["Resource"] and _has_values(each)])


def _has_values(statement):
    """A condition without a value never holds."""
    return all(value for keys in statement.get("Condition", {}).values() for value in keys.values())


def _filled(statement, hosts):
    filled = dict(statement, Resource=_each(statement["Resource"], hosts))
    if "Condition" in statement:
        filled["Condition"] = {
            operator: {key: _each(value, hosts) for key, value in keys.items()}
            for operator, keys in statement["Condition"].items()
        }
    return filled


def _each(values, hosts):
    """Every value for every host, without those that a host has no name for."""
    listed = [values] if isinstance(values, str) else values
    return list(dict.fromkeys(found for value in listed for host in hosts for found in _named(value, host)))


def _named(value, host):
    """`value` with the variables of one host, once for each of a list; nothing where it lacks one."""
    found = [value]
    for name in _NAME.findall(value):
        known = host.get(name) or []
        texts = [known] if isinstance(known, str) else known
        found = [each.replace(f"{{{name}}}", text) for each in found for text in texts]
    return found


class _Names:
    """The variables of a host, and what an ARN is made of that they say in another way."""

    def __init__(self, host):
        self._host = host
        self._found = {}

    def get(self, name):
        # Each is a template that Ansible works out anew whenever it is asked for, and policies ask for few names often.
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name):
        find = {
            "load_balancer": lambda: self._ends("loadbalancer/", "load_balancer_arn"),
            "target_group": lambda: self._ends("targetgroup/", "target_group_arn", "standby_target_group_arn"),
            "secret": lambda: [*self._ends("secret:", "db_admin_secret"), *self._secrets()],
            "passed_role": lambda: self._ends("role/", "passed_roles"),
            "uploads_role": lambda: self._ends("role/", "uploads_role"),
        }.get(name)
        return find() if find else self._host.get(name)

    def _ends(self, kind, *names):
        """What follows `kind` in ARNs, and names as they are."""
        values = [self._host.get(name) or [] for name in names]
        texts = [text for value in values for text in ([value] if isinstance(value, str) else value)]
        return [text.partition(kind)[2] if text.startswith("arn:") else text for text in texts]

    def _secrets(self):
        return [each["secret"] for each in self._host.get("breach_secrets") or []]


class FilterModule:
    """Filters of the collection."""

    def filters(self):
        return {"iam_policy": iam_policy}

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations


class ModuleDocFragment:
    """New values of a secret; `new_values.VALUE_OPTIONS` is the same in code."""

    DOCUMENTATION = r"""
options:
  values:
    description:
      - The new values, each from one source. They are in no result, diff, record or command line.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description: Key in the Kubernetes Secret, or field of the JSON that the secret is. Without it, the whole secret.
        type: str
      value:
        description: The value itself, for example from a lookup.
        type: str
      file:
        description: A file of the controller with the value.
        type: path
      length:
        description: Generate letters and digits, so many of them.
        type: int
      user:
        description: Put this user into the URL that the value was.
        type: str
"""

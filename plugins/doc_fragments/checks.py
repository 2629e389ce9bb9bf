# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations

# What both kinds of checks have; `smoke.CHECK_ARGUMENTS` is the same in code.
_COMMON = r"""
      name:
        description: Name of the check, for people.
        type: str
        required: true
      url:
        description: URL to ask, with V(http) or V(https).
        type: str
        required: true
      headers:
        description: Headers to send. Their values are hidden wherever they occur in the result.
        type: dict
      expect_status:
        description: Status codes that pass.
        type: list
        elements: int
        default: [200]
      expect_json:
        description: What the answer must hold as JSON. It may hold more, at any depth; lists must be equal.
        type: dict
      expect_above:
        description:
          - Numbers that the answer must exceed, nested as the answer is. A C(score) of V(80) here fails at 80 and passes at 81.
        type: dict
      within:
        description: Seconds that one answer may take, resolving the name and reading the answer included.
        type: float
        default: 5
"""


class ModuleDocFragment:
    """What is asked of a service as a user asks it."""

    # Annotated, since ansible-test's yamllint reads each plain assignment and dies of one that is no literal.
    DOCUMENTATION: str = (
        r"""
options:
  dns_servers:
    description:
      - DNS servers to ask for the hosts of the URLs, as V(host) or V(host:port), so that a name that has just moved is
        not taken from a cache. Default is the resolver of the machine.
    type: list
    elements: str
    default: []
  checks:
    description: What to ask.
    type: list
    elements: dict
    default: []
    suboptions:
      method:
        description: Method of the request.
        type: str
        choices: [GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE]
        default: GET
      json:
        description: Body to send as JSON. Give secrets in O(checks[].secret_json).
        type: dict
      secret_json:
        description:
          - Fields to add to O(checks[].json), for example a password. Their values are hidden wherever they occur in the
            result, so give nothing short or common here.
        type: dict
      body:
        description: Body to send as it is, instead of O(checks[].json).
        type: str
      expect_below:
        description: Numbers that the answer must stay below, as in O(checks[].expect_above).
        type: dict
      attempts:
        description: How often this check is sent at most. Default is as often as the module asks at all.
        type: int
"""
        + _COMMON
    )

    DATA: str = (
        r"""
options:
  data_checks:
    description:
      - Checks of data that must be there. One that is answered, but not as expected, counts as lost data; one that is not
        answered, or with 5xx, says nothing of the data.
    type: list
    elements: dict
    default: []
    suboptions:
"""
        + _COMMON
    )

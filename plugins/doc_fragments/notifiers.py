# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """Who is told of incidents; `channels.ARGUMENTS` is the same in code."""

    DOCUMENTATION = r"""
options:
  slack:
    description: The workspace.
    type: dict
    suboptions:
      token:
        description: Token of an app with C(chat:write), C(channels:manage), C(channels:join), C(channels:read), C(channels:history).
        type: str
        required: true
      url:
        description: Where its Web API is.
        type: str
        default: https://slack.com/api
      invite:
        description: Ids of users and groups that are invited to the channel of an incident.
        type: list
        elements: str
        default: []
  pagerduty:
    description: The service that pages.
    type: dict
    suboptions:
      routing_key:
        description: Its integration key for the Events API v2.
        type: str
        required: true
      url:
        description: Where the Events API is; accounts in Europe have V(https://events.eu.pagerduty.com).
        type: str
        default: https://events.pagerduty.com
  statuspage:
    description: The status page.
    type: dict
    suboptions:
      page:
        description: Id of the page.
        type: str
        required: true
      token:
        description: API key.
        type: str
        required: true
      url:
        description: Where the API is.
        type: str
        default: https://api.statuspage.io
  mail:
    description: The mail server.
    type: dict
    suboptions:
      host:
        description: Its name.
        type: str
        required: true
      port:
        description: Its port. Default is 587, 465 with V(tls), 25 with V(none).
        type: int
      security:
        description: How the connection is secured. A password is never sent over one that is not.
        type: str
        choices: [starttls, tls, none]
        default: starttls
      user:
        description: Login, where it wants one.
        type: str
      password:
        description: Password of O(mail.user).
        type: str
      sender:
        description: Address of the sender.
        type: str
        required: true
"""

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The notifiers that an inventory names, by the channels that notices go."""

from __future__ import annotations

from .jira import ARGUMENTS as JIRA
from .jira import Jira
from .mail import Mail
from .pagerduty import PagerDuty
from .slack import Slack
from .statuspage import Statuspage

ARGUMENTS = dict(
    slack=dict(
        type="dict",
        options=dict(
            token=dict(type="str", required=True, no_log=True),
            url=dict(type="str", default="https://slack.com/api"),
            invite=dict(type="list", elements="str", default=[]),
        ),
    ),
    pagerduty=dict(
        type="dict",
        options=dict(
            routing_key=dict(type="str", required=True, no_log=True),
            url=dict(type="str", default="https://events.pagerduty.com"),
        ),
    ),
    statuspage=dict(
        type="dict",
        options=dict(
            page=dict(type="str", required=True),
            token=dict(type="str", required=True, no_log=True),
            url=dict(type="str", default="https://api.statuspage.io"),
        ),
    ),
    mail=dict(
        type="dict",
        options=dict(
            host=dict(type="str", required=True),
            port=dict(type="int"),
            security=dict(type="str", choices=["starttls", "tls", "none"], default="starttls"),
            user=dict(type="str"),
            password=dict(type="str", no_log=True),
            sender=dict(type="str", required=True),
        ),
        required_together=[("user", "password")],
    ),
    **JIRA,
)
CHANNELS = {"slack": Slack, "pagerduty": PagerDuty, "statuspage": Statuspage, "mail": Mail, "jira": Jira}


def notifiers(params, recipients=()):
    """{channel: notifier} of those that the parameters set up.

    Args:
        recipients: addresses, which mail goes to.
    """
    more = {"mail": {"recipients": recipients}}
    return {
        channel: made(**params[channel], **more.get(channel, {}))
        for channel, made in CHANNELS.items()
        if params[channel]
    }

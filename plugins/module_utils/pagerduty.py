# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notices as events of PagerDuty's Events API v2: a page that is triggered, acknowledged and resolved.

The id of the incident is the dedup_key, so the same event twice is one alert.
https://developer.pagerduty.com/docs/events-api-v2/trigger-events/
"""

from __future__ import annotations

import re

from .notifiers import Api, Rejected

CHECK = "check notify_pagerduty.routing_key"
# https://developer.pagerduty.com/docs/events-api-v2/trigger-events/#parameters
LONGEST_SUMMARY, LONGEST_KEY = 1024, 255
# "The 32 character Integration Key" of the same page.
KEY = re.compile(r"[A-Za-z0-9]{32}")


class PagerDuty:
    """The service of an integration key."""

    def __init__(self, routing_key, url="https://events.pagerduty.com"):
        self._key = routing_key
        self._api = Api("PagerDuty", url, {}, CHECK)

    def tell(self, notice, deadline):
        details = notice.details
        event = {
            "routing_key": self._key,
            "event_action": details["action"],
            "dedup_key": details["dedup_key"][:LONGEST_KEY],
        }
        if details["action"] == "trigger":
            event["payload"] = {
                "summary": notice.title[:LONGEST_SUMMARY],
                "source": details["source"],
                "severity": details["severity"],
                "timestamp": notice.at,
                "custom_details": {"incident": details["dedup_key"], "text": notice.text},
            }
        self._api.call("POST", "v2/enqueue", deadline, event, expected=(202,))
        return ""

    def has(self, notice, deadline):
        return False  # an event that comes twice changes nothing

    def lacks(self, places, deadline):
        """The Events API tells nobody whether it knows a key: only its form can be looked at, and whether the host answers."""
        try:
            self._api.call("GET", "", deadline)
        except Rejected:
            pass  # there is nothing to get, which it says itself
        return [] if KEY.fullmatch(self._key) else ["PagerDuty: an integration key has 32 letters and digits: " + CHECK]

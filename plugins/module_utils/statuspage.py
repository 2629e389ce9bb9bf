# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notices on a status page, by Atlassian Statuspage's REST API v1: one incident, and an update of it for each notice.

The page's incident is known by the id in its metadata; one that a person has made with the same name is taken over.
https://developer.statuspage.io/#tag/incidents
"""

from __future__ import annotations

from .notifiers import Api

METADATA = "sre_runbooks"
# Of the incidents that are over, so many are looked through, the newest first.
LOOKED_AT = 10
MOST_COMPONENTS = 100


def find(incidents, incident, name=None):
    """Pure: the page's incident that is ours, or a person's of the name, if one is given; None where there is none."""
    ours = [each for each in incidents if _of(each) == incident]
    persons = [each for each in incidents if _of(each) is None and each["name"] == name]
    return next(iter(ours + persons), None)


def _of(incident):
    return ((incident.get("metadata") or {}).get(METADATA) or {}).get("incident")


def says(incident, status, text):
    """Pure: whether the newest update of the page's incident is this one already."""
    updates = sorted(incident.get("incident_updates") or (), key=lambda each: each["created_at"])
    return bool(updates) and updates[-1]["body"] == text and status in (None, updates[-1]["status"])


class Statuspage:
    """One page of an account."""

    def __init__(self, page, token, url="https://api.statuspage.io"):
        headers = {"Authorization": f"OAuth {token}"}
        self._api = Api("Statuspage", f"{url.rstrip('/')}/v1/pages/{page}", headers, "check notify_statuspage.token")

    def tell(self, notice, deadline):
        there, body = self._find(notice, deadline), notice.text or notice.title
        if there and says(there, notice.details["status"], body):
            return ""
        asked = {"status": notice.details["status"], "body": body, "components": notice.details["components"]}
        asked = {name: value for name, value in asked.items() if value}
        asked["metadata"] = {METADATA: {"incident": notice.details["incident"]}}
        if there:
            self._api.call("PATCH", f"incidents/{there['id']}", deadline, {"incident": asked})
            return ""
        asked |= {"name": notice.title, "component_ids": list(notice.details["components"])}
        asked.setdefault("status", "investigating")
        if notice.details["impact"]:
            asked["impact_override"] = notice.details["impact"]
        self._api.call("POST", "incidents", deadline, {"incident": asked}, expected=(200, 201))
        return ""

    def has(self, notice, deadline):
        return False  # `tell` looks each time

    def lacks(self, places, deadline):
        """`places` are ids of components, of which a page has a few. https://developer.statuspage.io/#tag/components"""
        _status, components = self._api.call("GET", f"components?per_page={MOST_COMPONENTS}", deadline)
        known = {each["id"] for each in components}
        strange = [place for place in places if place not in known] if len(components) < MOST_COMPONENTS else []
        return [f"Statuspage: the page has no component {each}" for each in strange]

    def _find(self, notice, deadline):
        """One that goes on, or ours that is over: it was resolved by a notice whose answer was lost."""
        ours = notice.details["incident"]
        _status, incidents = self._api.call("GET", "incidents/unresolved", deadline)
        if found := find(incidents, ours, notice.title):
            return found
        _status, incidents = self._api.call("GET", f"incidents?limit={LOOKED_AT}", deadline)
        return find(incidents, ours)

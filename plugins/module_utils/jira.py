# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action items as Jira issues, of Jira Cloud and of Data Center: REST API version 2, where a description is plain text.

Each has a label of its own, by which it is found before it is made. The index of Cloud follows some seconds behind, so a
second run at the very same moment may still make a second one.
https://developer.atlassian.com/cloud/jira/platform/rest/v2/api-group-issues/
"""

from __future__ import annotations

import base64

from .notifiers import Api, Rejected

LONGEST_SUMMARY = 255
# Cloud has only the first, Data Center only the second.
# https://developer.atlassian.com/changelog/#CHANGE-2046
SEARCHES = ("rest/api/2/search/jql", "rest/api/2/search")


class Jira:
    """A project of a site.

    Args:
        user: whose API token it is (Cloud); None for a personal access token (Data Center).
        issue_type: its name.
    """

    def __init__(self, url, project, token, user=None, issue_type="Task"):
        secret = f"Basic {base64.b64encode(f'{user}:{token}'.encode()).decode()}" if user else f"Bearer {token}"
        self._api = Api("Jira", url, {"Authorization": secret}, "check notify_jira.token")
        self._project, self._issue_type = project, issue_type

    def tell(self, notice, deadline):
        if self._is_there(notice.details["label"], deadline):
            return ""
        fields = {
            "project": {"key": self._project},
            "issuetype": {"name": self._issue_type},
            "summary": notice.title[:LONGEST_SUMMARY],
            "description": f"{notice.title}\n{notice.text}\n\nIncident {notice.details['incident']}".replace(
                "\n\n\n", "\n\n"
            ),
            "labels": [notice.details["incident"], notice.details["label"]],
        }
        _status, made = self._api.call("POST", "rest/api/2/issue", deadline, {"fields": fields}, expected=(201,))
        return made["key"]

    def has(self, notice, deadline):
        return False  # `tell` looks each time

    def _is_there(self, label, deadline):
        asked = {"jql": f'project = "{self._project}" AND labels = "{label}"', "fields": ["key"], "maxResults": 1}
        for path in SEARCHES:
            try:
                _status, found = self._api.call("POST", path, deadline, asked)
            except Rejected as error:
                if error.code in (404, 405, 410) and path != SEARCHES[-1]:
                    continue
                raise
            return bool(found["issues"])
        return False

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Issues of Jira Cloud and of Data Center: REST API version 2, where a description is plain text.

Each has a label of its own, by which it is found before it is made. The index of Cloud follows some seconds behind, so a
second run at the very same moment may still make a second one.
https://developer.atlassian.com/cloud/jira/platform/rest/v2/api-group-issues/
"""

from __future__ import annotations

import base64

from .notifiers import Api, Rejected

LONGEST_SUMMARY = 255
# Issues of one answer; Data Center gives no more unless it is set up so.
PAGE = 50
# Cloud has only the first, Data Center only the second.
# https://developer.atlassian.com/changelog/#CHANGE-2046
SEARCHES = ("rest/api/2/search/jql", "rest/api/2/search")

ARGUMENTS = dict(
    jira=dict(
        type="dict",
        options=dict(
            url=dict(type="str", required=True),
            project=dict(type="str", required=True),
            token=dict(type="str", required=True, no_log=True),
            user=dict(type="str"),
            issue_type=dict(type="str", default="Task"),
        ),
    ),
)


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
        text = f"{notice.title}\n{notice.text}\n\nIncident {notice.details['incident']}".replace("\n\n\n", "\n\n")
        return self.make(notice.title, text, [notice.details["incident"], notice.details["label"]], deadline)

    def has(self, notice, deadline):
        return False  # `tell` looks each time

    def lacks(self, places, deadline):
        """https://developer.atlassian.com/cloud/jira/platform/rest/v2/api-group-projects/#api-rest-api-2-project-projectidorkey-get"""
        # A project that anybody may see is no sign that the token is taken.
        self._api.call("GET", "rest/api/2/myself", deadline)
        status, project = self._api.call("GET", f"rest/api/2/project/{self._project}", deadline, expected=(200, 404))
        if status == 404:
            return [f"Jira has no project {self._project} that this token can see"]
        types = [each["name"] for each in project.get("issueTypes", [])]
        if types and self._issue_type not in types:
            return [f"Jira: project {self._project} has no issue type {self._issue_type}, but {', '.join(types)}"]
        return []

    def _is_there(self, label, deadline):
        return bool(self.find(f'labels = "{label}"', deadline))

    def make(self, title, text, labels, deadline):
        """Make an issue; returns its key."""
        fields = {
            "project": {"key": self._project},
            "issuetype": {"name": self._issue_type},
            "summary": title[:LONGEST_SUMMARY],
            "description": text,
            "labels": labels,
        }
        _status, made = self._api.call("POST", "rest/api/2/issue", deadline, {"fields": fields}, expected=(201,))
        return made["key"]

    def find(self, jql, deadline):
        """{key: labels} of all issues of the project for which `jql` holds."""
        asked = {"jql": f'project = "{self._project}" AND {jql}', "fields": ["labels"], "maxResults": PAGE}
        for path in SEARCHES:
            try:
                return self._pages(path, asked, deadline)
            except Rejected as error:
                if error.code not in (404, 405, 410) or path == SEARCHES[-1]:
                    raise
        return {}

    def _pages(self, path, asked, deadline):
        """Cloud goes on by a token, Data Center by a number."""
        found, more = {}, {}
        while True:
            _status, page = self._api.call("POST", path, deadline, {**asked, **more})
            found |= {each["key"]: each["fields"]["labels"] for each in page["issues"]}
            if page.get("nextPageToken"):
                more = {"nextPageToken": page["nextPageToken"]}
            elif page["issues"] and len(found) < page.get("total", 0):
                more = {"startAt": len(found)}
            else:
                return found

    def comment(self, key, text, deadline):
        self._api.call("POST", f"rest/api/2/issue/{key}/comment", deadline, {"body": text}, expected=(201,))

    def relabel(self, key, old, new, deadline):
        """Take the labels `old` away and add `new`; it is all the same how often."""
        changes = [*({"remove": each} for each in old), *({"add": each} for each in new)]
        self._api.call("PUT", f"rest/api/2/issue/{key}", deadline, {"update": {"labels": changes}}, expected=(204,))

    def finish(self, key, deadline):
        """Move an issue to a status that counts as done: by the first way there that its workflow has from where it is.

        https://developer.atlassian.com/cloud/jira/platform/rest/v2/api-group-issues/#api-rest-api-2-issue-issueidorkey-transitions-get
        """
        path = f"rest/api/2/issue/{key}/transitions"
        _status, there = self._api.call("GET", path, deadline)
        ways = [each["id"] for each in there["transitions"] if each["to"]["statusCategory"]["key"] == "done"]
        if not ways:
            raise Rejected(f"Jira has no way from where {key} is to done: end it by hand")
        self._api.call("POST", path, deadline, {"transition": {"id": ways[0]}}, expected=(204,))

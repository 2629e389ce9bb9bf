# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notices by Slack's Web API, in channels that are there and in the one of the incident, which it makes.

A message carries the id of its notice as metadata, by which it is found again where the answer was lost.
https://docs.slack.dev/reference/methods/chat.postMessage, https://docs.slack.dev/messaging/message-metadata
The app needs the scopes chat:write, channels:manage, channels:join, channels:read and channels:history.
"""

from __future__ import annotations

import re
from urllib.parse import urlencode

from .notifiers import Api, Rejected, Unavailable
from .timeline import seconds_of

EVENT_TYPE = "sre_runbooks_notice"
CHECK = "check notify_slack.token"
# The request was right and may be sent again.
TRANSIENT = ("ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout")
HINTS = {
    "channel_not_found": "there is no such channel, or the app is not in it",
    "not_in_channel": "invite the app to it",
    "is_archived": "unarchive it",
    **dict.fromkeys(("invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive"), CHECK),
}
# https://docs.slack.dev/reference/methods/conversations.setTopic
LONGEST_TOPIC = 250
# Messages that are looked through for one whose answer was lost, and by how much the clocks may differ in seconds.
LOOKED_AT, CLOCKS = 200, 300
# What telling needs, and what lets the app see private channels, and write into public ones that it is not in.
# https://docs.slack.dev/reference/scopes
PAGE = 200  # channels at a time, as Slack recommends at most
NEEDED = ("chat:write", "channels:manage", "channels:join", "channels:read", "channels:history")
SEES_PRIVATE, WRITES_ANYWHERE = "groups:read", "chat:write.public"


class Slack:
    """The workspace of a token.

    Args:
        invite: ids of users who are invited to the channel of an incident.
    """

    def __init__(self, token, url="https://slack.com/api", invite=()):
        self._api = Api("Slack", url, {"Authorization": f"Bearer {token}"}, CHECK)
        self._invite = tuple(invite)

    def tell(self, notice, deadline):
        if not notice.details.get("create"):
            self._post(notice, notice.place, deadline)
            return ""
        try:
            self._post(notice, notice.place, deadline)
            return ""
        except Rejected as error:
            if error.code not in ("channel_not_found", "not_in_channel"):
                raise
        channel = self._joined(notice.place, deadline)
        self._post(notice, channel, deadline)
        return self._furnished(channel, notice.title, deadline)

    def has(self, notice, deadline):
        try:
            channel = self._id(notice.place, deadline)
            since = {"oldest": f"{seconds_of({'time': notice.at}) - CLOCKS:.0f}", "limit": LOOKED_AT}
            seen = self._get("conversations.history", deadline, channel=channel, include_all_metadata="true", **since)
        except Rejected:
            return False  # nobody can know: said twice is better than never
        payloads = (message.get("metadata", {}).get("event_payload", {}) for message in seen["messages"])
        return any(payload.get("id") == notice.id for payload in payloads)

    def lacks(self, places, deadline):
        """Scopes and channels. The scopes of a token come with each answer.

        https://docs.slack.dev/reference/methods/auth.test, https://docs.slack.dev/reference/methods/conversations.list
        """
        status, data, headers = self._api.ask("GET", "auth.test", deadline)
        self._checked("auth.test", (status, data))
        scopes = [each.strip() for each in headers.get("x-oauth-scopes", "").split(",")]
        missing = [each for each in NEEDED if scopes != [""] and each not in scopes]
        if "channels:read" in missing:
            return [f"Slack: the app lacks the scopes {', '.join(missing)}"]
        lacking = [f"Slack: the app lacks the scopes {', '.join(missing)}"] if missing else []
        sees_all = SEES_PRIVATE in scopes
        there = {}
        if places:
            kinds = "public_channel,private_channel" if sees_all else "public_channel"
            there = {
                name: each for each in self._channels(deadline, kinds) for name in (each["id"], f"#{each['name']}")
            }
        for place in places:
            known = there.get(place) or there.get(f"#{place}")
            if known is None:
                or_private = "" if sees_all else f", unless it is private, which {SEES_PRIVATE} would show"
                lacking.append(f"Slack has no channel {place} that the app can see{or_private}")
            elif not known.get("is_member") and WRITES_ANYWHERE not in scopes:
                lacking.append(f"Slack: the app is not in {place}: {HINTS['not_in_channel']}")
        return lacking

    def _channels(self, deadline, kinds="public_channel"):
        """Those that are not archived, a page at a time."""
        cursor = ""
        while True:
            asked = {"exclude_archived": "true", "limit": PAGE, "cursor": cursor, "types": kinds}
            seen = self._get("conversations.list", deadline, **asked)
            yield from seen["channels"]
            cursor = seen.get("response_metadata", {}).get("next_cursor", "")
            if not cursor:
                return

    def _post(self, notice, channel, deadline):
        text = f"*{_escaped(notice.title)}*\n{_escaped(notice.text)}".strip()
        metadata = {"event_type": EVENT_TYPE, "event_payload": {"id": notice.id}}
        asked = {"channel": channel, "text": text, "unfurl_links": False, "metadata": metadata}
        self._send("chat.postMessage", asked, deadline)

    def _joined(self, place, deadline):
        """Id of the channel of that name, which is made where there is none."""
        try:
            made = self._send("conversations.create", {"name": place.lstrip("#")}, deadline)
            return made["channel"]["id"]
        except Rejected as error:
            if error.code != "name_taken":
                raise
        channel = self._id(place, deadline)
        self._send("conversations.join", {"channel": channel}, deadline)
        return channel

    def _furnished(self, channel, title, deadline):
        """Topic and guests of a new channel; what failed, for people: the message is there all the same."""
        try:
            self._send("conversations.setTopic", {"channel": channel, "topic": title[:LONGEST_TOPIC]}, deadline)
            if self._invite:
                self._send("conversations.invite", {"channel": channel, "users": ",".join(self._invite)}, deadline)
        except (Rejected, Unavailable) as error:
            return str(error)
        return ""

    def _id(self, place, deadline):
        """Id of a channel by its name."""
        if re.fullmatch(r"[CG][A-Z0-9]{6,}", place):
            return place
        for channel in self._channels(deadline):
            if channel["name"] == place.lstrip("#"):
                return channel["id"]
        raise Rejected(f"Slack has no channel {place} that the app can see", "channel_not_found")

    def _send(self, name, body, deadline):
        return self._checked(name, self._api.call("POST", name, deadline, body))

    def _get(self, name, deadline, **query):
        return self._checked(name, self._api.call("GET", f"{name}?{urlencode(query)}", deadline))

    @staticmethod
    def _checked(name, answer):
        """The data of an answer that says ok. https://docs.slack.dev/apis/web-api/#responses"""
        _status, data = answer
        if data.get("ok"):
            return data
        code = data.get("error", "nothing")
        if code in TRANSIENT:
            raise Unavailable(f"Slack answered {code} to {name}", may_have_arrived=True)
        hint = f"add the scope {data['needed']} to the app" if data.get("needed") else HINTS.get(code)
        raise Rejected(f"Slack answered {code} to {name}" + (f": {hint}" if hint else ""), code)


def _escaped(text):
    """https://docs.slack.dev/messaging/formatting-message-text#escaping"""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a notice is delivered, whatever the channel: within a time, again where that helps, twice only where nobody can know.

A notifier is a class with
    tell(notice, deadline) -> str        sends it; what was not perfect, for people, or nothing
    has(notice, deadline) -> bool        whether it has arrived; asked where an answer was lost
    lacks(places, deadline) -> [str]     sends nothing; why what is told to these places would not arrive, for people
All raise Unavailable or Rejected. A deadline is one of `time.monotonic()`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from . import web
from .aws import together
from .masking import snippet

# Seconds before a notifier that does not answer is asked again; doubled each time.
FIRST_PAUSE = 0.5
# "Too many requests"; Statuspage says it with 420 as well. https://developer.statuspage.io/#section/Rate-Limiting
TOO_MANY = (420, 429)


class Unavailable(Exception):
    """The notifier does not serve now. `after`: seconds that it asks for; `may_have_arrived`: only its answer may be lost."""

    def __init__(self, why, after=None, may_have_arrived=False):
        super().__init__(why)
        self.after, self.may_have_arrived = after, may_have_arrived


class TooMany(Unavailable):
    """It serves, and wants to be left alone for a while."""


class Rejected(Exception):
    """The notifier refuses, and would refuse the same again. `code`: its own word for it."""

    def __init__(self, why, code=None):
        super().__init__(why)
        self.code = code


@dataclass(frozen=True)
class Outcome:
    """Whether a notice has arrived, and what there is to say of it."""

    ok: bool
    why: str = ""


def tell(notices, notifiers, within, done, doubtful=()):
    """Deliver notices, all places side by side; returns when that is over.

    In one place they keep their order: what follows one that did not arrive is left for the next time.

    Args:
        notifiers: {channel: notifier}.
        within: seconds for each place.
        done: told of each: (notice, Outcome); from several threads.
        doubtful: ids of notices that were sent before, and may have arrived.
    """
    places = {}
    for notice in notices:
        places.setdefault(notice.name(), []).append(notice)
    deadline = time.monotonic() + within

    def at_place(waiting):
        for number, notice in enumerate(waiting):
            outcome = _outcome(notifiers.get(notice.channel), notice, deadline, notice.id in doubtful)
            done(notice, outcome)
            if not outcome.ok:
                for later in waiting[number + 1 :]:
                    done(later, Outcome(False, "not sent: the one before it did not arrive"))
                return

    together(**{name: lambda waiting=waiting: at_place(waiting) for name, waiting in places.items()})


def _outcome(notifier, notice, deadline, is_doubtful):
    if notifier is None:
        return Outcome(False, f"{notice.channel} is not set up: give notify_{notice.channel} in the inventory")
    try:
        return deliver(notifier, notice, deadline, is_doubtful)
    except Exception as error:  # whatever a notifier answers, a recovery goes on
        return Outcome(False, snippet(f"{type(error).__name__}: {error}"))


def deliver(notifier, notice, deadline, is_doubtful=False, clock=time.monotonic, sleep=time.sleep):
    """Deliver one notice; returns its Outcome."""

    def attempt():
        nonlocal is_doubtful
        try:
            if is_doubtful and notifier.has(notice, deadline):
                return Outcome(True)
            return Outcome(True, notifier.tell(notice, deadline))
        except Unavailable as error:
            is_doubtful = is_doubtful or error.may_have_arrived
            raise

    try:
        return patiently(attempt, deadline, clock, sleep)
    except (Rejected, Unavailable) as error:
        return Outcome(False, str(error))


def patiently(attempt, deadline, clock=time.monotonic, sleep=time.sleep):
    """`attempt()`, again while the notifier does not serve and the deadline is not over. Raises what the last one raised."""
    pause = FIRST_PAUSE
    while True:
        try:
            return attempt()
        except Unavailable as error:
            wait = max(error.after or 0.0, pause)
            if clock() + wait >= deadline:
                raise
            sleep(wait)
            pause *= 2


@dataclass(frozen=True)
class Api:
    """A JSON API over HTTP. `name` is for people, `headers` carry the credentials, `hint` says what to check if it refuses them."""

    name: str
    url: str
    headers: dict
    hint: str

    def call(self, method, path, deadline, body=None, expected=(200,)):
        """The answer's (status, JSON data); no data where there is no content. Raises Unavailable, and Rejected for a status that is not expected."""
        status, data, _headers = self.ask(method, path, deadline, body, expected)
        return status, data

    def ask(self, method, path, deadline, body=None, expected=(200,)):
        """`call`, with the headers of the answer, whose names are in small letters: (status, data, headers)."""
        message = {
            "url": f"{self.url.rstrip('/')}/{path}",
            "method": method,
            "headers": {"Accept": "application/json", **self.headers},
            "json": body,
            "secret_json": None,
            "body": None,
            "within": max(deadline - time.monotonic(), 0.01),
        }
        seen = web.request(message)
        if seen.status is None:
            raise Unavailable(f"{self.name}: {seen.text}", may_have_arrived=seen.was_sent)
        if seen.status in TOO_MANY:
            after = _seconds(seen.headers.get("retry-after"))
            asked = f" and asks to wait {after:g} s" if after else ""
            raise TooMany(f"{self.name} has had too many requests ({seen.status}){asked}", after)
        if seen.status >= 500:
            raise Unavailable(f"{self.name} answered {seen.status}", may_have_arrived=True)
        if seen.status in (401, 403):
            raise Rejected(f"{self.name} answered {seen.status}: {self.hint}", seen.status)
        if seen.status not in expected:
            raise Rejected(f"{self.name} answered {seen.status}: {snippet(seen.text)}", seen.status)
        if seen.status == 204:
            return seen.status, None, seen.headers
        try:
            return seen.status, json.loads(seen.text), seen.headers
        except ValueError:
            raise Rejected(f"{self.name} answered {seen.status} without JSON: check its URL") from None


def _seconds(text):
    """Of a Retry-After header; None where there is none, or a date."""
    return float(text) if text and text.isdigit() else None

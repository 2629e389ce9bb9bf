# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways a verb stops, each one line that a person can act on."""

from __future__ import annotations

import difflib


class Stop(Exception):
    """A verb ends here; the message says what, which resource, and what to do next. `found` goes into the result too."""

    def __init__(self, message, **found):
        super().__init__(message)
        self.found = found


class Refusal(Stop):
    """A gate is closed: nothing was changed. The message names the resource and the override, if there is one."""


class Unreachable(Stop):
    """A region, an endpoint or a database does not answer at all (no answer is not a "no")."""


class GivenUp(Unreachable):
    """A region was not even asked: the run has waited for it as long as it may."""


class Throttled(Stop):
    """An API answers, but not to us for now: never to be taken for one that is gone."""


class NotLetIn(Stop):
    """Credentials that are not accepted, or may not do that: what is there was not to be seen."""


class WouldChange(Stop):
    """A run that only reads has come to what it would change: nothing before that refused."""


class LostAnswer(Stop):
    """A mutation was sent and its answer never came: it may or may not have been applied."""


class Overtaken(LostAnswer):
    """A mutation was not applied since its target had changed after the look that it was planned on: look again."""


class TakenBack(Stop):
    """What was done did not hold and was taken back: the target is as it was, and nothing is left to undo."""


class HalfDone(Stop):
    """A step ended before its end, and what it has done until then stays: that counts as a change, and has its undo."""


class LeaseLost(Stop):
    """Another run holds the lease of this target now; this run must not change anything more."""


class WaitTimeout(Stop):
    """The state waited for was not reached in time; what was done stays done."""


def because_and_fix(message):
    """A message in two: why, and what to do next ("" where the message does not say)."""
    because, _colon, fix = message.rpartition(": ")
    return (because, fix) if because else (message, "")


def near(name, there):
    """Which names a person may have meant."""
    likely = difflib.get_close_matches(name, there, n=5, cutoff=0.5) or sorted(there)[:5]
    return f"there are: {', '.join(likely)}" if likely else "there are none"

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A drill from the moment it broke until all is well again, or until it has to be ended."""

from __future__ import annotations

from dataclasses import dataclass, field

# Well for so long is well: longer than the users' own timeout of three seconds.
STEADY_SECONDS = 5.0
# What was broken shows within this, or the drill is void: there was nothing to recover from.
SHOW_SECONDS = 60.0

# How a drill ends.
RECOVERED, OUT_OF_TIME, VOID = "recovered", "out of time", "void"
STOPPED, GIVEN_UP = "stopped", "given up"


@dataclass
class Watch:
    """Times in epoch seconds. `paged` is when the first symptom was seen, `clear_since` when the last one was gone."""

    broke: float
    patience_seconds: float
    steady_seconds: float = STEADY_SECONDS
    show_seconds: float = SHOW_SECONDS
    paged: float | None = None
    clear_since: float | None = None
    outcome: str | None = field(default=None, init=False)

    def observe(self, now, symptoms):
        """Sets `outcome` when the drill is over."""
        if symptoms:
            self.paged = self.paged if self.paged is not None else now
            self.clear_since = None
        elif self.clear_since is None:
            self.clear_since = now
        if self.paged is None:
            self.outcome = VOID if now - self.broke > self.show_seconds else None
        elif self.clear_since is not None and now - self.clear_since >= self.steady_seconds:
            self.outcome = RECOVERED
        elif now - self.paged > self.patience_seconds:
            self.outcome = OUT_OF_TIME

    @property
    def recovered(self):
        """When all was well again and stayed so."""
        return self.clear_since if self.outcome == RECOVERED else None


def told(watch):
    """How it ended, in words."""
    if watch.outcome == RECOVERED:
        return f"the drill was recovered {watch.recovered - watch.paged:.1f} s after the first sign"
    if watch.outcome == VOID:
        return f"the drill is void: nothing failed within {watch.show_seconds:g} s"
    return f"the drill ended without a recovery: {watch.outcome}"

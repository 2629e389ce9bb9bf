# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where "back" is, when all that is known is what was there, one after the other."""

from __future__ import annotations


def last_other(held, running, good=None):
    """Pure: index in `held` of what to go back to from `running`; None for nowhere.

    It is the newest good entry that is something else, unless something before the newest other entry, good or not, is
    what runs now: then the way back was gone already, and going on would lead further back, or to what was left.

    Args:
        held: what was there, newest first; None for something unknown.
        running: what is there now.
        good: for each entry whether it may be gone back to; all by default.
    """
    others = [number for number, each in enumerate(held) if each != running]
    if not others or running in held[others[0] + 1 :]:
        return None
    return next((n for n in others if held[n] is not None and (good is None or good[n])), None)

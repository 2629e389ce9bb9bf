# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which ticket is opened, commented or ended by what a look at all gates came to: one for each service that is not ready. Pure.

A ticket is known by its labels: that of all such tickets, that of its service, and one that changes with the reasons, so that
nobody is told the same twice. What cannot be told opens none and ends none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from . import readiness
from .notices import clean

ALL = "sre-runbooks-readiness"
# In front of the name of the host, and of what the reasons come to.
SERVICE, WHY = "readiness-of-", "readiness-why-"
OPEN, COMMENT, FINISH = "open", "comment", "finish"


@dataclass(frozen=True)
class Action:
    """What is to be done for one service. `old` are the labels that go, `labels` those that come."""

    do: str
    host: str
    what: str
    text: str
    key: str = ""
    old: tuple = ()
    labels: tuple = ()


def actions(env, said, tickets):
    """[Action] in the order of the services.

    Args:
        said: [Verdict] of a look at all scenarios of the services.
        tickets: {key: labels} of those that are open.
    """
    by_service = {label.removeprefix(SERVICE): key for key, labels in tickets.items() for label in labels}
    for host, its in sorted(readiness.by_host(said).items()):
        level, key = readiness.worst(each.level for each in its), by_service.get(host)
        if level == readiness.NOT_READY:
            why = readiness.reasons(its, (readiness.NOT_READY,))
            mark, text = _mark(why), _text(why)
            if key is None:
                title = f"{host} in {env} is not ready for {', '.join(_scenarios(why))}"
                labels = (ALL, SERVICE + host, mark)
                yield Action(OPEN, host, f"open a ticket: {title}", f"{title}\n\n{text}", labels=labels)
            elif mark not in tickets[key]:
                old = tuple(each for each in tickets[key] if each.startswith(WHY))
                text = f"It is not ready for other reasons than before:\n\n{text}"
                yield Action(COMMENT, host, f"tell {key} what stands in the way of {host} now", text, key, old, (mark,))
        elif key and level != readiness.UNKNOWN:
            yield Action(
                FINISH, host, f"end {key}, since {host} is ready", f"It is {readiness.WORDS[level]} again.", key
            )


def _scenarios(why):
    return sorted({scenario or "all" for _finding, scenarios in why for scenario in scenarios})


def _mark(why):
    """The same as long as the same checks refuse the same scenarios on the same resources, whatever the figures are."""
    known = sorted(f"{each.check} {each.resource} {' '.join(sorted(scenarios))}" for each, scenarios in why)
    return WHY + hashlib.sha256("\n".join(known).encode()).hexdigest()[:8]


def _text(why):
    lines = []
    for finding, scenarios in why:
        where = f"{finding.resource}: " if finding.resource and finding.resource not in finding.because else ""
        mend = f"\n  -> {finding.fix}" if finding.fix else ""
        lines.append(f"- {', '.join(scenarios)} ({finding.check}): {where}{finding.because}{mend}")
    return clean("\n".join(lines))

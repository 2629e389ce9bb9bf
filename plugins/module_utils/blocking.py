# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who waits for whom: the chains of sessions that hold what others wait for."""

from __future__ import annotations

from dataclasses import dataclass

# As pg_blocking_pids names what is no session: a prepared transaction.
PREPARED = 0


@dataclass(frozen=True)
class Chain:
    """All that waits for one session that itself waits for none.

    Attributes:
        head: its pid; PREPARED for prepared transactions, None for sessions that wait for one another (a deadlock, which
            PostgreSQL ends by itself after deadlock_timeout).
        waiting: {pid: length of the shortest way to the head}.
        waits_for: {pid: the pid that it waits for, on such a way}.
    """

    head: int | None
    waiting: dict
    waits_for: dict

    @property
    def depth(self):
        return max(self.waiting.values(), default=0)


def chains(blocked_by):
    """The chains, those with most behind them first.

    Args:
        blocked_by: {pid: pids that it waits for} of every session that waits. Who waits for two heads is behind both.
    """
    blocks = {}
    for waiter, holders in blocked_by.items():
        for holder in set(holders):
            blocks.setdefault(holder, []).append(waiter)
    heads = [holder for holder in blocks if holder not in blocked_by]
    found = [_behind(head, blocks) for head in heads]
    reached = {pid for chain in found for pid in chain.waiting}
    circle = {pid: holders for pid, holders in blocked_by.items() if pid not in reached and holders}
    if circle:
        found.append(Chain(None, dict.fromkeys(circle, 1), {pid: holders[0] for pid, holders in circle.items()}))
    return sorted(found, key=lambda chain: -len(chain.waiting))


def _behind(head, blocks):
    waiting, waits_for, level = {}, {}, [head]
    distance = 0
    while level:
        distance += 1
        following = []
        for holder in level:
            for waiter in blocks.get(holder, ()):
                if waiter not in waiting:
                    waiting[waiter], waits_for[waiter] = distance, holder
                    following.append(waiter)
        level = following
    return Chain(head, waiting, waits_for)

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Many small calls at once, as many as AWS takes: one more after each window of answers, half as many after a "slow down".

Additive increase, multiplicative decrease, as TCP has it (RFC 5681): the quota of an S3 prefix grows while it is used, and no
number written down here would be right for long.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance.html
"""

from __future__ import annotations

import queue
import random
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .errors import LostAnswer, Stop, Throttled

# Times that one call is sent again after its answer was lost.
LOST_TRIES = 3
# Seconds: the first pause after a "slow down" and the longest; and how long nothing may get through before it is given up.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
PATIENCE = 120.0


@dataclass
class Window:
    """How many calls may be under way. Pure: it is told what was answered, and when the call began."""

    size: float = 8.0
    most: int = 24
    pause: float = 0.0
    _cut_at: float = field(default=0.0)

    def answered(self):
        self.size = min(self.size + 1.0 / self.size, float(self.most))
        self.pause = 0.0

    def throttled(self, began, now):
        """Only the first of those that were under way together counts: they all met the same congestion."""
        if began < self._cut_at:
            return
        self._cut_at = now
        self.size = max(self.size / 2.0, 1.0)
        self.pause = min(max(self.pause * 2.0, FIRST_PAUSE), LONGEST_PAUSE)


def carry_out(work, items, window=None, tick=None, clock=time.monotonic, sleep=time.sleep):
    """Yields (item, what `work` returned, or the exception that is its answer) as they end; reads `items` only as needed.

    Args:
        work: function(item, lost): `lost` counts the answers to this item that never came, so that it can look first. Raises
            Throttled (it is repeated later), LostAnswer (repeated at once); any other exception is its result.
        tick: called between two answers, for who keeps a lease. Where it raises, nothing more begins; what is under way
            is still told, and then it is raised.

    Raises:
        Throttled: nothing got through for PATIENCE seconds.
    """
    window, ended = window or Window(), queue.SimpleQueue()
    items, again, under_way = iter(items), deque(), 0
    got_through, stopped = clock(), None

    def attempt(item, lost, began):
        try:
            ended.put((item, lost, began, work(item, lost)))
        except BaseException as error:
            ended.put((item, lost, began, error))

    with ThreadPoolExecutor(max_workers=window.most) as pool:
        while True:
            while under_way < int(window.size) and stopped is None:
                entry = again.popleft() if again else next(((item, 0) for item in items), None)
                if entry is None:
                    break
                pool.submit(attempt, *entry, clock())
                under_way += 1
            if not under_way:
                break
            item, lost, began, result = ended.get()
            under_way -= 1
            if tick is not None and stopped is None:
                try:
                    tick()
                except Stop as error:
                    stopped = error
            if isinstance(result, Throttled):
                if clock() - got_through > PATIENCE:
                    stopped = stopped or result
                window.throttled(began, clock())
                again.append((item, lost))
                sleep(window.pause * random.uniform(0.5, 1.0))
                continue
            window.answered()
            got_through = clock()
            if isinstance(result, LostAnswer) and lost < LOST_TRIES:
                again.append((item, lost + 1))
                continue
            yield item, result
    if stopped is not None:
        raise stopped

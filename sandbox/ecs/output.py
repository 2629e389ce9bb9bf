# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container writes, each line with the time when it came, as Docker hands it to the log driver awslogs.

https://docs.docker.com/engine/logging/drivers/awslogs/
"""

from __future__ import annotations

import queue
import threading
import time
from typing import BinaryIO

# A process that has ended has written all; only one that it left behind may keep its output open.
LAST_LINES_SECONDS = 1.0


class Output:
    def __init__(self, stream: BinaryIO) -> None:
        self._lines: queue.SimpleQueue[dict] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._reader.start()

    def _read(self, stream: BinaryIO) -> None:
        with stream:
            for line in stream:
                message = line.decode(errors="replace").rstrip("\n")
                self._lines.put({"timestamp": int(time.time() * 1000), "message": message})

    def take(self, ended: bool) -> list[dict]:
        """{timestamp in ms, message} of each line since the last call; `ended`: wait for those on their way."""
        if ended:
            self._reader.join(LAST_LINES_SECONDS)
        return [self._lines.get() for _line in range(self._lines.qsize())]

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work that goes on while the run does: in a process that outlives its task, and that the run's end waits for a moment.

Ansible's own `async` starts a Python process and loads boto3 anew, about a second of processor time in the middle of a
recovery, and writes the arguments, tokens among them, to a file. This is a fork of the task's process that is there anyway.
"""

from __future__ import annotations

import fcntl
import os
import time

# Seconds between two looks whether it is over.
PAUSE = 0.05
# Descriptors up to this one are let go of; a system may say that there is no limit.
HIGHEST = 1 << 16


def detach(work, kept=()):
    """Run `work()` in a process of its own that outlives this one; returns at once.

    Args:
        kept: descriptors that it goes on with. It lets go of all others, the run's terminal and pipes: whoever reads the run's
            output waits until the last writer is gone.
    """
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        os.setsid()
        # Twice, so that nobody has to wait for the second one's end.
        if os.fork():
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        lowest = 3
        for number in [*sorted(kept), HIGHEST]:
            os.closerange(lowest, number)
            lowest = number + 1
        work()
    finally:
        os._exit(0)


def start(folder, work):
    """Run `work()` in the background of the run whose record is in `folder`; returns at once."""
    held = os.open(_timeline(folder), os.O_RDONLY)
    # Shared, since a run may start several, one for each host; taken before the fork, so that whoever waits cannot miss it.
    fcntl.flock(held, fcntl.LOCK_SH)
    detach(work, kept=[held])
    os.close(held)  # the lock is that of the other process now


def wait(folder, seconds):
    """Wait until nothing that the run has started goes on; False where something still does after `seconds`."""
    deadline = time.monotonic() + seconds
    held = os.open(_timeline(folder), os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(PAUSE)
    finally:
        os.close(held)


def _timeline(folder):
    """Who appends to it asks for no lock, so it serves as one without another file in the record."""
    return os.path.join(folder, "timeline.jsonl")

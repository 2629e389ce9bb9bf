# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The long-running process behind `up`: builds the world, then waits until it is told to end.

Started as `python -m sandbox.daemon HOME SETTINGS-AS-JSON`; writes `ready` or an error line to its standard output. Where its
standard input is a pipe, it goes when the other end is closed, and leaves nothing.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path

from .client import Sandbox
from .server import listen
from .world import Settings, World


def main(home: Path, settings: Settings) -> int:
    started = time.monotonic()
    world = World(home, settings)
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: world.closed.set())
    try:
        world.install()
        world.endpoint_url = listen(world)
        world.begin()
    except Exception as error:
        import traceback

        traceback.print_exc()
        world.close()
        print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)
        return 1
    world.log(f"up after {time.monotonic() - started:.1f} s")
    print("ready", flush=True)
    # Nobody reads on: whoever started us is gone.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    orphaned = threading.Event()
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        threading.Thread(target=_watch_caller, args=(world, orphaned), daemon=True).start()
    world.closed.wait()
    world.close()
    if orphaned.is_set():
        Sandbox(home).clean()
    return 0


def _watch_caller(world: World, orphaned: threading.Event) -> None:
    """A killed process closes its pipes, too."""
    os.read(0, 1)
    if not world.closed.is_set():
        orphaned.set()
        world.closed.set()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Settings(**json.loads(sys.argv[2]))))

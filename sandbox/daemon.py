# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The long-running process behind `up`: builds the world, then waits until it is told to end.

Started as `python -m sandbox.daemon HOME SETTINGS-AS-JSON`; writes `ready` or an error line to its standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

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
    world.closed.wait()
    world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Settings(**json.loads(sys.argv[2]))))

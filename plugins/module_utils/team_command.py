# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A command that a team reviewed and wrote into its inventory: filled in, run without a shell, heard line by line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass

from .errors import LeaseLost, Refusal, WaitTimeout
from .masking import HIDDEN, snippet

PLACEHOLDER = re.compile(r"\{(\w+)\}")
# What a value may be unless the caller says otherwise: a version, a name. Never empty, and never an option (`-x`).
PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,127}"
# What Terraform and others paint with, even where nobody sees it.
COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Lines of output that are kept for the message of a failure, and those that are told while the command runs.
KEPT, TOLD = 20, 2000
# Seconds between SIGTERM, on which Terraform for one gives its lock back, and SIGKILL.
STOP_SECONDS = 30
# A secret shorter than this would hide half of the words of the output.
SHORTEST_SECRET = 6


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status and its last lines, without secrets."""

    status: int
    lines: tuple = ()

    def told(self):
        return f"exit status {self.status}" + (f": {' | '.join(self.lines[-3:])}" if self.lines else "")


def filled(argv, values, pattern=PATTERN):
    """Pure: `argv` with each {name} replaced by the value of that name.

    Raises:
        Refusal: a value that is missing or does not match `pattern` as a whole; a placeholder in the program's own name.
    """
    if not argv:
        raise Refusal("the command is empty: give argv as a list, the program first")
    if PLACEHOLDER.search(argv[0]):
        raise Refusal(f"{argv[0]}: which program runs is never filled in: write it out")
    for name in sorted({name for word in argv for name in PLACEHOLDER.findall(word)}):
        value = values.get(name)
        if value in (None, ""):
            raise Refusal(f"the command needs a value for {{{name}}}: nothing was run")
        if not re.fullmatch(pattern, str(value)):
            raise Refusal(f"{name}: {snippet(str(value), 60)} does not match {pattern}: nothing was run")
    return [PLACEHOLDER.sub(lambda found: str(values[found[1]]), word) for word in argv]


def find(program, chdir):
    """Raises Refusal where there is no such program to run, or no such folder to run it in."""
    if chdir and not os.path.isdir(chdir):
        raise Refusal(f"there is no folder {chdir} to run {program} in: check chdir")
    there = os.path.join(chdir or ".", program) if os.sep in program else program
    if shutil.which(there) is None:
        raise Refusal(f"there is no command {program} on this controller: install it, or check argv")


def run(argv, timeout, say, chdir=None, environment=None, tick=None):
    """Run a command to its end; returns Ended.

    It gets no terminal and no input, so that it cannot ask, and ends with its process group when time is up.

    Args:
        argv: program and arguments.
        timeout: seconds.
        say: told each line of the output, without secrets.
        environment: variables besides those of this process; their values are secrets.
        tick: called now and then (renews the lease).

    Raises:
        WaitTimeout: time was up; LeaseLost: of `tick`. Either way the command has ended.
    """
    secrets = [value for value in (environment or {}).values() if len(value) >= SHORTEST_SECRET]
    lines, told = deque(maxlen=KEPT), 0
    process = subprocess.Popen(
        argv,
        cwd=chdir,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    def listen():
        nonlocal told
        for line in process.stdout:
            for secret in secrets:
                line = line.replace(secret, HIDDEN)
            if line := snippet(COLOURS.sub("", line)):
                lines.append(line)
                told += 1
                if told <= TOLD:
                    say(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    deadline = time.monotonic() + timeout
    try:
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise WaitTimeout(f"{argv[0]} did not end within {timeout} s and was stopped")
            if tick is not None:
                tick()
            try:
                process.wait(min(1.0, max(deadline - time.monotonic(), 0.01)))
            except subprocess.TimeoutExpired:
                continue
    except (WaitTimeout, LeaseLost):
        _stop(process)
        raise
    # What the command left running may hold the pipe open; its own output is there by now.
    listener.join(5)
    return Ended(process.returncode, tuple(lines))


def _stop(process):
    """End the whole process group, politely first."""
    for signum, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, signum)
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            return

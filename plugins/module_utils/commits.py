# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a checkout of the team's code has as committed lately, by the git that is installed."""

from __future__ import annotations

import os
import re

from . import team_command
from .errors import Stop

# So many commits, the newest, are enough to tell what went out; and so many seconds that git may take.
MOST, SECONDS = 200, 10
# Committed at, short hash, author, subject: a line each, which masking leaves in one piece.
_FORMAT, _LINE = "%ct %h <%an> %s", re.compile(r"(\d+) ([0-9a-f]+) <(.*?)> (.*)")
# Whatever its configuration says: no question, no lock, no helper that watches files, no signature that a program checks.
_QUIET = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
_PLAIN = ("--no-pager", "-c", "core.fsmonitor=false", "-c", "log.showSignature=false", "-c", "color.ui=false")


def of_checkout(path, since):
    """[(at, what, who)] of the branch that is checked out, the newest first; `at` in seconds of the epoch.

    https://git-scm.com/docs/git-log

    Raises:
        Stop: there is no git, no such folder, or it is no checkout.
    """
    team_command.find("git", path)
    lines = []
    argv = ["git", *_PLAIN, "log", f"--since=@{int(since)}", f"--max-count={MOST}", f"--pretty=format:{_FORMAT}", "--"]
    ended = team_command.run(argv, SECONDS, lines.append, chdir=path, environment=_QUIET)
    if ended.status:
        raise Stop(f"git log in {path} failed: {ended.told()}")
    name = os.path.basename(os.path.abspath(path))
    return [
        (float(found[1]), f"commit {found[2]} in {name}: {found[4]}", found[3])
        for line in lines
        if (found := _LINE.fullmatch(line))
    ]

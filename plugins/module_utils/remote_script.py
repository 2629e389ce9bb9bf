# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A file of this collection as a command for the shell of an instance."""

from __future__ import annotations

import inspect
import json
import shlex

INTERPRETERS = ("python3", "/usr/libexec/platform-python")


def command(script, mode, options):
    """The text for sh that runs a module: as an argument, since a here-document may need room on the disk.

    Args:
        script: a module that needs the standard library of Python 3.6 only, and is run as `script MODE OPTIONS`.
        mode: a word.
        options: what json can write; no secrets, since every user of the instance sees a command's arguments.
    """
    arguments = f"{shlex.quote(inspect.getsource(script))} {mode} {shlex.quote(json.dumps(options))}"
    return f"""\
for python in {" ".join(INTERPRETERS)}; do
    command -v $python >/dev/null && exec $python -I -B -c {arguments}
done
echo "there is no Python 3 on this instance" >&2
exit 127"""

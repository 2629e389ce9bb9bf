# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A text that is drafted for people to go on with: drafted again as long as nobody has, and left alone once somebody did.

The draft ends in the SHA-256 of itself. Where that is right nobody has written in it; where it is that of the new draft, nothing
is new since then.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

_SEAL = re.compile(r"\n<!-- drafted: sha256 ([0-9a-f]{64}) -->\n\Z")


@dataclass(frozen=True)
class Place:
    """Where a draft goes. `edited` are the files before it that people have written in; `write` is whether it says anything new."""

    path: str
    write: bool
    edited: tuple = ()


def sealed(text):
    """The draft `text` (which ends in a line break) with its seal."""
    return f"{text}\n<!-- drafted: sha256 {_sum(text)} -->\n"


def place(folder, name, draft):
    """Where the sealed `draft` goes in `folder`: NAME.md, or the first of NAME.2.md ... that nobody has written in.

    Raises OSError where a file cannot be read.
    """
    edited = []
    for number in range(1, 1000):
        path = os.path.join(folder, f"{name}.md" if number == 1 else f"{name}.{number}.md")
        present = read(path)
        if present is None or _is_untouched(present):
            return Place(path, present != draft, tuple(edited))
        edited.append(path)
        if _seal(present) == _seal(draft):
            return Place(path, False, tuple(edited))
    raise OSError(f"{folder} has a thousand drafts of {name}")


def read(path):
    """The text of a file, None where there is none. Raises OSError."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _is_untouched(text):
    body = _SEAL.sub("", text)
    return _seal(text) == _sum(body)


def _seal(text):
    found = _SEAL.search(text)
    return found[1] if found else None


def _sum(text):
    return hashlib.sha256(text.encode()).hexdigest()

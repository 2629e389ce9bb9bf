# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements of SQL for people: what they do, without the values that they do it with."""

from __future__ import annotations

import functools
import re

from .masking import snippet

MASK = "?"
# https://www.postgresql.org/docs/16/sql-syntax-lexical.html; each as far as the text goes, since PostgreSQL cuts what it shows.
_TOKEN = re.compile(
    r"""
    (?P<comment>--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<dollars>\$(?P<tag>[^\W\d]\w*|)\$.*?(?:\$(?P=tag)\$|\Z))
    |(?P<escaped>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    |(?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
    |(?P<name>"(?:[^"]|"")*(?:"|\Z)|[^\W\d][\w$]*|\$\d+)
    |(?P<number>\d[\w.]*(?:(?<=[eE])[+-]\d+)?|\.\d+\w*)
    |(?P<rest>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def without_literals(text):
    """`text` with every literal masked and every comment left out.

    Where it is not certain that a literal ends (a backslash in a plain string, comments within comments) the rest counts as
    one: a value shown is worse than a word hidden.
    """
    shown = []
    for token in _TOKEN.finditer(text):
        kind, found = token.lastgroup, token.group()
        if kind == "tag":  # the innermost group that took part
            kind = "dollars"
        if (kind == "string" and "\\" in found) or (kind == "comment" and "/*" in found[2:]):
            shown.append(MASK)
            break
        if kind == "comment":
            shown.append(" ")
        elif kind in ("dollars", "escaped", "string", "number"):
            shown.append(MASK)
        else:
            shown.append(found)
    return "".join(shown)


@functools.lru_cache(maxsize=1000)  # a crowd runs the same statement a thousand times
def statement(text, length=160):
    """One line of at most `length` characters."""
    return snippet(without_literals(text), length)

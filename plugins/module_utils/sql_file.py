# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A reviewed SQL file: its statements as a person may see them, and what cannot run inside a transaction of ours. Pure.

https://www.postgresql.org/docs/16/sql-syntax-lexical.html
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from .errors import Refusal
from .sql_text import statement

# Of each statement, in characters.
SHOWN = 100

_TOKEN = re.compile(
    r"""
    (?P<comment>--[^\n]*)
  | (?P<block>/\*)
  | (?P<literal>(?<![\w$])[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | (?<![\w$])\$(?P<tag>(?!\d)\w*)\$.*?\$(?P=tag)\$)
  | (?P<name>"(?:[^"]|"")*")
  | (?P<open>['"] | (?<![\w$])\$(?!\d)\w*\$)
  | (?P<end>;)
  | (?P<meta>^[ \t]*\\\S*)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_BLOCK = re.compile(r"/\*|\*/")
# How a statement begins that would end our transaction, or begin one in it. ROLLBACK TO a savepoint does not.
_TRANSACTION = re.compile(
    r"(?:BEGIN|START\s+TRANSACTION|COMMIT|END|ABORT|ROLLBACK(?!\s+(?:\w+\s+)?TO\b)|PREPARE\s+TRANSACTION)\b", re.I
)
_FROM_CLIENT = re.compile(r"COPY\b.*\bSTDIN\b", re.I | re.S)


@dataclass(frozen=True)
class SqlFile:
    """`name`: of the file. `statements`: without comments and literals, cut; for people."""

    name: str
    text: str
    sha256: str
    statements: tuple


def read(path):
    """The file at `path` as a SqlFile.

    Raises:
        Refusal: it cannot be read, is empty, or holds what cannot run as one transaction.
    """
    name = path.rpartition("/")[2]
    try:
        with open(path, "rb") as file:
            content = file.read()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise Refusal(f"the SQL file {path} cannot be read: {reason}: check sql_file") from error
    found = statements(text, name)
    for number, each in enumerate(found, 1):
        if _TRANSACTION.match(each):
            raise Refusal(
                f"statement {number} of {name} is {statement(each, 40)}: the whole file runs as one transaction: take out what begins or ends one"
            )
        if _FROM_CLIENT.match(each):
            raise Refusal(f"statement {number} of {name} copies from STDIN, where nobody sends anything: use INSERT")
    if not found:
        raise Refusal(f"{name} holds no statement: check sql_file")
    shown = tuple(statement(each, SHOWN) for each in found)
    return SqlFile(name, text, hashlib.sha256(content).hexdigest(), shown)


def statements(text, name="the SQL"):
    """The statements of `text` in order, comments left out.

    Raises:
        Refusal: a string, name or comment that does not end; a command of psql, which no server knows.
    """
    found, words, position = [], [], 0

    def close():
        if each := "".join(words).strip():
            found.append(each)
        words.clear()

    while token := _TOKEN.search(text, position):
        words.append(text[position : token.start()])
        position = token.end()
        kind = token.lastgroup if token.lastgroup != "tag" else "literal"
        if kind in ("open", "meta"):
            what = "does not end" if kind == "open" else "is a command of psql, which the server does not know"
            raise Refusal(
                f"{token[0].strip()} in line {text.count(chr(10), 0, token.start()) + 1} of {name} {what}: mend the file"
            )
        if kind == "block":
            position = _after_comment(text, token.start(), name)
        if kind == "end":
            close()
        else:
            words.append(token[0] if kind in ("literal", "name") else " ")
    words.append(text[position:])
    close()
    return found


def _after_comment(text, start, name):
    """Where the comment that begins at `start` ends; comments may hold comments."""
    depth = 0
    for mark in _BLOCK.finditer(text, start):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    raise Refusal(f"the comment in line {text.count(chr(10), 0, start) + 1} of {name} does not end: mend the file")

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text of others (answers, log lines, URLs) without the secrets that it may hold, cut to what fits on a line."""

from __future__ import annotations

import re

HIDDEN = "********"
# What a line can need; the rest is not looked at.
_LOOKED_AT = 4000
# Starts where a word starts: from every letter of a long word on, the search would take quadratic time.
_SECRET_NAME = (
    r"(?<![\w-])[\w-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|authorization"
    r"|api[_-]?key|access[_-]?key|credential|cookie|session)[\w-]*"
)
_PATTERNS = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), HIDDEN),
    # Authorization: Bearer abc, and the bare scheme
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # "token": "abc" and 'token': 'abc' (escaped quotes included), token=abc, token: abc
    (
        re.compile(
            rf"({_SECRET_NAME}\\?[\"']?\s*[:=]\s*)(?!\*)(\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?|\\\"[^\"]*\"?|[^\s,;&}}\"']+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # JSON web tokens, keys of AWS, and any long run of characters that no word has, but for names that begin with a day: those of
    # incidents and of records
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"(?<![A-Za-z0-9_+-])(?!\d{4}-\d\d-\d\d[T-])(?=[A-Za-z_+-]*\d)[A-Za-z0-9_+=-]{40,}"), HIDDEN),
)


def is_secret_name(name):
    """Whether a field, header or parameter of this name holds a secret."""
    return re.fullmatch(_SECRET_NAME, name, re.IGNORECASE) is not None


def masked(value):
    """`value` (text, or JSON data) with its secrets hidden."""
    if isinstance(value, dict):
        return {
            name: HIDDEN if is_secret_name(str(name)) and inner is not None else masked(inner)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [masked(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for pattern, replacement in _PATTERNS:
        value = pattern.sub(replacement, value)
    return value


def snippet(text, length=160):
    """One masked line of at most `length` characters. Masked before it is cut, or half a secret would be left."""
    line = " ".join(masked(text[:_LOOKED_AT]).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"

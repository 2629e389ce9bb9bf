# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter patterns of CloudWatch Logs as documented; moto matches every event where a pattern starts with ? or -.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html (unstructured log events)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import insights

if TYPE_CHECKING:
    from .world import World

_TERM = re.compile(r'([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))')


class FilterPattern:
    """Terms that must all be there, ?terms of which one must be, -terms that must not. Case counts."""

    def __init__(self, pattern: str | None) -> None:
        self.terms: dict[str, list[str]] = {"": [], "?": [], "-": []}
        for sign, quoted, plain in _TERM.findall(pattern or ""):
            self.terms[sign].append(quoted or plain)
        # AWS ignores optional terms beside required ones.
        if self.terms[""] or self.terms["-"]:
            self.terms["?"] = []

    def matches(self, message: str) -> bool:
        return (
            all(term in message for term in self.terms[""])
            and not any(term in message for term in self.terms["-"])
            and (not self.terms["?"] or any(term in message for term in self.terms["?"]))
        )


def pattern_of(pattern: str | None) -> FilterPattern:
    from moto.logs.exceptions import InvalidParameterException

    if pattern and pattern.lstrip()[:1] in "{[%":
        raise InvalidParameterException(msg=f"the sandbox knows filter patterns of terms only, not {pattern}")
    return FilterPattern(pattern)


def install(world: World) -> None:
    from moto.logs import models

    models.EventMessageFilter = pattern_of
    models.LogQuery = insights.Query


def seed(world: World) -> None: ...


def start(world: World) -> None: ...


def stop(world: World) -> None: ...

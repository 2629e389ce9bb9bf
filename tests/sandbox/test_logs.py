# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter patterns select what AWS documents that they select."""

from __future__ import annotations

import pytest

from sandbox.logs import FilterPattern


@pytest.mark.parametrize(
    ("pattern", "message", "selected"),
    [
        ("?ERROR ?Exception", "an ERROR here", True),
        ("?ERROR ?Exception", "INFO all is well", False),
        ('"500" "POST"', "POST /v1/rows 500", True),
        ('"500" "POST"', "GET /v1/rows 500", False),
        ("ERROR -retry", "ERROR for good", True),
        ("ERROR -retry", "ERROR then retry", False),
        ("ERROR ?Exception", "ERROR alone", True),
        ('"two words"', "words two", False),
        ("", "anything", True),
        (None, "anything", True),
    ],
)
def test_pattern(pattern, message, selected):
    assert FilterPattern(pattern).matches(message) is selected

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When an answer of a database is the right one (pg_check_data)."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import data_checks
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop, Unreachable

NOTHING = {"expect": None, "at_least": None, "at_most": None, "beside": None}


def check(query="SELECT count(*) FROM rows", **said):
    return {**NOTHING, "name": "rows", "query": query, **said}


def why(said, value, beside=None):
    (found,) = data_checks.judge([check(**said)], [value], beside)
    assert found["ok"] is (found["why"] is None)
    return found["why"]


@pytest.mark.parametrize(
    ("said", "value", "beside"),
    [
        ({"expect": "3"}, 3, None),
        ({"expect": "8e2d4c6a1f37"}, "8e2d4c6a1f37", None),
        ({"at_least": 3, "at_most": 3}, 3, None),
        ({"beside": "equal"}, "a", ["a"]),
        ({"beside": "more"}, 4, [3]),
        ({"beside": "at_least"}, 3, [3]),
        ({"beside": "fewer"}, 2, [3]),
        ({"expect": "1"}, 1, Unreachable("down")),
    ],
)
def test_right(said, value, beside):
    assert why(said, value, beside) is None


@pytest.mark.parametrize(
    ("said", "value", "beside", "told"),
    [
        ({"expect": "3"}, 2, None, "2, and 3 is expected"),
        ({"at_least": 3}, 2, None, "2, and at least 3 is expected"),
        ({"at_least": 3}, "many", None, "many, and at least 3"),
        ({"at_most": 3}, 4, None, "at most 3"),
        ({"beside": "more"}, 3, [3], "3, and more than the 3 of the other database are expected"),
        ({"beside": "more"}, 3, Unreachable("it is down"), "nothing to compare it with: it is down"),
        ({"beside": "more"}, 3, None, "no other database is given"),
        ({"at_least": 1}, Stop("no such table"), None, "no such table"),
    ],
)
def test_wrong(said, value, beside, told):
    assert told in why(said, value, beside)


def test_what_is_shown_is_short():
    (found,) = data_checks.judge([check(expect="x")], ["y" * 500], None)
    assert len(found["value"]) == data_checks.SHOWN


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("DELETE FROM rows", "give one SELECT"),
        ("SELECT 1; COMMIT; DELETE FROM rows", "3 statements"),
        ("", "give one SELECT"),
    ],
)
def test_only_one_statement_that_reads(query, told):
    with pytest.raises(Refusal, match=told):
        data_checks.check_queries([check(query, expect="1")])


def test_a_check_that_says_nothing_is_none():
    with pytest.raises(Refusal, match="says nothing of what must come out"):
        data_checks.check_queries([check()])
    data_checks.check_queries([check("WITH x AS (SELECT 1) SELECT count(*) FROM x;", expect="1")])

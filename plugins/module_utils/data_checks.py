# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A team's own queries about its data: what they must answer on one database, alone or beside another one."""

from __future__ import annotations

import operator
import re

from . import sql_file
from .errors import Refusal, Stop

CHECK_ARGUMENTS = dict(
    name=dict(type="str", required=True),
    query=dict(type="str", required=True),
    expect=dict(type="str"),
    at_least=dict(type="float"),
    at_most=dict(type="float"),
    beside=dict(type="str", choices=["equal", "more", "at_least", "fewer", "at_most"]),
)
_COMPARED = {
    "equal": (operator.eq, "as many as"),
    "more": (operator.gt, "more than"),
    "at_least": (operator.ge, "at least as many as"),
    "fewer": (operator.lt, "fewer than"),
    "at_most": (operator.le, "at most as many as"),
}
_READS = re.compile(r"(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
# Of an answer, in characters: a count is wanted, not a row of somebody's data.
SHOWN = 60


def check_queries(checks):
    """Refuses what is not one reading statement, before anything is asked."""
    for each in checks:
        found = sql_file.statements(each["query"], f"the query of {each['name']}")
        if len(found) != 1 or not _READS.match(found[0]):
            raise Refusal(
                f"the query of {each['name']} is {len(found)} statements, or none that only reads: give one SELECT"
            )
        if all(each[key] is None for key in ("expect", "at_least", "at_most", "beside")):
            raise Refusal(
                f"{each['name']} says nothing of what must come out: give it expect, at_least, at_most or beside"
            )


def ask(database, checks, timeout):
    """[the answer to each check]: its only value, or the Stop that says why there is none.

    Each is asked in a transaction of its own that cannot write.

    Args:
        database: a `postgres.Database`.
        timeout: seconds for one query.

    Raises:
        Stop: the database cannot be asked at all (Unreachable where it does not answer).
    """
    with database.session() as connection:
        return [_answer(database, connection, each["query"], timeout) for each in checks]


def _answer(database, connection, query, timeout):
    with connection.cursor() as cursor:
        cursor.execute("BEGIN READ ONLY")
        try:
            with database.told():
                cursor.execute("SELECT set_config('statement_timeout', %s, true)", (f"{timeout}s",))
                cursor.execute(query)
                rows = cursor.fetchmany(2)
        except Stop as error:
            if connection.closed:
                raise
            return error
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK")
    if len(rows) != 1 or len(rows[0]) != 1:
        return Stop("it answers with more than one value, or with none: let it give one, as count(*) does")
    return rows[0][0]


def judge(checks, answers, beside):
    """[{name, value, beside, ok, why}] of each check. Pure.

    Args:
        answers: of the database in question, as `ask` gives them.
        beside: of the other one; an exception where that one cannot be asked, None where there is none.
    """
    others = beside if isinstance(beside, list) else [beside] * len(checks)
    found = []
    for check, value, other in zip(checks, answers, others, strict=True):
        why = _fault(check, value, other)
        found.append(
            {"name": check["name"], "value": _text(value), "beside": _text(other), "ok": why is None, "why": why}
        )
    return found


def _fault(check, value, other):
    """What is wrong with an answer, or None."""
    if isinstance(value, Exception):
        return str(value)
    if check["expect"] is not None and not _is(value, check["expect"]):
        return f"{_text(value)}, and {check['expect']} is expected"
    for key, holds, words in (("at_least", operator.ge, "at least"), ("at_most", operator.le, "at most")):
        if check[key] is not None:
            number = _number(value)
            if number is None or not holds(number, check[key]):
                return f"{_text(value)}, and {words} {check[key]:g} is expected"
    if check["beside"] is None:
        return None
    if other is None or isinstance(other, Exception):
        return f"{_text(value)}, and there is nothing to compare it with: {other or 'no other database is given'}"
    compare, words = _COMPARED[check["beside"]]
    mine, theirs = _number(value), _number(other)
    if check["beside"] == "equal" and None in (mine, theirs):
        mine, theirs = str(value), str(other)
    if mine is None or theirs is None or not compare(mine, theirs):
        return f"{_text(value)}, and {words} the {_text(other)} of the other database are expected"
    return None


def _is(value, expected):
    mine, wanted = _number(value), _number(expected)
    return mine == wanted if None not in (mine, wanted) else str(value) == expected


def _number(value):
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(value):
    if value is None or isinstance(value, Exception):
        return None
    return str(value)[:SHOWN]

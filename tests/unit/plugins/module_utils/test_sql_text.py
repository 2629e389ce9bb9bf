# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils.sql_text import statement, without_literals

SECRET = "Zq9correcthorse"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT * FROM rows2 WHERE id = 42 AND x = $1", "SELECT * FROM rows2 WHERE id = ? AND x = $1"),
        ("UPDATE t1 SET a = 'it''s', b = E'a\\'b' WHERE c", "UPDATE t1 SET a = ?, b = ? WHERE c"),
        ("SELECT 1.5e-3, .5, 0xFF, 1_000", "SELECT ?, ?, ?, ?"),
        ('SELECT "odd ""name""" FROM "t 1"', 'SELECT "odd ""name""" FROM "t 1"'),
        ("DO $$ BEGIN x := 'a'; END $$ LANGUAGE plpgsql", "DO ? LANGUAGE plpgsql"),
        ("SELECT $body$ $$ $body$, b'01', U&'d\\0061t', x", "SELECT ?, ?, ?"),
        ("SELECT a -- the customer\n FROM b /* of */ WHERE c", "SELECT a FROM b WHERE c"),
        ("SELECT 'cut off in the mid", "SELECT ?"),
        # Cut by PostgreSQL within a value, or written where standard_conforming_strings is off.
        (f"SELECT 'a\\' || '{SECRET}' FROM t", "SELECT ?"),
        (f"SELECT 1 /* a /* b */ '{SECRET}' */", "SELECT ? ?"),
        ("", ""),
    ],
)
def test_a_statement_is_shown_without_its_values(text, shown):
    assert statement(text) == shown


def test_it_is_cut():
    assert len(statement("SELECT " + "column_name, " * 100)) == 160


@given(
    st.sampled_from(["'{}'", "E'{}'", "$${}$$", "$q${}$q$", "'a''{}'", "E'\\'{}'", "/* {} */ 1", "N'{}", "$x${}"]),
    st.text("a'\\$ \n/*-\"", max_size=5),
)
def test_a_value_is_never_shown(place, around):
    value = place.format(SECRET)
    assert SECRET not in without_literals(f"SELECT {value}")
    if place.startswith(("'{", "E'{")):
        quoted = around.replace("\\", "\\\\").replace("'", "''")
        assert SECRET not in without_literals("SELECT " + place.format(quoted + SECRET))

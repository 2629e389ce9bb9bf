# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a SQL file holds, as PostgreSQL would read it."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import sql_file
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        (";;  ;", []),
        ("-- COMMIT;\nSELECT 1;", ["SELECT 1"]),
        ("/* a; /* nested; */ still; */ SELECT 1", ["SELECT 1"]),
        ("INSERT INTO t VALUES ('a;b', 'it''s; COMMIT;')", ["INSERT INTO t VALUES ('a;b', 'it''s; COMMIT;')"]),
        (r"SELECT E'a\'; COMMIT; '; SELECT 2", [r"SELECT E'a\'; COMMIT; '", "SELECT 2"]),
        # Without E a backslash means nothing: the string ends.
        (r"SELECT 'a\'; SELECT 2", [r"SELECT 'a\'", "SELECT 2"]),
        ('ALTER TABLE "a;b" ADD c int', ['ALTER TABLE "a;b" ADD c int']),
        ("DO $$ BEGIN PERFORM 1; END $$; SELECT 2", ["DO $$ BEGIN PERFORM 1; END $$", "SELECT 2"]),
        ("DO $f$ BEGIN x := '$$;'; END $f$", ["DO $f$ BEGIN x := '$$;'; END $f$"]),
        ("PREPARE p AS SELECT $1; SELECT a$b$c FROM t", ["PREPARE p AS SELECT $1", "SELECT a$b$c FROM t"]),
    ],
)
def test_statements(text, found):
    assert sql_file.statements(text) == found


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "fix.sql"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return sql_file.read(str(path))

    return read


def test_what_is_shown_is_short_and_hides_literals(read):
    found = read("UPDATE users SET name = 'hunter2' WHERE email = 'a@example.com';\nSELECT " + "x, " * 100 + "1;")
    assert found.statements[0] == "UPDATE users SET name = ? WHERE email = ?"
    assert len(found.statements[1]) == sql_file.SHOWN
    assert (found.name, len(found.sha256)) == ("fix.sql", 64)


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN; SELECT 1; COMMIT;",
        "SELECT 1; commit",
        "start  transaction",
        "/* */ END",
        "ROLLBACK",
        "rollback and chain",
        "PREPARE TRANSACTION 'x'",
        "ABORT",
    ],
)
def test_a_file_leaves_the_transaction_to_us(read, text):
    with pytest.raises(Refusal, match=r"fix\.sql is .*one transaction"):
        read(text)


@pytest.mark.parametrize(
    "text", ["SAVEPOINT a; SELECT 1; ROLLBACK TO a; ROLLBACK WORK TO SAVEPOINT a", "PREPARE p AS SELECT 1"]
)
def test_what_stays_inside_it_may(read, text):
    assert read(text).statements


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no statement"),
        ("-- nothing", "holds no statement"),
        ("SELECT 'a", "does not end"),
        ('SELECT 1;\nSELECT "a', "in line 2 of fix.sql does not end"),
        ("DO $$ BEGIN", "does not end"),
        ("SELECT 1 /* /* */", "comment in line 1"),
        ("SELECT 1;\n\\d rows", "is a command of psql"),
        ("COPY rows FROM STDIN;", "STDIN"),
        (b"SELECT '\xff'", "no UTF-8"),
    ],
)
def test_a_file_that_cannot_run(read, text, says):
    with pytest.raises(Refusal, match=says):
        read(text)


def test_a_file_that_is_not_there():
    with pytest.raises(Refusal, match="cannot be read: No such file"):
        sql_file.read("nowhere/fix.sql")

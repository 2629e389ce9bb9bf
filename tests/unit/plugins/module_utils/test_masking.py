# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils.masking import masked, snippet

SECRET = "Zq9-correct-horse"
PLACES = [
    '{"token": "%s", "user": "x"}',
    '{"user": "x", "access_token":"%s',
    "{'db_password': '%s'}",
    "password=%s&user=x",
    "DATABASE_PASSWORD=%s next",
    "Authorization: Bearer %s",
    "authorization: basic %s",
    "postgresql://regami:%s@db:5432/regami",
    '"{\\"api_key\\": \\"%s\\"}"',
    "Set-Cookie: %s; Path=/",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_hidden_wherever_it_is_named(place: str) -> None:
    text = masked(place % SECRET)
    assert SECRET not in text
    assert "********" in text


@pytest.mark.parametrize("before", ["", "-e run=", "Incident: ", "incidents/", "("])
def test_names_of_incidents_and_records_are_not_hidden(before: str) -> None:
    for name in (
        "2026-11-22T052610Z-performance_degradation-sandbox",
        "2026-11-22-checkout-answers-503-for-everybody-in-europe",
    ):
        assert masked(f"{before}{name}.") == f"{before}{name}."
        assert "********" in masked(f"{before}AB{name}"), "what only holds a day is hidden"


@pytest.mark.parametrize(
    "text",
    ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY1"],
)
def test_what_looks_like_a_secret_is_hidden_without_a_name(text: str) -> None:
    assert masked(f"got {text} back") == "got ******** back"


@pytest.mark.parametrize(
    "text",
    [
        "ERROR password authentication failed for user regami",
        "503: database 127.0.0.1:5432 is down",
        "task 0123456789abcdef0123456789abcdef stopped",
        '{"database": "connected", "writable": true}',
    ],
)
def test_plain_text_stays(text: str) -> None:
    assert masked(text) == text


@given(st.text(), st.text(alphabet="abcdefgh0123456789", min_size=12))
def test_a_secret_field_never_shows_in_data_or_its_text(around: str, secret: str) -> None:
    data = {"seen": [{"password": f"<{secret}>", "around": None}]}
    assert f"<{secret}>" not in json.dumps(masked(data))
    assert f"<{secret}>" not in snippet(f"{around} {json.dumps(data)}", 5000)


def test_a_snippet_is_one_short_line_masked_before_it_is_cut() -> None:
    line = snippet('one\n two {"token": "' + "s" * 500 + '"} ' + "end " * 100, 40)
    assert line == 'one two {"token": ********} end end end…'


def test_long_text_of_any_kind_does_not_take_quadratic_time() -> None:
    for text in ("a" * 300_000, "a-" * 150_000, "token" * 60_000, '"' * 300_000, "\\" * 300_000):
        assert len(snippet(text)) <= 160

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils.masking import HIDDEN, kept, logged, masked, name_of, snippet

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
# What a record must not have either: in text of our own, where a word before a colon is seldom the name of a secret.
KEPT_PLACES = [
    *PLACES[:-1],
    "{'name': 'DATABASE_PASSWORD', 'value': '%s'}",
    '{"name":"STRIPE_API_KEY","value":"%s"}',
    "https://hooks.slack.com/services/T0001/B0002/%s",
    "posted to https://discord.com/api/webhooks/12345/%s, twice",
    "https://example.webhook.office.com/webhookb2/%s/IncomingWebhook/1",
    "https://b.s3.amazonaws.com/k?X-Amz-Credential=%s%%2F20261122&X-Amz-Expires=60",
    "https://b.s3.amazonaws.com/k?X-Amz-Expires=60&X-Amz-Signature=%s",
    "https://b.s3.amazonaws.com/k?X-Amz-Security-Token=%s&x=1",
    "https://x.blob.core.windows.net/c/k?sv=1&sig=%s",
    "postgresql://regami:a@b%s@db:5432/regami",
    "host=db user=regami password='a b %s' dbname=regami",
    "aws_secret_access_key = %s",
    "-----BEGIN RSA PRIVATE KEY-----\n%s\n-----END RSA PRIVATE KEY-----",
]
TOKENS = ["xoxb-12345-abcdefgh", "ghp_0123456789abcdefghij", "glpat-abcdefghijkl_mnop", "sk_live_abcdefgh12345678"]


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_hidden_wherever_it_is_named(place: str) -> None:
    text = masked(place % SECRET)
    assert SECRET not in text
    assert "********" in text


@pytest.mark.parametrize("before", ["", "-e run=", "Incident: ", "incidents/", "(", "slack #"])
def test_names_of_incidents_and_records_are_not_hidden(before: str) -> None:
    for name in (
        "2026-11-22T052610Z-performance_degradation-sandbox",
        "2026-11-22-checkout-answers-503-for-everybody-in-europe",
        "inc-2026-11-22-checkout-answers-503-for-everybody-in-europe",
    ):
        assert masked(f"{before}{name}.") == f"{before}{name}."
        assert "********" in masked(f"{before}AB{name}"), "what only holds a day is hidden"


@pytest.mark.parametrize("place", KEPT_PLACES)
def test_no_record_keeps_a_secret(place: str) -> None:
    for hide in (kept, masked):
        text = hide(place % SECRET)
        assert SECRET not in text
        assert HIDDEN in text
        assert hide(text) == text


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_that_says_what_it_is_is_hidden(token: str) -> None:
    for hide in (kept, masked):
        assert hide(f"got {token} back") == "got ******** back"


def test_fields_that_hold_a_secret_are_not_kept_and_those_that_name_one_are() -> None:
    data = {
        "password": SECRET,
        "environment": [{"name": "DB_PASSWORD", "value": SECRET}, {"name": "TZ", "value": "UTC"}],
        "secret": "regami/session-key",
        "token": 7,
        "password_length": 40,
    }
    hidden = {
        "password": HIDDEN,
        "environment": [{"name": "DB_PASSWORD", "value": HIDDEN}, {"name": "TZ", "value": "UTC"}],
    }
    assert kept(data) == data | hidden
    assert masked(data)["environment"] == hidden["environment"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no such user jane.doe+x@mail.example.com, sorry", "no such user ********, sorry"),
        ("GET /v1/users?email=jane.doe%40example.com&page=2", "GET /v1/users?email=********&page=2"),
        (
            "arn:aws:sts::123456789012:assumed-role/Admin/jane@example.com",
            "arn:aws:sts::123456789012:assumed-role/Admin/********",
        ),
        ("root@db-1 took pkg@4.17.21 and api@sha256:0a1b", "root@db-1 took pkg@4.17.21 and api@sha256:0a1b"),
    ],
)
def test_nobodys_address_is_kept(text: str, left: str) -> None:
    assert kept(text) == masked(text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("203.0.113.77 - - GET / 500", "******** - - GET / 500"),
        ("client=198.51.100.9:4711, 10.0.1.7", "client=********:4711, 10.0.1.7"),
        ("from 2001:db8::17 to fd00::1 and ::1", "from ******** to fd00::1 and ::1"),
        ("at 12:34:56.789 version 1.2.3 of 172.16.3.4", "at 12:34:56.789 version 1.2.3 of 172.16.3.4"),
        ("from ::ffff:203.0.113.7 by ::ffff:10.0.1.7", "from ******** by ::ffff:10.0.1.7"),
        ("from 8.8.8.8. Then", "from ********. Then"),
    ],
)
def test_a_line_of_a_log_says_nothing_of_where_users_are(text: str, left: str) -> None:
    assert logged(text) == left
    assert snippet(text) == text


def test_who_signs_in_by_a_mailbox_is_called_by_the_name() -> None:
    assert [name_of(each) for each in ("jane@example.com", "jane", "")] == ["jane", "jane", ""]


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


@pytest.mark.parametrize(
    "part",
    ["https://", "://a:", "-----BEGIN PRIVATE KEY-----", "a@", "a.", "1:", "'name': 'password', 'value': '", "x-"],
)
def test_a_long_text_is_kept_in_no_quadratic_time(part: str) -> None:
    began = time.monotonic()
    kept(part * 20_000)
    assert time.monotonic() - began < 5

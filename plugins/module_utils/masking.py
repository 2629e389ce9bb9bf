# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text without the secrets and the personal addresses that it may hold, cut to what fits on a line.

Three measures, each with what the one before it hides:
    kept     what we write down ourselves: what is a secret, or somebody's address, by the look of it or by the name before it
    masked   what others say (answers, errors, URLs): also all that stands under a name that may be a secret's
    logged   a line of a log: also the addresses of the network from which users come
"""

from __future__ import annotations

import ipaddress
import re

HIDDEN = "********"
# What a line can need; the rest is not looked at.
_LOOKED_AT = 4000
# Of a URL, so many characters are looked at for what makes it a webhook's.
_URL = 200

# A name starts where a word starts: from every letter of a long word on, the search would take quadratic time.
_START = r"(?<![\w-])[\w-]*"
_SECRET = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|token|signature|authorization|(?:api|access|private|routing)[_-]?key)"
)
_SECRET_NAME = rf"{_START}(?:{_SECRET}|credential|cookie|session)[\w-]*"
# "token": "abc" and 'token': 'abc' (escaped quotes included), token=abc, token: abc
_VALUE = r"\\?[\"']?\s*[:=]\s*)(?!\*)(\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?|\\\"[^\"]*\"?|[^\s,;&}\"']+)"


def _named(name):
    return re.compile(rf"({name}{_VALUE}", re.IGNORECASE), rf"\1{HIDDEN}"


_ALWAYS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s\"'<>]+(?=@)"), HIDDEN),
    # A webhook: whoever knows its path may post.
    (re.compile(rf"(https?://[^\s\"'<>]{{0,{_URL}}}?hooks?\b[^\s\"'<>/]*/)[^\s\"'<>]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Authorization: Bearer abc, and the bare scheme
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # A variable of a task definition or of a pod: "name": "DB_PASSWORD", "value": "abc"
    (
        re.compile(
            rf"([\"']name[\"']\s*:\s*[\"']{_SECRET_NAME}[\"']\s*,\s*[\"']value[\"']\s*:\s*)(\"(?:\\.|[^\"\\])*\"?|'(?:\\.|[^'\\])*'?)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    _named(rf"{_START}{_SECRET}"),
    # What a presigned URL of AWS is signed with, https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html,
    # and one of Azure
    (re.compile(r"\b(X-Amz-Credential=|sig=)(?!\*)[^\s&\"'<>]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # JSON web tokens, keys of AWS, and tokens of Slack, GitHub, GitLab and Stripe, which say themselves what they are
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"\b(?:xox[a-z]-|xapp-|gh[pousr]_|github_pat_|glpat-|[rs]k_(?:live|test)_)[\w-]{8,}"), HIDDEN),
    # Somebody's address. Names of hosts of our own (root@db-1) have no dot.
    (re.compile(r"(?<![\w.+-])[\w.+-]{1,64}(?:@|%40)(?:[\w-]+\.)+[A-Za-z]{2,}"), HIDDEN),
)
_OF_OTHERS = (
    *_ALWAYS,
    _named(_SECRET_NAME),
    # Any long run of characters that no word has, but for names that begin with a day: those of incidents, of their
    # channels, and of records
    (re.compile(r"(?<![A-Za-z0-9_+-])(?!(?:inc-)?\d{4}-\d\d-\d\d[T-])(?=[A-Za-z_+-]*\d)[A-Za-z0-9_+=-]{40,}"), HIDDEN),
)
# Fields whose values are secrets themselves: a `secret` or a `token` may be the name or the number of one.
_GIVEN = re.compile(
    rf"{_START}(?:passw(?:or)?d|passphrase|pwd|authorization|(?:api|access|private|routing)[_-]?key)", re.IGNORECASE
)
_V4, _HEX = r"(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)", "[0-9a-fA-F]{0,4}"
_V6 = rf"{_HEX}(?::{_HEX}){{2,7}}(?:\.\d{{1,3}}){{0,3}}(?![\w:])"
_NETWORK_ADDRESS = re.compile(rf"(?<![\w.:])(?:{_V4}|{_V6})")
# Where services are, not users: https://www.rfc-editor.org/rfc/rfc1918, 4193, 6598 and what a host has for itself and its link.
_OURS = [
    ipaddress.ip_network(each)
    for each in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
        "::/127", "fc00::/7", "fe80::/10",
    )
]  # fmt: skip


def is_secret_name(name):
    """Whether a field, header or parameter of this name holds a secret."""
    return re.fullmatch(_SECRET_NAME, name, re.IGNORECASE) is not None


def name_of(person):
    """What colleagues call somebody who signs in by the address of a mailbox."""
    return person.partition("@")[0]


def kept(value):
    """`value` (text, or JSON data) as a record may keep it: the names of what was changed, and all numbers, stay."""
    if isinstance(value, dict):
        return {
            name: HIDDEN
            if isinstance(inner, str) and (_GIVEN.fullmatch(str(name)) or _is_variable(name, value))
            else kept(inner)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [kept(inner) for inner in value]
    return _without(value, _ALWAYS) if isinstance(value, str) else value


def masked(value):
    """`value` (text, or JSON data) with its secrets hidden."""
    if isinstance(value, dict):
        return {
            name: HIDDEN
            if inner is not None and (is_secret_name(str(name)) or _is_variable(name, value))
            else masked(inner)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [masked(inner) for inner in value]
    return _without(value, _OF_OTHERS) if isinstance(value, str) else value


def snippet(text, length=160):
    """One masked line of at most `length` characters. Masked before it is cut, or half a secret would be left."""
    return _line(masked(text[:_LOOKED_AT]), length)


def logged(text, length=160):
    """`snippet` of a line of a log, without the addresses of whoever sent the request."""
    return _line(_NETWORK_ADDRESS.sub(_unless_ours, masked(text[:_LOOKED_AT])), length)


def _is_variable(name, fields):
    """Whether `name` is the value of a variable of a task definition or of a pod, which says what it is in another field."""
    return name == "value" and is_secret_name(str(fields.get("name", "")))


def _without(text, patterns):
    for pattern, replacement in patterns:
        text = pattern.sub(replacement, text)
    return text


def _line(text, length):
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _unless_ours(found):
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:  # a time, a version
        return found[0]
    address = getattr(address, "ipv4_mapped", None) or address
    is_ours = any(address in network for network in _OURS if network.version == address.version)
    return found[0] if is_ours else HIDDEN

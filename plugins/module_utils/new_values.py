# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""New values of secrets: generated here, or from a file or an option that is shown nowhere. They are in no result, step or message."""

from __future__ import annotations

import re
import secrets
import string

from .errors import Refusal

# Letters and digits alone: a value may have to go into a URL, a shell or a connection string.
ALPHABET = string.ascii_letters + string.digits
SHORTEST = 16
_SOURCES = ("value", "file", "length", "user")
VALUE_OPTIONS = dict(
    value=dict(type="str", no_log=True),
    file=dict(type="path"),
    length=dict(type="int"),
    user=dict(type="str"),
)
CONDITIONS = dict(mutually_exclusive=[_SOURCES], required_one_of=[_SOURCES])
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^:@/?#]+)(?P<password>:[^@/]*)?@(?P<rest>.+)")


def make(given, former):
    """The new value that `given` asks for, in place of `former` (None where there was none).

    Args:
        given: VALUE_OPTIONS: `value`, `file` with it, `length` to generate, or `user` to put into the URL that it was.

    Raises:
        Refusal: it cannot be read, is empty or what it was; the line does not repeat it.
    """
    if given.get("user"):
        made = with_user(former, given["user"])
    elif given.get("length"):
        if given["length"] < SHORTEST:
            raise Refusal(f"length {given['length']} is too short for a secret: give {SHORTEST} or more")
        made = "".join(secrets.choice(ALPHABET) for _each in range(given["length"]))
    else:
        made = _file(given["file"]) if given.get("file") else given["value"]
    if not made:
        raise Refusal(
            f"the new value of {given.get('key') or 'the secret'} is empty: check {given.get('file') or 'value'}"
        )
    if made == former:
        raise Refusal(f"the new value of {given.get('key') or 'the secret'} is the former one: give another")
    return made


def with_user(url, user):
    """A URL with another user. One with a password in it is refused, since that has to become another, too."""
    found = _URL.fullmatch(url or "")
    if not found or found["password"]:
        why = "has a password in it" if found else "is no URL with a user"
        raise Refusal(f"what is to have the user {user} {why}: give the whole new value as file")
    return f"{found['scheme']}{user}@{found['rest']}"


def next_name(name):
    """The name after it: database, database-2, database-3."""
    head, number = re.fullmatch(r"(.+?)(?:-(\d+))?", name).groups()
    return f"{head}-{int(number or 1) + 1}"


def _file(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"the file {path} cannot be read: {getattr(error, 'strerror', None) or 'no text'}") from error

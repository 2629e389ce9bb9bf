# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who acts in an AWS account: a role or a user, whatever way it was written down."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import Refusal

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
_ARN = re.compile(
    r"arn:aws[a-z-]*:(?:iam|sts)::(?P<account>\d{12}):(?P<kind>role|user|assumed-role)/(?P<path>(?:[^/]+/)*?)(?P<name>[^/]+)"
)
_SESSION = re.compile(r"(?P<arn>arn:aws[a-z-]*:sts::\d{12}:assumed-role/[^/]+)/[^/]+")
_PLAIN = re.compile(r"(?P<kind>role|user)/(?:[^/]+/)*(?P<name>[^/]+)")


@dataclass(frozen=True)
class Principal:
    """`kind` is "role" or "user"; `account` is "" where it was not said."""

    kind: str
    name: str
    account: str = ""

    def __str__(self):
        return f"{self.kind} {self.name}"

    @property
    def plain(self):
        """As an option takes it."""
        return f"{self.kind}/{self.name}"


def of(text):
    """The `Principal` of an ARN (of a role, of a user, of a session of a role), or of role/NAME or user/NAME; None of all else."""
    session = _SESSION.fullmatch(text)
    found = _ARN.fullmatch(session["arn"] if session else text) or _PLAIN.fullmatch(text)
    if not found:
        return None
    kind = "role" if found["kind"] == "assumed-role" else found["kind"]
    return Principal(kind, found["name"], found.groupdict().get("account") or "")


def parse(text):
    """`of` what a person gave.

    Raises:
        Refusal: it is neither; the root user and federated users have no sessions or keys that can be taken away so.
    """
    found = of(text)
    if found is None:
        raise Refusal(
            f"{text} is neither a role nor a user: give an ARN of one (of a session in CloudTrail, too), role/NAME or user/NAME"
        )
    return found


def same(arn, principal):
    """Does that ARN stand for the principal?"""
    found = of(arn)
    return found is not None and (found.kind, found.name) == (principal.kind, principal.name)

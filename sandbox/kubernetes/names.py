# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names that the cluster makes up: hashes of templates, endings of pods."""

from __future__ import annotations

import hashlib
import json
import secrets

# No vowels and no look-alikes: no word comes out by accident.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def suffix() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(5))


def template_hash(template: dict, collisions: int = 0) -> str:
    """The same for the same template, whatever the order of its fields. `collisions` makes another of it."""
    text = json.dumps([template, collisions], sort_keys=True)
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])
    letters = []
    while number and len(letters) < 10:
        number, rest = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[rest])
    return "".join(letters)

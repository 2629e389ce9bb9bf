# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file of JSON lines that others append to, read as it grows."""

from __future__ import annotations

import json
from pathlib import Path


class Journal:
    """Each look parses what is new only, since it competes with the others for the processors."""

    def __init__(self, path: Path) -> None:
        self._path, self._read, self._seen = path, 0, []

    def look(self) -> list[dict]:
        """The complete lines so far, a last one that is cut short left out. Raises FileNotFoundError."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self._read += len(new)
        self._seen += map(json.loads, new.splitlines())
        return self._seen

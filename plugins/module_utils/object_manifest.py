# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore did to each object, one JSON object a line, on disk before the next thing happens; and what undoes it."""

from __future__ import annotations

import json
import os

from . import record
from .errors import Refusal
from .object_versions import Action, Version


class Manifest:
    """The file `path`, mode 0600, which is there once there is something to tell."""

    def __init__(self, path, bucket):
        self.path, self._bucket, self._file = path, bucket, None

    @property
    def is_begun(self):
        return self._file is not None

    def add(self, did, key, version, current=None):
        """`did`: copied (`version` is the copy), marked (`version` is the marker), or unmarked (`version` was one of the
        markers, and what is now `current` the version below)."""
        if self._file is None:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = open(descriptor, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 it stays open to the end
            self._file.write(json.dumps({"bucket": self._bucket, "begun": record.now()}) + "\n")
        self._file.write(json.dumps([did, key, version, *([current] if current else [])]) + "\n")


def actions(path, bucket):
    """Yields the Action that takes each line of a manifest back.

    Raises:
        Refusal: there is none, or it is of another bucket.
    """
    try:
        with open(path, encoding="utf-8") as lines:
            last = None
            for line in lines:
                if not line.endswith("\n"):
                    return  # the run was killed in the middle of it
                told = json.loads(line)
                if isinstance(told, dict):  # each run begins so, also one that goes on with a file
                    if told.get("bucket") != bucket:
                        raise Refusal(
                            f"{path} tells of bucket {told.get('bucket')}, not of {bucket}: check bucket and undo_manifest"
                        )
                    continue
                did, key, version, *current = told
                if did != "unmarked":
                    yield Action("withdraw" if did == "copied" else "unmark", key, None, markers=(version,))
                elif key != last:
                    # However many markers there were, one makes it deleted again.
                    yield Action("mark", key, Version(current[0], ""))
                last = key
    except OSError as error:
        raise Refusal(
            f"undo_manifest {path} cannot be read ({error.strerror}): it stands in the record of the run"
        ) from None
    except ValueError:
        raise Refusal(f"undo_manifest {path} is no manifest of s3_restore") from None

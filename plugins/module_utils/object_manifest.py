# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore does to each object, a line of JSON before and after each change; and what undoes it.

A line is on disk before the change of which it tells is sent, so that a run may be killed anywhere: whether a change without a line
that follows it was made, only a look at the object tells.
"""

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

    def will_copy(self, key, wanted):
        """Before the Version `wanted` is copied over its object."""
        self._write("copying", key, wanted.etag)

    def will_mark(self, key):
        """Before a delete marker is put on an object."""
        self._write("marking", key, None)

    def will_unmark(self, key, marker, current):
        """Before a delete marker is removed; `current`: the version that shows below. Nothing has to follow this line: the look that
        an undo begins with tells whether it came to that."""
        self._write("unmarked", key, marker, current)

    def add(self, did, key, version):
        """`did`: copied (`version` is the copy), or marked (`version` is the marker)."""
        self._write(did, key, version)

    def _write(self, *told):
        if self._file is None:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._file = open(descriptor, "w", encoding="utf-8", buffering=1)  # noqa: SIM115 it stays open to the end
            self._file.write(json.dumps({"bucket": self._bucket, "begun": record.now()}) + "\n")
        self._file.write(json.dumps(told) + "\n")


def actions(path, bucket):
    """Yields the Action that takes each line of a manifest back; last those of changes that may have been made, which name no
    version: of a copy the ETag of what was copied.

    Raises:
        Refusal: there is none, or it is of another bucket.
    """
    try:
        with open(path, encoding="utf-8") as lines:
            last, under_way = None, {}
            for line in lines:
                if not line.endswith("\n"):
                    break  # the run was killed in the middle of it
                told = json.loads(line)
                if isinstance(told, dict):  # each run begins so, also one that goes on with a file
                    if told.get("bucket") != bucket:
                        raise Refusal(
                            f"{path} tells of bucket {told.get('bucket')}, not of {bucket}: check bucket and undo_manifest"
                        )
                    continue
                did, key, version, *current = told
                if did in ("copying", "marking"):
                    under_way[key] = (did, version)
                elif did != "unmarked":
                    under_way.pop(key, None)
                    yield Action("withdraw" if did == "copied" else "unmark", key, None, markers=(version,))
                elif key != last:
                    # However many markers there were, one makes it deleted again.
                    yield Action("mark", key, Version(current[0], ""))
                last = key
            for key, (did, etag) in under_way.items():
                yield (
                    Action("withdraw", key, None, Version("", "", etag=etag))
                    if did == "copying"
                    else Action("unmark", key, None)
                )
    except OSError as error:
        raise Refusal(
            f"undo_manifest {path} cannot be read ({error.strerror}): it stands in the record of the run"
        ) from None
    except ValueError:
        raise Refusal(f"undo_manifest {path} is no manifest of s3_restore") from None

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Evidence on the controller: a folder in which nothing is ever replaced, with manifests and notes of custody.

Each time that something is added, two files are: `custody-0001.json`, who took what, when and by which way, and
`manifest-0001.sha256`, all files so far as `sha256sum -c` reads them. A manifest lists the ones before it and the notes, so
that the digest of the newest one stands for all.
HAZARDS.md, "Security isolation": evidence with checksums; note who took it and when.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass, field

from .errors import Overtaken, Refusal, Stop
from .record import FOLDER_VARIABLE, now

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_OURS = re.compile(r"(custody|manifest)-(\d{4})\.(?:json|sha256)")
_BLOCK = 1 << 20


def home(given):
    """The folder in which the folders of incidents are; by default beside the records of the runs."""
    return os.path.abspath(given or os.path.join(os.path.dirname(os.environ.get(FOLDER_VARIABLE, "")), "evidence"))


@dataclass(frozen=True)
class File:
    """What is known of a file: its name, bytes and SHA-256 in hexadecimal digits."""

    name: str
    bytes: int
    sha256: str

    def told(self):
        return {"name": self.name, "bytes": self.bytes, "sha256": self.sha256}


@dataclass(frozen=True)
class Bundle:
    """A folder as found: {name: File} of all its files, and {name: SHA-256} of what its newest manifest lists."""

    files: dict = field(default_factory=dict)
    listed: dict = field(default_factory=dict)

    @property
    def manifest(self):
        """The newest manifest, None where there is none."""
        return self.files.get(max((name for name in self.files if name.startswith("manifest-")), default=None))

    @property
    def unsealed(self):
        """Names of the files that no manifest lists: a run was killed before it wrote one."""
        return [
            name for name in sorted(self.files) if name not in self.listed and self.files[name] is not self.manifest
        ]

    @property
    def next_number(self):
        return 1 + max((int(found[2]) for name in self.files if (found := _OURS.fullmatch(name))), default=0)

    @property
    def key(self):
        """Twelve characters that no other bundle has, once it is sealed: of its first note, which says when and where."""
        first = self.files.get(_custody(1))
        return first and first.sha256[:12]

    def altered(self):
        """Pure: names of what is not any more what the manifest lists."""
        return [
            name for name, sha256 in self.listed.items() if name not in self.files or self.files[name].sha256 != sha256
        ]


@dataclass(frozen=True)
class Item:
    """Something to keep: `content` as bytes, or the `path` of a file to copy. `source` says how it was come by."""

    name: str
    file: File
    content: bytes | None = None
    path: str | None = None
    source: str | None = None


def item(given):
    """The Item of {name, content or path, source}; text is kept as it is, anything else as JSON.

    Raises:
        Refusal: the name cannot be one of a file here, or the path cannot be read.
    """
    name, content = given["name"], given.get("content")
    if not _NAME.fullmatch(name) or _OURS.fullmatch(name):
        raise Refusal(
            f"{name!r} cannot be the name of an item: letters, digits, dots, - and _, 120 at most, "
            f"and not one of a manifest or a note of custody"
        )
    if given.get("path"):
        try:
            return Item(name, digest(given["path"], name), path=given["path"], source=given.get("source"))
        except OSError as error:
            raise Refusal(f"{given['path']} of item {name} cannot be read: {error.strerror}; check its path") from error
    if not isinstance(content, str):
        content = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=str) + "\n"
    content = content.encode("utf-8", "surrogateescape")
    file = File(name, len(content), hashlib.sha256(content).hexdigest())
    return Item(name, file, content, source=given.get("source"))


def digest(path, name):
    """The File at `path`. Raises OSError."""
    sum_, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            sum_.update(block)
            size += len(block)
    return File(name, size, sum_.hexdigest())


def look(folder):
    """The Bundle in `folder`, empty where there is none."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return Bundle()
    bundle = Bundle({name: digest(os.path.join(folder, name), name) for name in names})
    if bundle.manifest is None:
        return bundle
    with open(os.path.join(folder, bundle.manifest.name), encoding="utf-8") as lines:
        return Bundle(bundle.files, parsed(lines.read()))


def unkept(bundle, items):
    """Pure: {name to keep it under: Item} of those that are not in the bundle.

    What has the name of something else that is there goes beside it, as NAME.2: taken again, it tells of another moment.
    """
    held, new = {name: file.sha256 for name, file in bundle.files.items()}, {}
    for each in items:
        name, number = each.name, 1
        while name in held and held[name] != each.file.sha256:
            number += 1
            name = f"{each.name}.{number}"
        if name not in held:
            held[name], new[name] = each.file.sha256, each
    return new


def refuse_altered(bundle, folder):
    """Raises Stop where what is in the folder does not match its manifest any more."""
    if altered := bundle.altered():
        raise Stop(
            f"{folder} is not as {bundle.manifest.name} lists it ({', '.join(altered[:5])}): it was changed after it was "
            f"taken; leave it as it is, and take evidence under another name of the incident"
        )


def keep(folder, name, found):
    """Write an Item as `name`, for its owner only, whole or not at all; never over another file."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    if found.path is None:
        _create(folder, name, [found.content])
        return
    with open(found.path, "rb") as source:
        _create(folder, name, iter(lambda: source.read(_BLOCK), b""))


def seal(folder, taken):
    """Add a note of custody of what no manifest lists yet, and a manifest of all.

    Args:
        taken: what the note says besides: incident, taken_by, principal, controller and sources ({name: source}).
    """
    bundle = look(folder)
    number, sources = bundle.next_number, taken.get("sources", {})
    note = {
        **{key: value for key, value in taken.items() if key != "sources"},
        "sealed_at": now(),
        "manifest_before": bundle.manifest and bundle.manifest.told(),
        "files": [
            {**bundle.files[name].told(), "written_at": _written(folder, name), "source": sources.get(name)}
            for name in bundle.unsealed
        ],
    }
    _create(folder, _custody(number), [(json.dumps(note, indent=2) + "\n").encode()])
    text = manifest_text(look(folder).files.values())
    _create(folder, f"manifest-{number:04}.sha256", [text.encode()])


def manifest_text(files):
    """Pure: Files as sha256sum(1) writes and checks them."""
    return "".join(f"{each.sha256}  {each.name}\n" for each in sorted(files, key=lambda each: each.name))


def parsed(text):
    """Pure: {name: SHA-256} of a manifest."""
    return {name: sha256 for sha256, _gap, name in (line.partition("  ") for line in text.splitlines())}


def _custody(number):
    return f"custody-{number:04}.json"


def _written(folder, name):
    return now(os.stat(os.path.join(folder, name)).st_mtime)


def _create(folder, name, blocks):
    """A new file that is on the disk whole before it has its name. Raises Overtaken where the name is taken meanwhile."""
    descriptor, part = tempfile.mkstemp(prefix=".part-", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            for block in blocks:
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, os.path.join(folder, name))
    except FileExistsError as error:
        raise Overtaken(f"another run wrote {name} into {folder}") from error
    except OSError as error:
        raise Stop(f"{name} cannot be written into {folder}: {error.strerror}") from error
    finally:
        os.unlink(part)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs in a mount namespace of its own, as root there: one file system for each line of JSON on standard input.

    {"kind": "tmpfs" or "ext4", "tree": [entry], "fill": "blocks", "inodes" or null, "command": text for sh}
    -> {"before": {path: entry}, "after": {path: entry}, "report": what the command printed, "writer": bytes written since}

An entry of the tree is [kind, path below the file system, age in days, size or target]. Paths may hold any character.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

DISK = Path("/mnt/disk")
MEGABYTES, INODES = 4, 400
WRITER = """
import os, sys, time
path = sys.argv[1]
log = os.open(path, os.O_CREAT | os.O_WRONLY)
os.write(log, b"x" * int(sys.argv[2]))
os.unlink(path)
sys.stdout.write("ready\\n"); sys.stdout.flush()
while True:
    os.write(log, b"y") if sys.stdin.readline() else sys.exit()
    sys.stdout.write("wrote\\n"); sys.stdout.flush()
"""


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def mount(kind: str) -> None:
    DISK.mkdir(exist_ok=True)
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,nr_inodes={INODES}", "none", str(DISK))
        return
    image = Path("/mnt/image")
    image.write_bytes(b"")
    os.truncate(image, MEGABYTES << 20)
    run("mkfs.ext4", "-q", "-F", "-N", str(INODES), "-m", "0", "-O", "^has_journal", str(image))
    run("mount", "-o", "loop", str(image), str(DISK))


def build(tree: list) -> list[subprocess.Popen]:
    writers = []
    for kind, name, age, what in tree:
        path = os.path.join(DISK, name)
        os.makedirs(path if kind == "folder" else os.path.dirname(path), exist_ok=True)
        if kind == "file":
            with open(path, "wb") as file:
                file.write(b"x" * what)
            os.utime(path, (time.time() - age * 86400,) * 2)
        elif kind == "symlink":
            os.symlink(os.path.join(DISK, what), path)
        elif kind == "hardlink":
            os.link(os.path.join(DISK, what), path)
        elif kind == "pipe":
            os.mkfifo(path)
            os.utime(path, (time.time() - age * 86400,) * 2)
        elif kind == "open":
            with open(path, "wb") as file:
                file.write(b"x" * what)
                held = subprocess.Popen(["sleep", "600"], stdin=file)
            os.utime(path, (time.time() - age * 86400,) * 2)
            writers.append(held)
        elif kind == "deleted":
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            writer = subprocess.Popen([sys.executable, "-c", WRITER, path, str(what)], text=True, **pipes)
            assert writer.stdout.readline() == "ready\n"
            writers.append(writer)
    return writers


def fill(what: str | None) -> None:
    """To the last block, or to the last inode."""
    folder = DISK / "filler"
    folder.mkdir(exist_ok=True)
    try:
        if what == "inodes":
            for number in range(10**6):
                os.close(os.open(folder / str(number), os.O_CREAT | os.O_WRONLY))
        elif what == "blocks":
            with open(folder / "blocks", "wb", buffering=0) as file:
                for size in (65536, 4096, 512, 1):
                    try:
                        while True:
                            file.write(b"z" * size)
                            os.fsync(file.fileno())
                    except OSError:
                        continue
    except OSError:
        pass


def look() -> dict[str, list]:
    """{path below the file system: [type, names, age in days, digest, inode]}, without the filler."""
    found = {}
    for folder, folders, names in os.walk(DISK):
        if folder == str(DISK):
            folders[:] = [each for each in folders if each not in ("filler", "lost+found")]
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            seen = os.lstat(path)
            digest = None
            if stat.S_ISREG(seen.st_mode):
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
            age = round((time.time() - seen.st_mtime) / 86400, 2)
            kind = stat.S_IFMT(seen.st_mode)
            names_of_it = 1 if stat.S_ISDIR(seen.st_mode) else seen.st_nlink
            found[os.path.relpath(path, DISK)] = [
                kind,
                names_of_it,
                None if stat.S_ISDIR(kind) else age,
                digest,
                seen.st_ino,
            ]
    return found


def answer(asked: dict) -> dict:
    mount(asked["kind"])
    writers = build(asked["tree"])
    try:
        fill(asked["fill"])
        before = look()
        told = subprocess.run(["sh", "-c", asked["command"]], capture_output=True, text=True, check=False)
        after = look()
        written = 0
        for writer in writers:
            if writer.stdin:
                writer.stdin.write("go on\n")
                writer.stdin.flush()
                written += writer.stdout.readline() == "wrote\n"
        return {"before": before, "after": after, "out": told.stdout, "err": told.stderr, "writers": written}
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
        run("umount", str(DISK))


def main() -> None:
    run("mount", "-t", "tmpfs", "none", "/mnt")
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


main()

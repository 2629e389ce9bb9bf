# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs on an instance whose disk is full. Its text is sent over SSM: one file, standard library of Python 3.6, no
temporary file, nothing written but what it prints, one line of JSON that fits the 2,500 characters SSM lists.

`survey` counts what could go; `clean` lets it go, stage after stage, each file the oldest first, and stops as soon as the
file system has the free blocks and inodes that are wanted. What it never touches: other file systems and mounts, symbolic
links and their targets, anything with a second name, what a process has open, files younger than the minimum age,
directories of databases and files that are named like theirs.
"""

import collections
import errno
import fnmatch
import functools
import heapq
import json
import os
import re
import stat
import subprocess
import sys
import time

# In order of safety: what can be fetched again, what nobody can open any more, old logs, images.
STAGES = ("packages", "open_deleted", "journal", "rotated", "logs", "images")
PACKAGES = (("/var/cache/apt/archives", "*.deb"), ("/var/cache/dnf", "*.rpm"), ("/var/cache/yum", "*.rpm"))
JOURNAL = "/var/log/journal"
ENGINES = (("docker", "/var/lib/docker"), ("podman", "/var/lib/containers"))
ROTATED = ("*.gz", "*.xz", "*.bz2", "*.zst", "*.old", "*.[0-9]", "*.[0-9][0-9]", "*-20[0-9][0-9][0-9][0-9][0-9][0-9]")

# A directory that holds one of these belongs to a database, and all below it does.
MARKS = {
    "PostgreSQL": ("PG_VERSION", "pg_wal", "pg_xlog", "postmaster.pid"),
    "MySQL": ("ibdata1", "ib_logfile0", "mysql.ibd", "auto.cnf", "aria_log_control"),
    "MongoDB": ("WiredTiger", "mongod.lock"),
    "RocksDB, LevelDB": ("CURRENT",),
    "Redis": ("appendonlydir", "appendonly.aof", "dump.rdb"),
    "Kafka, ZooKeeper": ("meta.properties", "recovery-point-offset-checkpoint", "currentEpoch", "acceptedEpoch"),
    "Cassandra, Elasticsearch, Prometheus": ("commitlog", "node.lock", "chunks_head"),
}
MARKERS = frozenset(name for names in MARKS.values() for name in names)
DATABASES = frozenset(("pg_wal", "pg_xlog", "pgsql_tmp", "version-2", "mnesia", "commitlog", "appendonlydir"))
DATABASE_FILES = re.compile(
    r"[0-9A-F]{24}(\.partial|\.gz)?|.*\.(ibd|frm|MYD|MYI|wt|rdb|aof|sst|ldb|mdb|dbf|sqlite3?|db|wal|couch)([-.].*)?"
    r"|.*bin(log)?\.\d{5,}|ib_.*|undo_?\d+|redo\d*\.log|\d{20}\.(log|index|timeindex)",
    re.IGNORECASE | re.DOTALL,
)
# How many files are remembered at a time; with more there is another round, so that memory stays small.
ROUND = 50000
TOLD = 3  # problems and large files that are told of


class Disk:
    """The file system at a path, and how much of it is to be free."""

    def __init__(self, path, wanted):
        self.path, self.wanted, self.device = path, wanted, os.stat(path).st_dev

    def usage(self):
        seen = os.statvfs(self.path)
        usable = seen.f_blocks - seen.f_bfree + seen.f_bavail  # as df has it: without the blocks reserved for root
        return {
            "bytes": usable * seen.f_frsize,
            "bytes_free": seen.f_bavail * seen.f_frsize,
            "free_percent": _percent(seen.f_bavail, usable),
            "inodes": seen.f_files,
            "inodes_free": seen.f_favail,
            "free_inodes_percent": _percent(seen.f_favail, seen.f_files),
        }

    def has_inodes(self):
        return self.usage()["free_inodes_percent"] >= self.wanted

    def is_enough(self):
        return self.usage()["free_percent"] >= self.wanted and self.has_inodes()


def _percent(part, whole):
    """One place, rounded down; 100 where a file system does not count them."""
    return part * 1000 // whole / 10.0 if whole else 100.0


class Places:
    """Where files may go from, and where never."""

    def __init__(self, device, protected):
        self._device = device
        self._protected = frozenset(protected)
        self._mounts = frozenset(point for _device, _root, point in mounts("self"))

    def is_refused(self, path):
        """Whether a directory or one above it is protected or a database's."""
        while path != "/":
            if path in self._protected or os.path.basename(path) in DATABASES:
                return True
            try:
                if not MARKERS.isdisjoint(os.listdir(path)):
                    return True
            except OSError:
                pass  # gone, or not a directory: nothing in it
            path = os.path.dirname(path)
        return False

    def files(self, root, problems):
        """(directory, name, stat) of each regular file below `root` that may go, whatever its age."""
        if not os.path.isdir(root):
            problems.add(root, "is no directory there")
            return
        if os.path.realpath(root) != root:
            problems.add(root, "is or lies behind a symbolic link: name where it leads")
            return
        if os.stat(root).st_dev != self._device:
            problems.add(root, "is on another file system")
            return
        if self.is_refused(root):
            problems.add(root, "belongs to a database or is protected")
            return
        left = [root]
        while left:
            directory = left.pop()
            try:
                descriptor = open_directory(directory)
            except OSError as error:
                problems.add(directory, error.strerror)
                continue
            try:
                names = os.listdir(descriptor)
                if not MARKERS.isdisjoint(names):
                    continue
                for name in names:
                    try:
                        seen = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    except OSError:
                        continue  # gone since
                    path = os.path.join(directory, name)
                    if seen.st_dev != self._device:
                        continue
                    if stat.S_ISDIR(seen.st_mode):
                        if not (path in self._mounts or path in self._protected or name in DATABASES):
                            left.append(path)
                    elif is_removable(name, seen) and path not in self._protected:
                        yield directory, name, seen
            finally:
                os.close(descriptor)


def is_removable(name, seen):
    """A regular file with one name, that is not named like a database's."""
    return stat.S_ISREG(seen.st_mode) and seen.st_nlink == 1 and not DATABASE_FILES.fullmatch(name)


def open_directory(path):
    """A descriptor of a directory, no part of whose path is a symbolic link. Raises OSError."""
    descriptor = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    for name in path.strip("/").split("/"):
        outer = descriptor
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=outer)
        finally:
            os.close(outer)
    return descriptor


def mounts(process):
    """[(device, root in it, mount point)] as a process sees them. proc(5), mountinfo."""
    found = []
    try:
        with open(f"/proc/{process}/mountinfo") as lines:
            for line in lines:
                fields = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal.group(1), 8)), line).split(" ")
                found.append((fields[2], fields[3], fields[4]))
    except (OSError, IndexError):
        pass
    return found


def origin(path, seen_mounts):
    """(device, path in its file system) of a path by the mounts of a process: a container's /var/log is not ours."""
    inside = [each for each in seen_mounts if path == each[2] or path.startswith(each[2].rstrip("/") + "/")]
    if not inside:
        return None
    device, root, point = max(inside, key=lambda each: len(each[2]))
    return device, os.path.normpath(root + "/" + path[len(point.rstrip("/")) :])


def processes():
    return [name for name in os.listdir("/proc") if name.isdigit()]


def open_files(pid):
    """(path of the descriptor, what it leads to, stat) of what a process has open. Nothing of one that is gone."""
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        path = os.path.join(folder, name)
        try:
            yield path, os.readlink(path), os.stat(path)
        except OSError:
            continue


class Problems:
    """What could not be done, counted, and the first few in words."""

    def __init__(self):
        self._seen, self.told = set(), []

    def add(self, what, why):
        if what not in self._seen and len(self.told) < TOLD:
            self.told.append(_short(f"{what}: {why}"))
        self._seen.add(what)

    def __len__(self):
        return len(self._seen)


def _short(text, length=120):
    return text if len(text) <= length else text[: length - 3] + "..."


# Something that may go: the lowest rank first; `go` lets it go, and returns what that freed where it is not as expected.
Candidate = collections.namedtuple("Candidate", "rank items size path go")


class Cleaner:
    """The stages, each a method that yields candidates."""

    def __init__(self, options):
        self.options = options
        self.disk = Disk(options["path"], options["target_free_percent"])
        self.places = Places(self.disk.device, options["protected"])
        self.before = time.time() - options["min_age_seconds"]
        self.problems = Problems()

    def survey(self):
        largest, stages = [], {}
        for stage in self.options["stages"]:
            items = size = 0
            for each in getattr(self, stage)():
                items, size = items + each.items, size + each.size
                largest = heapq.nlargest(TOLD, [*largest, (each.size, _short(each.path))])
            if items or size:
                stages[stage] = {"items": items, "bytes": size}
        return {"before": self.disk.usage(), "stages": stages, "largest": largest}

    def clean(self):
        before, stages = self.disk.usage(), {}
        for stage in self.options["stages"]:
            items = size = 0
            while not self.disk.is_enough():
                some = heapq.nsmallest(ROUND, getattr(self, stage)(), key=lambda each: each.rank)
                went = self._let_go(some)
                items, size = items + sum(each[0] for each in went), size + sum(each[1] for each in went)
                if not went or len(some) < ROUND:
                    break
            if items or size:
                stages[stage] = {"items": items, "bytes": size}
        return {"before": before, "after": self.disk.usage(), "stages": stages}

    def _let_go(self, candidates):
        """[(items, bytes)] of what went, one after the other until there is room enough."""
        went = []
        for each in candidates:
            if self.disk.is_enough():
                break
            if not each.size and self.disk.has_inodes():
                continue  # an empty file in the way of nobody
            try:
                went.append(each.go() or (each.items, each.size))
            except (OSError, subprocess.SubprocessError) as error:
                self.problems.add(each.path, getattr(error, "strerror", None) or error)
        return went

    # ---- files ----------------------------------------------------------------------------------------------------

    def packages(self):
        for root, pattern in PACKAGES:
            if os.path.isdir(root) and os.stat(root).st_dev == self.disk.device:
                yield from self._files([root], lambda name, pattern=pattern: _matches(name, [pattern]))

    def rotated(self):
        return self._files(self.options["roots"], lambda name: _matches(name, ROTATED))

    def logs(self):
        patterns = self.options["patterns"]
        return self._files(self.options["roots"], lambda name: _matches(name, patterns) and not _matches(name, ROTATED))

    def _files(self, roots, is_meant):
        used = self._in_use()
        for root in roots:
            for directory, name, seen in self.places.files(root, self.problems):
                # The journal is journald's own: it is asked to let go.
                if seen.st_mtime > self.before or not is_meant(name) or (directory + "/").startswith(JOURNAL + "/"):
                    continue
                if seen.st_ino not in used:
                    path, go = os.path.join(directory, name), functools.partial(self._remove, directory, name, seen)
                    yield Candidate(seen.st_mtime, 1, seen.st_blocks * 512, path, go)

    def _in_use(self):
        """Inodes of this file system that a process has open: removed, they would free nothing and be lost."""
        return frozenset(
            seen.st_ino
            for pid in processes()
            for _path, _target, seen in open_files(pid)
            if seen.st_dev == self.disk.device
        )

    def _remove(self, directory, name, expected):
        """Remove a file if it still is what was seen. Raises OSError."""
        descriptor = open_directory(directory)
        try:
            seen = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if (seen.st_ino, seen.st_mtime) != (expected.st_ino, expected.st_mtime) or not is_removable(name, seen):
                raise OSError(errno.ESTALE, "is another file since it was looked at")
            os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)

    # ---- deleted, but open ----------------------------------------------------------------------------------------

    def open_deleted(self):
        """Logs that were deleted while a process writes to them. Their age says nothing: nobody can read them any more."""
        ours, done = mounts("self"), set()
        for pid in processes():
            theirs = None
            for path, target, seen in open_files(pid):
                if not target.endswith(" (deleted)") or seen.st_dev != self.disk.device or seen.st_ino in done:
                    continue
                if not stat.S_ISREG(seen.st_mode) or seen.st_nlink or not seen.st_blocks:
                    continue
                name = target[: -len(" (deleted)")]
                theirs = theirs if theirs is not None else mounts(pid)
                if not self._is_our_log(name) or origin(name, ours) != origin(name, theirs):
                    continue
                if not _is_written(path) or _is_mapped(pid, target):
                    continue
                done.add(seen.st_ino)
                go = functools.partial(self._truncate, path, seen.st_ino)
                yield Candidate(-seen.st_blocks, 1, seen.st_blocks * 512, target, go)

    def _is_our_log(self, path):
        """By its name a log below the roots, and no database's."""
        folder, name = os.path.split(path)
        return (
            any(path.startswith(root.rstrip("/") + "/") for root in self.options["roots"])
            and _matches(name, self.options["patterns"] + list(ROTATED))
            and not DATABASE_FILES.fullmatch(name)
            and not self.places.is_refused(folder)
        )

    def _truncate(self, path, inode):
        descriptor = os.open(path, os.O_WRONLY)
        try:
            seen = os.fstat(descriptor)
            if (seen.st_dev, seen.st_ino, seen.st_nlink) != (self.disk.device, inode, 0):
                raise OSError(errno.ESTALE, "is another file since it was looked at")
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    # ---- what others look after -----------------------------------------------------------------------------------

    def journal(self):
        """Journald keeps its newest; rotated first, since it never lets the file go that it writes to."""
        keep = self.options["journal_keep_bytes"]
        files, size = self._journal()
        if size > keep:
            yield Candidate(0, files, size - keep, JOURNAL, functools.partial(self._vacuum, keep))

    def _vacuum(self, keep):
        files, size = self._journal()
        run("journalctl", "--rotate")
        run("journalctl", f"--vacuum-size={keep}")
        left, kept = self._journal()
        went = max(0, size - kept)
        return max(bool(went) + 0, files - left), went  # a new file was begun, so that counts alone say too little

    def _journal(self):
        found = []
        for folder, _folders, names in os.walk(JOURNAL):
            for name in names:
                try:
                    seen = os.lstat(os.path.join(folder, name))
                except OSError:
                    continue
                if stat.S_ISREG(seen.st_mode) and seen.st_dev == self.disk.device:
                    found.append(seen.st_blocks * 512)
        return len(found), sum(found)

    def images(self):
        """Images that no container uses, running or stopped, and that are old enough. Volumes are nobody's business."""
        for engine, folder in ENGINES:
            try:
                if os.stat(folder).st_dev != self.disk.device:
                    continue
                table = run(engine, "system", "df")
            except (OSError, subprocess.SubprocessError):
                continue  # not installed, or not running
            row = re.search(r"^Images\s+(\d+)\s+(\d+)\s+\S+\s+([\d.]+)\s*([kKMGT]?)i?B", table, re.MULTILINE)
            if row and float(row.group(3)):
                unused = max(1, int(row.group(1)) - int(row.group(2)))
                size = int(float(row.group(3)) * 1000 ** " KMGT".index(row.group(4).upper() or " "))
                yield Candidate(0, unused, size, f"{engine} images", functools.partial(self._prune, engine))

    def _prune(self, engine):
        free = self.disk.usage()["bytes_free"]
        hours = max(1, self.options["min_age_seconds"] // 3600)
        told = run(engine, "image", "prune", "--all", "--force", "--filter", f"until={hours}h")
        removed = re.findall(r"(?m)^(?:deleted: )?sha256:|^[0-9a-f]{64}$", told)  # as docker, and as podman tells it
        return len(removed), max(0, self.disk.usage()["bytes_free"] - free)


def _matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_written(path):
    """Whether a descriptor is open for writing. proc(5), fdinfo."""
    try:
        with open(path.replace("/fd/", "/fdinfo/")) as lines:
            flags = re.search(r"flags:\s*(\d+)", lines.read())
    except OSError:
        return False
    return flags is not None and int(flags.group(1), 8) & os.O_ACCMODE != os.O_RDONLY


def _is_mapped(pid, target):
    """Whether a process has the file in its memory: truncated, it would die of its next look at it."""
    try:
        with open(f"/proc/{pid}/maps", errors="surrogateescape") as lines:
            return any(line.rstrip("\n").endswith(target) for line in lines)
    except OSError:
        return True


def run(*command):
    """What a command prints. Raises OSError or subprocess.SubprocessError where it is not there, fails or hangs."""
    return subprocess.check_output(
        command, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=300, universal_newlines=True
    )


def main(mode, options):
    os.nice(10)  # the service that suffers already comes first
    cleaner = Cleaner(json.loads(options))
    report = getattr(cleaner, mode)()
    report["problems"], report["told"] = len(cleaner.problems), cleaner.problems.told
    sys.stdout.write(json.dumps(report, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

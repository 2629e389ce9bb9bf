# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only the memory of an instance holds. Its text is sent over SSM: one file, standard library of Python 3.6, nothing written
but what it prints: JSON, compressed, in as many characters as SSM gives back.

`connections` tells who is connected with whom, `processes` what runs and from which files, `system` who is logged in, which modules
the kernel has, and which deleted files are still open. proc(5), utmp(5)
"""

import base64
import hashlib
import json
import os
import pwd
import re
import socket
import struct
import sys
import time
import zlib

PROC = "/proc"
TICKS = os.sysconf("SC_CLK_TCK")
# GetCommandInvocation gives 24,000 characters back.
MOST = 23500
# A file is told by its digest where it is gone, or where packages put none.
PLACES = ("/tmp/", "/var/tmp/", "/dev/shm/", "/run/", "/home/", os.path.expanduser("~root/"))
LARGEST = 1 << 26
# By their numbers in /proc/net/tcp.
STATES = (
    *("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT"),
    *("LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"),
)
LOGIN = struct.Struct("hi32s4s32s256shhiii4i20s")
USER_PROCESS = 7


def _read(*path):
    try:
        with open(os.path.join(PROC, *path), errors="replace") as lines:
            return lines.read()
    except OSError:
        return ""


def _link(*path):
    try:
        return os.readlink(os.path.join(PROC, *path))
    except OSError:
        return None


def _names(*path):
    try:
        return os.listdir(os.path.join(PROC, *path))
    except OSError:
        return []


def _pids():
    return sorted(int(name) for name in _names() if name.isdigit())


def _moment(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _user(number):
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


# ---- who is connected ------------------------------------------------------------------------------------------------


def connections(_options):
    """Those that are open first, those that are over last."""
    holders = {}
    for pid in _pids():
        for descriptor in _names(str(pid), "fd"):
            found = re.match(r"socket:\[(\d+)\]$", _link(str(pid), "fd", descriptor) or "")
            if found:
                holders.setdefault(found.group(1), set()).add(pid)
    told = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in _read("net", protocol).splitlines()[1:]:
            words = line.split()
            state = STATES[int(words[3], 16)]
            told.append(
                {
                    "protocol": protocol,
                    "local": _address(words[1]),
                    "remote": _address(words[2]),
                    "state": state,
                    "user": _user(int(words[7])),
                    "pids": sorted(holders.get(words[9], ())),
                }
            )
    order = {"ESTABLISHED": 0, "TIME_WAIT": 2}
    return {"connections": sorted(told, key=lambda each: order.get(each["state"], 1))}


def _address(text):
    """`0100007F:1F90` as 127.0.0.1:8080; each four bytes are in the order of the processor."""
    digits, _colon, port = text.partition(":")
    raw = b"".join(struct.pack("=I", int(digits[first : first + 8], 16)) for first in range(0, len(digits), 8))
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, raw)}:{int(port, 16)}"


# ---- what runs -------------------------------------------------------------------------------------------------------


def processes(_options):
    """All of them, the youngest first, with their arguments."""
    boot = int((re.search(r"btime (\d+)", _read("stat")) or [0, 0])[1])
    told = []
    for pid in reversed(_pids()):
        fields = _read(str(pid), "stat").rpartition(")")[2].split()
        if not fields:
            continue
        program = _link(str(pid), "exe")
        told.append(
            {
                "pid": pid,
                "parent": int(fields[1]),
                "user": _user(os.stat(os.path.join(PROC, str(pid))).st_uid) if _link(str(pid), "cwd") else None,
                "started": _moment(boot + int(fields[19]) / TICKS),
                "name": _read(str(pid), "comm").strip(),
                "program": program,
                "sha256": _digest(pid, program),
                "folder": _link(str(pid), "cwd"),
                "arguments": _read(str(pid), "cmdline").replace("\0", " ").strip()[:500],
            }
        )
    return {"processes": told}


def _digest(pid, program):
    if not program or not (program.endswith(" (deleted)") or program.startswith(PLACES)):
        return None
    path = os.path.join(PROC, str(pid), "exe")
    try:
        if os.stat(path).st_size > LARGEST:
            return None
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


# ---- what else would be gone -----------------------------------------------------------------------------------------


def system(_options):
    return {
        "kernel": list(os.uname()),
        "up": float((_read("uptime").split() or [0])[0]),
        "logins": list(_logins("/var/run/utmp")),
        "deleted": list(_deleted()),
        "modules": [line.split()[:4] for line in _read("modules").splitlines()],
    }


def _logins(path):
    try:
        with open(path, "rb") as file:
            entries = file.read()
    except OSError:
        return
    for first in range(0, len(entries) - LOGIN.size + 1, LOGIN.size):
        kind, pid, line, _id, user, host, *rest = LOGIN.unpack_from(entries, first)
        if kind == USER_PROCESS:
            line, user, host = (each.rstrip(b"\0").decode(errors="replace") for each in (line, user, host))
            yield {"user": user, "line": line, "host": host, "pid": pid, "at": _moment(rest[3])}


def _deleted():
    for pid in _pids():
        for descriptor in _names(str(pid), "fd"):
            path = _link(str(pid), "fd", descriptor) or ""
            if path.startswith("/") and path.endswith(" (deleted)"):
                try:
                    size = os.stat(os.path.join(PROC, str(pid), "fd", descriptor)).st_size
                except OSError:
                    size = None
                yield {"pid": pid, "descriptor": int(descriptor), "path": path, "bytes": size}


def packed(report):
    """The report in MOST characters: what is least telling, the end of the longest list, is left out and counted."""
    report = dict(report, left_out={})
    while True:
        text = base64.b64encode(zlib.compress(json.dumps(report, separators=(",", ":")).encode(), 9)).decode()
        if len(text) <= MOST:
            return text
        longest = max((key for key in report if isinstance(report[key], list)), key=lambda key: len(report[key]))
        goes = max(1, len(report[longest]) // 10)
        report[longest] = report[longest][:-goes]
        report["left_out"][longest] = report["left_out"].get(longest, 0) + goes


def main(mode, options):
    report = {"connections": connections, "processes": processes, "system": system}[mode](json.loads(options))
    sys.stdout.write(packed(dict(report, taken_at=_moment(time.time()))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs on an instance that is busy. Its text is sent over SSM: one file, standard library of Python 3.6, nothing written
but what it prints, one line of JSON that fits the 2,500 characters SSM lists.

`survey` tells which processes use most of processors and memory. `look` tells of one process, and whether it may be ended;
`end` ends it. A process is its pid and its start: a pid alone may be another process a moment later. proc(5)
"""

import collections
import fnmatch
import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time

PROC = "/proc"
TICKS, PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
KERNEL_THREAD = 0x00200000  # PF_KTHREAD of the flags
NAME_LENGTH = 15  # what the kernel keeps of a name
# Without these nobody gets in any more, or all else goes with them.
SYSTEM = (
    *("init", "systemd", "systemd-*", "dbus-daemon", "dbus-broker*", "udevd", "auditd", "agetty", "login"),
    *("sshd*", "amazon-ssm-agent", "ssm-agent-worker", "ssm-document-worker", "ssm-session-worker"),
    *("NetworkManager", "dhclient", "chronyd", "ntpd", "dockerd", "containerd*", "podman", "conmon", "crio"),
    *("kubelet", "amazon-ecs-init"),
)
# Killed, a database recovers for minutes, or has lost what it held.
DATABASES = (
    *("postgres", "postmaster", "mysqld*", "mariadbd*", "mongod", "mongos", "redis-server", "valkey-server"),
    *("memcached", "clickhouse*", "etcd", "influxd", "beam.smp", "sqlservr", "ora_*", "cockroach"),
)
# A script that runs in one of these is what a person knows the process by.
INTERPRETERS = re.compile(r"(python|perl|ruby|node|nodejs|php|java|bash|sh|dash)[\d.]*")
COMMANDS_LENGTH = 900  # characters that the names of all commands may take
SETTLE_SECONDS = 5.0  # until a process that was killed is gone; one in the kernel goes later

Stat = collections.namedtuple("Stat", "pid name state parent session flags ticks started resident")


def stat_of(pid):
    """A process by /proc/PID/stat; None where there is none. Its name may hold spaces and parentheses."""
    try:
        with open(f"{PROC}/{pid}/stat", errors="replace") as lines:
            text = lines.read()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return Stat(
        pid,
        text[text.index("(") + 1 : text.rindex(")")],
        fields[0],
        int(fields[1]),
        int(fields[3]),
        int(fields[6]),
        int(fields[11]) + int(fields[12]),
        int(fields[19]),
        int(fields[21]) * PAGE,
    )


def processes():
    """{pid: Stat} of those that have not ended."""
    found = (stat_of(int(name)) for name in os.listdir(PROC) if name.isdigit())
    return {each.pid: each for each in found if each is not None and each.state not in "ZX"}


def _read(*path):
    try:
        with open(os.path.join(PROC, *path), errors="replace") as lines:
            return lines.read()
    except OSError:
        return ""


def start_of(seen):
    """When it began, as nothing else ever did: the ticks since boot, and which boot."""
    return "{}:{}".format(_read("sys/kernel/random/boot_id")[:8], seen.started)


def executable(pid):
    """The name of the file that it runs; "" of a thread of the kernel, or where that may not be known."""
    try:
        return os.path.basename(os.readlink(f"{PROC}/{pid}/exe")).partition(" (deleted)")[0]
    except OSError:
        return ""


def command_of(seen):
    """What a person calls it: its name, and the script that an interpreter runs. Arguments may be secrets, and stay here."""
    words = [each for each in _read(str(seen.pid), "cmdline").split("\0") if each]
    # Some write a title there, arguments included.
    name = os.path.basename(words[0].split()[0]) if words and words[0].startswith("/") else seen.name
    if not words or not INTERPRETERS.fullmatch(executable(seen.pid) or name):
        return name[:40]
    for index, word in enumerate(words[1:3], 1):
        if word == "-m" and re.fullmatch(r"[\w.]+", "".join(words[index + 1 : index + 2])):
            return f"{name} -m {words[index + 1]}"[:40]
        if word.startswith("-"):
            continue
        # What is no file may be anything.
        place = "root" + word if word.startswith("/") else "cwd/" + word
        if os.path.isfile(f"{PROC}/{seen.pid}/{place}"):
            return f"{name} {os.path.basename(word)}"[:40]
        break
    return name[:40]


def unit_of(pid):
    """The system's own unit that it belongs to, None where it is of none. systemd.special(7)"""
    found = re.search(
        r"(?m)^(?:0:|\d+:name=systemd):/system\.slice/(?:.*/)?([^/\n]+\.service)$", _read(str(pid), "cgroup")
    )
    return found.group(1) if found else None


def user_of(pid):
    try:
        number = os.stat(f"{PROC}/{pid}").st_uid
        return pwd.getpwuid(number).pw_name
    except OSError:
        return None
    except KeyError:
        return str(number)


def told(seen, cpu=None):
    """A process for people, `cpu` in percent of one processor; whether it `may_end`."""
    up = float(_read("uptime").split()[0])
    return {
        "pid": seen.pid,
        "started": start_of(seen),
        "elapsed": max(0, int(up - seen.started / TICKS)),
        "user": user_of(seen.pid),
        "command": command_of(seen),
        "cpu": cpu,
        "rss": seen.resident,
        "unit": (unit_of(seen.pid) or "")[:60] or None,
        "may_end": protection(seen, []) is None,
    }


# ---- all of them ----------------------------------------------------------------------------------------------------


def survey(options):
    """Who uses most within so many seconds, and what all of them use together."""
    before, began = processes(), time.monotonic()
    time.sleep(options["seconds"])
    after, seconds = processes(), time.monotonic() - began
    used = {
        pid: round(
            100 * (seen.ticks - (before[pid].ticks if is_same(before.get(pid), seen) else 0)) / TICKS / seconds, 1
        )
        for pid, seen in after.items()
        if pid not in (os.getpid(), os.getppid())
    }
    count, cpus = options["count"], os.cpu_count() or 1
    by_cpu = sorted(used, key=lambda pid: -used[pid])[:count]
    by_memory = sorted(used, key=lambda pid: -after[pid].resident)[:count]
    chosen = [pid for pid in by_cpu if used[pid] >= 1] + [
        pid for pid in by_memory if used[pid] < 1 or pid not in by_cpu
    ]
    return {
        "cpus": cpus,
        # Whole ticks, and a process looked at later than another, add up to a little more than there is.
        "cpu": min(round(sum(used.values()) / cpus, 1), 100.0),
        **_memory(),
        "processes": [told(after[pid], used[pid]) for pid in chosen],
        "commands": _commands(after.values()),
    }


def is_same(before, after):
    return before is not None and before.started == after.started


def _memory():
    """How many bytes there are, and the percentage that is not available. proc_meminfo(5)"""
    sizes = {name: 1024 * int(size) for name, size in re.findall(r"(MemTotal|MemAvailable):\s+(\d+)", _read("meminfo"))}
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    return {"bytes": total, "memory": round(100 - 100 * free / total, 1) if total and free is not None else None}


def _commands(seen):
    """What runs here at all, the oldest first, as many as there is room for: what other instances run too is no stranger."""
    found, length = [], 0
    for each in sorted(seen, key=lambda each: each.started):
        name = "" if each.flags & KERNEL_THREAD else command_of(each)
        if name and name not in found and length + len(name) + 3 <= COMMANDS_LENGTH:
            found.append(name)
            length += len(name) + 3
    return found


# ---- one of them ----------------------------------------------------------------------------------------------------


def look(options):
    """Whether it is there and may be ended: {state: there, gone or protected; why; process}."""
    seen = stat_of(options["pid"])
    if seen is None or seen.state in "ZX" or start_of(seen) != options["started"]:
        return {"state": "gone"}
    why = protection(seen, options["protected"])
    return {"state": "protected" if why else "there", "why": why, "process": told(seen)}


def protection(seen, protected):
    """Why it must not be ended, None where it may."""
    if seen.pid == 1:
        return "it is the first process of the machine"
    if seen.flags & KERNEL_THREAD:
        return "it is a thread of the kernel"
    if seen.pid in _ancestors() or seen.session == os.getsid(0):
        return "this command runs in it"
    names = {seen.name, executable(seen.pid)}
    for patterns, why in (
        (SYSTEM, "the machine is managed by it"),
        (DATABASES, "it is a database: end what it works on instead, by kill_queries.yml"),
        (protected, "it is named in protected"),
    ):
        if any(_matches(name, pattern) for name in names for pattern in patterns):
            return why
    return None


def _matches(name, pattern):
    return fnmatch.fnmatchcase(name, pattern) or (len(name) == NAME_LENGTH and pattern.startswith(name))


def _ancestors():
    """This process, and those that it was begun by."""
    pid = os.getpid()
    while pid:
        yield pid
        seen = stat_of(pid)
        pid = seen.parent if seen else 0


def end(options):
    """End it, or restart its unit, if it still is what was looked at: {state: ended, killed, restarted, there, gone, protected}."""
    seen = look(options)
    if seen["state"] != "there":
        return seen
    if options["restart_unit"]:
        unit = unit_of(options["pid"])
        if unit is None:
            return dict(seen, why="it belongs to no unit of the system")
        # SystemD asks it to end, and kills it, by the unit's own times.
        subprocess.check_output(["systemctl", "restart", unit], stderr=subprocess.STDOUT, timeout=options["timeout"])
        return dict(seen, state="restarted", unit=unit)
    signals = Signals(options["pid"])
    if look(options)["state"] != "there":  # signals now go to what this look has seen, and to no other process
        return {"state": "gone"}
    signals.send(signal.SIGTERM)
    if _is_gone(options, options["grace"]):
        return dict(seen, state="ended")
    signals.send(signal.SIGKILL)
    if _is_gone(options, SETTLE_SECONDS):
        return dict(seen, state="killed")
    return dict(seen, why="it was killed and is still there, since it waits for a disk or another device")


class Signals:
    """To one process, however soon its pid is another's; where Python or the kernel cannot do that, as soon as possible."""

    def __init__(self, pid):
        self._pid = pid
        try:
            self._descriptor = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._descriptor = None

    def send(self, number):
        try:
            if self._descriptor is None:
                os.kill(self._pid, number)
            else:
                signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            pass


def _is_gone(options, seconds):
    deadline = time.monotonic() + seconds
    while look(options)["state"] != "gone":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def main(mode, options):
    report = {"survey": survey, "look": look, "end": end}[mode](json.loads(options))
    sys.stdout.write(json.dumps(report, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes of instances: what the script on them is told, and what its answers mean.

Ec2-asg runbook, scenario 1, whose own command kills whatever has a name that looks like it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from . import process_script, remote_script
from .disk_cleanup import size
from .masking import snippet

# Seconds within which it is measured who uses the processors: less says more of chance than of the process.
MEASURED_SECONDS = 2.0
# Processes that an answer of 2,500 characters has room for, by processor and as many by memory.
MOST = 4


def command(mode, options):
    """The text for sh that runs the script; `mode` is survey, look or end."""
    return remote_script.command(process_script, mode, options)


@dataclass(frozen=True)
class Survey:
    """What runs on an instance, or why it said nothing.

    Attributes:
        cpus: how many processors it has.
        cpu, memory: percent of all that it has, by what its processes used within MEASURED_SECONDS.
        bytes: how much memory it has.
        processes: who uses most, as `told` shows them.
        commands: names of what runs there at all.
    """

    instance_id: str
    cpus: int = 0
    cpu: float | None = None
    memory: float | None = None
    bytes: int | None = None
    processes: tuple = ()
    commands: tuple = ()
    trouble: str | None = None


def survey_of(result):
    """Pure: the Survey in an ssm.Result."""
    said, trouble = answer_of(result)
    if trouble is None:
        try:
            return Survey(
                result.instance_id,
                said["cpus"],
                said["cpu"],
                said["memory"],
                said["bytes"],
                tuple(masked(each) for each in said["processes"]),
                tuple(map(snippet, said["commands"])),
            )
        except (KeyError, TypeError):
            trouble = _senseless(result)
    return Survey(result.instance_id, trouble=trouble)


def answer_of(result):
    """Pure: (what the script said, None), or (None, why it said nothing) of an ssm.Result."""
    if trouble := result.trouble():
        return None, trouble
    try:
        said = json.loads(result.output)
    except ValueError:
        return None, _senseless(result)
    return (said, None) if isinstance(said, dict) else (None, _senseless(result))


def _senseless(result):
    return f"its answer makes no sense: {snippet(result.output, 80)!r}"


def masked(process):
    """A process without what its name may tell: any program gives itself any name."""
    return dict(process, command=snippet(process["command"], 60))


def shown(process):
    """A process for people: `4711 python3 report.py of app, 98 % of a processor, 21.3 MB, for 4 min`."""
    used = "" if process["cpu"] is None else f"{process['cpu']:g} % of a processor, "
    return (
        f"{process['pid']} {process['command']} of {process['user'] or 'nobody'}, {used}{size(process['rss'])}, "
        f"for {age(process['elapsed'])}"
    )


def age(seconds):
    """Seconds for people: 40 s, 12 min, 7 h, 3 d."""
    for unit, length, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < most:
            return f"{seconds // length} {unit}"
    return f"{seconds // 86400} d"

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Full disks of instances as a plan sees them: what the script on them is told, and what its answers mean.

Ec2-asg runbook, scenario 3, whose own command removes logs by age alone, for ever, and whether or not that helps.
"""

from __future__ import annotations

import json
import os.path
from dataclasses import dataclass, field

from . import disk_script, remote_script
from .errors import Refusal
from .ssm import share

STAGES = disk_script.STAGES
# What runs as root there never looks into these, nor takes one that holds one of them for a root.
SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr")
DATABASES = tuple(
    f"/var/lib/{name}"
    for name in (
        *("cassandra", "clickhouse", "couchdb", "docker", "containers", "elasticsearch", "etcd", "influxdb", "kafka"),
        *(
            "mongo",
            "mongodb",
            "mysql",
            "opensearch",
            "pgsql",
            "postgresql",
            "prometheus",
            "rabbitmq",
            "redis",
            "zookeeper",
        ),
    )
)
# Stages whose every item is a file that gives an inode back.
FILES = ("packages", "journal", "rotated", "logs")


def command(mode, options):
    """The text for sh that runs the script; `mode` is survey or clean, `options` are those of `script_options`."""
    return remote_script.command(disk_script, mode, options)


def script_options(wanted):
    """Pure: what the script is told, of the verb's parameters. Raises Refusal where that would not be safe."""
    roots = [_root(each) for each in wanted["roots"]]
    if not 1 <= wanted["target_free_percent"] <= 95:
        raise Refusal(f"target_free_percent={wanted['target_free_percent']} cannot be: give 1 to 95")
    if wanted["min_age_days"] < 1:
        raise Refusal(f"min_age_days={wanted['min_age_days']}: what is younger than a day stays, give 1 or more")
    if wanted["journal_keep_megabytes"] < 1:
        raise Refusal("journal_keep_megabytes: journalctl takes 0 for no limit at all, give 1 or more")
    for name in ("max_concurrency", "max_errors"):
        try:
            share(wanted[name], 1)
        except ValueError as error:
            raise Refusal(f"{name}: {error}") from error
    return {
        "path": _absolute("path", wanted["path"]),
        "target_free_percent": wanted["target_free_percent"],
        "min_age_seconds": wanted["min_age_days"] * 86400,
        "roots": roots,
        "patterns": wanted["patterns"],
        "protected": [_absolute("protected", each) for each in (*wanted["protected"], *DATABASES)],
        "stages": [each for each in STAGES if each in wanted["stages"]],
        "journal_keep_bytes": wanted["journal_keep_megabytes"] * 10**6,
    }


def _absolute(name, path):
    if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//"):
        raise Refusal(f"{name}: {path!r} is no absolute path in its shortest form, such as /var/log")
    return path


def _root(path):
    _absolute("roots", path)
    for each in (*SYSTEM, *DATABASES):
        if _is_in(path, each):
            raise Refusal(f"roots: {path} lies in {each}, where nothing is ever removed: name a directory of logs")
        if _is_in(each, path):
            raise Refusal(f"roots: {path} holds {each}, where nothing is ever removed: name a directory of logs in it")
    if path.count("/") < 2:
        raise Refusal(f"roots: {path} is too much of a machine: name a directory of logs in it")
    return path


def _is_in(path, folder):
    return path == folder or path.startswith(folder.rstrip("/") + "/")


@dataclass(frozen=True)
class Report:
    """What an instance said of its disk, or why it said nothing."""

    instance_id: str
    before: dict = field(default_factory=dict)
    stages: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)
    told: tuple = ()
    problems: int = 0
    largest: tuple = ()
    trouble: str | None = None

    @property
    def now(self):
        return self.after or self.before

    def is_enough(self, percent):
        return bool(self.now) and lowest(self.now) >= percent

    def reachable(self):
        """The percentage that would be free if all that may go went."""
        size = sum(each["bytes"] for each in self.stages.values())
        files = sum(each["items"] for stage, each in self.stages.items() if stage in FILES)
        seen = self.before
        blocks = _percent(seen["bytes_free"] + size, seen["bytes"])
        return min(blocks, _percent(seen["inodes_free"] + files, seen["inodes"]))


def lowest(usage):
    """The percentage free of what there is less of, blocks or inodes."""
    return min(usage["free_percent"], usage["free_inodes_percent"])


def _percent(part, whole):
    return min(100.0, round(100 * part / whole, 1)) if whole else 100.0


def report_of(result):
    """Pure: the Report in an ssm.Result."""
    if trouble := result.trouble():
        return Report(result.instance_id, trouble=trouble)
    try:
        said = json.loads(result.output)
        return Report(
            result.instance_id,
            said["before"],
            said["stages"],
            said.get("after", {}),
            tuple(said["told"]),
            said["problems"],
            tuple((path, size) for size, path in said.get("largest", ())),
        )
    except (ValueError, KeyError, TypeError):
        return Report(result.instance_id, trouble=f"its answer makes no sense: {result.output[:80]!r}")


def size(number):
    """Bytes for people: 1.5 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def sum_of(reports):
    """What all stages of all reports come to, for people: packages 3 (1.2 MB), logs 17 (80.0 MB)."""
    told = []
    for stage in STAGES:
        found = [each.stages[stage] for each in reports if stage in each.stages]
        if found:
            items, total = sum(each["items"] for each in found), sum(each["bytes"] for each in found)
            told.append(f"{stage.replace('_', ' but ')} {items:,} ({size(total)})")
    return ", ".join(told) or "nothing"


def free(usage):
    """How much is free, for people."""
    inodes = f", {usage['free_inodes_percent']:g} % of {usage['inodes']:,} inodes" if usage["inodes"] else ""
    return f"{usage['free_percent']:g} % of {size(usage['bytes'])}{inodes} free"

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long recoveries took: what the records of past runs and the results of drills say of it."""

from __future__ import annotations

import glob
import json
import os
import re
from dataclasses import dataclass

from . import record
from .record_bucket import own_name
from .timeline import epoch

# What began earlier tells nothing of the service as it is today.
YEAR = 365 * 86400
# Reports that are read of a bucket, the newest: each is a request.
MOST_READ = 500
RECOVERED = "recovered"
# <time>[.<number>]-<playbook>-<env>, in a bucket with .<identity of the run> behind it.
_NAME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)T(?P<clock>\d{6})Z(?:\.\d+)?-(?P<playbook>\w+)-(?P<env>[\w-]+)(?:\.[0-9a-f]{8})?"
)


@dataclass(frozen=True)
class Recovery:
    """One that succeeded.

    Attributes:
        at: when it began, in epoch seconds.
        seconds: a run's own time; a drill's counts from the page, people included.
        loss: seconds of acknowledged writes that may be gone, None where that was no question.
        env: where it was; hosts, services: whom it was about, empty where the record is too old to say.
    """

    playbook: str
    at: float
    seconds: float
    env: str
    loss: float | None = None
    hosts: tuple = ()
    services: tuple = ()
    drill: bool = False


def of_run(report):
    """The Recovery of a report.json; None for a run that recovered nothing, or that went on with one that was killed."""
    if report.get("outcome") != RECOVERED or report.get("resumes"):
        return None
    return Recovery(
        report["playbook"],
        epoch(report["started"]),
        report["recovery_seconds"],
        report["env"],
        loss=report.get("possible_loss_seconds"),
        hosts=tuple(report.get("hosts", ())),
    )


def of_drill(result):
    """[Recovery] of a drill's result.json, one for each playbook that helped."""
    helped = sorted({turn["playbook"] for turn in result["turns"] if turn["verdict"] == "right"})
    if result["recovery_seconds"] is None:
        return []
    services = tuple(result.get("services", ()))
    return [
        Recovery(
            name, result["times"]["broke"], result["recovery_seconds"], result["where"], services=services, drill=True
        )
        for name in helped
    ]


def meant(names, playbooks, env, since):
    """Those of the names of records, newest first, that are of `playbooks` in `env` and began after `since` (epoch seconds)."""
    found = []
    for name in names:
        parts = _NAME.fullmatch(name)
        if parts and parts["playbook"] in playbooks and parts["env"] == env:
            at = epoch(f"{parts['day']}T{parts['clock']}Z")
            if at > since:
                found.append((at, name))
    return [name for _at, name in sorted(found, reverse=True)]


def read_runs(folder, playbooks, env, now):
    """[Recovery] of the last year, of `playbooks` in `env`, from a folder of records."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return _recoveries(
        _read(os.path.join(folder, name, record.REPORT)) for name in meant(names, playbooks, env, now - YEAR)
    )


def read_bucket(bucket, folder, playbooks, env, now):
    """The same from the Bucket with the records of all controllers, without those that `folder` has."""
    here = set(os.listdir(folder) if os.path.isdir(folder) else ())
    elsewhere = [name for name in bucket.runs() if own_name(name) not in here]
    return _recoveries(bucket.reports(meant(elsewhere, playbooks, env, now - YEAR)[:MOST_READ]))


def _recoveries(reports):
    """Of the texts of reports."""
    return [found for text in reports if text and (found := of_run(json.loads(text)))]


def read_drills(folder, now):
    """[Recovery] of the drills of the last year. What cannot be read is left out."""
    found = []
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "*", "result.json"))):
        try:
            found += of_drill(json.loads(_read(path)))
        except (ValueError, KeyError, TypeError):
            continue
    return [each for each in found if each.at > now - YEAR]


def _read(path):
    """The text of a file, empty where there is none: a run that was killed has no report."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A clean-up job has gone through a bucket of 20,000 versions (regami runbook 5, "S3 Backup Restore"): all as it was before.

Of 10,000 objects it has deleted 5,000, spoilt 1,000 and made 500 of its own; the rest is right. So no page of the listing is
without versions, where the other would give up. Nothing is taken off as unavoidable: what S3 takes depends on what it is asked.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from sandbox.client import Sandbox

from ..contest import Contest, Contestant

HERE = Path(__file__).resolve().parent
REGION, BUCKET, PREFIX = "us-east-1", "regami-uploads", "dogs/"
OBJECTS, DELETED, SPOILT, MADE, REPLACED = 10_000, 5_000, 1_000, 500, 8_500
# Seconds ago.
FIRST, SECOND, MOMENT, JOB = 86_400, 7_200, 3_600, 300

OURS = Contestant("s3_restore", ("ansible-playbook", str(HERE / "verb.yml"), "-e", "env=sandbox"), in_repository=True)
# As many calls at once as ours makes at most; its own default is 10.
OTHER = Contestant(
    "s3-pit-restore",
    ("bash", "-c", 's3-pit-restore -b "$BUCKET" -B "$BUCKET" -p "$PREFIX" -t "$MOMENT" --max-workers 24'),
)


def arrange(sandbox: Sandbox, _place: Path) -> dict[str, str]:
    """Deleted are even numbers, so that delete markers lie among versions on every page."""
    keys = [f"{PREFIX}{number:05}.jpg" for number in range(OBJECTS)]
    past = [{"key": key, "seconds_ago": FIRST, "body": f"first {key}"} for key in keys]
    past += [{"key": key, "seconds_ago": SECOND, "body": f"photo {key}"} for key in keys[:REPLACED]]
    past += [{"key": key, "seconds_ago": JOB} for key in keys[: 2 * DELETED : 2]]
    past += [{"key": key, "seconds_ago": JOB, "body": "spoilt"} for key in keys[1 : 2 * SPOILT : 2]]
    past += [{"key": f"{PREFIX}{number:05}.thumb", "seconds_ago": JOB, "body": "x"} for number in range(MADE)]
    sandbox.control("s3_history", bucket=BUCKET, versions=past)
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=MOMENT)
    return {
        "bucket": BUCKET,
        "prefix": PREFIX,
        "moment": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "aws_default_region": REGION,
    }


def is_over(sandbox: Sandbox) -> bool:
    """All objects are there with the size of what they were, and none besides."""
    pages = sandbox.boto("s3", REGION).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    sizes = {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}
    wanted = {f"{PREFIX}{number:05}.jpg" for number in range(OBJECTS)}
    # "photo" and "first" are of one length, and no other body is.
    return sizes == {key: len(f"photo {key}") for key in wanted}


CONTEST = Contest(
    name="s3_restore",
    contestants=(OURS, OTHER),
    arrange=arrange,
    is_over=is_over,
    # Issue "Recover data, leave a failing zone or region, contain a breach", What it must show.
    limits={OTHER.name: 0.333},
)

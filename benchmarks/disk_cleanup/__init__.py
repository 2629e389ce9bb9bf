# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Full disks of simulated fleets: what looking and cleaning take with 10, 1,000 and 10,000 instances, by tags and by id.

Each instance of a fleet takes SECONDS for a script and answers as a real one did, so that what is measured is ours: calls
and seconds grow with batches of 50, not with instances.
"""

from __future__ import annotations

import json
from pathlib import Path

from sandbox.client import Sandbox

from ..contest import Contest, Contestant

HERE = Path(__file__).resolve().parent
SIZES = (10, 1000, 10000)
SECONDS = 0.2  # that a script takes on an instance
REGION = "us-east-1"


def ours(size: int, by: str) -> Contestant:
    command = ("ansible-playbook", str(HERE / "verb.yml"), "-e", "env=sandbox", "-e", f"size={size}", "-e", f"by={by}")
    return Contestant(f"{size:,} instances by {by}", command, in_repository=True)


BY_TAGS = {size: ours(size, "tags") for size in SIZES}
BY_ID = {size: ours(size, "id") for size in SIZES[:2]}


def arrange(sandbox: Sandbox, place: Path) -> dict[str, str]:
    """A fleet of each size, whose disks are full of old logs."""
    for size in SIZES:
        fleet = {"count": size, "tags": {"fleet": str(size)}, "seconds": SECONDS, "full": "logs"}
        names = sandbox.control("simulated-fleet", **fleet)["instance_ids"]
        (place / f"{size}.json").write_text(json.dumps(names))
    return {"fleets": str(place)}


def is_over(sandbox: Sandbox) -> bool:
    """Every instance of one fleet was cleaned."""
    pages = sandbox.boto("ssm", REGION).get_paginator("list_commands").paginate()
    found = [each for page in pages for each in page["Commands"] if " disk-cleanup " in each["Comment"]]
    return sum(each["CompletedCount"] for each in found if each["Status"] == "Success") in SIZES


def figures(seconds: dict[str, float]) -> dict[str, float]:
    """Milliseconds that each further instance costs, of a thousand and of ten thousand."""
    found = {}
    for few, many in ((10, 1000), (1000, 10000)):
        names = BY_TAGS[few].name, BY_TAGS[many].name
        if all(name in seconds for name in names):
            more = seconds[names[1]] - seconds[names[0]]
            found[f"milliseconds_for_each_further_instance_up_to_{many}"] = round(1000 * more / (many - few), 2)
    return found


CONTEST = Contest(
    name="disk_cleanup",
    contestants=(*BY_TAGS.values(), *BY_ID.values()),
    arrange=arrange,
    is_over=is_over,
    figures=figures,
)

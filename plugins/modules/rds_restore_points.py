#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_restore_points
version_added: 0.1.0
short_description: What an RDS instance can be restored to
description:
  - Lists the snapshots of an instance, automated and manual ones, and the window in which every second can be chosen.
  - With O(restore_time) it says whether that time can be had, and which snapshot is the nearest before it.
options:
  db_instance:
    description: The instance, in O(region).
    type: str
    required: true
  restore_time:
    description: A time to look for, with its zone, such as V(2026-03-01T14:30:00Z).
    type: str
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.rds_restore
"""

EXAMPLES = r"""
- name: What there is to go back to
  sre.runbooks.rds_restore_points:
    db_instance: regami-db-primary
    region: us-east-1
"""

RETURN = r"""
snapshots:
  description: The snapshots, newest first. C(created) is in UTC, null while the snapshot is being made.
  returned: success
  type: list
  elements: dict
  sample:
    - id: "rds:regami-db-primary-2026-03-01-03-00"
      created: "2026-03-01T03:00:12Z"
      type: automated
      status: available
      gib: 20
      encrypted: true
window:
  description: From when to when every second can be chosen, in UTC; null where no point in time can be chosen.
  returned: success
  type: dict
  sample: {earliest: "2026-02-22T03:00:12Z", latest: "2026-03-01T14:25:00Z"}
before:
  description: Always empty, as is RV(after).
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: Always empty; nothing is changed.
  returned: unless refused
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: The same for people, a line each.
  returned: success
  type: list
  elements: str
  sample: ["any second from 2026-02-22T03:00:12Z to 2026-03-01T14:25:00Z, and it goes on some minutes behind the clock"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import rds, restore_points
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.restore_points import moment
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("rds",)
ARGUMENTS = dict(db_instance=dict(type="str", required=True), restore_time=dict(type="str"))


class RdsRestorePoints(Verb):
    """Look, and list."""

    def observe(self):
        name, region = self.params["db_instance"], self.aws.region
        instance = rds.describe(self.aws, name, region)
        if instance is None:
            raise rds.not_found(self.aws, name, region)
        found = together(
            snapshots=lambda: restore_points.snapshots(self.aws, instance, region),
            window=lambda: restore_points.window(self.aws, instance, region),
        )
        return dict(found, instance=instance, now=time.time())

    @staticmethod
    def plan(observed, wanted):
        instance, there, window = observed["instance"], observed["snapshots"], observed["window"]
        if window is None:
            why = "keeps no automated backups" if not instance["backup_retention"] else "has no automated backup yet"
            notes = [f"{instance['id']} {why}: no point in time can be chosen, only a snapshot"]
        else:
            notes = [
                f"any second from {moment(window.earliest)} to {moment(window.latest)}, and it goes on some minutes behind the "
                f"clock"
            ]
        notes += [f"snapshot {each['id']}, {each['type']}, {_taken(each)}" for each in there]
        if wanted["restore_time"]:
            time_wanted = restore_points.point(None, wanted["restore_time"]).time
            lacking = restore_points.check_time(instance, window, there, time_wanted, observed["now"])
            can = f"when the log has come {lacking:.0f} s further" if lacking else "now"
            notes.append(f"{moment(time_wanted)} can be chosen {can}")
        shown = [{key: each[key] for key in ("id", "type", "status", "gib", "encrypted")} for each in there]
        for each, one in zip(there, shown, strict=True):
            one["created"] = moment(each["created"]) if each["created"] else None
        told = window and {"earliest": moment(window.earliest), "latest": moment(window.latest)}
        return Plan(notes=tuple(notes), returned={"snapshots": shown, "window": told})

    def view(self, observed):
        return {}


def _taken(each):
    return f"of {moment(each['created'])}" if each["status"] == "available" else each["status"]


def main():
    run(verb_module(ARGUMENTS), RdsRestorePoints)


if __name__ == "__main__":
    main()

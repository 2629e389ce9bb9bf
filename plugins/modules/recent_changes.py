#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recent_changes
version_added: 0.2.0
short_description: List what was changed lately of a service, and by whom
description:
  - Reads side by side the deployments of an ECS service, the events of its databases, scaling activities, the commits of a
    checkout, and the writes that CloudTrail has of anything named here, and lists them in the order in which they happened. It
    changes nothing.
  - Compares the task definition that runs with the last one that completed a deployment before it; of variables and secrets it
    names what changed and shows no value.
  - What cannot be read is told in RV(blind) and fails nothing.
  - B(Risk:) none. CloudTrail is some minutes late, so what was done just now may be missing.
options:
  within_minutes:
    description: How far to look back, in minutes. RDS keeps 14 days, CloudTrail 90.
    type: int
    default: 180
extends_documentation_fragment:
  - sre.runbooks.readings
  - sre.runbooks.readings.changes
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - module: sre.runbooks.log_errors
  - module: sre.runbooks.metrics_assess
"""

EXAMPLES = r"""
- name: What was changed in the last three hours
  sre.runbooks.recent_changes:
    cluster: regami-cluster
    service: regami-service
    db_instances: [regami-db-primary]
    region: us-east-1

- name: And what was committed since yesterday
  sre.runbooks.recent_changes:
    cluster: regami-cluster
    service: regami-service
    checkout: /srv/deploy
    within_minutes: 1440
    region: us-east-1
"""

RETURN = r"""
changes:
  description:
    - What was changed, the oldest first. C(at) is in seconds of the epoch; C(kind) is C(deployment), C(database), C(scaling),
      C(write) or C(commit); C(who) is empty where nothing tells.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - at: 1763712060.0
      kind: write
      what: ecs:UpdateService of regami-service
      who: assumed-role/deploy/anna
    - at: 1763712061.2
      kind: deployment
      what: deployment of regami-api:7 to regami-service began
      who: ""
revision:
  description: The last good task definition, the present one, and what changed, null where no good one is known.
  returned: unless refused
  type: dict
  sample: {from: "regami-api:5", to: "regami-api:7", lines: ["app: image regami-api:v2 -> regami-api:v3"]}
blind:
  description: What could not be read, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["CloudTrail: missing permission cloudtrail:LookupEvents in us-east-1"]
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
  description: The same in words, the newest changes only.
  returned: unless refused
  type: list
  elements: str
  sample: ["08:01 deployment of regami-api:7 to regami-service began"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import changes
from ansible_collections.sre.runbooks.plugins.module_utils.metrics import clock
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

# So many changes are told in words; the result has them all.
SHOWN = 10

SERVICES = ("ecs", "rds", "autoscaling", "application-autoscaling", "cloudtrail")


class RecentChanges(Verb):
    """Read it all at once, and put it in order."""

    def observe(self):
        until = time.time()
        since = until - 60 * self.params["within_minutes"]
        return {"found": changes.read(self.aws, self.params, since, until), "since": since}

    @staticmethod
    def plan(observed, wanted):
        told = changes.told(observed["found"], observed["since"])
        listed, revision, blind = told["changes"], told["revision"], told["blind"]
        notes = [f"{clock(each.at)} {each.what}{f' by {each.who}' if each.who else ''}" for each in listed[-SHOWN:]]
        if revision["lines"] is not None:
            lines = "; ".join(revision["lines"]) or "nothing"
            notes.append(f"{revision['to']} changed from {revision['from']}, the last good one: {lines}")
        return Plan(
            notes=(*notes, *told["notes"], *(f"cannot see {line}" for line in blind)),
            returned={"changes": [vars(each) for each in listed], "revision": revision, "blind": blind},
        )

    def view(self, observed):
        return {}


def main():
    run(
        verb_module(
            dict(changes.ARGUMENTS, within_minutes=dict(type="int", default=180)),
            required_together=[("cluster", "service")],
        ),
        RecentChanges,
    )


if __name__ == "__main__":
    main()

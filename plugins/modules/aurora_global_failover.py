#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: aurora_global_failover
version_added: 0.1.0
short_description: Move the writer of an Aurora global database to another region
description:
  - Where the writing cluster is available this is a switchover. Aurora stops writes, brings the target level and exchanges
    the roles. Nothing is lost, and the old writer becomes a reader.
  - Where it is not, this is a failover with allowed data loss. It is refused unless O(accept_data_loss_seconds) covers
    what may be lost.
options:
  global_cluster:
    description: Identifier of the global database.
    type: str
    required: true
  target_cluster:
    description: Identifier of the cluster in O(region) that shall write.
    type: str
    required: true
  accept_data_loss_seconds:
    description:
      - Accept that up to this many seconds of acknowledged writes are lost, because the writing cluster does not answer.
      - B(Risk:) those writes are gone for the application.
    type: float
    default: 0
  accept_unknown_loss:
    description: Fail over although nothing tells how far the target is behind. B(Risk:) the loss has no bound.
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - name: Switchover and failover of an Aurora global database
    description: AWS documentation.
    link: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-global-database-disaster-recovery.html
"""

EXAMPLES = r"""
- name: Let the cluster in the other region write
  sre.runbooks.aurora_global_failover:
    global_cluster: regami-global
    target_cluster: regami-aurora-secondary
    region: us-west-2
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
mode:
  description: C(switchover), C(failover), or C(done) where the target writes already.
  returned: when the gates are open
  type: str
  sample: switchover
unfenced:
  description: Whether the old writer may still take writes; Aurora fences it in a switchover only.
  returned: when the gates are open
  type: bool
  sample: false
possible_loss_seconds:
  description: Upper bound of the seconds of acknowledged writes that are lost; null where it is not known.
  returned: when the gates are open
  type: float
  sample: 0.0
before:
  description: The writer found.
  returned: unless refused
  type: dict
  sample: {writer: "arn:aws:rds:us-east-1:123456789012:cluster:regami-aurora"}
after:
  description: The writer at the end.
  returned: success
  type: dict
  sample: {writer: "arn:aws:rds:us-west-2:123456789012:cluster:regami-aurora-secondary"}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: switchover, what: switch regami-global over to regami-aurora-secondary, before: null, after: null}]
undo:
  description: The same verb towards the former writer, after a switchover.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: Risks, and overrides that were used.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 95.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils.aurora import observe, plan, writer_of
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

SERVICES = ("rds", "cloudwatch", "dynamodb")
ARGUMENTS = dict(
    global_cluster=dict(type="str", required=True),
    target_cluster=dict(type="str", required=True),
    accept_data_loss_seconds=dict(type="float", default=0),
    accept_unknown_loss=dict(type="bool", default=False),
)

# Seconds that a managed switchover or failover usually takes.
USUAL = 90


class AuroraGlobalFailover(Verb):
    """Move the writer of a global database."""

    plan = staticmethod(plan)

    def observe(self):
        return observe(
            self.aws, self.params["global_cluster"], self.params["target_cluster"], self.aws.region, time.time()
        )

    def switchover(self, target):
        self.aws.change(
            "rds",
            "switchover_global_cluster",
            GlobalClusterIdentifier=self.params["global_cluster"],
            TargetDbClusterIdentifier=target,
        )

    def failover(self, target):
        self.aws.change(
            "rds",
            "failover_global_cluster",
            GlobalClusterIdentifier=self.params["global_cluster"],
            TargetDbClusterIdentifier=target,
            AllowDataLoss=True,
        )

    def await_writer(self, target):
        self.wait(
            self.observe,
            lambda seen: writer_of(seen["members"]) == target and not seen["moving"],
            f"{target.rpartition(':')[2]} writes",
            usual=USUAL,
            state=lambda seen: seen["status"],
        )

    def undo(self, before, done):
        if not any(step["do"] == "switchover" for step in done):
            return []
        region, cluster = before["writer"].split(":")[3], before["writer"].rpartition(":")[2]
        return [
            {
                "verb": "sre.runbooks.aurora_global_failover",
                "arguments": {
                    "global_cluster": self.params["global_cluster"],
                    "target_cluster": cluster,
                    "region": region,
                },
            }
        ]

    def view(self, observed):
        return {"writer": writer_of(observed["members"]), "status": observed["status"]}


def main():
    run(verb_module(ARGUMENTS), AuroraGlobalFailover)


if __name__ == "__main__":
    main()

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the bucket of the records is as bootstrap.yml makes it. A run goes on without it, and nobody else sees its record."""

from __future__ import annotations

from .errors import Refusal, because_and_fix
from .kept_bucket import KeptBucket, plan
from .readiness import RISK, Found

CHECK, SCENARIOS = "record_bucket", None


def looks(aws, wanted, now):
    """{its name: call}"""
    given = wanted["records"]
    return {given["bucket"]: lambda: _observed(aws, given)} if given else {}


def _observed(aws, given):
    try:
        return KeptBucket(aws, given["bucket"], given["region"], given["account_id"]).observe()
    except Refusal as refusal:
        return {"refusal": str(refusal)}


def judge(seen, wanted, now):
    """Pure: what bootstrap.yml would do, or why it would refuse."""
    for name, observed in seen.items():
        if "refusal" in observed:
            yield Found(RISK, name, *because_and_fix(observed["refusal"]))
        else:
            asked = {"bucket": name, "kms_key_arn": wanted["records"]["kms_key_arn"]}
            steps = [step.what for step in plan(observed, asked).steps]
            # Of a bucket that is not there nothing more is known.
            steps = steps if observed["exists"] else steps[:1]
            if steps:
                because = f"records are not kept as they should be: bootstrap.yml would {', '.join(steps)}"
                yield Found(RISK, name, because, "run playbooks/bootstrap.yml")

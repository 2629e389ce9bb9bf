# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module rds_promote_replica carries out the plan of module_utils/promotion.py, every step of which it knows."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.sre.runbooks.plugins.module_utils import promotion
from ansible_collections.sre.runbooks.plugins.modules.rds_promote_replica import RdsPromoteReplica


def test_plan_is_the_tested_one_and_each_of_its_steps_is_a_method():
    assert RdsPromoteReplica.plan is promotion.plan
    steps = set(re.findall(r'Step\(\s*"(\w+)"', Path(promotion.__file__).read_text(encoding="utf-8")))
    assert steps
    assert [step for step in steps if not callable(getattr(RdsPromoteReplica, step, None))] == []

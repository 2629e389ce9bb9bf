# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module rds_recreate_replica carries out the plan of module_utils/reprotection.py, every step of which it knows."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.sre.runbooks.plugins.module_utils import reprotection
from ansible_collections.sre.runbooks.plugins.modules.rds_recreate_replica import RdsRecreateReplica


def test_plan_is_the_tested_one_and_each_of_its_steps_is_a_method():
    assert RdsRecreateReplica.plan is reprotection.plan
    steps = set(re.findall(r'Step\(\s*"(\w+)"', Path(reprotection.__file__).read_text(encoding="utf-8")))
    assert steps
    assert [step for step in steps if not callable(getattr(RdsRecreateReplica, step, None))] == []

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Placeholders, and which playbooks stop for them."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils import readiness_inventory
from ansible_collections.sre.runbooks.plugins.modules import readiness_assess


def test_a_placeholder_counts_where_the_playbook_names_the_variable():
    named = readiness_inventory.named_by(["db_failover", "kill_queries"])
    found = list(readiness_inventory.judge({"hosted_zone_id": "Z0CHANGEME", "db_instance": "db"}, named))
    assert [(each["scenario"], each["resource"]) for each in found] == [("db_failover", "hosted_zone_id")]


def test_no_value_is_told():
    (found,) = readiness_inventory.judge({"db_admin_password": "CHANGEME-hunter2"}, {"a": {"db_admin_password"}})
    assert "hunter2" not in str(found)


def test_the_plan_tells_what_was_looked_at_and_what_is_promised():
    promised = {"rto_seconds": 900.0, "rpo_seconds": None, "drills": {}}
    told = readiness_assess.ReadinessAssess.plan({"findings": []}, {"scenarios": ["db_failover"], **promised}).returned
    assert told == {"readiness": {"scenarios": ["db_failover"], "findings": [], "promised": promised}}

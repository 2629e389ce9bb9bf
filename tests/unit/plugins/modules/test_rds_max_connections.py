# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""rds_max_connections: the plan is connection_limit's, whose tests are in test_connection_limit.py."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils import connection_limit
from ansible_collections.sre.runbooks.plugins.modules import rds_max_connections


def test_the_plan_and_the_services():
    assert rds_max_connections.RdsMaxConnections.plan is connection_limit.plan
    assert {"rds", "ec2"} <= set(rds_max_connections.SERVICES)


def test_sharing_names_the_others_of_the_same_group():
    there = {name: {"id": name, "parameter_group": group} for name, group in (("a", "g"), ("b", "g"), ("c", "h"))}
    shared = rds_max_connections.RdsMaxConnections._with_sharing(there["a"], there)
    assert shared["sharing"] == ("b",)

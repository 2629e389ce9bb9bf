# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan of lease_table: made where there is none, waited for, and refused where leases cannot be kept in it."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.lease_table import KEY, LeaseTable


def plan(status, key=()):
    """The key is the right one where nothing is said."""
    observed = {"region": "us-west-2", "status": status, "key": KEY if key == () else key}
    return [step.do for step in LeaseTable.plan(observed, {"table": "locks"}).steps]


def test_made_where_there_is_none():
    assert plan(None, None) == ["create"]


def test_one_that_serves_is_left_as_it_is():
    assert plan("ACTIVE") == []


def test_one_that_somebody_else_makes_is_waited_for():
    assert plan("CREATING") == ["serve"]


def test_another_key_is_refused_with_its_name():
    with pytest.raises(Refusal, match=r"locks in us-west-2 has the key id, .* name another as lock_table"):
        plan("ACTIVE", [{"AttributeName": "id", "KeyType": "HASH"}])

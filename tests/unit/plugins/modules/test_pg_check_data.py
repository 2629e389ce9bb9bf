# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan of pg_check_data: to say what is right, or to refuse."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.pg_check_data import PgCheckData

CHECK = {"name": "rows", "query": "SELECT 1", "expect": None, "at_least": 3, "at_most": None, "beside": "more"}


def judged(value, beside, accept=False):
    wanted = {"queries": [CHECK], "db_instance": "regami-db-restored", "accept_mismatch": accept}
    return PgCheckData.plan({"answers": [value], "beside": [beside]}, wanted)


def test_right_data_is_told_beside_the_wrong():
    found = judged(10, 1)
    assert found.notes == ("rows: 10, in the other database 1",) and found.steps == ()
    assert found.returned["checks"][0]["ok"]


def test_wrong_data_refuses_with_every_check_in_the_result():
    with pytest.raises(
        Refusal, match=r"regami-db-restored is not as expected: rows: 2, .*choose another moment"
    ) as caught:
        judged(2, 1)
    assert caught.value.found["checks"][0]["why"]
    assert judged(2, 1, accept=True).notes[0].startswith("accepted: rows: 2")

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""redis_flush: how many keys must have been confirmed."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.redis_flush import RedisFlush


def plan(*counts, confirm_keys=None, pattern=None):
    nodes = {(f"10.0.0.{number}", 6379): count for number, count in enumerate(counts)}
    wanted = {"confirm_keys": confirm_keys, "pattern": pattern, "growth_percent": 10, "host": "cache", "database": 0}
    return RedisFlush.plan({"nodes": nodes}, wanted)


def test_every_primary_with_keys_is_emptied():
    made = plan(60, 0, 40, confirm_keys=100, pattern="row:*")
    assert [step.what for step in made.steps] == ["remove row:* from 10.0.0.0:6379", "remove row:* from 10.0.0.2:6379"]
    assert made.after["keys"] == 0 and made.returned == {"keys": 100} and made.notes == ()


def test_an_empty_cache_needs_no_word():
    assert plan(0, 0).steps == ()


@pytest.mark.parametrize(
    ("there", "confirmed", "goes"), [(110, 100, True), (111, 100, False), (3, 100, True), (1, 0, False)]
)
def test_a_cache_may_have_grown_a_little(there, confirmed, goes):
    if goes:
        made = plan(there, confirm_keys=confirmed)
        assert made.steps and made.notes == (f"{confirmed} keys were confirmed, {there} are there",)
        return
    with pytest.raises(Refusal) as refused:
        plan(there, confirm_keys=confirmed)
    assert f"say confirm_keys={there}" in str(refused.value)


def test_without_a_number_it_says_how_many():
    with pytest.raises(Refusal) as refused:
        plan(7, 5)
    assert "every key of database 0 at cache is 12 keys" in str(refused.value)
    assert "say confirm_keys=12" in str(refused.value)

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan of record_bucket: what a bucket lacks, and nothing that is stricter already."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.modules.record_bucket import NOTHING, RecordBucket

KEY = "arn:aws:kms:us-west-2:123456789012:key/1"
RIGHT = {"exists": True, "versioning": "Enabled", "encryption": "AES256", "key": None, "blocked": True}


def plan(named=None, /, **found):
    wanted = {"bucket": "records", "kms_key_arn": named}
    return RecordBucket.plan({**RIGHT, "region": "us-west-2", **found}, wanted)


def test_made_where_there_is_none_and_looked_at_then():
    first, *rest = plan(**NOTHING).steps
    assert (first.do, first.look_again) == ("create", True)
    assert [step.do for step in rest] == ["keep_versions", "encrypt", "block"]


@pytest.mark.parametrize(
    ("found", "step"),
    [
        ({"versioning": "Suspended"}, "keep_versions"),
        ({"encryption": None}, "encrypt"),
        ({"blocked": False}, "block"),
    ],
)
def test_only_what_it_lacks(found, step):
    assert [each.do for each in plan(**found).steps] == [step]


def test_what_is_right_or_stricter_is_left_as_it_is():
    assert plan().steps == ()
    assert plan(encryption="aws:kms", key="arn:aws:kms:us-west-2:123456789012:key/9").steps == ()


def test_a_key_that_is_named_takes_the_place_of_another():
    assert [each.after for each in plan(KEY).steps] == [KEY]
    assert plan(KEY, encryption="aws:kms", key=KEY).steps == ()

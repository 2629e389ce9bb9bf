# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plan of run_guard: the wrong account and what is not filled in."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.guard import refuse_placeholders
from ansible_collections.sre.runbooks.plugins.modules.run_guard import RunGuard

CALLER = {"account": "123456789012", "arn": "arn:aws:iam::123456789012:user/jo", "region": "us-west-2"}


def test_right_account_has_nothing_to_do():
    result = RunGuard.plan(CALLER, {"account_id": "123456789012", "environment_name": "prod"})
    assert result.steps == ()
    assert result.returned["caller"]["arn"].endswith("user/jo")


def test_wrong_account_names_both_and_the_way_out():
    with pytest.raises(Refusal) as raised:
        RunGuard.plan(CALLER, {"account_id": "210987654321", "environment_name": "prod"})
    for part in ("123456789012", "210987654321", "prod", "AWS_PROFILE", "nothing was changed"):
        assert part in str(raised.value)


@pytest.mark.parametrize("value", [None, "", "CHANGEME", "sg-CHANGEME", ["sg-CHANGEME"]])
def test_every_open_setting_is_named(value):
    with pytest.raises(Refusal, match="db_instance, zone:"):
        refuse_placeholders({"zone": value, "db_instance": "", "region": "us-east-1"}, "prod")


def test_zero_and_false_are_values():
    refuse_placeholders({"count": 0, "public": False}, "prod")

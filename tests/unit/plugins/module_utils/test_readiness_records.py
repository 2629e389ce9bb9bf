# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bucket of the records, measured by what bootstrap.yml would do to it."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import readiness_records
from ansible_collections.sre.runbooks.plugins.module_utils.kept_bucket import NOTHING

KEPT = {"exists": True, "versioning": "Enabled", "encryption": "AES256", "key": None, "blocked": True, "region": "here"}


def found(key=None, **observed):
    wanted = {"records": {"bucket": "records", "kms_key_arn": key}}
    return [each.because for each in readiness_records.judge({"records": KEPT | observed}, wanted, 0)]


def test_one_that_is_kept_as_it_should_be():
    assert found() == []


@pytest.mark.parametrize(
    ("observed", "would"),
    [
        (NOTHING, "make the bucket records in here"),
        ({"versioning": "Suspended"}, "keep all versions of what is in records"),
        ({"encryption": None, "blocked": False}, "encrypt what comes to records, let nothing in records become public"),
    ],
)
def test_what_bootstrap_would_do(observed, would):
    assert found(**observed) == [f"records are not kept as they should be: bootstrap.yml would {would}"]


def test_what_bootstrap_would_refuse():
    assert found(refusal="bucket records is in eu-west-1, not in here: set its region") == [
        "bucket records is in eu-west-1, not in here"
    ]

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""dependencies_assess: what its plan says of what it was told."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.modules.dependencies_assess import DependenciesAssess

FINE = {"kind": "redis", "ok": True, "seconds": 0.02, "reason": None, "fault": None, "certificate_days": None}


def test_the_plan_has_what_is_down_first_and_what_could_not_be_asked_last():
    found = [
        {**FINE, "name": "cache"},
        {**FINE, "name": "queue", "certificate_days": 3.0},
        {
            **FINE,
            "name": "db",
            "ok": False,
            "seconds": None,
            "reason": "db:5432 refuses connections",
            "fault": "refused",
        },
        {**FINE, "name": "uploads", "ok": None, "seconds": None, "reason": "no AWS credentials found"},
    ]
    plan = DependenciesAssess.plan({"found": found}, {"warn_days": 14})
    assert not plan.steps
    assert plan.notes == (
        "db is down: db:5432 refuses connections",
        "the certificate of queue expires in 3 days",
        "cache answers in 0.02 s",
        "queue answers in 0.02 s",
        "cannot see uploads: no AWS credentials found",
    )
    assert plan.returned == {"dependencies": found, "down": ["db"], "blind": ["uploads: no AWS credentials found"]}

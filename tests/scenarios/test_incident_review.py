# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""incident_review.yml: a run is reviewed from its record and from what the load balancers counted, and changes nothing."""

from __future__ import annotations

from world import Switchover, World

from ansible_collections.sre.runbooks.plugins.modules.incident_review import COUNTED, RECORDED


def test_a_switchover_is_reviewed(switchover: Switchover, any_world: World) -> None:
    name = switchover.run.folder.name
    run = any_world.runbook.run("incident_review", run=name)
    assert (run.returncode, run.mutations, run.recap["changed"]) == (0, [], 0), run.output
    drafts = any_world.sandbox.home / "reviews"
    text = (drafts / f"{name}.md").read_text()
    # What was done, and that nothing takes a promotion back.
    assert "promote regami-db-replica" in text
    assert "| for good: " in text and "db_reprotect" in text
    assert "| **Mitigated** | " in text and "db_failover of sandbox had recovered and verified it" in text
    # The load balancers of both regions were asked, or the run had when a test since has set them back; and so was the objective.
    assert any(counted in text for counted in (COUNTED, RECORDED)) and "99.9 % over 30 days allows 43 min" in text
    assert "## Not seen" not in text
    page = (drafts / f"{name}.html").read_text()
    assert page.count('<svg class="track"') > 5 and 'aria-label="db connections of regami-db-primary' in page

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The commits of a real checkout."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import changes, commits
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop

NOW = int(time.time())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Three commits: an hour ago, ten minutes ago, and now."""
    folder = tmp_path / "regami"
    subprocess.run(["git", "init", "-q", folder], check=True)
    for minutes, subject in ((60, "feat: first"), (10, "fix: token=abc123secret <b> é"), (0, "chore: last")):
        at = f"@{NOW - 60 * minutes} +0000"
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "Anna B"), ("EMAIL", "anna@example.com"), ("DATE", at))
        }
        subprocess.run(
            ["git", "-c", "commit.gpgsign=false", "commit", "-q", "--allow-empty", "-m", subject, "-m", "A body.\n<x>"],
            cwd=folder,
            env={**os.environ, **identity},
            check=True,
        )
    return folder


def test_commits_since_a_moment_without_their_secrets(checkout: Path) -> None:
    found = commits.of_checkout(str(checkout), NOW - 1800)
    assert [(at, who) for at, _what, who in found] == [(NOW, "Anna B"), (NOW - 600, "Anna B")]
    assert found[0][1].endswith(" in regami: chore: last")
    assert found[1][1].endswith(" in regami: fix: token=******** <b> é")


def test_they_stand_in_the_one_list_of_changes(checkout: Path) -> None:
    found = {
        "commits": [
            changes.Change(at, "commit", what, who) for at, what, who in commits.of_checkout(str(checkout), NOW - 86400)
        ]
    }
    deployed = changes.Change(NOW - 300, "deployment", "deployment of a:7 to api began")
    told = changes.told({**found, "events of db": [deployed]}, NOW - 1800)
    assert [each.kind for each in told["changes"]] == ["commit", "deployment", "commit"]


def test_what_is_no_checkout_is_said(tmp_path: Path) -> None:
    with pytest.raises(Stop, match=r"git log in .* failed: exit status 128: fatal: not a git repository"):
        commits.of_checkout(str(tmp_path), 0)
    with pytest.raises(Refusal, match="there is no folder /no/such/folder"):
        commits.of_checkout("/no/such/folder", 0)


def test_nothing_of_the_checkout_is_run_and_nothing_is_written(checkout: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name in ("core.pager", "core.fsmonitor", "gpg.program"):
        subprocess.run(["git", "config", name, f"touch {ran}"], cwd=checkout, check=True)
    before = sorted((path, path.stat().st_mtime_ns) for path in checkout.rglob("*"))
    assert len(commits.of_checkout(str(checkout), NOW - 86400)) == 3
    assert sorted((path, path.stat().st_mtime_ns) for path in checkout.rglob("*")) == before
    assert not ran.exists()

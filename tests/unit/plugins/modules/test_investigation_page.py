# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""investigation_page: where it writes, what it masks, and what it says to what cannot be drawn."""

from __future__ import annotations

import stat

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import charts, record
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.modules.investigation_page import InvestigationPage
from ansible_collections.sre.runbooks.tests.unit.story_of_a_page import FOUND, story


def write(found, dest=None):
    verb = InvestigationPage.__new__(InvestigationPage)
    verb.params = dict(found, dest=dest)
    return verb.observe()["path"]


def test_the_page_is_written_into_the_record_of_the_run_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv(record.FOLDER_VARIABLE, str(tmp_path))
    path = tmp_path / "investigation.html"
    assert (tmp_path / write(FOUND)).resolve() == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_what_looks_like_a_secret_is_not_in_it(tmp_path):
    line = "ERROR connecting to postgresql://api:hunter2-Zq7@db/regami with password=hunter2-Zq7"
    patterns = [dict(FOUND["patterns"][0], pattern=line, example=line)]
    write(story(patterns=patterns), str(tmp_path / "page.html"))
    assert "hunter2" not in (tmp_path / "page.html").read_text()


def test_the_plan_only_tells_where_the_page_is():
    plan = InvestigationPage.plan({"path": "here.html"}, {})
    assert plan.steps == () and plan.notes == ("page: here.html",) and plan.returned == {"path": "here.html"}


@pytest.mark.parametrize(
    ("found", "dest", "complaint"),
    [
        (FOUND, "nowhere/page.html", "nowhere/page.html cannot be written: No such file or directory; name another"),
        (story(metrics=[{"name": "p99"}]), "page.html", "lacks 'series': give them as the reading verbs return them"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(tmp_path, found, dest, complaint):
    with pytest.raises(Refusal, match=complaint):
        write(found, str(tmp_path / dest))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(charts, "Figure", None)
    with pytest.raises(Refusal, match="matplotlib"):
        write(FOUND)

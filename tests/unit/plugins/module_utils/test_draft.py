# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a draft goes once people have written in the one before."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils import draft

FIRST, SECOND = draft.sealed("# It failed\n"), draft.sealed("# It failed, and we know more\n")


def put(folder, text):
    place = draft.place(str(folder), "it", text)
    if place.write:
        (folder / place.path).write_text(text)
    return place


def test_what_nobody_wrote_in_is_drafted_again(tmp_path):
    assert put(tmp_path, FIRST).write
    assert not put(tmp_path, FIRST).write
    again = put(tmp_path, SECOND)
    assert (again.path, again.write, again.edited) == (str(tmp_path / "it.md"), True, ())
    assert (tmp_path / "it.md").read_text() == SECOND


def test_what_somebody_wrote_in_is_left_alone_and_what_is_new_is_put_beside_it(tmp_path):
    (tmp_path / "it.md").write_text(FIRST.replace("failed", "failed, I saw it"))
    assert not put(tmp_path, FIRST).write, "nothing is new since that draft"
    beside = put(tmp_path, SECOND)
    assert (beside.path, beside.edited) == (str(tmp_path / "it.2.md"), (str(tmp_path / "it.md"),))
    (tmp_path / "it.2.md").write_text("all written anew, without a seal\n")
    assert put(tmp_path, FIRST).write is False
    third = put(tmp_path, draft.sealed("# More still\n"))
    assert third.path.endswith("it.3.md") and len(third.edited) == 2
    assert "I saw it" in (tmp_path / "it.md").read_text()


def test_a_file_of_a_person_that_was_there_before_is_one_that_somebody_wrote_in(tmp_path):
    (tmp_path / "it.md").write_text("mine\n")
    assert put(tmp_path, FIRST).path.endswith("it.2.md")

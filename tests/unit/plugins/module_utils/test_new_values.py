# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""New values of secrets: where they come from, and what no message repeats."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import new_values
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal


def test_generated_ones_differ_and_go_into_a_url():
    made = {new_values.make({"length": 40}, None) for _each in range(5)}
    assert len(made) == 5 and all(len(each) == 40 and each.isalnum() for each in made)
    with pytest.raises(Refusal, match="too short"):
        new_values.make({"length": 8}, None)


def test_from_a_file(tmp_path):
    path = tmp_path / "value"
    path.write_text("hunter2\n")
    assert new_values.make({"file": str(path)}, "old") == "hunter2"
    with pytest.raises(Refusal, match="former one") as caught:
        new_values.make({"key": "password", "file": str(path)}, "hunter2")
    assert "hunter2" not in str(caught.value)
    path.write_text("")
    with pytest.raises(Refusal, match="is empty"):
        new_values.make({"file": str(path)}, None)
    with pytest.raises(Refusal, match="cannot be read"):
        new_values.make({"file": str(tmp_path / "none")}, None)


def test_another_user_of_a_url():
    assert new_values.with_user("postgresql://app@db:5432/shop?x=1", "app_2") == "postgresql://app_2@db:5432/shop?x=1"
    for url, why in (("postgresql://app:hunter2@db/shop", "has a password"), ("db:5432", "no URL"), (None, "no URL")):
        with pytest.raises(Refusal, match=why) as caught:
            new_values.with_user(url, "app_2")
        assert "hunter2" not in str(caught.value)


def test_names_count():
    assert [new_values.next_name(each) for each in ("database", "database-2", "a-b", "v-9")] == [
        "database-2",
        "database-3",
        "a-b-2",
        "v-10",
    ]

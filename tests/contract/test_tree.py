# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree keeps the contract: each verb, playbook and role has all that it must have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract import checks, undone

ROOT = Path(__file__).parents[2]
TREE = checks.Tree(ROOT)
CASES = [
    pytest.param(check, path, id=f"{path.relative_to(ROOT)} {check.__name__}")
    for paths, its_checks in (
        (TREE.verbs(), checks.VERB_CHECKS),
        (TREE.playbooks(), checks.PLAYBOOK_CHECKS),
        (TREE.roles(), checks.ROLE_CHECKS),
    )
    for path in paths
    for check in its_checks
]


def _none(faults: list[str]) -> None:
    """Fail with the faults alone: where the check stands in this folder says nothing to who reads it."""
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.mark.parametrize(("check", "path"), CASES)
def test_contract(check: checks.Check, path: Path) -> None:
    _none([f"{path.relative_to(ROOT)}: {fault}" for fault in check(TREE, path)])


def test_routing_names_only_what_is_there() -> None:
    verbs = {path.stem for path in TREE.verbs()}
    routed = set(TREE.runtime["plugin_routing"]["action"])
    grouped = {entry for entry in TREE.runtime["action_groups"]["aws"] if isinstance(entry, str)}
    _none([f"meta/runtime.yml: {name} is no module of plugins/modules" for name in sorted((routed | grouped) - verbs)])


def test_no_file_names_a_machine_or_a_registry() -> None:
    faults = []
    for path in checks.own_files(ROOT):
        text = path.read_bytes().decode("utf-8", errors="replace")
        faults += [f"{path.relative_to(ROOT)}:{fault}" for fault in checks.names_no_machine(ROOT, text)]
    _none(faults)


def test_the_page_of_what_is_taken_back_says_what_the_verbs_say() -> None:
    """`make undo-page` writes it."""
    assert TREE.text(undone.NAME) == undone.page(TREE)

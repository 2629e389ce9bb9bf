# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/undo.md: what undo.yml takes back of each playbook, and what stays; from what the verbs themselves say.

python -m tests.contract.undone > docs/undo.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

from tests.contract import checks

NAME = "docs/undo.md"
HEAD = """\
# What undo.yml takes back

`playbooks/undo.yml` asks of each change of a run whether all is still as that run left it, and takes it back, the last one first.
What stays is said at the end of the undo, with what can be done instead; one change that nothing can undo, such as a promotion, and
that others rest on refuses the undo of its whole run, and says what to do instead. The cases of
`tests/scenarios/test_undo_exact.py` compare every resource before a run and after its undo. Playbooks that change nothing are left out.

This page is written from the verbs, by `make undo-page`.
"""
# What an entry of an undo holds, and how the page calls that.
KINDS = {
    "verb": "takes back what these did",
    "stays": "what these did stays",
    "cannot": "after these it refuses",
}
VERB = re.compile(rf"{checks.NAMESPACE}\.(\w+)")
# `folder/name.yml`, with a template anywhere in it: as a task file of another playbook is named.
FILE = re.compile(r"(?:\.\./)?((?:[\w-]+|\{\{[^{}]*\}\})(?:/(?:[\w-]+|\{\{[^{}]*\}\}))*)\.yml")
# In an expression: 'rollback_deployment/' ~ way ~ '.yml'
JOINED = re.compile(r"'([\w/]+/)' ~ [\w.]+ ~ '(/?\w*)\.yml'")


def page(tree: checks.Tree) -> str:
    """The text of docs/undo.md."""
    verbs = {playbook.stem: changing(tree, playbook) for playbook in tree.playbooks() if not only_reads(playbook)}
    lines = [HEAD, f"| playbook | {' | '.join(KINDS.values())} |", "|---|---|---|---|"]
    for playbook, reached in verbs.items():
        if reached:
            columns = [", ".join(f"`{verb.stem}`" for verb in sorted(reached) if kind(verb) == key) for key in KINDS]
            lines.append(f"| {' | '.join([f'`{playbook}`', *columns])} |")
    lines += ["", "| what | did | taken back, or what to do instead |", "|---|---|---|"]
    for verb in sorted(set().union(*verbs.values())):
        lines.append(f"| `{verb.stem}` | {_plain(_title(verb))} | {_plain(how(verb))} |")
    return "\n".join(lines) + "\n"


def only_reads(playbook: Path) -> bool:
    """Whether nothing that it reaches is let change anything."""
    return "SRE_RUNBOOKS_READ_ONLY" in playbook.read_text(encoding="utf-8")


def kind(verb: Path) -> str:
    """How its undo ends, at its best: that of a verb with undo() by the first entry of the sample in its documentation."""
    if not any(checks.is_taken_back(cls) for cls in checks.verb_classes(verb)):
        return "stays"
    sample = checks.documentation(verb)[2]["undo"]["sample"]
    return "cannot" if sample and "cannot" in sample[0] else "verb"


def how(verb: Path) -> str:
    """How the change of a verb is taken back, as its documentation says, or what to do instead."""
    if kind(verb) == "stays":
        return "; ".join(f"stays: {cls.INSTEAD}" for cls in checks.verb_classes(verb))
    said = checks.documentation(verb)[2]["undo"]["description"]
    return " ".join(said) if isinstance(said, list) else said


def changing(tree: checks.Tree, playbook: Path) -> set[Path]:
    """The verbs that a playbook can reach and that change something; none of one that only asks them."""
    plays = yaml.safe_load(playbook.read_text(encoding="utf-8"))
    if all(play.get("check_mode") for play in plays):
        return set()
    named = {name for path in reached(tree, playbook) for name in VERB.findall(path.read_text(encoding="utf-8"))}
    verbs = {path for path in tree.verbs() if path.stem in named}
    return {verb for verb in verbs if any(checks.says_how_to_go_back(cls) for cls in checks.verb_classes(verb))}


def reached(tree: checks.Tree, playbook: Path) -> set[Path]:
    """The playbook, its files of tasks, and those of the playbooks and roles that they name. A template may become any name."""
    there = {playbook, *playbook.with_suffix("").rglob("*.yml")}
    new = set(there)
    while new:
        there |= new
        new = {path for each in new for path in _named_in(tree, each)} - there
    return there


def _named_in(tree: checks.Tree, path: Path) -> Iterator[Path]:
    text = path.read_text(encoding="utf-8")
    for role in set(VERB.findall(text)):
        yield from tree.root.glob(f"roles/{role}/*/*.yml")
    templates = [found[1] for found in FILE.finditer(text)] + [f"{head}*{rest}" for head, rest in JOINED.findall(text)]
    for template in set(templates):
        pattern = re.sub(r"\{\{[^{}]*\}\}", "*", template)
        folder, _slash, name = pattern.rpartition("/")
        if folder and "*" not in folder:
            yield from (tree.root / "playbooks").glob(f"{folder}/{name}.yml")


def _title(verb: Path) -> str:
    return checks.documentation(verb)[0]["short_description"]


def _plain(text: str) -> str:
    """Of the markup of Ansible's documentation, its text; a bar would end the cell."""
    return re.sub(r"\b(?:RV|[OVCEM])\(([^)]*)\)", r"`\1`", text).replace("|", "\\|").rstrip(".")


if __name__ == "__main__":
    root = Path(__file__).parents[2]
    _AnsibleCollectionFinder(paths=[str(root / ".ansible" / "collections")])._install()
    print(page(checks.Tree(root)), end="")

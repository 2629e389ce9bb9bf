# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which variables a playbook reads, found in its templates and in those of the tasks and roles that it may include."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import yaml

from iam.reached import reached

# What ansible itself brings, and what a template sets in a loop.
MAGIC = {
    "ansible_check_mode",
    "ansible_play_hosts_all",
    "ansible_playbook_python",
    "ansible_run_tags",
    "groups",
    "hostvars",
    "inventory_hostname",
}
MAGIC |= {"_peer", "ansible_failed_result", "item", "lookup", "now", "omit", "playbook_dir", "query", "role_path"}
# The value of these is an expression as it stands.
EXPRESSIONS = {"changed_when", "failed_when", "that", "until", "when"}


class _Any(dict):
    """Every filter and test that ansible could know: only variables are looked for."""

    def get(self, _name: str, _default: Any = None) -> Any:
        return lambda *_args: None

    def __contains__(self, _name: object) -> bool:
        return True


class _Loader(yaml.SafeLoader):
    """`!unsafe` is text that ansible does not render."""


_Loader.add_constructor("!unsafe", lambda _loader, _node: "")
_JINJA = jinja2.Environment()
_JINJA.filters, _JINJA.tests = _Any(), _Any()


def read_by(playbook: Path) -> tuple[set[str], set[str]]:
    """All names that its templates speak of, and those of them that nothing in it sets, a task's result or a variable of a task."""
    documents = [yaml.load(path.read_text(encoding="utf-8"), _Loader) for path in reached(playbook)]
    named = {name for document in documents for text in _templates(document) for name in _names(text)} - MAGIC
    defaults = {name for document in documents if isinstance(document, dict) for name in document}
    return named, named - defaults - {name for document in documents for name in _set_by(document)}


def _templates(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for each in node:
            yield from _templates(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in EXPRESSIONS:
                yield from (f"{{{{ {each} }}}}" for each in (value if isinstance(value, list) else [value]))
            yield from _templates(value)


def _names(text: str) -> set[str]:
    if "{{" not in text and "{%" not in text:
        return set()
    return jinja2.meta.find_undeclared_variables(_JINJA.parse(text))


def _set_by(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for each in node:
            yield from _set_by(each)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("register", "loop_var", "index_var"):
                yield value
            elif key == "vars" or key.endswith("set_fact"):
                yield from value
            yield from _set_by(value)

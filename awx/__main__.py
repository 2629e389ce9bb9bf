# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the files of this folder anew: `make awx`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from awx import image, templates

ROOT = Path(__file__).parents[1]
NOTE = "---\n# Made by `make awx` from the argument specs beside the playbooks, requirements.txt and the inventories: change those.\n"


def files(root: Path) -> dict[str, str]:
    """What each file is to say, by its name in this folder."""
    return {
        "execution-environment.yml": _text(image.definition(root)),
        "job_templates.yml": _text({"awx_job_templates": templates.job_templates(root)}),
        "workflows.yml": _text({"awx_workflows": templates.workflows(root)}),
        "inventories.yml": _text({"awx_inventories": templates.inventories(root)}),
        "credential_types.yml": _text({"awx_credential_types": templates.credential_types(root)}),
        "schedules.yml": _text({"awx_schedules": templates.schedules()}),
    }


def _text(document: Any) -> str:
    return NOTE + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=150, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Lists stand below their key with indentation, as ansible-lint has it, and nothing is an alias."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, _data: Any) -> bool:
        return True


_Dumper.add_representer(templates.Template, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text)))


def main() -> None:
    for name, text in files(ROOT).items():
        (ROOT / "awx" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The definition of the execution environment for ansible-builder (version 3), with the versions that the clone is tested with.

AWX brings an execution environment with an older ansible-core and none of our collections, so runs need one of their own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

# That of AWX's own execution environments, which has a Python that ansible-core 2.19 runs on.
BASE = "quay.io/centos/centos:stream9"
PYTHON = "python3.11"
# What ansible-builder installs itself, in its own places: the core, and its collections in place of the bundle.
_APART = {"ansible", "ansible-core"}


def definition(root: Path) -> dict[str, Any]:
    pins = _pins((root / "requirements.txt").read_text(encoding="utf-8"))
    core = _of(pins, "ansible-core")
    # The one that the tests run jobs with.
    runner = _of(_pins((root / "requirements-dev.txt").read_text(encoding="utf-8")), "ansible-runner")
    return {
        "version": 3,
        "images": {"base_image": {"name": BASE}},
        "dependencies": {
            "python_interpreter": {"package_system": PYTHON, "python_path": f"/usr/bin/{PYTHON}"},
            "ansible_core": {"package_pip": core},
            "ansible_runner": {"package_pip": runner},
            "galaxy": {"collections": _collections(root)},
            "python": [pin for pin in pins if pin.partition("==")[0] not in _APART],
            # The pins are all that is needed; a collection would add what it likes, of any version.
            "exclude": {"all_from_collections": ["~.+"]},
            # git reads the commits of a service; the compiler is for wheels that a platform lacks.
            "system": [
                "git-core [platform:rpm]",
                "gcc [compile platform:rpm]",
                f"{PYTHON}-devel [compile platform:rpm]",
            ],
        },
    }


def _of(pins: list[str], package: str) -> str:
    (pin,) = (pin for pin in pins if pin.startswith(f"{package}=="))
    return pin


def _pins(text: str) -> list[str]:
    """The pinned requirements with their markers; some stand twice, for different versions of Python."""
    return re.findall(r"(?m)^[\w.-]+(?:\[[\w,]+\])?==[^\s\\]+(?: ; [^\\#\n]*[^\\#\s])?", text)


def _collections(root: Path) -> list[dict[str, str]]:
    return yaml.safe_load((root / "requirements.yml").read_text(encoding="utf-8"))["collections"]

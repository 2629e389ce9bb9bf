# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module's main() in this process, as the action plugin of the collection calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils import basic


def run_main(main: Callable[[], None], check: bool = False, /, **arguments: Any) -> dict[str, Any]:
    """What `main` exits with, given these module arguments."""
    given = {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}
    outcome: dict[str, Any] = {"failed": False}

    def record(_module: basic.AnsibleModule, result: dict[str, Any]) -> None:
        outcome.update(result)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": given}).encode())
        patch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        patch.setattr(basic.AnsibleModule, "_record_module_result", record, raising=False)
        with pytest.raises(SystemExit):
            main()
    return outcome

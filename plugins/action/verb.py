# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs any verb of the collection in the controller's process.

A module on a local connection starts a Python process, imports boto3 and parses the service models: about a second.
Here the worker that ansible forked anyway calls the module's own main(), with boto3 and the models inherited from the
parent (the incident callback loads them). With any other connection the ordinary module runs: one implementation, two
entrances.
"""

from __future__ import annotations

import importlib
import json
import os

from ansible.errors import AnsibleError
from ansible.module_utils import basic
from ansible.module_utils.common.json import Direction, get_module_encoder
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.sre.runbooks.plugins.module_utils import record, waiting

MODULES = "ansible_collections.sre.runbooks.plugins.modules"


def tell(host, step, line):
    """Progress of a step, at once: to whoever watches, and to the timeline of the run."""
    Display().display(f"    [{host}] {line}")
    folder = os.environ.get(record.FOLDER_VARIABLE)
    if folder:
        record.append(folder, event="progress", host=host, step=step, line=line)


class ActionModule(ActionBase):
    """One action for every verb; the task's action still names the verb."""

    _supports_async = True  # goes the way of an ordinary module
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        verb = self._task.action.rpartition(".")[2]
        if self._connection.transport != "local" or self._task.async_val:
            result.update(
                self._execute_module(
                    module_name=f"sre.runbooks.{verb}", task_vars=task_vars, wrap_async=self._task.async_val
                )
            )
        else:
            result.update(self._run_here(verb, task_vars or {}))
        return result

    def _run_here(self, verb, task_vars):
        try:
            module = importlib.import_module(f"{MODULES}.{verb}")
        except ImportError as error:
            raise AnsibleError(f"sre.runbooks.{verb} is not a verb of this collection: {error}") from error
        arguments = dict(self._task.args)
        self._update_module_args(f"sre.runbooks.{verb}", arguments, task_vars)
        environment = {}
        self._compute_environment_string(environment)
        os.environ.update({name: str(value) for name, value in environment.items()})

        # The worker is forked for this one task and ends with it, so what is set here is gone afterwards.
        profile = "legacy"
        basic._ANSIBLE_PROFILE = profile
        basic._ANSIBLE_ARGS = json.dumps(
            {"ANSIBLE_MODULE_ARGS": arguments}, cls=get_module_encoder(profile, Direction.CONTROLLER_TO_MODULE)
        ).encode()
        recorded = {}
        # The hook that ansible-core keeps for running modules inside a worker; it is called after secrets were removed.
        basic.AnsibleModule._record_module_result = lambda _self, outcome: recorded.update(outcome)
        host, step = task_vars.get("inventory_hostname", ""), self._task.get_name()
        waiting.listener = lambda line: tell(host, step, line)
        try:
            module.main()
        except SystemExit:
            pass
        return recorded or {"failed": True, "msg": f"sre.runbooks.{verb} ended without a result"}

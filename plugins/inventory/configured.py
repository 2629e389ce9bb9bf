# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: configured
short_description: The inventories that the configuration names, as one file
version_added: 0.3.0
description:
  - Has the hosts, groups and variables of all inventories that C(inventory) of C(ansible.cfg) names.
  - For tools that start playbooks with one inventory of their own, as ansible-rulebook does. The file that uses this plugin is that
    one inventory, wherever it is copied to.
options:
  plugin:
    description: Token that makes a file one of this plugin.
    type: str
    required: true
    choices: [sre.runbooks.configured]
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
# inventory.yml
plugin: sre.runbooks.configured
"""

from ansible import constants
from ansible.errors import AnsibleParserError
from ansible.inventory.manager import InventoryManager
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible.vars.plugins import get_vars_from_inventory_sources


class InventoryModule(BaseInventoryPlugin):
    """Copies what the configured inventories have."""

    NAME = "sre.runbooks.configured"

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        sources = constants.DEFAULT_HOST_LIST
        if path in sources:
            raise AnsibleParserError(f"{path} is itself the inventory of the configuration: name others there")
        configured = InventoryManager(loader=loader, sources=sources)
        for name, group in configured.groups.items():
            inventory.add_group(name)
            self._copy_variables(group, sources)
        for name, host in configured.hosts.items():
            inventory.add_host(name)
            self._copy_variables(host, sources)
        for name, group in configured.groups.items():
            for child in group.child_groups:
                inventory.add_child(name, child.name)
            for host in group.hosts:
                inventory.add_child(name, host.name)

    def _copy_variables(self, entity, sources):
        """With what stands in group_vars and host_vars beside the sources, which are not beside the file of this plugin."""
        beside = get_vars_from_inventory_sources(self.loader, sources, [entity], "task")
        for name, value in {**entity.vars, **beside}.items():
            self.inventory.set_variable(entity.name, name, value)

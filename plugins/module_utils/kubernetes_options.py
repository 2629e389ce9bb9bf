# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a module is told of a cluster; apart from the client of it, which takes longer to load than all of the rest."""

from __future__ import annotations

from ansible.module_utils.basic import env_fallback
from ansible_collections.kubernetes.core.plugins.module_utils.args_common import AUTH_ARG_MAP, AUTH_ARG_SPEC

# The options of kubernetes.core's modules, with the environment variables that those read.
_NAMES = {option: attribute for attribute, option in AUTH_ARG_MAP.items()}
AUTH_ARGUMENTS = {
    option: dict(
        spec,
        fallback=(env_fallback, [f"K8S_AUTH_{name.upper()}" for name in (option, _NAMES.get(option, option))]),
    )
    for option, spec in AUTH_ARG_SPEC.items()
}
# Those of them that a dictionary of a cluster takes, among other options of a module.
CLUSTER_ARGUMENTS = {
    option: AUTH_ARGUMENTS[option] for option in ("kubeconfig", "context", "host", "api_key", "ca_cert")
}

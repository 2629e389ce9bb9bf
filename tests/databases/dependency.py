# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as a dependency of a service."""

from __future__ import annotations

from types import SimpleNamespace

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from cluster import HOST, PASSWORD, Cluster

from ansible_collections.sre.runbooks.plugins.module_utils import dependencies


def ask(cluster: Cluster, **more: object) -> dict:
    given = {
        "name": "database",
        "kind": "postgresql",
        "host": HOST,
        "port": cluster.port,
        "login_user": "app",
        "login_password": PASSWORD,
        "login_db": "postgres",
        "sslmode": "prefer",
        **more,
    }
    found = ArgumentSpecValidator(dependencies.ARGUMENTS).validate({"dependencies": [given]})
    wanted = found.validated_parameters["dependencies"]
    return dependencies.assess(SimpleNamespace(region="us-east-1"), wanted)[0]

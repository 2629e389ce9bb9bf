# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""pg_kill_queries as a task runs it, without Ansible around it: many runs against one server in little time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from cluster import HOST, PASSWORD, Cluster

from ansible_collections.sre.runbooks.plugins.module_utils import verb
from ansible_collections.sre.runbooks.plugins.modules import pg_kill_queries


class _Exit(Exception):
    pass


class Kill(pg_kill_queries.PgKillQueries):
    connection = staticmethod(lambda _module: ("us-east-1", None, {}))


def kill(cluster: Cluster, check: bool = False, **given: Any) -> dict[str, Any]:
    """What the module exits with; `failed` and `msg` where it fails."""
    options = {name: spec.get("default") for name, spec in verb.COMMON_ARGUMENTS.items()}
    options |= {name: spec.get("default") for name, spec in pg_kill_queries.ARGUMENTS.items()}
    options |= {"login_host": HOST, "login_port": cluster.port, "login_user": "admin", "login_password": PASSWORD}
    options |= {"login_db": "postgres", "sslmode": "disable", "signal": "terminate", "round_pause_seconds": 0, **given}
    result: dict[str, Any] = {}

    def leave(failed: bool, **answer: Any) -> None:
        result.update(answer, failed=failed)
        raise _Exit

    module = SimpleNamespace(
        params=options,
        argument_spec=pg_kill_queries.ARGUMENTS,
        check_mode=check,
        exit_json=lambda **answer: leave(False, **answer),
        fail_json=lambda **answer: leave(True, **answer),
    )
    try:
        verb.run(module, Kill)
    except _Exit:
        return result
    raise AssertionError("the verb ended without a result")

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of a verb between each two of its changes: in a process of its own, without Ansible around it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from ansible_collections.sre.runbooks.plugins.module_utils import aws
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api

# Every change of a verb goes through one of these.
DOORS = ((aws.Aws, "change"), (api.Cluster, "change"))


def dies_after_a_change(run: Callable[[], Any]) -> bool:
    """`run`, whose process dies as soon as its first change is applied; False where it had none to do and came to its end."""
    pid = os.fork()
    if not pid:
        for place, name in DOORS:
            setattr(place, name, _deadly(getattr(place, name)))
        try:
            run()
        finally:
            os._exit(0)
    _pid, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _deadly(change: Callable[..., Any]) -> Callable[..., Any]:
    def changed(*asked: Any, **more: Any) -> None:
        change(*asked, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    return changed

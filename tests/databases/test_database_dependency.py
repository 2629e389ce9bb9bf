# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database that a service depends on, asked as its client asks it."""

from __future__ import annotations

import os
import signal

import pytest
from cluster import PASSWORD, Cluster, Held
from dependency import ask


def test_a_database_that_serves(cluster: Cluster) -> None:
    found = ask(cluster)
    assert (found["ok"], found["reason"]) == (True, None)
    assert 0 < found["seconds"] < 5


@pytest.mark.parametrize(
    ("more", "fault", "part"),
    [
        ({"login_password": "wrong"}, "denied", "password authentication failed"),
        ({"login_db": "nowhere"}, "denied", 'database "nowhere" does not exist'),
        ({"sslmode": "require"}, "tls", "has no TLS, and sslmode is require"),
    ],
)
def test_a_database_that_says_no(cluster: Cluster, more: dict, fault: str, part: str) -> None:
    found = ask(cluster, **more)
    assert (found["ok"], found["fault"]) == (False, fault)
    assert part in found["reason"]
    assert PASSWORD not in str(found)


def test_a_database_without_a_connection_left(cluster: Cluster) -> None:
    with cluster.superuser() as query:
        query("ALTER ROLE app CONNECTION LIMIT 1")
        held = Held(cluster, "app", "SELECT 1")
        found = ask(cluster)
        held.close()
        query("ALTER ROLE app CONNECTION LIMIT -1")
    assert (found["ok"], found["fault"]) == (False, "exhausted")
    assert "too many connections for role" in found["reason"]


def test_a_database_that_hangs(cluster: Cluster) -> None:
    os.kill(cluster.process.pid, signal.SIGSTOP)
    try:
        found = ask(cluster, within=0.3)
    finally:
        os.kill(cluster.process.pid, signal.SIGCONT)
    assert (found["ok"], found["fault"]) == (False, "silent")
    assert "does not answer within 0.3 s" in found["reason"]

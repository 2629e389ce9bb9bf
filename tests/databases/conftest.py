# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One server for all tests of this folder; each test ends the sessions that it opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = Path(tmp_path_factory.mktemp("cluster"))
    server = Cluster(home, more="max_connections = 260\nreserved_connections = 2")
    server.start()
    yield server
    server.stop()

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import inspect

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import errors

KINDS = [kind for kind in vars(errors).values() if inspect.isclass(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_stop_is_caught_as_one_and_keeps_its_line(kind: type[Exception]) -> None:
    with pytest.raises(errors.Stop, match=r"^regami-db-replica is 41 s behind$"):
        raise kind("regami-db-replica is 41 s behind")

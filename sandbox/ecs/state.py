# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of ECS share: the world, the scheduler's alarm clock, and the functions of moto that ours replace."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..world import World

world: World
wake = threading.Event()  # set it after a change that the scheduler should look at now
moto: dict[str, Any] = {}


def replace(owner: type, *functions: Callable) -> None:
    """Put our functions in place of moto's methods of the same names, which stay in `moto`."""
    for function in functions:
        moto[function.__name__] = getattr(owner, function.__name__, None)
        setattr(owner, function.__name__, function)


def now() -> Any:
    from moto.core.utils import utcnow

    return utcnow()

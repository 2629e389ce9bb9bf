# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images can be pulled.

Those of Amazon ECR are where the sandbox's registry has them. Every other registry holds, of any repository, the tags of
releases (v1, v2-erroring, 1.0.0) and latest: a tag such as `bad` or `missing` is never there.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from .. import ecr
from ..builds import tag_of

if TYPE_CHECKING:
    from ..world import World

_RELEASE = re.compile(r"latest|v?\d+(\.\d+)*(-[a-z0-9]+)*")


def pull(world: World, image: str) -> ecr.Pulled:
    """Raises ecr.PullError."""
    if ".dkr.ecr." in image.partition("/")[0]:
        with world.lock:
            return ecr.pull(image)
    if not _RELEASE.fullmatch(tag_of(image)):
        raise ecr.PullError(f'failed to resolve reference "{image}": {image}: not found')
    return ecr.Pulled(f"sha256:{hashlib.sha256(image.encode()).hexdigest()}", image)

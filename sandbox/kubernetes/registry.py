# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images can be pulled.

An image in the account's ECR is there when its repository holds the tag or digest. Every other registry holds, of any
repository, the tags of releases (v1, v2-erroring, 1.0.0) and latest: a tag such as `bad` or `missing` is never there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..builds import tag_of

if TYPE_CHECKING:
    from ..world import World

_ECR = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^:@]+)(?::([^@]+))?(?:@(.+))?")
_RELEASE = re.compile(r"latest|v?\d+(\.\d+)*(-[a-z0-9]+)*")


def pull(world: World, image: str) -> str | None:
    """Why the image cannot be pulled, as a container runtime says it; None when it can."""
    if not (found := _ECR.fullmatch(image)):
        return None if _RELEASE.fullmatch(tag_of(image)) else f"{image}: not found"
    account, region, repository, tag, digest = found.groups()
    if region in world.cut_regions:
        return f'failed to resolve reference "{image}": dial tcp: i/o timeout'
    with world.lock:
        known = world.backend("ecr", region).repositories.get(repository) if account == world.account_id else None
        images = known.images if known else []
        held = any(
            (digest and each.get_image_digest() == digest) or (not digest and (tag or "latest") in each.image_tags)
            for each in images
        )
    return None if held else f"{image}: not found"

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the images of the standby's tasks are the version that runs now.

Whether its tasks find them at all is a gate, that of the verb `standby_assess`.
"""

from __future__ import annotations

from . import registry
from .readiness import MOVES, RISK, Found
from .task_definition import short

CHECK, SCENARIOS = "images", MOVES


def looks(aws, wanted, now):
    """{image: call} of both sides; the call gives its `registry.Image`."""
    definitions = wanted["definitions"]
    if not definitions.get("standby"):
        return {}
    return {
        name: lambda name=name: registry.look(aws, name)
        for each in definitions.values()
        for name in _images(each).values()
    }


def _images(definition):
    return {each["name"]: each["image"] for each in definition["containerDefinitions"]}


def judge(seen, wanted, now):
    """Pure: the images of the standby beside those of the service itself, where it is known what it runs."""
    definitions = wanted["definitions"]
    if not definitions.get("standby"):
        return
    revision, ours = short(definitions["standby"]["taskDefinitionArn"]), definitions.get("here")
    running = _images(ours) if ours else {}
    for container, name in _images(definitions["standby"]).items():
        image, other = seen.get(name), seen.get(running.get(container))
        if image and other and image.state != registry.GONE and _differ(image, other):
            because = f"users would get {name} of container {container} after a failover, and have {registry.text(other.name, other.digest)} now"
            yield Found(RISK, revision, because, "deploy the same version to the standby")


def _differ(one, other):
    if one.digest and other.digest:
        return one.digest != other.digest
    # Where a registry cannot be asked, a tag that says which version it is says enough.
    tags = {registry.parts(each.name)[1] for each in (one, other)}
    return len(tags) == 2 and not tags & {"", "latest"}

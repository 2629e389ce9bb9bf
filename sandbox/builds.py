# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The builds of the application that a pipeline may ship, and how an image's tag says which one it holds."""

from __future__ import annotations

BUILDS = ("good", "erroring", "crashing", "slow", "leaking", "unhealthy", "bloating")


def tag_of(image: str) -> str:
    """The tag of `[registry[:port]/]repository[:tag][@digest]`; "latest" where there is none, as Docker has it."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[2] or "latest"


def build_of(image: str) -> str:
    """`…/regami-api:v3-erroring` -> erroring; the good build unless the word after the tag's last `-` is another."""
    word = tag_of(image).rpartition("-")[2]
    return word if word in BUILDS else "good"


def environment_of(image: str, build: str = "") -> dict[str, str]:
    """What makes a process of sandbox.app the application in that image; `build` where its tag does not say which."""
    return {"APP_BUILD": build or build_of(image), "APP_VERSION": tag_of(image)}

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Container images: whether the registry still has them, and whether a tag still means what it meant.

Only Amazon ECR is asked, by the account and region in the image's own name; no other registry is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .aws import code_of, explain, is_denied
from .errors import Refusal, Unreachable
from .task_definition import short

# https://docs.aws.amazon.com/AmazonECR/latest/userguide/Registries.html
_ECR = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)"
    r"\.(?:amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn))/(?P<path>.+)"
)
GONE, MOVED, THERE, UNKNOWN = "gone", "moved", "there", "unknown"


@dataclass(frozen=True)
class Image:
    """One image as its registry has it now.

    `digest`: what its name means now, None where it means nothing or nobody can say. `ran`: the digest that ran, where ECS
    noted it. `ran_is_there`: whether that digest can still be pulled, where its name does not mean it any more. `in_use`:
    whether what runs now was pulled by the same name.
    """

    name: str
    state: str
    digest: str | None = None
    ran: str | None = None
    ran_is_there: bool = False
    in_use: bool = False
    why: str = ""

    def __str__(self):
        return text(self.name, self.digest or self.ran)


def text(name, digest):
    """An image's name with its digest, as far as it is known."""
    return f"{name}@{digest}" if digest and "@" not in name else name


def parts(name):
    """(repository with its registry, tag, digest) of an image's name; the tag is "latest" where neither is given."""
    rest, digest = (*name.split("@", 1), "")[:2]
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, "" if digest else "latest"
    return head, tag, digest


def is_ecr(name):
    """Whether an image is of a registry that can be asked."""
    return _ECR.fullmatch(parts(name)[0]) is not None


def look(aws, name, ran=None, ran_at=None, in_use=False):
    """The `Image` of that name.

    Args:
        ran: digest that it had when it ran; ran_at: when that was, for where ECS did not note the digest.
        in_use: whether what runs now was pulled by the same name.
    """
    repository, tag, digest = parts(name)
    match = _ECR.fullmatch(repository)

    def image(state, why="", **more):
        return Image(name, state, ran=ran, in_use=in_use, why=why, **more)

    if not match:
        return image(UNKNOWN, "its registry is not Amazon ECR and cannot be asked")
    ecr = _Repository(aws, match)
    try:
        found = ecr.image(imageDigest=digest) if digest else ecr.image(imageTag=tag)
    except Unreachable as error:
        return image(UNKNOWN, str(error))
    except Exception as error:
        if is_denied(error):
            return image(UNKNOWN, explain(error))
        raise
    if found is None:
        return image(GONE, "the registry does not have it any more", ran_is_there=ecr.has(ran))
    now = found["imageDigest"]
    if not _is_active(found):
        return image(GONE, "it is archived in the registry: restore it there", digest=now)
    if not digest and (now != ran if ran else ran_at is not None and found["imagePushedAt"] > ran_at):
        pushed = f"{found['imagePushedAt']:%Y-%m-%d at %H:%M}"
        why = f"its tag means another image since {pushed} than when it ran"
        return image(MOVED, why, digest=now, ran_is_there=ecr.has(ran))
    return image(THERE, digest=now)


def gate(revision, images, wanted, option, by_digest=False):
    """Notes for a person about the images of a revision that tasks are to be started with.

    Args:
        revision: ARN of the task definition; images: {container: Image} of it.
        wanted: parameters accept_moved_image and accept_unknown_image.
        option: the one by which a person names another revision.
        by_digest: tasks start with the digests that ran: what a tag means now does not matter to them.

    Raises:
        Refusal: an image cannot be pulled, or is not what ran, or nobody can say.
    """
    notes = []
    for container, image in images.items():
        what = f"{image.name} of container {container} in {short(revision)}"
        if by_digest and image.ran_is_there:
            continue
        if image.state == GONE:
            raise Refusal(f"{what} cannot be pulled: {image.why}: push it again, or give another revision as {option}")
        if image.state == MOVED:
            pin = f"register a revision with {parts(image.name)[0]}@{image.ran} and give that as {option}, or "
            if not wanted["accept_moved_image"]:
                raise Refusal(
                    f"{what} is not what ran: {image.why}: {pin if image.ran_is_there else ''}accept_moved_image=true takes it as it is"
                )
            notes.append(f"override accept_moved_image: {what}: {image.why}")
        if image.state == UNKNOWN and image.in_use:
            notes.append(f"{what} was not checked ({image.why}); the present revision uses it too")
        elif image.state == UNKNOWN:
            if not wanted["accept_unknown_image"]:
                raise Refusal(
                    f"nothing tells whether {what} can still be pulled: {image.why}: "
                    f"accept_unknown_image=true goes on without knowing"
                )
            notes.append(f"override accept_unknown_image: {what}: {image.why}")
    return notes


def known_good(image, wanted):
    """Notes about an image that a person has named by its digest: a tag may mean what an intruder has pushed.

    Args:
        image: the `Image` of that name; wanted: the parameter accept_unknown_image.

    Raises:
        Refusal: it has no digest, cannot be pulled, or nobody can say.
    """
    if "@" not in image.name:
        now = f"; it means {parts(image.name)[0]}@{image.digest} now" if image.digest else ""
        raise Refusal(
            f"{image.name} has no digest, and a tag may mean what was pushed since{now}: give it as NAME@sha256:..."
        )
    if image.state == GONE:
        raise Refusal(f"{image.name} cannot be pulled: {image.why}: check image")
    if image.state == UNKNOWN and not wanted["accept_unknown_image"]:
        raise Refusal(
            f"nothing tells whether {image.name} can be pulled: {image.why}: accept_unknown_image=true goes on without knowing"
        )
    return [f"override accept_unknown_image: {image.name}: {image.why}"] if image.state == UNKNOWN else []


class _Repository:
    """One repository of ECR, in the account and region of the image's name."""

    def __init__(self, aws, match):
        self._aws, self._match = aws, match

    def image(self, **image_id):
        """DescribeImages of one image, None where it or the repository is not there."""
        try:
            answer = self._aws.read(
                "ecr",
                "describe_images",
                region=self._match["region"],
                registryId=self._match["account"],
                repositoryName=self._match["path"],
                imageIds=[image_id],
            )
        except Exception as error:
            if code_of(error) in ("ImageNotFoundException", "RepositoryNotFoundException"):
                return None
            raise
        return answer["imageDetails"][0]

    def has(self, digest):
        """Whether a digest can be pulled; no digest cannot."""
        found = self.image(imageDigest=digest) if digest else None
        return found is not None and _is_active(found)


def _is_active(found):
    # An archived image cannot be pulled. https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_ImageDetail.html
    return found.get("imageStatus", "ACTIVE") == "ACTIVE"

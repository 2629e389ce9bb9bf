# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container registry: images of the application in both regions, and what a task gets that pulls one.

moto keeps the repository; here its digests come from the manifests, a tag that moves leaves its old image untagged, and
what is not found is answered by the name under which it was asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import builds
from .faults import Fault

if TYPE_CHECKING:
    from .world import World

REPOSITORY = "regami-api"
# Every build of the application was shipped once: a pipeline can deploy any of them.
TAGS = ("v1", "v2", "v3-erroring", "v4-crashing", "v5-slow", "v6-leaking", "v7-unhealthy", "v8-bloating")
DAY = 86_400
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
# The label by which an image says what was built into it, whatever tag it is pulled by.
# https://github.com/opencontainers/image-spec/blob/main/annotations.md
VERSION = "org.opencontainers.image.version"

_HOST = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com")
_world: World
_moto: dict[str, Any] = {}
_disguised: dict[str, str] = {}  # version -> what it really is
_gone: list[tuple[str, Any]] = []  # (region, image) that a fault took away


# ---- what a task pulls ---------------------------------------------------------------------------------------------


class PullError(Exception):
    """What stands behind "CannotPullContainerError: "."""


@dataclass(frozen=True)
class Pulled:
    digest: str
    image: str  # repository:tag, with the tag that the build was given
    build: str = ""  # of builds.BUILDS, where the tag does not say it


def uri(region: str, tag: str) -> str:
    return f"{_world.account_id}.dkr.ecr.{region}.amazonaws.com/{REPOSITORY}:{tag}"


def pull(image: str, digest: str | None = None) -> Pulled:
    """The image of that name, or of that digest in its repository. Hold the world's lock. Raises PullError."""
    name, _, asked = image.partition("@")
    host, _, path = name.partition("/")
    repository, tag = path.partition(":")[0], builds.tag_of(name)
    digest = digest or asked or None
    wanted = f"{host}/{repository}@{digest}" if digest else f"{host}/{repository}:{tag}"
    retried = f"pull image manifest has been retried 5 time(s): failed to resolve ref {wanted}"
    registry = _HOST.fullmatch(host)
    if registry is None or registry[1] != _world.account_id:
        raise PullError(f"{retried}: the sandbox has no registry but Amazon ECR of account {_world.account_id}")
    if registry[2] in _world.cut_regions:
        raise PullError(f"{retried}: failed to do request: dial tcp: i/o timeout")
    repositories = _world.backend("ecr", registry[2]).repositories
    for each in repositories[repository].images if repository in repositories else ():
        if each.image_digest == digest or (digest is None and tag in each.image_tags):
            version = json.loads(each.image_manifest).get("annotations", {}).get(VERSION, tag)
            return Pulled(each.image_digest, f"{repository}:{version}", _disguised.get(version, ""))
    raise PullError(f"{retried}: {wanted}: not found")


def disguise(version: str, build: str) -> None:
    """The image of that version holds this build, and nothing says so."""
    _disguised[version] = build


# ---- what moto answers ---------------------------------------------------------------------------------------------


def _create_digest(image: Any) -> None:
    """https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests"""
    image._image_digest = f"sha256:{hashlib.sha256(image.image_manifest.encode()).hexdigest()}"


def put_image(backend: Any, repository_name: str, image_manifest: str, image_tag: str, *more: Any) -> Any:
    repository = backend._get_repository(repository_name)
    if not repository.is_tag_immutable():
        for each in repository.images:
            if each.image_manifest != image_manifest and image_tag in each.image_tags:
                each.remove_tag(image_tag)
    return _moto["put_image"](backend, repository_name, image_manifest, image_tag, *more)


def batch_get_image(
    backend: Any, repository_name: str, registry_id: str | None = None, image_ids: list[dict] | None = None
) -> dict:
    """https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_BatchGetImage.html"""
    repository, answer = backend._get_repository(repository_name, registry_id), {"images": [], "failures": []}
    for asked in image_ids or ():
        tag, digest = asked.get("imageTag"), asked.get("imageDigest")
        found = next(
            (
                each
                for each in repository.images
                if (not tag or tag in each.image_tags) and (not digest or digest == each.image_digest)
            ),
            None,
        )
        if found:
            answer["images"].append(
                {
                    "registryId": repository.registry_id,
                    "repositoryName": repository.name,
                    "imageId": {"imageDigest": found.image_digest, **({"imageTag": tag} if tag else {})},
                    "imageManifest": found.image_manifest,
                    "imageManifestMediaType": found.image_manifest_media_type,
                }
            )
        else:
            reason = {"failureCode": "ImageNotFound", "failureReason": "Requested image not found"}
            answer["failures"].append({"imageId": asked, **reason})
    return answer


# ---- a part of the world -------------------------------------------------------------------------------------------


def install(world: World) -> None:
    from moto.ecr.models import ECRBackend, Image

    global _world
    _world = world
    for owner, function in ((Image, _create_digest), (ECRBackend, put_image), (ECRBackend, batch_get_image)):
        _moto[function.__name__] = getattr(owner, function.__name__)
        setattr(owner, function.__name__, function)


def manifest(tag: str) -> str:
    """Of the image that a pipeline builds for a release; the same in both regions, as replication leaves it."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "version": tag})
    layer = hashlib.sha256(f"layer of {tag}".encode()).hexdigest()
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": f"sha256:{hashlib.sha256(config.encode()).hexdigest()}",
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": f"sha256:{layer}",
                    "size": 41_943_040,
                }
            ],
            "annotations": {VERSION: tag},
        }
    )


def seed(world: World) -> None:
    _gone.clear()
    _disguised.clear()
    for region in world.regions:
        world.client("ecr", region).create_repository(repositoryName=REPOSITORY, imageTagMutability="MUTABLE")
        with world.lock:
            backend = world.backend("ecr", region)
            for tag in TAGS:
                # Before the first deployment of the past, which would otherwise have run another image of that name.
                backend.put_image(REPOSITORY, manifest(tag), tag).image_pushed_at -= 90 * DAY
        world.state["regions"][region]["repository"] = REPOSITORY


# ---- faults --------------------------------------------------------------------------------------------------------


def _take_away(world: World, tag: str, region: str | None = None) -> None:
    with world.lock:
        for each in [region] if region else world.regions:
            if each not in world.regions:
                raise ValueError(f"unknown region {each!r}: one of {', '.join(world.regions)}")
            images = world.backend("ecr", each).repositories[REPOSITORY].images
            found = next((image for image in images if tag in image.image_tags), None)
            if found is None:
                raise ValueError(f"no image {REPOSITORY}:{tag} in {each}")
            images.remove(found)
            _gone.append((each, found))


def _bring_back(world: World) -> None:
    with world.lock:
        for region, image in _gone:
            world.backend("ecr", region).repositories[REPOSITORY].images.append(image)
        _gone.clear()


faults = {
    "image-gone": Fault(
        "the image TAG is deleted from the registry of both regions, as a lifecycle policy does (or of --region)",
        _take_away,
        _bring_back,
        ("tag",),
        ("region",),
    )
}

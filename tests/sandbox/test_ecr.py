# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry, and what tasks run of it."""

from __future__ import annotations

import hashlib

from compute_helpers import EAST, WEST, facts, tasks, update, wait_steady
from core_helpers import wait_until

NAME = {"repositoryName": "regami-api"}


def test_digests_are_of_the_manifests_and_equal_in_both_regions(fresh_sandbox):
    east, west = (fresh_sandbox.boto("ecr", region) for region in (EAST, WEST))
    asked = [{"imageTag": "v1"}, {"imageTag": "v9"}, {"imageTag": "v1", "imageDigest": f"sha256:{'0' * 64}"}]
    answer = east.batch_get_image(**NAME, imageIds=asked)
    image = answer["images"][0]
    digest = f"sha256:{hashlib.sha256(image['imageManifest'].encode()).hexdigest()}"
    assert image["imageId"] == {"imageTag": "v1", "imageDigest": digest}
    assert [(each["imageId"], each["failureCode"]) for each in answer["failures"]] == [
        (each, "ImageNotFound") for each in asked[1:]
    ]
    assert west.describe_images(**NAME, imageIds=[{"imageDigest": digest}])["imageDetails"][0]["imageTags"] == ["v1"]


def test_tag_that_moves_changes_what_a_new_deployment_runs(fresh_sandbox):
    ecr, ecs = fresh_sandbox.boto("ecr", EAST), fresh_sandbox.boto("ecs", EAST)

    def digest(tag):
        return ecr.describe_images(**NAME, imageIds=[{"imageTag": tag}])["imageDetails"][0]["imageDigest"]

    def running():
        return {each["containers"][0].get("imageDigest") for each in tasks(fresh_sandbox, EAST)}

    wait_steady(fresh_sandbox, EAST)
    v1, v2 = digest("v1"), digest("v2")
    assert running() == {v2}
    manifest = ecr.batch_get_image(**NAME, imageIds=[{"imageTag": "v1"}])["images"][0]["imageManifest"]
    ecr.put_image(**NAME, imageTag="v2", imageManifest=manifest)
    assert digest("v2") == v1
    # The old image is still there, without a tag.
    assert "imageTags" not in ecr.describe_images(**NAME, imageIds=[{"imageDigest": v2}])["imageDetails"][0]

    # All tasks of a deployment run the same image, one that replaces another too.
    victim = tasks(fresh_sandbox, EAST)[0]["taskArn"]
    ecs.stop_task(cluster=facts(fresh_sandbox, EAST)["cluster"], task=victim)

    def replaced():
        arns = [each["taskArn"] for each in tasks(fresh_sandbox, EAST) if each["lastStatus"] == "RUNNING"]
        return len(arns) == 2 and victim not in arns

    wait_until(replaced, "a replacement")
    assert running() == {v2}
    update(fresh_sandbox, EAST, forceNewDeployment=True)
    wait_steady(fresh_sandbox, EAST)
    assert running() == {v1}

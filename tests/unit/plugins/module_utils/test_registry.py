# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a registry says of an image, and which registry is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import registry
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Unreachable
from ansible_collections.sre.runbooks.tests.unit.ecs_region import refusal

REPOSITORY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/regami-api"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
OLD, NEW = f"sha256:{1:064x}", f"sha256:{2:064x}"


class Registry:
    """`tags`: {tag: digest}; `digests`: what can be pulled; `error`: what it answers instead."""

    def __init__(self, tags=None, digests=(), error=None, status="ACTIVE"):
        self.tags, self.digests, self.error, self.status, self.asked = tags or {}, digests, error, status, []

    def read(self, service, operation, /, region, registryId, repositoryName, imageIds):
        self.asked.append((service, operation, region, registryId, repositoryName, imageIds))
        if self.error:
            raise self.error
        (wanted,) = imageIds
        found = wanted.get("imageDigest") or self.tags.get(wanted["imageTag"])
        if found not in (*self.tags.values(), *self.digests):
            raise refusal("ImageNotFoundException", "not found")
        return {"imageDetails": [{"imageDigest": found, "imagePushedAt": NOW, "imageStatus": self.status}]}


def look(there, name=f"{REPOSITORY}:v2", **more):
    return registry.look(there, name, **more)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nginx", ("nginx", "latest", "")),
        ("nginx:1.27", ("nginx", "1.27", "")),
        ("localhost:5000/app", ("localhost:5000/app", "latest", "")),
        ("localhost:5000/app:v1@sha256:ab", ("localhost:5000/app", "v1", "sha256:ab")),
        (f"app@{OLD}", ("app", "", OLD)),
    ],
)
def test_names(name, expected):
    assert registry.parts(name) == expected


@pytest.mark.parametrize(
    ("host", "account", "region"),
    [
        ("210987654321.dkr.ecr.eu-west-1.amazonaws.com", "210987654321", "eu-west-1"),
        ("210987654321.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "210987654321", "us-gov-west-1"),
        ("210987654321.dkr.ecr.cn-north-1.amazonaws.com.cn", "210987654321", "cn-north-1"),
        ("210987654321.dkr-ecr.us-east-1.on.aws", "210987654321", "us-east-1"),
    ],
)
def test_asks_the_account_and_region_of_the_name(host, account, region):
    there = Registry({"v2": OLD})
    assert look(there, f"{host}/team/regami-api:v2").state == registry.THERE
    assert there.asked == [("ecr", "describe_images", region, account, "team/regami-api", [{"imageTag": "v2"}])]


@pytest.mark.parametrize(
    "name", ["nginx:1.27", "docker.io/library/nginx", "public.ecr.aws/datadog/agent:7", "ghcr.io/a/b"]
)
def test_other_registries_are_not_asked(name):
    there = Registry()
    found = look(there, name, in_use=True)
    assert (found.state, found.in_use, there.asked) == (registry.UNKNOWN, True, [])


def test_a_tag_that_still_means_what_ran():
    found = look(Registry({"v2": OLD}), ran=OLD)
    assert found.state == registry.THERE and str(found) == f"{REPOSITORY}:v2@{OLD}"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_tag_that_moved(is_there):
    found = look(Registry({"v2": NEW}, digests=[OLD] if is_there else []), ran=OLD)
    assert (found.state, found.digest, found.ran_is_there) == (registry.MOVED, NEW, is_there)


def test_without_a_noted_digest_the_time_of_the_push_tells():
    there = Registry({"v2": NEW})
    assert look(there, ran_at=NOW - timedelta(days=1)).state == registry.MOVED
    assert look(there, ran_at=NOW + timedelta(days=1)).state == registry.THERE
    assert look(there).state == registry.THERE


def test_a_digest_cannot_move():
    found = look(Registry(digests=[OLD]), f"{REPOSITORY}@{OLD}", ran=NEW, ran_at=NOW - timedelta(days=9))
    assert found.state == registry.THERE and str(found) == f"{REPOSITORY}@{OLD}"


def test_gone():
    assert look(Registry(digests=[OLD]), ran=OLD).ran_is_there is True  # only its tag is gone
    found = look(Registry(), ran=OLD)
    assert (found.state, found.ran_is_there) == (registry.GONE, False)
    assert look(Registry(error=refusal("RepositoryNotFoundException", "no"))).state == registry.GONE
    assert "archived" in look(Registry({"v2": OLD}, status="ARCHIVED")).why


@pytest.mark.parametrize("error", [refusal("AccessDeniedException", "no"), Unreachable("no answer")])
def test_one_that_does_not_tell(error):
    assert look(Registry(error=error)).state == registry.UNKNOWN


def test_other_errors_are_raised():
    with pytest.raises(Exception, match="odd"):
        look(Registry(error=refusal("InvalidParameterException", "odd")))

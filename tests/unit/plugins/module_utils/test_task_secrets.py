# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a task definition's values come from, and whether tasks can start with them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import task_secrets
from ansible_collections.sre.runbooks.tests.unit.ecs_region import refusal

ARN = "arn:aws:secretsmanager:us-west-2:123456789012:secret:app/db-AbCdEf"


class Region:
    """`secrets`: {ARN: answer of DescribeSecret}; `parameters`: names that are there."""

    def __init__(self, secrets=None, parameters=()):
        self.secrets, self.parameters = secrets or {}, parameters

    def read(self, service, operation, /, region, **arguments):
        assert region == "us-west-2"
        return getattr(self, operation)(**arguments)

    def describe_secret(self, SecretId):
        if SecretId not in self.secrets:
            raise refusal("ResourceNotFoundException", "not found")
        return self.secrets[SecretId]

    def describe_parameters(self, ParameterFilters):
        (only,) = ParameterFilters
        return {"Parameters": [{"Name": each} for each in self.parameters if each in only["Values"]]}


@pytest.mark.parametrize(
    ("value_from", "kind", "region", "name"),
    [
        (ARN, "secret", "us-west-2", ARN),
        (f"{ARN}:password::", "secret", "us-west-2", ARN),
        ("/app/db", "parameter", "eu-west-1", "/app/db"),
        ("arn:aws:ssm:us-east-1:123456789012:parameter/app/db", "parameter", "us-east-1", "/app/db"),
    ],
)
def test_what_a_value_comes_from(value_from, kind, region, name):
    found = task_secrets.named(value_from, "eu-west-1")
    assert (found.kind, found.region, found.name) == (kind, region, name)


def test_a_secret_of_two_variables_is_asked_for_once():
    container = {"name": "app", "secrets": [{"name": one, "valueFrom": f"{ARN}:{one}::"} for one in ("USER", "PASS")]}
    definition = {"containerDefinitions": [container, {"name": "proxy"}]}
    found = task_secrets.variables(definition, "us-west-2")
    assert found == {task_secrets.named(ARN, ""): ["USER of container app", "PASS of container app"]}


@pytest.mark.parametrize(
    ("value_from", "there", "words"),
    [
        (ARN, Region({ARN: {}}), None),
        (ARN, Region(), "is not there (have it replicated there)"),
        (ARN, Region({ARN: {"DeletedDate": datetime.now(UTC)}}), "is to be deleted and cannot be read"),
        ("/app/db", Region(parameters=["/app/db"]), None),
        ("arn:aws:ssm:us-west-2:1:parameter/key", Region(parameters=["key"]), None),
        ("/app/db", Region(parameters=["/app/other"]), "is not there (put it there)"),
    ],
)
def test_tasks_start_with_what_is_there(value_from, there, words):
    lack = task_secrets.lack(there, task_secrets.named(value_from, "us-west-2"))
    assert lack == words if words is None else words in lack

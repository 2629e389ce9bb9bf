# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A new revision differs in the named variables and in nothing else."""

from __future__ import annotations

import copy

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import task_definition as revisions
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal

NEW = "new.example"
OLD_URL = "postgresql://regami:hunter2@old.example:5432/regami?sslmode=require"

words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
fields = words.map("some{}".format)  # no name that the API or this collection gives a meaning to
scalars = st.one_of(words, st.integers(0, 65535), st.booleans())
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(fields, inner, max_size=3), max_leaves=8
)
variables = st.lists(st.builds(lambda name, value: {"name": name.upper(), "value": value}, words, words), max_size=4)
containers = st.builds(
    lambda name, rest, environment, at: {
        **rest,
        "name": name,
        "environment": [*environment[:at], {"name": "DATABASE_URL", "value": OLD_URL}, *environment[at:]],
    },
    words,
    st.dictionaries(fields, anything, max_size=5),
    variables,
    st.integers(0, 4),
)
definitions = st.builds(
    lambda rest, family, parts: {**rest, "family": family, "containerDefinitions": parts},
    st.dictionaries(fields, anything, max_size=6),
    words,
    st.lists(containers, min_size=1, max_size=3),
)
read_only = st.dictionaries(st.sampled_from(sorted(revisions.READ_ONLY)), scalars)


def definition(**container):
    app = {"name": "app", "environment": [{"name": "DATABASE_URL", "value": OLD_URL}]} | container
    return {"family": "regami-api", "containerDefinitions": [app]}


@given(definitions, read_only)
def test_nothing_is_lost_but_the_address(described, output_only):
    before = copy.deepcopy(described)
    request = revisions.registerable({**described, **output_only})
    assert request == before

    changed = revisions.repoint(request, ["DATABASE_URL"], NEW)
    assert request == before, "the input is left alone"
    for container in changed["containerDefinitions"]:
        for entry in container["environment"]:
            if entry["name"] == "DATABASE_URL":
                assert entry["value"] == OLD_URL.replace("old.example", NEW)
                entry["value"] = OLD_URL
    assert changed == before


@given(definitions)
def test_repointing_again_changes_nothing(described):
    once = revisions.repoint(described, ["DATABASE_URL"], NEW, 6000)
    assert revisions.equal(once, revisions.repoint(once, ["DATABASE_URL"], NEW, 6000))
    assert not revisions.equal(once, described)


def test_read_only_fields_are_those_that_the_api_model_has_in_answers_only():
    session = botocore.session.Session()
    model = session.create_client("ecs", region_name="us-east-1").meta.service_model
    answer = model.operation_model("DescribeTaskDefinition").output_shape.members["taskDefinition"].members
    request = model.operation_model("RegisterTaskDefinition").input_shape.members
    assert set(answer) - set(request) <= revisions.READ_ONLY
    assert not revisions.READ_ONLY & set(request)


def test_tags_are_kept_but_those_of_aws_and_no_empty_list_is_sent():
    tags = [{"key": "team", "value": "regami"}, {"key": "aws:cloudformation:stack-name", "value": "api"}]
    assert revisions.registerable(definition(), tags)["tags"] == tags[:1]
    assert "tags" not in revisions.registerable(definition(), tags[1:])


def test_the_order_of_variables_secrets_and_tags_means_nothing():
    one = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    secrets = [{"name": "C", "valueFrom": "c"}, {"name": "D", "valueFrom": "d"}]
    assert revisions.equal(
        definition(environment=one, secrets=secrets), definition(environment=one[::-1], secrets=secrets[::-1])
    )
    assert not revisions.equal(definition(environment=one), definition(environment=one[:1]))


@pytest.mark.parametrize(
    ("value", "port", "expected"),
    [
        (OLD_URL, None, "postgresql://regami:hunter2@new.example:5432/regami?sslmode=require"),
        (OLD_URL, 6000, "postgresql://regami:hunter2@new.example:6000/regami?sslmode=require"),
        ("postgresql://old.example/regami", None, "postgresql://new.example/regami"),
        ("postgresql://old.example/regami", 6000, "postgresql://new.example:6000/regami"),
        ("postgresql+psycopg://u:p@ss@old.example", None, "postgresql+psycopg://u:p@ss@new.example"),
        ("jdbc:postgresql://old.example:5432/regami", None, "jdbc:postgresql://new.example:5432/regami"),
        ("jdbc:sqlserver://old.example:1433;databaseName=x", None, "jdbc:sqlserver://new.example:1433;databaseName=x"),
        ("redis://:secret@[2001:db8::1]:6379/0", None, "redis://:secret@new.example:6379/0"),
        ("old.example", None, "new.example"),
        ("old.example", 6000, "new.example"),
        ("old.example:5432", None, "new.example:5432"),
        ("old.example:5432", 6000, "new.example:6000"),
        ("5432", 6000, "6000"),
        ("5432", None, "5432"),
    ],
)
def test_an_address_is_replaced_and_the_rest_of_the_value_kept(value, port, expected):
    assert revisions.readdress(value, NEW, port) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "host=old.example dbname=regami",
        "postgresql://one.example:5432,two.example:5432/regami",
        "postgresql:///regami",
        "postgresql://u:12/34@old.example/regami",
        "postgresql://u:12?34@old.example/regami",
        "arn:aws:secretsmanager:us-west-2:123456789012:secret:regami",
        "old.example:five",
    ],
)
def test_a_value_without_one_clear_address_is_refused_without_repeating_it(value):
    with pytest.raises(ValueError, match=r"^no address$"):
        revisions.readdress(value, NEW)
    with pytest.raises(Refusal, match="DATABASE_URL of container app in regami-api is neither") as refused:
        revisions.repoint(definition(environment=[{"name": "DATABASE_URL", "value": value}]), ["DATABASE_URL"], NEW)
    assert not value or value not in str(refused.value)


@pytest.mark.parametrize("host", ["new.example:5432", "postgresql://new.example", "user@new.example", ""])
def test_the_new_host_must_be_a_host(host):
    with pytest.raises(Refusal, match="is not a bare host name"):
        revisions.repoint(definition(), ["DATABASE_URL"], host)


def test_a_variable_from_a_secret_names_the_secret():
    described = definition(
        environment=[], secrets=[{"name": "DATABASE_URL", "valueFrom": "arn:aws:ssm:x:parameter/url"}]
    )
    with pytest.raises(Refusal, match=r"container app comes from the secret arn:aws:ssm:x:parameter/url"):
        revisions.repoint(described, ["DATABASE_URL"], NEW)


def test_a_missing_variable_names_those_that_are_there_but_not_their_values():
    described = definition(environmentFiles=[{"value": "arn:aws:s3:::conf/app.env", "type": "s3"}])
    with pytest.raises(Refusal, match=r"no environment variable DB_HOST \(it has: DATABASE_URL\).*app\.env") as refused:
        revisions.repoint(described, ["DB_HOST"], NEW)
    assert "hunter2" not in str(refused.value)


def test_only_the_named_container_is_changed():
    described = definition()
    described["containerDefinitions"].append({**definition()["containerDefinitions"][0], "name": "worker"})
    changed = revisions.repoint(described, ["DATABASE_URL"], NEW, container="worker")
    assert revisions.addresses(changed, ["DATABASE_URL"]) == {
        "app.DATABASE_URL": "old.example:5432",
        "worker.DATABASE_URL": "new.example:5432",
    }
    with pytest.raises(Refusal, match=r"has no container cron \(it has: app, worker\)"):
        revisions.repoint(described, ["DATABASE_URL"], NEW, container="cron")


def test_a_variable_that_is_missing_is_made_from_another():
    request = {
        "family": "api",
        "containerDefinitions": [
            {"name": "app", "environment": [{"name": "DATABASE_URL", "value": "postgresql://u:p@old:5432/x"}]},
            {"name": "sidecar"},
        ],
    }
    made = revisions.repoint(request, ["READ_URL"], "new", 6000, made_from="DATABASE_URL")
    app, sidecar = made["containerDefinitions"]
    assert {each["name"]: each["value"] for each in app["environment"]} == {
        "DATABASE_URL": "postgresql://u:p@old:5432/x",
        "READ_URL": "postgresql://u:p@new:6000/x",
    }
    assert not sidecar.get("environment")
    assert revisions.equal(revisions.repoint(made, ["READ_URL"], "new", 6000, made_from="DATABASE_URL"), made)
    with pytest.raises(Refusal, match="has no environment variable READ_URL"):
        revisions.repoint(request, ["READ_URL"], "new", made_from="OTHER")


def test_what_is_shown_of_a_value_is_its_address():
    assert revisions.addresses(definition(), ["DATABASE_URL"]) == {"app.DATABASE_URL": "old.example:5432"}
    odd = definition(
        environment=[{"name": "DATABASE_URL", "value": "password=hunter2"}, {"name": "PORT", "value": "5432"}]
    )
    assert revisions.addresses(odd, ["DATABASE_URL", "PORT"]) == {
        "app.DATABASE_URL": "(no address)",
        "app.PORT": "5432",
    }

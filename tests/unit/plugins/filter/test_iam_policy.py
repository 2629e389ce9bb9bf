# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A policy with the names of one inventory: both sides, once each, and nothing that has no name."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.filter.iam_policy import iam_policy

EAST = {"aws_account_id": "123456789012", "aws_region": "us-east-1", "db_instance": "one", "lock_table": "locks"}
WEST = {"aws_account_id": "123456789012", "aws_region": "us-west-2", "db_instance": "two", "lock_table": "locks"}


def filled(*resources, **more):
    statement = {"Effect": "Allow", "Action": ["x:Y"], "Resource": list(resources), **more}
    return iam_policy({"Version": "2012-10-17", "Statement": [statement]}, [EAST, WEST])["Statement"]


def test_both_sides_by_name_and_what_is_the_same_once():
    (statement,) = filled("arn:aws:rds:*:{aws_account_id}:db:{db_instance}*", "arn:aws:dynamodb:*:*:table/{lock_table}")
    assert statement["Resource"] == [
        "arn:aws:rds:*:123456789012:db:one*",
        "arn:aws:rds:*:123456789012:db:two*",
        "arn:aws:dynamodb:*:*:table/locks",
    ]


def test_a_condition_names_both_regions():
    (statement,) = filled("*", Condition={"StringEquals": {"aws:RequestedRegion": "{aws_region}"}})
    assert statement["Condition"] == {"StringEquals": {"aws:RequestedRegion": ["us-east-1", "us-west-2"]}}


def test_what_has_no_name_is_not_allowed():
    (statement,) = filled("arn:aws:s3:::{uploads_bucket}", "arn:aws:s3:::{lock_table}")
    assert statement["Resource"] == ["arn:aws:s3:::locks"]
    assert filled("arn:aws:s3:::{uploads_bucket}") == []


def test_what_is_held_to_a_name_that_there_is_not_is_not_allowed():
    assert filled("*", Condition={"StringEquals": {"cloudwatch:namespace": "{metric_namespace}"}}) == []


def test_a_list_stands_for_each_of_its_values():
    statement = {"Action": ["s3:ListBucket"], "Resource": ["arn:aws:s3:::{buckets}"]}
    (found,) = iam_policy({"Statement": [statement]}, [{"buckets": ["one", "two"]}, {"buckets": []}])["Statement"]
    assert found["Resource"] == ["arn:aws:s3:::one", "arn:aws:s3:::two"]


def test_of_several_policies_each_variable_is_asked_for_once():
    class Templates(dict):
        """Variables of a host, as Ansible hands them over: each look works a template out."""

        asked = 0

        def get(self, name):
            self.asked += name == "lock_table"
            return super().get(name)

    host = Templates(EAST)
    policy = {"Statement": [{"Action": ["x:Y"], "Resource": ["{lock_table}"]}]}
    found = iam_policy([policy, dict(policy, Version="2012-10-17")], [host])
    assert [each["Statement"][0]["Resource"] for each in found] == [["locks"], ["locks"]]
    assert found[1]["Version"] == "2012-10-17" and host.asked == 1


def test_variables_of_iam_itself_are_left_alone():
    (statement,) = filled("arn:aws:iam::*:user/${aws:username}")
    assert statement["Resource"] == ["arn:aws:iam::*:user/${aws:username}"]


def test_names_that_only_an_arn_has_are_taken_from_it():
    arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012"
    host = {
        "load_balancer_arn": f"{arn}:loadbalancer/app/shop/0a",
        "target_group_arn": f"{arn}:targetgroup/blue/1b",
        "standby_target_group_arn": "",
        "db_admin_secret": "arn:aws:secretsmanager:us-east-1:123456789012:secret:rds!db-x",
        "breach_secrets": [{"secret": "session-key"}],
        "passed_roles": ["shop-*", "arn:aws:iam::123456789012:role/batch"],
    }
    names = ("{load_balancer}/*", "{target_group}", "{secret}*", "{passed_role}")
    (found,) = iam_policy({"Statement": [{"Action": ["x:Y"], "Resource": list(names)}]}, [host])["Statement"]
    assert found["Resource"] == ["app/shop/0a/*", "blue/1b", "rds!db-x*", "session-key*", "shop-*", "batch"]


def test_a_condition_without_a_value_allows_nothing():
    assert filled("*", Condition={"StringEquals": {"aws:ResourceTag/service": "{service_tags}"}}) == []

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the answers of IAM's simulator mean for a scenario, and what nobody can tell from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.sre.runbooks.plugins.filter.iam_policy import iam_policy
from ansible_collections.sre.runbooks.plugins.module_utils import readiness_permissions as permissions
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop

EAST = "us-east-1"
ACCOUNT = "arn:aws:{}:us-east-1:123456789012:{}"
NAMES = {
    "aws_account_id": "123456789012",
    "aws_region": EAST,
    "db_instance": "db",
    "ecs_cluster": "shop",
    "ecs_service": "api",
    "hosted_zone_id": "Z1",
    "lock_table": "locks",
    "passed_roles": ["shop-*"],
    "record_bucket": "records",
}
IAM = Path(permissions.__file__).parents[2] / "iam"


def policies(scenario="db_failover"):
    policy = iam_policy(json.loads((IAM / f"{scenario}.json").read_text()), [NAMES])
    return [{"scenario": scenario, "region": EAST, "policy": policy}]


def statement(action, *resources, **more):
    policy = {"Statement": [{"Effect": "Allow", "Action": [action], "Resource": list(resources), **more}]}
    return [{"scenario": "db_failover", "region": EAST, "policy": policy}]


def found(asked, answer, undecided=False):
    """(level, because) where the simulator decides by `answer(action, ARN)`."""
    decisions = {
        (need.region, need.action, arn): (answer(need.action, arn), undecided)
        for need in permissions.needs(asked)
        for arn in need.arns
    }
    seen = {permissions.OWN: {"who": "role oncall", "decisions": decisions}}
    return [(each.level, each.because) for each in permissions.judge(seen, {"policies": asked}, now=0)]


def test_only_what_changes_something_is_asked_and_in_the_region_of_the_host():
    needs = permissions.needs(policies())
    actions = {need.action for need in needs}
    assert {"rds:PromoteReadReplica", "dynamodb:PutItem", "iam:PassRole"} <= actions
    assert not [action for action in actions if ":Describe" in action or ":Get" in action]
    (promote,) = [need.arns for need in needs if need.action == "rds:PromoteReadReplica"]
    assert promote == (ACCOUNT.format("rds", "db:db"),)


def test_who_has_the_policy_that_the_collection_ships_is_not_flagged():
    assert found(policies(), lambda action, arn: "allowed") == []


def test_what_is_refused_on_a_named_resource_is_missing():
    answer = {"rds:PromoteReadReplica": "implicitDeny"}
    ((level, because),) = found(policies(), lambda action, arn: answer.get(action, "allowed"))
    assert level == "not_ready"
    assert because.startswith("missing permission rds:PromoteReadReplica: the policies of role oncall")


def test_an_action_that_aws_holds_to_nothing_is_missing_where_it_is_refused():
    asked = statement("codedeploy:StopDeployment", "*")
    assert found(asked, lambda action, arn: "implicitDeny")[0][0] == "not_ready"


@pytest.mark.parametrize(
    ("decision", "level"),
    [
        pytest.param("implicitDeny", "cannot_tell", id="a policy may be held to some of them"),
        pytest.param("explicitDeny", "not_ready", id="what denies the star denies all"),
    ],
)
def test_names_that_nobody_knows(decision, level):
    asked = statement("iam:PassRole", "arn:aws:iam::123456789012:role/*")
    assert [each[0] for each in found(asked, lambda action, arn: decision)] == [level]


def test_a_condition_that_the_simulator_could_not_weigh_decides_nothing():
    """https://docs.aws.amazon.com/IAM/latest/APIReference/API_EvaluationResult.html: MissingContextValues"""
    asked = statement("route53:ChangeResourceRecordSets", "arn:aws:route53:::hostedzone/Z1")
    assert [each[0] for each in found(asked, lambda action, arn: "explicitDeny", undecided=True)] == ["cannot_tell"]


def test_one_kind_that_is_not_needed_is_no_gap():
    database, group = ACCOUNT.format("rds", "db:db"), ACCOUNT.format("rds", "pg:*")
    asked = statement("rds:ModifyDBInstance", database, group)
    assert found(asked, lambda action, arn: "allowed" if arn == database else "implicitDeny") == []
    assert found(asked, lambda action, arn: "implicitDeny")[0][0] == "not_ready"


def test_a_tag_is_put_on_one_of_many_kinds():
    cluster, revision = ACCOUNT.format("ecs", "cluster/shop"), ACCOUNT.format("ecs", "task-definition/*:*")
    asked = statement("ecs:TagResource", cluster, revision)
    assert found(asked, lambda action, arn: "allowed" if arn == revision else "implicitDeny") == []
    # And a team may have held it to its own revisions.
    assert found(asked, lambda action, arn: "implicitDeny")[0][0] == "cannot_tell"


def test_a_record_that_cannot_be_written_is_a_risk():
    answer = {"s3:PutObject": "implicitDeny"}
    ((level, because),) = found(policies(), lambda action, arn: answer.get(action, "allowed"))
    assert (level, "arn:aws:s3:::records/" in because) == ("risk", True)


class Simulator:
    """IAM, one page at a time."""

    def __init__(self, caller, role=None):
        self.caller, self.role, self.asked = caller, role, []

    def read(self, _api, operation, **asked):
        if operation == "get_caller_identity":
            return {"Arn": self.caller}
        if operation == "get_role":
            return {"Role": {"Arn": self.role}}
        self.asked.append(asked)
        at = int(asked.get("Marker", 0))
        action = asked["ActionNames"][at]
        more = at + 1 < len(asked["ActionNames"])
        result = {"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": "implicitDeny"}
        if asked["ResourceArns"] != ["*"]:
            result["ResourceSpecificResults"] = [
                {"EvalResourceName": arn, "EvalResourceDecision": "allowed"} for arn in asked["ResourceArns"]
            ]
        return {"EvaluationResults": [result], "IsTruncated": more, **({"Marker": str(at + 1)} if more else {})}


def simulated(simulator, asked):
    return permissions.looks(simulator, {"policies": asked}, now=0)[permissions.OWN]()


def test_a_session_is_simulated_by_its_role_with_the_path_that_only_iam_knows():
    role = "arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/oncall"
    simulator = Simulator("arn:aws:sts::123456789012:assumed-role/oncall/jane", role)
    answer = simulated(simulator, policies())
    assert {each["PolicySourceArn"] for each in simulator.asked} == {role}
    assert answer["who"] == "role oncall"
    # All pages, and one question for all that has a name.
    needs = permissions.needs(policies())
    assert {(need.region, need.action, arn) for need in needs for arn in need.arns} <= answer["decisions"].keys()
    assert len({json.dumps(each["ActionNames"]) for each in simulator.asked}) == 1


def test_what_is_held_to_nothing_is_asked_by_itself():
    simulator = Simulator("arn:aws:iam::123456789012:user/jane")
    answer = simulated(simulator, [*policies(), *statement("codedeploy:StopDeployment", "*")])
    assert [each["ResourceArns"] for each in simulator.asked][-1] == ["*"]
    assert answer["decisions"][EAST, "codedeploy:StopDeployment", "*"] == ("implicitDeny", False)


def test_the_root_user_is_not_simulated():
    with pytest.raises(Stop, match="root"):
        simulated(Simulator("arn:aws:iam::123456789012:root"), policies())


def test_what_is_allowed_on_what_has_a_tag_is_asked_with_that_tag():
    tagged = {"aws:RequestedRegion": [EAST], "aws:ResourceTag/service": ["shop"]}
    instance = "arn:aws:ec2:*:123456789012:instance/*"
    asked = statement("ssm:SendCommand", instance, Condition={"StringEquals": tagged})
    simulator = Simulator("arn:aws:iam::123456789012:user/oncall")
    simulated(simulator, asked + policies())
    (entries,) = [each["ContextEntries"] for each in simulator.asked if "ssm:SendCommand" in each["ActionNames"]]
    assert [(each["ContextKeyName"], each["ContextKeyValues"]) for each in entries] == [
        ("aws:RequestedRegion", [EAST]),
        ("aws:ResourceTag/service", ["shop"]),
    ]

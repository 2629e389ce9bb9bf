# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""recent_changes: one list in order, what a revision changed without its secrets, and whose writes are whose."""

from __future__ import annotations

import datetime
import json
from unittest import mock

from ansible_collections.sre.runbooks.plugins.module_utils import changes
from ansible_collections.sre.runbooks.plugins.module_utils.changes import Change
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop
from ansible_collections.sre.runbooks.plugins.module_utils.task_definition import differences
from ansible_collections.sre.runbooks.plugins.modules.recent_changes import RecentChanges

TEN = 1763719200


def test_the_plan_is_one_sorted_list_of_the_window():
    revision = {"from": "a:5", "to": "a:7", "lines": ["app: image x:1 -> x:2"]}
    began = Change(TEN + 60, "deployment", "deployment of a:7 to api began")
    old = Change(TEN - 1, "deployment", "deployment of a:5 to api completed")
    write = Change(TEN + 59, "write", "ecs:UpdateService of api", "user/anna")
    observed = {
        "since": TEN,
        "found": {
            "deployments": ([old, began], revision),
            "events of db": [Change(TEN + 30, "database", "db: restarted")],
            "CloudTrail": ([write], 3, False),
            "scaling of fleet": Stop("denied"),
        },
    }
    plan = RecentChanges.plan(observed, {})
    assert not plan.steps
    assert [each["kind"] for each in plan.returned["changes"]] == ["database", "write", "deployment"]
    assert plan.notes == (
        "10:00 db: restarted",
        "10:00 ecs:UpdateService of api by user/anna",
        "10:01 deployment of a:7 to api began",
        "a:7 changed from a:5, the last good one: app: image x:1 -> x:2",
        "CloudTrail has 3 other writes",
        "CloudTrail has more, older writes than were read: narrow within_minutes",
        "cannot see scaling of fleet: denied",
    )


def definition(**changed):
    container = {
        "name": "app",
        "image": "x:1",
        "environment": [{"name": "LEVEL", "value": "INFO"}, {"name": "OLD", "value": "1"}],
        "secrets": [{"name": "PASSWORD", "valueFrom": "arn:one"}],
    }
    return {"family": "a", "revision": 1, "cpu": "512", "memory": "1024", "containerDefinitions": [container | changed]}


def test_what_a_revision_changed_is_named_without_values_of_variables():
    new = definition(
        image="x:2",
        environment=[{"name": "LEVEL", "value": "hunter2"}, {"name": "NEW", "value": "hunter3"}],
        secrets=[{"name": "PASSWORD", "valueFrom": "arn:two"}],
        healthCheck={"command": ["true"]},
    ) | {"memory": "2048", "revision": 2}
    lines = differences(definition(), new)
    assert lines == [
        "memory: 1024 -> 2048",
        "app: image x:1 -> x:2",
        "app: variable LEVEL changed",
        "app: variable NEW is new",
        "app: variable OLD is gone",
        "app: secret PASSWORD changed",
        "app: healthCheck changed",
    ]
    assert differences(definition(), definition()) == []


def written(name, **told):
    moment = datetime.datetime.fromtimestamp(TEN, datetime.UTC)
    identity = {"arn": "arn:aws:sts::123456789012:assumed-role/deploy/anna"}
    return {
        "EventName": name,
        "EventSource": "ecs.amazonaws.com",
        "EventTime": moment,
        "CloudTrailEvent": json.dumps({"userIdentity": identity, **told}),
    }


def trail(*pages):
    aws = mock.Mock()
    aws.read.side_effect = [
        {"Events": page, **({"NextToken": "more"} if number < len(pages) - 1 else {})}
        for number, page in enumerate(pages)
    ]
    with mock.patch.object(changes, "TRAIL_SECONDS", 0):
        return changes.of_trail(aws, ["regami-service"], TEN, TEN + 60)


def test_writes_that_name_what_is_ours_are_told_with_who_did_them():
    ours = written("UpdateService", requestParameters={"service": "regami-service"})
    by_arn = written("TagResource", requestParameters={"arn": "arn:aws:ecs:us-east-1:1:service/c/regami-service"})
    others = written("UpdateService", requestParameters={"service": "regami-service-secondary"})
    refused = written("UpdateService", requestParameters={"service": "regami-service"}, errorCode="AccessDenied")
    found, count, all_read = trail([ours, others], [by_arn, refused])
    assert [(each.what, each.who) for each in found] == [
        ("ecs:UpdateService of regami-service", "assumed-role/deploy/anna"),
        ("ecs:TagResource of regami-service", "assumed-role/deploy/anna"),
    ]
    assert (count, all_read) == (1, True)


def test_rules_of_the_network_and_permissions_are_told_whatever_they_name():
    rule = written("RevokeSecurityGroupIngress", requestParameters={"groupId": "sg-1", "ipPermissions": {"items": []}})
    rule["EventSource"] = "ec2.amazonaws.com"
    tags = dict(written("CreateTags", requestParameters={"resourcesSet": {}}), EventSource="ec2.amazonaws.com")
    policy = dict(written("PutBucketPolicy", requestParameters={"bucketName": "docs"}), EventSource="s3.amazonaws.com")
    found, count, _all_read = trail([rule, tags, policy])
    assert [each.what for each in found] == ["ec2:RevokeSecurityGroupIngress of sg-1", "s3:PutBucketPolicy of docs"]
    assert count == 1


def test_a_busy_account_is_not_read_for_ever():
    aws = mock.Mock()
    aws.read.return_value = {"Events": [], "NextToken": "more"}
    with mock.patch.object(changes, "TRAIL_SECONDS", 0):
        assert changes.of_trail(aws, ["x"], TEN, TEN + 60) == ([], 0, False)
    assert aws.read.call_count == changes.TRAIL_PAGES


def test_scaling_is_read_back_to_the_begin_of_the_window_only():
    def activity(at):
        moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
        return {"StartTime": moment, "Description": "Launching", "Cause": "an alarm", "StatusCode": "Successful"}

    aws = mock.Mock()
    aws.read.side_effect = [{"Activities": [activity(TEN + 9), activity(TEN - 9)], "NextToken": "more"}]
    (found,) = changes.of_group(aws, "fleet", TEN)
    assert (found.at, found.what) == (TEN + 9, "Launching (successful): an alarm")

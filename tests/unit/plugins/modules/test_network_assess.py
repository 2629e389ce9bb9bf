# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""network_assess: what its plan says of paths that are open, closed in part, or not to be seen."""

from __future__ import annotations

from ansible_collections.sre.runbooks.plugins.module_utils import network_paths
from ansible_collections.sre.runbooks.plugins.module_utils.changes import Change
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.flow_logs import Reject
from ansible_collections.sre.runbooks.plugins.module_utils.network_ends import Place
from ansible_collections.sre.runbooks.plugins.module_utils.network_path import End, Network
from ansible_collections.sre.runbooks.plugins.module_utils.network_paths import Observed
from ansible_collections.sre.runbooks.plugins.modules.network_assess import NetworkAssess

TEN = 1763719200
OPEN = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
APP = Place(
    "api", tuple(End("api", f"10.0.{number}.0/24", "vpc-1", f"subnet-{number}", ("sg-app",)) for number in (1, 2))
)
DATABASE = Place("db", (End("db", "10.0.1.0/24", "vpc-1", "subnet-1", ("sg-db",)),), (5432,))


def observed(**more: object) -> Observed:
    allow = [
        {"RuleNumber": 100, "Egress": egress, "RuleAction": "allow", "CidrBlock": "0.0.0.0/0", "Protocol": "-1"}
        for egress in (True, False)
    ]
    table = {"RouteTableId": "rtb-1", "Routes": [{"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local"}]}
    network = Network(
        "us-east-1",
        {
            "sg-app": {"GroupId": "sg-app", "GroupName": "app", "IpPermissionsEgress": [OPEN]},
            "sg-db": {"GroupId": "sg-db", "GroupName": "db", "IpPermissions": more.pop("rules", [OPEN])},
        },
        {name: {"NetworkAclId": "acl-1", "Entries": more.get("entries", allow)} for name in ("subnet-1", "subnet-2")},
        dict.fromkeys(("subnet-1", "subnet-2"), table),
    )
    more.pop("entries", None)
    path = {"source": "service/c/api", "destination": "db", "port": None, "protocol": "tcp"}
    given = {
        "paths": [path],
        "places": {"service/c/api": APP, "db": DATABASE},
        "network": network,
        "rejects": [],
        "changes": [],
        "blind": [],
    }
    return Observed(**{**given, **more})


def test_an_open_path():
    plan = NetworkAssess.plan(observed(), {})
    assert not plan.steps and plan.returned["closed"] == [] and plan.returned["blind"] == []
    assert plan.returned["paths"][0]["ways"] == {"all": 2, "not_closed": 2}
    assert plan.notes == ("api to db (tcp 5432) is open: 8 rules and routes looked at, there and back",)


def test_a_closed_path_with_what_was_refused_and_who_did_it():
    reject = Reject(TEN, "eni-1", "10.0.2.9", "10.0.1.7", 5432, 42)
    revoked = Change(TEN - 60, "write", "ec2:RevokeSecurityGroupIngress of sg-db", "user/anna")
    other = Change(TEN - 30, "write", "ec2:CreateTags of sg-other", "user/bert")
    plan = NetworkAssess.plan(observed(rules=[], rejects=[reject], changes=[revoked, other]), {})
    (path,) = plan.returned["paths"]
    assert plan.returned["closed"] == ["api to db (tcp 5432)"]
    assert path["changes"] == [vars(revoked)]
    assert plan.notes == (
        "api to db (tcp 5432) is CLOSED at security group sg-db (db) of db, inbound: no rule lets in tcp 5432 from sg-app",
        "  would open it, nothing was run: aws ec2 authorize-security-group-ingress --group-id sg-db --ip-permissions "
        "'IpProtocol=tcp,FromPort=5432,ToPort=5432,UserIdGroupPairs=[{GroupId=sg-app}]' --region us-east-1",
        "  42 packets refused from 10.0.2.9 to 10.0.1.7 port 5432, last at 10:00 UTC",
        "  09:59 UTC ec2:RevokeSecurityGroupIngress of sg-db by user/anna",
    )


def test_a_path_that_is_closed_for_one_of_its_subnets():
    deny = {"RuleNumber": 90, "Egress": False, "RuleAction": "deny", "CidrBlock": "10.0.2.0/24", "Protocol": "-1"}
    allow = [
        {"RuleNumber": 100, "Egress": egress, "RuleAction": "allow", "CidrBlock": "0.0.0.0/0", "Protocol": "-1"}
        for egress in (True, False)
    ]
    plan = NetworkAssess.plan(observed(entries=[deny, *allow]), {})
    assert plan.returned["paths"][0]["ways"] == {"all": 2, "not_closed": 1}
    assert plan.notes[0].startswith(
        "api to db (tcp 5432) is CLOSED for 1 of 2 ways at network ACL acl-1 of subnet-1, inbound"
    )


def test_what_is_not_found_is_blindness_and_a_dependency_may_be_a_path_too():
    path = {"source": "service/c/api", "destination": "db", "port": None, "protocol": "tcp"}
    gone = {**path, "destination": "cache"}
    places = {"service/c/api": APP, "db": DATABASE, "cache": Refusal("the name cache has no IPv4 address")}
    plan = NetworkAssess.plan(observed(paths=[path, path, gone], places=places, blind=["route tables: denied"]), {})
    assert len(plan.returned["paths"]) == 1
    assert plan.returned["blind"] == ["route tables: denied", "cache: the name cache has no IPv4 address"]
    assert plan.notes[-1] == "cannot see cache: the name cache has no IPv4 address"


def test_the_way_to_each_dependency():
    entry = dict.fromkeys(("host", "port", "db_instance", "region", "url"))
    wanted = {
        "dependencies_of": "service/c/api",
        "dependencies": [
            {**entry, "kind": "postgresql", "db_instance": "db"},
            {**entry, "kind": "redis", "host": "cache.internal"},
            {**entry, "kind": "s3", "region": "eu-west-1"},
            {**entry, "kind": "url", "url": "https://api.payments.test/health"},
        ],
    }
    paths = network_paths.to_dependencies(wanted, "us-east-1")
    assert [(each["destination"], each["port"]) for each in paths] == [
        ("db", None),
        ("cache.internal", 6379),
        ("s3.eu-west-1.amazonaws.com", 443),
        ("api.payments.test", 443),
    ]
    assert network_paths.to_dependencies({**wanted, "dependencies_of": None}, "us-east-1") == []

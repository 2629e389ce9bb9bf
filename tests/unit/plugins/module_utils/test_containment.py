# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which instances and which security groups an isolation is refused for."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils import containment
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal

FORENSICS = {"IpProtocol": "tcp", "IpRanges": [{"CidrIp": "10.9.0.0/24"}]}
ALL_OUT = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
ALL_IN = {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}


class Answering:
    """Stands for Aws: each call has one answer, or an error of that code."""

    region = "us-east-1"

    def __init__(self, **answers):
        self.answers = answers

    def read(self, _service, operation, **_asked):
        answer = self.answers[operation]
        if isinstance(answer, str):
            raise ClientError({"Error": {"Code": answer, "Message": "no"}}, operation)
        return answer


def group(into=(), out=(), vpc="vpc-1"):
    found = {"GroupId": "sg-q", "VpcId": vpc, "IpPermissions": list(into), "IpPermissionsEgress": list(out)}
    return Answering(describe_security_groups={"SecurityGroups": [found]})


def test_a_group_that_lets_the_responders_in_is_a_quarantine():
    assert containment.quarantine(group([FORENSICS], [FORENSICS]), "sg-q", "vpc-1")["GroupId"] == "sg-q"


@pytest.mark.parametrize(
    ("aws", "why"),
    [
        (group(out=[ALL_OUT]), "to or from everybody"),
        (group(into=[FORENSICS, ALL_IN]), "to or from everybody"),
        (group(vpc="vpc-2"), "is of vpc-2, the instance of vpc-1"),
        (Answering(describe_security_groups={"SecurityGroups": []}), "there is no security group sg-q"),
    ],
)
def test_what_is_no_quarantine_is_refused(aws, why):
    with pytest.raises(Refusal, match=why):
        containment.quarantine(aws, "sg-q", "vpc-1")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("InvalidInstanceID.NotFound", "there is no instance i-1 in us-east-1"),
        ({"Reservations": []}, "there is no instance i-1 in us-east-1"),
        (
            {"Reservations": [{"Instances": [{"State": {"Name": "terminated"}}]}]},
            "i-1 is terminated: there is nothing left",
        ),
    ],
)
def test_an_instance_that_is_not_there_any_more_is_refused(answer, why):
    with pytest.raises(Refusal, match=why):
        containment.describe(Answering(describe_instances=answer), "i-1")

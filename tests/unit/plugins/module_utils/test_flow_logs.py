# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Refused packets: of either format, of either direction, and of no other pair."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import flow_logs
from ansible_collections.sre.runbooks.plugins.module_utils.network_path import End

APP = End("app", "10.0.1.0/24", "vpc-1", "subnet-a", ("sg-app",))
DATABASE = End("db", "10.0.2.0/24", "vpc-1", "subnet-b", ("sg-db",), addresses=frozenset({"10.0.2.7"}))
LINE = "2 123456789012 eni-1 {source} {destination} {ports} 6 3 180 1763712120 1763712180 {action} OK"


def line(source: str, destination: str, ports: str = "40000 5432", action: str = "REJECT") -> flow_logs.Reject | None:
    text = LINE.format(source=source, destination=destination, ports=ports, action=action)
    return flow_logs.parsed(flow_logs.fields(flow_logs.DEFAULT), text, 1.0)


def test_a_line_of_the_default_format() -> None:
    assert line("10.0.1.20", "10.0.2.7") == flow_logs.Reject(1763712120.0, "eni-1", "10.0.1.20", "10.0.2.7", 5432, 3)
    assert line("10.0.1.20", "10.0.2.7", action="ACCEPT") is None
    nodata = "2 123456789012 eni-1 - - - - - - - 1763712120 1763712180 - NODATA"
    assert flow_logs.parsed(flow_logs.fields(flow_logs.DEFAULT), nodata, 1.0) is None


def test_a_line_of_a_format_of_ones_own() -> None:
    names = flow_logs.fields("${action} ${srcaddr} ${dstaddr} ${flow-direction}")
    assert flow_logs.parsed(names, "REJECT 10.0.1.20 10.0.2.7 ingress", 7.5) == flow_logs.Reject(
        7.5, "", "10.0.1.20", "10.0.2.7", None, 1
    )
    assert flow_logs.parsed(names, "REJECT 10.0.1.20", 7.5) is None


def test_of_a_pair_count_packets_there_and_answers_back() -> None:
    there, back = line("10.0.1.20", "10.0.2.7"), line("10.0.2.7", "10.0.1.20", "5432 40000")
    others = [
        line("10.0.1.20", "10.0.2.7", "40000 22"),  # another port
        line("10.0.1.20", "10.0.2.8"),  # another database of the subnet
        line("198.51.100.4", "10.0.2.7"),  # somebody else
    ]
    assert flow_logs.between([there, back, *others], (APP,), (DATABASE,), 5432) == [there, back]
    assert flow_logs.counted([there, there, back])[0] == {
        "source": "10.0.1.20",
        "destination": "10.0.2.7",
        "port": 5432,
        "packets": 6,
        "last": 1763712120.0,
    }


@pytest.mark.parametrize(
    ("flow_log", "useful", "said"),
    [
        ({}, True, None),
        ({"LogFormat": "${action} ${dstaddr}"}, False, "the format of the flow log fl-1 lacks srcaddr"),
        ({"LogDestinationType": "s3", "LogGroupName": None}, False, "goes to s3, which is not read here"),
        ({"TrafficType": "ACCEPT"}, False, "has no refused packets"),
        (
            {"DeliverLogsStatus": "FAILED", "DeliverLogsErrorMessage": "Access error"},
            True,
            "cannot deliver to /flows: Access",
        ),
    ],
)
def test_which_flow_logs_are_of_use(flow_log: dict, useful: bool, said: str | None) -> None:
    given = {"FlowLogId": "fl-1", "LogGroupName": "/flows", "TrafficType": "ALL", **flow_log}
    aws = SimpleNamespace(read=lambda *arguments, **options: {"FlowLogs": [given]})
    found, lines = flow_logs.of(aws, {"vpc-1"})
    assert bool(found) is useful
    assert said in lines[0] if said else lines == []

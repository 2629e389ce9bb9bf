# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ebs_volume_grow: its plan for each state that a volume, a partition and a file system can be in."""

from __future__ import annotations

import datetime

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.volume_growth import (
    GIB,
    free_percent,
    look,
    may_have_grown,
    plan,
    script,
    volume_of,
)

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)
WANTED = {"size": None, "target_free_percent": 20, "accept_recent_modification": False, "accept_no_agent": False}


def seen(gib=8, free=0.0, **changes):
    """What the script tells of a file system that fills its partition, `free` of it unused."""
    total = int(gib * GIB * 0.97)
    return {
        "device": "/dev/nvme0n1p1",
        "disk": "/dev/nvme0n1",
        "fstype": "ext4",
        "mount": "/",
        "serial": "vol0123456789abcdef0",
        "table": "gpt",
        "total": total,
        "free": int(total * free),
        "disk_bytes": gib * GIB,
        "device_bytes": gib * GIB,
        "filesystem_bytes": total,
        "rest": "no",
    } | changes


def modified(hours, state="completed", target=8):
    start = NOW - datetime.timedelta(hours=hours)
    return {"ModificationState": state, "StartTime": start, "Progress": 40, "TargetSize": target}


def observed(size=8, last=None, sees=None, **changes):
    return {
        "instance_id": "i-1",
        "volume": {"VolumeId": "vol-1", "Size": size, "VolumeType": "gp3"},
        "modification": last,
        "seen": sees or seen(size),
        "trouble": None,
        "grown": False,
        "now": NOW,
    } | changes


def steps(state, **wanted):
    return [(step.do, step.arguments.get("size")) for step in plan(state, WANTED | wanted).steps]


def test_a_full_disk_gets_what_leaves_the_wanted_share_free():
    assert steps(observed()) == [("modify", 11), ("settle", None), ("grow", 11)]
    assert steps(observed(), target_free_percent=50) == [("modify", 18), ("settle", None), ("grow", 18)]
    assert steps(observed(sees=seen(free=0.19))) == [("modify", 9), ("settle", None), ("grow", 9)]
    assert steps(observed(sees=seen(free=0.2))) == []


def test_a_size_that_was_asked_for():
    assert steps(observed(), size=100) == [("modify", 100), ("settle", None), ("grow", 100)]
    assert steps(observed(size=100), size=100) == []
    assert any("grows by 92 GiB" in note for note in plan(observed(), WANTED | {"size": 100}).notes)


@pytest.mark.parametrize(
    "left",
    [
        seen(8, disk_bytes=20 * GIB, rest="yes"),  # the partition was forgotten
        seen(8, disk_bytes=20 * GIB, device_bytes=20 * GIB),  # the file system was
    ],
)
def test_what_the_disk_has_is_used_before_a_volume_grows(left):
    """As after a kill, or a colleague who stopped half way."""
    assert steps(observed(20, modified(1), left)) == [("grow", 20)]
    assert steps(observed(20, modified(1), left), size=20) == [("grow", 20)]
    # Once is enough: what is still called room then is the file system's own.
    assert steps(observed(20, modified(7), left, grown=True), size=20) == []


def test_a_volume_that_grew_since_the_script_looked():
    assert may_have_grown(modified(0, "optimizing", 11), seen(8))
    assert not may_have_grown(modified(0, "optimizing", 11), seen(8, disk_bytes=11 * GIB, rest="yes"))
    assert not may_have_grown(modified(0, "modifying", 11), seen(8))
    assert not may_have_grown(modified(9), seen(8))
    assert not may_have_grown(None, seen(8)) and not may_have_grown(modified(0, "optimizing", 11), None)


def test_a_modification_that_goes_on_is_waited_for():
    assert steps(observed(8, modified(0, "modifying", 11))) == [("settle", None), ("grow", 11)]


@pytest.mark.parametrize(
    ("state", "wanted", "says"),
    [
        (
            observed(last=modified(2, "optimizing")),
            {},
            "vol-1 is still optimizing after the modification 2 h 0 min ago (40 %)",
        ),
        (observed(last=modified(2)), {}, "before 16:00 UTC (six hours): accept_recent_modification=true"),
        (observed(), {"size": 100000}, "type gp3 has 65536 at most"),
        (observed(sees=seen(table="dos")), {"size": 3000}, "MBR) ends at 2048"),
        (observed(seen=None, trouble="its agent has not answered"), {}, "accept_no_agent=true"),
        (observed(seen=None, trouble="its agent has not answered"), {"accept_no_agent": True}, "size=GIB"),
    ],
)
def test_refuses(state, wanted, says):
    with pytest.raises(Refusal) as refused:
        plan(state, WANTED | wanted)
    assert says in str(refused.value)


def test_overrides_are_told():
    allowed = plan(observed(last=modified(2)), WANTED | {"accept_recent_modification": True})
    assert any("override accept_recent_modification" in note for note in allowed.notes)
    assert steps(observed(last=modified(6))) == [("modify", 11), ("settle", None), ("grow", 11)]


def test_without_an_agent_the_volume_grows_alone():
    found = plan(observed(seen=None, trouble="no answer"), WANTED | {"accept_no_agent": True, "size": 20})
    assert [step.do for step in found.steps] == ["modify", "settle"]
    assert "has to be rebooted" in found.notes[0]


@pytest.mark.parametrize(
    ("tells", "volume"),
    [
        ({}, "vol-0123456789abcdef0"),
        ({"serial": "vol-0123456789abcdef0"}, "vol-0123456789abcdef0"),
        ({"serial": "vol0fffffffffffffff0"}, None),  # of another instance: the name must not decide then
        ({"serial": "", "disk": "/dev/xvda"}, "vol-0123456789abcdef0"),
        ({"serial": "", "disk": "/dev/xvdf"}, "vol-0aaaaaaaaaaaaaaaa"),
        ({"serial": "AWS-instance-store", "disk": "/dev/nvme1n1"}, None),
    ],
)
def test_which_volume_a_disk_is(tells, volume):
    attached = {"/dev/sda1": "vol-0123456789abcdef0", "/dev/sdf": "vol-0aaaaaaaaaaaaaaaa"}
    assert volume_of(seen(**tells), attached) == volume


def test_what_the_script_tells():
    found = look("total=100\nfree=25\nserial=\nmount=/data=1\ndisk_bytes=\nfilesystem_bytes=\n")
    assert (free_percent(found), found["mount"], found["disk_bytes"], found["filesystem_bytes"]) == (
        25.0,
        "/data=1",
        None,
        100,
    )


def test_a_path_cannot_become_a_command():
    assert "path='/srv/a b; rm -rf x' mode=grow" in script("grow", "/srv/a b; rm -rf x", 8)
    assert "{{" not in script("look", "/")

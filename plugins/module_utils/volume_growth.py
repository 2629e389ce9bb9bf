# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a full file system gets more room: by what its disk has left, else by a larger volume. Pure, the script aside.

https://docs.aws.amazon.com/ebs/latest/userguide/recognize-expanded-volume-linux.html
"""

from __future__ import annotations

import datetime
import math
import re
import shlex

from .errors import Refusal
from .verb import Plan, Step

GIB = 1 << 30
# A volume may be modified again six hours after it was; of late AWS documents four times in 24 hours instead.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyVolume.html
REST = datetime.timedelta(hours=6)
# The new size is there, and the rest of the modification only costs speed.
USABLE = ("optimizing", "completed")
# Of a partition a file system keeps less than this for itself.
OVERHEAD = 0.1
# GiB that AWS allows a volume of each type, and what a partition table of the old kind can describe.
LARGEST = {"gp2": 16384, "gp3": 65536, "io1": 16384, "io2": 65536, "st1": 16384, "sc1": 16384, "standard": 1024}
LARGEST_DOS = 2048

# Names of columns that any util-linux knows; FSSIZE came late. /run is in memory, where growpart finds room for its files
# although the disk is full. Prints KEY=VALUE lines; what keeps it from its work is the last line of its errors.
_SCRIPT = """\
export LC_ALL=C TMPDIR=/run
path=%(path)s mode=%(mode)s bytes=%(bytes)d
die() { printf '%%s ' "$*" | tr '\\n' ' ' >&2; exit 1; }
of() { lsblk -bdnro "$1" "$2" 2>/dev/null | head -n 1; }
mounted() { findmnt -nvo "$1" --target "$path"; }
device=$(mounted SOURCE) || die "there is no $path on it"
fstype=$(mounted FSTYPE) mount=$(mounted TARGET) type=$(of TYPE "$device") number=
case $type in
part)
    disk=/dev/$(of PKNAME "$device")
    number=${device#"$disk"} number=${number#p} ;;
disk) disk=$device ;;
*) die "$path is on $device (${type:-no block device}), which has to be grown by hand" ;;
esac
case $fstype in ext[234] | xfs) ;; *) die "$path is on $fstype, which has to be grown by hand" ;; esac
if [ -n "$number" ] && ! command -v growpart >/dev/null; then
    die "growpart is missing: install cloud-utils-growpart (cloud-guest-utils on Debian and Ubuntu)"
fi
if [ "$mode" = grow ]; then
    tries=60
    while [ "$(of SIZE "$disk")" -lt "$bytes" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || die "it sees $(of SIZE "$disk") bytes of $disk, not $bytes: reboot it"
        sleep 1
    done
    if [ -n "$number" ]; then
        said=$(growpart "$disk" "$number" 2>&1) || case $said in *NOCHANGE*) ;; *) die "growpart: $said" ;; esac
    fi
    case $fstype in
    xfs) said=$(xfs_growfs -d "$mount" 2>&1) || die "xfs_growfs: $said" ;;
    *) said=$(resize2fs "$device" 2>&1) || die "resize2fs: $said" ;;
    esac
fi
rest=no
if [ -n "$number" ] && growpart -N "$disk" "$number" >/dev/null 2>&1; then rest=yes; fi
df -PB1 "$mount" | tail -n 1 | { read -r _ total _ free _; printf 'total=%%s\\nfree=%%s\\n' "$total" "$free"; }
printf '%%s=%%s\\n' device "$device" disk "$disk" fstype "$fstype" mount "$mount" serial "$(of SERIAL "$disk")" \\
    table "$(of PTTYPE "$disk")" disk_bytes "$(of SIZE "$disk")" device_bytes "$(of SIZE "$device")" \\
    filesystem_bytes "$(of FSSIZE "$device")" rest "$rest"
"""


def script(mode, path, size=0):
    """What an instance runs. `mode`: look, or grow once the disk has `size` GiB."""
    return _SCRIPT % {"path": shlex.quote(path), "mode": mode, "bytes": size * GIB}


def look(output):
    """What the script tells, as {key: text or, where it counts bytes, int}."""
    found = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    for key in ("total", "free", "disk_bytes", "device_bytes", "filesystem_bytes"):
        found[key] = int(found[key]) if found.get(key, "").isdigit() else None
    found["filesystem_bytes"] = found["filesystem_bytes"] or found["total"]
    return found


def has_room_left(seen):
    """Does the disk have room that the file system does not use yet?"""
    return seen["rest"] == "yes" or seen["filesystem_bytes"] < seen["device_bytes"] * (1 - OVERHEAD)


def free_percent(seen):
    """Of what users may fill, as df counts it."""
    return round(100 * seen["free"] / seen["total"], 1)


def volume_of(seen, attached):
    """The id in `attached` ({device name of EC2: volume id}) of the volume that a disk is, None where nothing tells.

    Behind NVMe the serial number is the volume's id; elsewhere the letters of the name are those that EC2 has, whatever
    the prefix. https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
    """
    if re.fullmatch(r"vol-?[0-9a-f]{8,}", seen.get("serial", "")):
        name = seen["serial"].replace("vol-", "vol").replace("vol", "vol-", 1)
        return name if name in attached.values() else None
    return next((volume for device, volume in attached.items() if _letters(device) == _letters(seen["disk"])), None)


def _letters(device):
    """`a` of /dev/xvda, /dev/sda and /dev/sda1."""
    found = re.fullmatch(r"(?:/dev/)?(?:sd|xvd|hd|vd)([a-z]+)\d*", device)
    return found[1] if found else device


def wanted_size(seen, volume, wanted):
    """GiB that the volume must have: what was asked for, else what leaves the wanted share free. None where it is enough."""
    if wanted["size"]:
        return wanted["size"] if wanted["size"] > volume["Size"] else None
    target = wanted["target_free_percent"]
    if free_percent(seen) >= target:
        return None
    used = seen["total"] - seen["free"]
    # A file system keeps a share of its growth for itself: a tenth more room is asked for than the sum says.
    total = used / (1 - target / 100) * (1 + OVERHEAD)
    return max(volume["Size"] + 1, math.ceil(volume["Size"] * total / seen["total"]))


def may_have_grown(modification, seen):
    """Pure: is the volume larger for so short a time that the script may have looked before?"""
    is_new = modification is not None and modification["ModificationState"] == "optimizing"
    return is_new and seen is not None and not has_room_left(seen)


def plan(observed, wanted):
    """Pure: the steps that are left.

    Args:
        observed: {instance_id, volume, modification, seen, trouble, grown, now}: DescribeVolumes entry, the last
            DescribeVolumesModifications entry or None, what the script saw or None, why it cannot run there or None, and
            whether this run has grown the file system to its disk already.
    """
    volume, seen, last = observed["volume"], observed["seen"], observed["modification"] or {}
    state, name = last.get("ModificationState"), volume["VolumeId"]
    if seen is None and not (wanted["accept_no_agent"] and wanted["size"]):
        raise Refusal(
            f"{observed['instance_id']}: {observed['trouble']}: with size=GIB and accept_no_agent=true its volume is grown all the "
            f"same; the file system follows when it boots"
        )
    notes = []
    if seen is None:
        notes.append(
            f"override accept_no_agent: {observed['trouble']}: {observed['instance_id']} has to be rebooted, since its root file "
            f"system follows the volume then (cloud-init)"
        )
    settle = Step("settle", f"wait until {name} is optimizing", waits=True)
    if state == "modifying":
        return Plan((settle, *_grow(observed, last.get("TargetSize") or volume["Size"])), {}, tuple(notes))
    is_wanted = seen is not None and (wanted["size"] or wanted_size(seen, volume, wanted))
    if is_wanted and has_room_left(seen) and not observed["grown"]:
        return Plan(_grow(observed, volume["Size"]), {}, tuple(notes))
    size = wanted_size(seen, volume, wanted)
    if size is None:
        return Plan(notes=tuple(notes))
    _gate(observed, size, wanted)
    if last.get("StartTime") and observed["now"] - last["StartTime"] < REST:
        notes.append(f"override accept_recent_modification: {name} was modified {_ago(observed)} ago")
    notes.append(
        f"{name} ({volume['VolumeType']}) grows by {size - volume['Size']} GiB, which are billed from now on and can never be taken back"
    )
    modify = Step(
        "modify", f"grow {name} to {size} GiB", f"{volume['Size']} GiB", f"{size} GiB", {"volume": name, "size": size}
    )
    return Plan((modify, settle, *_grow(observed, size)), {"volume_gib": size}, tuple(notes))


def _grow(observed, size):
    """Nothing where no script can run."""
    if observed["seen"] is None:
        return ()
    seen = observed["seen"]
    what = f"grow {seen['fstype']} {seen['mount']} of {observed['instance_id']} to what {seen['disk']} has"
    return (Step("grow", what, arguments={"size": size}, look_again=True),)


def _ago(observed):
    minutes = int((observed["now"] - observed["modification"]["StartTime"]).total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _gate(observed, size, wanted):
    volume, last, seen = observed["volume"], observed["modification"] or {}, observed["seen"]
    name, kind = volume["VolumeId"], volume["VolumeType"]
    if size > LARGEST.get(kind, 16384):
        raise Refusal(
            f"{name} would need {size} GiB, and a volume of type {kind} has {LARGEST.get(kind, 16384)} at most: free room by hand"
        )
    if seen is not None and seen.get("table") == "dos" and size > LARGEST_DOS:
        raise Refusal(
            f"{name} would need {size} GiB, and its partition table (MBR) ends at {LARGEST_DOS}: give size={LARGEST_DOS} or less, or "
            f"convert it to GPT"
        )
    if last.get("ModificationState") == "optimizing":
        raise Refusal(
            f"{name} is still optimizing after the modification {_ago(observed)} ago ({last.get('Progress', 0)} %), and AWS allows the "
            f"next one when that is completed: clean up meanwhile, and run this again then"
        )
    if (
        last.get("StartTime")
        and observed["now"] - last["StartTime"] < REST
        and not wanted["accept_recent_modification"]
    ):
        again = (last["StartTime"] + REST).strftime("%H:%M UTC")
        raise Refusal(
            f"{name} was modified {_ago(observed)} ago, and AWS may refuse the next one before {again} (six hours): "
            f"accept_recent_modification=true tries it, since of late it allows four a day"
        )

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Aurora global databases: who writes, and the plan that moves the writer."""

from __future__ import annotations

import datetime

from . import rds
from .aws import attempt, code_of, together
from .errors import Refusal, Unreachable
from .verb import Plan, Step

# Older than this, in seconds, AuroraGlobalDBReplicationLag says nothing about now.
STALE_AFTER = 240


def observe(aws, name, target, region, now):
    """{status, moving, members, target_arn, writer_status, lag} of a global database, asked in the target's region."""
    try:
        raw = aws.read("rds", "describe_global_clusters", region=region, GlobalClusterIdentifier=name)[
            "GlobalClusters"
        ][0]
    except Exception as error:
        if code_of(error) in ("GlobalClusterNotFoundFault", "GlobalClusterNotFound"):
            raise Refusal(
                f"there is no global database {name}: check global_cluster of this host in the inventory"
            ) from error
        raise
    members = [{"arn": member["DBClusterArn"], "writer": member["IsWriter"]} for member in raw["GlobalClusterMembers"]]
    writer = writer_of(members)
    seen = together(
        writer_status=lambda: attempt(lambda: _cluster_status(aws, writer), Unreachable),
        lag=lambda: _lag(aws, target, region, now),
    )
    if isinstance(seen["writer_status"], Unreachable):
        aws.silent.add(_region(writer))
    target_arn = next(
        (
            member["arn"]
            for member in members
            if _region(member["arn"]) == region and member["arn"].rpartition(":")[2] == target
        ),
        None,
    )
    return {
        "name": name,
        "status": raw.get("Status", "available"),
        "moving": bool(raw.get("FailoverState")),
        "members": members,
        "target": target,
        "region": region,
        "target_arn": target_arn,
        **seen,
    }


def writer_of(members):
    """ARN of the cluster that writes, or None."""
    return next((member["arn"] for member in members if member["writer"]), None)


def plan(observed, wanted):
    """Pure: switchover where the writer is available, failover where it is not and the loss is accepted."""
    name, target, arn = observed["name"], observed["target"], observed["target_arn"]
    if arn is None:
        there = ", ".join(member["arn"].rpartition(":")[2] for member in observed["members"])
        raise Refusal(f"{name} has no cluster {target} in {observed['region']} (it has: {there}): nothing was changed")
    wait = Step("await_writer", f"wait until {target} writes", None, arn, {"target": arn}, waits=True)
    if writer_of(observed["members"]) == arn:
        return Plan(
            (wait,) if observed["moving"] else (),
            {"writer": arn},
            returned={"mode": "done", "unfenced": False, "possible_loss_seconds": None},
        )
    if observed["moving"]:
        return Plan(
            (wait,), {"writer": arn}, returned={"mode": "done", "unfenced": False, "possible_loss_seconds": None}
        )
    former = writer_of(observed["members"])
    if not isinstance(observed["writer_status"], Exception) and observed["writer_status"] in rds.SERVING:
        step = Step("switchover", f"switch {name} over to {target}, without loss", former, arn, {"target": arn})
        return Plan(
            (step, wait), {"writer": arn}, (), {"mode": "switchover", "unfenced": False, "possible_loss_seconds": 0.0}
        )
    lag, accepted = observed["lag"], wanted["accept_data_loss_seconds"]
    silent = f"the writer {former.rpartition(':')[2] if former else '(none)'} of {name} is not available ({observed['writer_status']})"
    if lag is None and not wanted["accept_unknown_loss"]:
        raise Refusal(
            f"{silent} and the lag of {target} is unknown: accept that with -e accept_unknown_loss=true; nothing was changed"
        )
    if lag is not None and (accepted <= 0 or lag > accepted):
        raise Refusal(
            f"{silent}: about {lag:.0f} s of writes would be lost, accepted are {accepted:.0f} s: accept more with "
            f"-e accept_data_loss_seconds={int(lag) + 30}; nothing was changed"
        )
    step = Step(
        "failover", f"fail {name} over to {target}, losing what it has not received", former, arn, {"target": arn}
    )
    return Plan(
        (step, wait),
        {"writer": arn},
        ("UNFENCED: the old writer may still take writes in its region",),
        {"mode": "failover", "unfenced": True, "possible_loss_seconds": lag},
    )


def _region(arn):
    return arn.split(":")[3]


def _cluster_status(aws, arn):
    if arn is None:
        return "gone"
    region = _region(arn)
    try:
        return aws.read("rds", "describe_db_clusters", region=region, DBClusterIdentifier=arn)["DBClusters"][0][
            "Status"
        ]
    except Exception as error:
        if code_of(error) in ("DBClusterNotFoundFault", "DBClusterNotFound"):
            return "gone"
        raise


def _lag(aws, cluster, region, now):
    """Seconds that the target is behind by its newest AuroraGlobalDBReplicationLag (milliseconds), or None."""
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    points = aws.read(
        "cloudwatch",
        "get_metric_statistics",
        region=region,
        Namespace="AWS/RDS",
        MetricName="AuroraGlobalDBReplicationLag",
        Period=60,
        Statistics=["Maximum"],
        Dimensions=[{"Name": "DBClusterIdentifier", "Value": cluster}],
        StartTime=at - datetime.timedelta(minutes=15),
        EndTime=at + datetime.timedelta(minutes=1),
    )["Datapoints"]
    newest = max(points, key=lambda point: point["Timestamp"], default=None)
    if newest is None or now - newest["Timestamp"].timestamp() > STALE_AFTER:
        return None
    return newest["Maximum"] / 1000

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3 Batch Operations: jobs that really copy what their list names. moto has none.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_CreateJob.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-job-status.html
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from .wire import ApiError, Response

if TYPE_CHECKING:
    from .wire import Call
    from .world import World

MOST_LISTED = 1000
# Seconds that a job shows each state before it is active.
PAUSE = 0.1

_jobs: dict[str, dict[str, Any]] = {}  # by id, oldest first
_world: World


def answer(call: Call) -> Response:
    match call.action:
        case "CreateJob":
            return _xml("CreateJobResult", {"JobId": _create(call)})
        case "DescribeJob":
            return _xml("DescribeJobResult", {"Job": _told(_known(call.path.rpartition("/")[2]))})
        case "ListJobs":
            return _xml("ListJobsResult", _listed(parse_qs(urlsplit(call.target).query)))
    raise ApiError("InvalidRequest", f"the sandbox does not know s3control {call.action}")


def _xml(name: str, answer: dict) -> Response:
    return Response(200, {"Content-Type": "application/xml"}, f"<{name}>{_element(answer)}</{name}>".encode())


def _element(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{name}>{_element(inner)}</{name}>" for name, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return "".join(f"<member>{_element(inner)}</member>" for inner in value)
    return escape(str(value))


def _create(call: Call) -> str:
    import xmltodict

    asked = xmltodict.parse(call.body)["CreateJobRequest"]
    for job in _jobs.values():
        if job["token"] == asked["ClientRequestToken"]:
            return job["JobId"]
    role = asked["RoleArn"].rpartition("/")[2]
    if all(each.name != role for each in _world.backend("iam", "aws").roles.values()):
        raise ApiError("InvalidRequest", "The role that was specified does not exist")
    if "S3PutObjectCopy" not in asked["Operation"]:
        raise ApiError("InvalidRequest", "the sandbox copies objects only")
    name = str(uuid.uuid4())
    _jobs[name] = {
        "JobId": name,
        "token": asked["ClientRequestToken"],
        "asked": asked,
        "Status": "New",
        "CreationTime": datetime.now(UTC),
        "counts": {"TotalNumberOfTasks": 0, "NumberOfTasksSucceeded": 0, "NumberOfTasksFailed": 0},
        "failure": None,
    }
    _world.background(_carry_out, name)
    return name


def _known(name: str) -> dict[str, Any]:
    if name not in _jobs:
        raise ApiError("NoSuchJob", "The specified job does not exist", 404)
    return _jobs[name]


def _told(job: dict[str, Any]) -> dict[str, Any]:
    asked = job["asked"]
    return {
        "JobId": job["JobId"],
        "JobArn": f"arn:aws:s3:us-east-1:{_world.account_id}:job/{job['JobId']}",
        "Status": job["Status"],
        "Description": asked.get("Description"),
        "Priority": asked["Priority"],
        "ProgressSummary": dict(job["counts"]),
        "FailureReasons": [job["failure"]] if job["failure"] else None,
        "CreationTime": f"{job['CreationTime']:%Y-%m-%dT%H:%M:%SZ}",
        "RoleArn": asked["RoleArn"],
    }


def _listed(query: dict[str, list[str]]) -> dict[str, Any]:
    wanted = query.get("jobStatuses")
    first, most = int(query.get("nextToken", ["0"])[0]), int(query.get("maxResults", [str(MOST_LISTED)])[0])
    found = [job for job in _jobs.values() if not wanted or job["Status"] in wanted]
    kept = ("JobId", "Description", "Status", "Priority", "CreationTime", "ProgressSummary")
    told = [{name: value for name, value in _told(job).items() if name in kept} for job in found[first : first + most]]
    return {"NextToken": str(first + most) if len(found) > first + most else None, "Jobs": told}


def _carry_out(name: str) -> None:
    job = _jobs[name]
    for status in ("Preparing", "Ready", "Active"):
        _world.pause(PAUSE)
        job["Status"] = status
    try:
        rows = _rows(job["asked"]["Manifest"])
    except LookupError as error:
        job["failure"] = {"FailureCode": "InvalidManifest", "FailureReason": str(error)}
        job["Status"] = "Failed"
        return
    job["counts"]["TotalNumberOfTasks"] = len(rows)
    failed = []
    for bucket, key, version in rows:
        with _world.lock:
            why = _copy(job["asked"]["Operation"]["S3PutObjectCopy"], bucket, key, version)
        job["counts"]["NumberOfTasksFailed" if why else "NumberOfTasksSucceeded"] += 1
        if why:
            failed.append(f'"{bucket}","{key}","{version}","failed","{why}","404",""\n')
    job["Status"] = "Completing"
    _report(job, failed)
    job["Status"] = "Complete"


def _rows(manifest: dict) -> list[tuple[str, str, str | None]]:
    """Raises LookupError where the list is not what was announced."""
    location, fields = manifest["Location"], manifest["Spec"]["Fields"]
    names = fields["member"] if isinstance(fields["member"], list) else [fields["member"]]
    bucket, _, key = location["ObjectArn"].rpartition(":")[2].partition("/")
    with _world.lock:
        found = _world.backend("s3", "aws").get_object(bucket, key)
        if found is None or found.etag.strip('"') != location["ETag"].strip('"'):
            raise LookupError(f"manifest s3://{bucket}/{key} is not there with ETag {location['ETag']}")
        text = found.value.decode()
    rows = [dict(zip(names, line.split(","), strict=True)) for line in text.splitlines()]
    return [(row["Bucket"], unquote(row["Key"]), row.get("VersionId")) for row in rows]


def _copy(operation: dict, bucket: str, key: str, version: str | None) -> str | None:
    """Why not, or None."""
    from moto.s3.exceptions import S3ClientError

    backend = _world.backend("s3", "aws")
    source = backend.get_object(bucket, key, version_id=version)
    if source is None:
        return "NoSuchVersion" if version else "NoSuchKey"
    target = operation["TargetResource"].rpartition(":")[2]
    try:
        backend.copy_object(
            source,
            target,
            f"{operation.get('TargetKeyPrefix', '')}{key}",
            storage=operation.get("StorageClass", "STANDARD"),
            provided_version_id=version,
        )
    except S3ClientError as error:
        return type(error).__name__
    return None


def _report(job: dict[str, Any], failed: list[str]) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-examples-reports.html"""
    report = job["asked"]["Report"]
    if report["Enabled"] != "true" or not failed:
        return
    bucket = report["Bucket"].rpartition(":")[2]
    with _world.lock:
        _world.backend("s3", "aws").put_object(
            bucket, f"{report.get('Prefix', '')}/job-{job['JobId']}/results/failed.csv", "".join(failed).encode()
        )


def install(world: World) -> None:
    global _world
    _world = world
    world.handlers["s3control"] = answer


def seed(world: World) -> None:
    _jobs.clear()

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of versions by S3 Batch Operations, for more objects than anybody waits for at a terminal.

A job has one storage class and takes its objects from a list in a bucket; metadata and tags go along.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-copy-object.html
"""

from __future__ import annotations

import hashlib
import ipaddress
import tempfile
from urllib.parse import quote, urlsplit

from .errors import Stop
from .object_copy import MOST_IN_ONE

FIELDS = ["Bucket", "Key", "VersionId"]
ENDED = ("Complete", "Failed", "Cancelled", "Suspended")
PRIORITY = 10


def fits(action):
    """Whether Batch Operations can copy it, and its copy is known as one by its ETag."""
    return action.wanted.size <= MOST_IN_ONE and "-" not in action.wanted.etag


def line(bucket, action):
    """Of a manifest: CSV whose keys are encoded as in a URL."""
    return f"{bucket},{quote(action.key)},{action.wanted.id}\n"


class Batch:
    """The jobs of one restore: of a bucket, prefix and moment, by which another run finds them again.

    Args:
        where: bucket that takes lists and reports.
        role: ARN of the role under which the jobs copy.
    """

    def __init__(self, aws, bucket, prefix, moment, where, role):
        self._aws, self._bucket, self._where, self._role = aws, bucket, where, role
        what = hashlib.sha256(f"{bucket}\0{prefix}\0{moment}".encode()).hexdigest()[:16]
        self._description = f"sre.runbooks.s3_restore {bucket} {what}"
        self._account = None

    def _ask(self, call, operation, **arguments):
        if self._account is None:
            self._account = self._aws.read("sts", "get_caller_identity")["Account"]
            events = self._aws.client("s3control").meta.events
            events.register("before-sign.s3-control", self._plain_address, unique_id="sre.runbooks.object_batch")
        return call("s3control", operation, AccountId=self._account, **arguments)

    def _plain_address(self, request, **_rest):
        """The endpoint has a name for each account, which an address of its own (endpoint_url) cannot have."""
        host = urlsplit(request.url).hostname.removeprefix(f"{self._account}.")
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return
        request.url = request.url.replace(f"//{self._account}.", "//", 1)

    def jobs(self):
        """All that were ever started for this restore, as far as S3 remembers (90 days): [{JobId, Status, CreationTime ...}]."""
        found, more = [], {}
        while more is not None:
            page = self._ask(self._aws.read, "list_jobs", **more)
            found += [each for each in page.get("Jobs", []) if each.get("Description") == self._description]
            more = {"NextToken": page["NextToken"]} if page.get("NextToken") else None
        return found

    def start(self, survey):
        """Ids of the jobs: one for each storage class."""
        return [
            self._start(
                storage,
                (each for each in survey.actions("copy") if fits(each) and each.wanted.storage_class == storage),
            )
            for storage in survey.storage_classes()
        ]

    def _start(self, storage, actions):
        digest = hashlib.sha256()
        with tempfile.TemporaryFile() as listed:
            for action in actions:
                text = line(self._bucket, action).encode()
                digest.update(text)
                listed.write(text)
            listed.seek(0)
            name = f"s3_restore/batch/{self._bucket}-{digest.hexdigest()[:16]}-{storage}.csv"
            etag = self._aws.change("s3", "put_object", Bucket=self._where, Key=name, Body=listed)["ETag"].strip('"')
        arn = f"arn:aws:s3:::{self._where}"
        return self._ask(
            self._aws.change,
            "create_job",
            ConfirmationRequired=False,
            Operation={"S3PutObjectCopy": {"TargetResource": f"arn:aws:s3:::{self._bucket}", "StorageClass": storage}},
            Report={
                "Bucket": arn,
                "Format": "Report_CSV_20180820",
                "Enabled": True,
                "Prefix": "s3_restore/reports",
                "ReportScope": "FailedTasksOnly",
            },
            # The same list is never done twice, whatever becomes of the answer.
            ClientRequestToken=digest.hexdigest()[:64],
            Manifest={
                "Spec": {"Format": "S3BatchOperations_CSV_20180820", "Fields": FIELDS},
                "Location": {"ObjectArn": f"{arn}/{name}", "ETag": etag},
            },
            Description=self._description,
            Priority=PRIORITY,
            RoleArn=self._role,
        )["JobId"]

    def look(self, job):
        return self._ask(self._aws.read, "describe_job", JobId=job)["Job"]

    def is_over(self, job):
        """Raises Stop where it ended without having done all."""
        progress = job.get("ProgressSummary", {})
        if job["Status"] not in ENDED:
            return False
        failed = progress.get("NumberOfTasksFailed", 0)
        if job["Status"] != "Complete" or failed:
            reasons = "; ".join(each.get("FailureReason", "") for each in job.get("FailureReasons", []))
            raise Stop(
                f"S3 Batch Operations job {job['JobId']} is {job['Status']} with {failed} objects not copied"
                f"{f' ({reasons})' if reasons else ''}: its report is below s3://{self._where}/s3_restore/reports"
            )
        return True


def began(jobs):
    """When the first of `jobs` was made, to the second as versions have it; None of none."""
    return min((f"{job['CreationTime']:%Y-%m-%dT%H:%M:%S}" for job in jobs), default=None)


def state(job):
    """For who waits."""
    progress = job.get("ProgressSummary", {})
    done = progress.get("NumberOfTasksSucceeded", 0) + progress.get("NumberOfTasksFailed", 0)
    return f"{job['Status']}, {done} of {progress.get('TotalNumberOfTasks', 0)}"

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""s3_restore where every object of a bucket was overwritten: all come back, also when it stops half way."""

from __future__ import annotations

import datetime
import os
import signal
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kube import run_module
from world import EAST

from ansible_collections.sre.runbooks.plugins.module_utils import aws
from sandbox.client import Sandbox

COUNT = 12
HOUR, MINUTE = 3600, 60


class Bucket:
    """Whose photos were all encrypted by somebody a minute ago, or `deleted`, with a file that was not there before."""

    def __init__(self, sandbox: Sandbox, folder: Path, deleted: bool = False) -> None:
        self.sandbox, self.folder, self.s3 = sandbox, folder, sandbox.boto("s3", EAST)
        self.name = f"overwritten-{uuid.uuid4().hex[:8]}"
        self.s3.create_bucket(Bucket=self.name)
        self.s3.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})
        self.photos = {f"photos/{number}.jpg": f"photo {number}" for number in range(COUNT)}
        past = [{"key": key, "seconds_ago": HOUR, "body": body} for key, body in self.photos.items()]
        for key in self.photos:
            past.append({"key": key, "seconds_ago": MINUTE} | ({} if deleted else {"body": f"encrypted {key}"}))
        past += [{"key": "ransom.txt", "seconds_ago": MINUTE, "body": "pay"}] if deleted else []
        sandbox.control("s3_history", bucket=self.name, versions=past)

    def restore(self, manifest: str, **how: Any) -> dict:
        moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=HOUR / 2)
        how = how or {
            "at": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
            "manifest": str(self.folder / manifest),
            "accept_deletes": True,
        }
        state = {"endpoint_url": self.sandbox.state["endpoint_url"], "region": EAST}
        keys = {"access_key": "sandbox", "secret_key": "sandbox-secret"}
        return run_module("s3_restore", bucket=self.name, **how, **state, **keys)

    def undo(self, manifest: str) -> dict:
        return self.restore("", undo_manifest=str(self.folder / manifest))

    def killed(self, manifest: str, operation: str, times: int) -> None:
        """By kill -9 when S3 has applied so many of these calls, with others under way."""
        pid = os.fork()
        if not pid:
            once, made = aws.Aws.once, []

            def deadly(self: aws.Aws, api: str, asked: str, /, **more: Any) -> Any:
                answer = once(self, api, asked, **more)
                if asked == operation:
                    made.append(answer)
                    if len(made) == times:
                        os.kill(os.getpid(), signal.SIGKILL)
                return answer

            aws.Aws.once = deadly
            self.restore(manifest)
            os._exit(0)
        _pid, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)

    @property
    def contents(self) -> dict[str, str]:
        keys = [each["Key"] for each in self.s3.list_objects_v2(Bucket=self.name).get("Contents", [])]
        return {key: self.s3.get_object(Bucket=self.name, Key=key)["Body"].read().decode() for key in keys}

    @property
    def versions(self) -> Counter:
        """How many there are of each photo, delete markers aside."""
        listed = self.s3.list_object_versions(Bucket=self.name, Prefix="photos/")["Versions"]
        return Counter(each["Key"] for each in listed)


@pytest.mark.parametrize(
    ("deleted", "operation", "times"),
    [
        pytest.param(False, "copy_object", 4, id="copies"),
        # First it removes delete markers, then it puts one.
        pytest.param(True, "delete_objects", 1, id="markers removed", marks=pytest.mark.soak),
        pytest.param(True, "delete_objects", 2, id="marker put", marks=pytest.mark.soak),
    ],
)
def test_killed_half_way_it_goes_on_and_both_runs_are_taken_back(
    sandbox: Sandbox, tmp_path: Path, deleted: bool, operation: str, times: int
) -> None:
    bucket = Bucket(sandbox, tmp_path, deleted)
    spoilt, before = bucket.contents, bucket.versions
    bucket.killed("first", operation, times)
    assert bucket.contents != spoilt
    again = bucket.restore("second")
    assert not again["failed"], again
    assert bucket.contents == bucket.photos
    # One copy each, or none where removing the markers is enough.
    assert bucket.versions - before == (Counter() if deleted else Counter(list(bucket.photos)))
    assert not bucket.restore("third")["changed"]
    undone = [bucket.undo(name) for name in ("second", "first") if (tmp_path / name).exists()]
    assert not any(each["failed"] for each in undone)
    assert (bucket.contents, bucket.versions) == (spoilt, before)
    assert not bucket.undo("first")["changed"]


@pytest.mark.soak
def test_what_it_may_not_write_is_named_and_the_rest_is_right(sandbox: Sandbox, tmp_path: Path) -> None:
    bucket = Bucket(sandbox, tmp_path)
    spoilt = bucket.contents
    sandbox.fault("api", service="s3", action="CopyObject", kind="denied", count=5)
    stopped = bucket.restore("first")
    sandbox.heal()
    assert stopped["failed"] and stopped["changed"] and len(spoilt.items() & bucket.contents.items()) == 5
    assert stopped["stopped"] == "denied" and len(stopped["failures"]) == 5
    message = stopped["msg"]
    assert message.startswith("5 objects could not be copied: photos/") and message.count("missing permission") == 1
    assert message.endswith("in part. The same command again goes on from here")
    (back,) = stopped["undo"]
    assert not bucket.restore("", undo_manifest=back["arguments"]["undo_manifest"])["failed"]
    assert bucket.contents == spoilt
    assert not bucket.restore("second")["failed"] and bucket.contents == bucket.photos

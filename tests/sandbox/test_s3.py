# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3 as it is documented where restores depend on it, and s3_restore beside s3-pit-restore on the pasts where that one errs."""

from __future__ import annotations

import datetime
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from sandbox.client import REPOSITORY, Sandbox

sys.path[:0] = [str(REPOSITORY / ".ansible" / "collections"), str(REPOSITORY / "tests" / "unit")]

from module_main import run_main  # noqa: E402

from ansible_collections.sre.runbooks.plugins.module_utils import object_copy  # noqa: E402
from ansible_collections.sre.runbooks.plugins.modules import s3_restore  # noqa: E402

REGION = "us-east-1"
NOW = 600  # seconds ago: what is restored lies before
LATER, EARLIER = 60, 3600


@pytest.fixture(scope="module")
def s3(sandbox: Sandbox) -> Any:
    sandbox.reset()
    return sandbox.boto("s3", REGION)


_numbers = itertools.count()


def new_bucket(s3: Any) -> str:
    name = f"bucket-{next(_numbers)}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def bucket(s3: Any) -> str:
    return new_bucket(s3)


def past(sandbox: Sandbox, bucket: str, *versions: tuple) -> None:
    """(key, seconds ago, body or None for a delete marker, more), oldest first."""
    told = [
        {"key": key, "seconds_ago": ago, **({} if body is None else {"body": body}), **(more[0] if more else {})}
        for key, ago, body, *more in versions
    ]
    sandbox.control("s3_history", bucket=bucket, versions=told)


def contents(s3: Any, bucket: str) -> dict[str, str]:
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() for key in keys}


def ago(seconds: float) -> str:
    return f"{datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def restore(sandbox: Sandbox, tmp_path: Path, bucket: str, check: bool = False, **arguments: Any) -> dict:
    return run_main(
        s3_restore.main,
        check,
        endpoint_url=sandbox.state["endpoint_url"],
        access_key="sandbox",
        secret_key="sandbox-secret",
        region=REGION,
        bucket=bucket,
        **({} if "undo_manifest" in arguments else {"manifest": str(tmp_path / "manifest.jsonl")}),
        **arguments,
    )


# ---- the endpoint


def test_versions_are_listed_in_order_over_pages_of_any_size(sandbox: Sandbox, s3: Any, bucket: str) -> None:
    past(
        sandbox,
        bucket,
        *[
            (key, at, body)
            for key in ("a", "a/b c", "é", "z\x01")
            for at, body in ((9, "1"), (9, None), (9, "3"), (8, None))
        ],
    )
    whole = s3.list_object_versions(Bucket=bucket)
    assert [each["Key"] for each in whole["Versions"]] == ["a", "a", "a/b c", "a/b c", "z\x01", "z\x01", "é", "é"]
    latest = [each["Key"] for each in whole["DeleteMarkers"] if each["IsLatest"]]
    assert latest == ["a", "a/b c", "z\x01", "é"]
    for size in (1, 3, 5):
        found: dict[str, list] = {"Versions": [], "DeleteMarkers": []}
        for page in s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": size}
        ):
            assert len(page.get("Versions", [])) + len(page.get("DeleteMarkers", [])) <= size
            for kind in found:
                found[kind] += page.get(kind, [])
        assert found == {kind: whole[kind] for kind in found}
    # A key alone as marker: what comes after it.
    after = s3.list_object_versions(Bucket=bucket, KeyMarker="a/b c")
    assert {each["Key"] for each in after["Versions"]} == {"é", "z\x01"}
    folders = s3.list_object_versions(Bucket=bucket, Delimiter="/")
    assert [each["Prefix"] for each in folders["CommonPrefixes"]] == ["a/"]
    with pytest.raises(ClientError, match="InvalidArgument"):
        s3.list_object_versions(Bucket=bucket, VersionIdMarker="1")


def test_a_delete_marker_deleted_by_its_version_brings_the_object_back(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    marker = s3.delete_object(Bucket=bucket, Key="k")["VersionId"]
    (told,) = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": marker}]})["Deleted"]
    assert told == {"Key": "k", "VersionId": marker, "DeleteMarker": True, "DeleteMarkerVersionId": marker}
    head = s3.head_object(Bucket=bucket, Key="k")
    with pytest.raises(ClientError, match="404"):
        s3.head_object(Bucket=bucket, Key="k", VersionId=marker)
    # A version copied over its object is a version of its own, with the same content.
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    source = {"Bucket": bucket, "Key": "k", "VersionId": head["VersionId"]}
    copied = s3.copy_object(Bucket=bucket, Key="k", CopySource=source)
    assert copied["VersionId"] != head["VersionId"] and copied["CopyObjectResult"]["ETag"] == head["ETag"]


def test_too_many_requests_are_told_to_slow_down(sandbox: Sandbox, bucket: str) -> None:
    sandbox.fault("s3-slow-down", rate=0)
    client = sandbox.boto("s3", REGION, config=Config(retries={"total_max_attempts": 1}))
    with pytest.raises(ClientError) as refused:
        client.list_object_versions(Bucket=bucket)
    sandbox.heal()
    assert refused.value.response["Error"]["Code"] == "SlowDown"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


# ---- s3_restore, and s3-pit-restore beside it


def pit_restore(sandbox: Sandbox, bucket: str, at: str) -> int:
    """Its exit code. https://github.com/madisoft/s3-pit-restore"""
    command = [shutil.which("s3-pit-restore", path=Path(sys.executable).parent), "-b", bucket, "-B", bucket, "-t", at]
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": sandbox.state["endpoint_url"],
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox",
        "AWS_DEFAULT_REGION": REGION,
    }
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, check=False).returncode


def versionless_page() -> list[tuple]:
    """A whole page of delete markers: a thousand objects were deleted over and over."""
    markers = [("a", EARLIER - number / 1000, None) for number in range(1, 1001)]
    return [("b", EARLIER, "b"), ("b", LATER, None), ("a", EARLIER, "a"), *markers]


def over_two_pages() -> list[tuple]:
    """Deleted long before, and the marker ends one page while the version begins the next."""
    markers = [("a", EARLIER + 1000 - number, None) for number in range(998)]
    return [
        *markers,
        ("a", EARLIER, "a"),
        ("b", EARLIER, "b"),
        ("b", EARLIER - 9, None),
        ("c", EARLIER, "c"),
        ("c", LATER, None),
    ]


def same_second() -> list[tuple]:
    return [("a", EARLIER, "a"), ("a", EARLIER, None), ("c", EARLIER, "c"), ("c", LATER, None)]


PASTS = {
    versionless_page: {"b": "b"},
    over_two_pages: {"a": "a", "c": "c"},
    same_second: {"c": "c"},
}


@pytest.mark.parametrize("make", PASTS, ids=lambda make: make.__name__)
def test_right_where_the_other_errs(
    sandbox: Sandbox, s3: Any, bucket: str, tmp_path: Path, make: Callable[[], list[tuple]]
) -> None:
    other = new_bucket(s3)
    for name in (bucket, other):
        past(sandbox, name, *make())
    result = restore(sandbox, tmp_path, bucket, at=ago(NOW))
    assert not result["failed"], result
    wanted = PASTS[make]
    assert {each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", [])} == wanted.keys()
    code = pit_restore(sandbox, other, ago(NOW))
    there = {each["Key"] for each in s3.list_objects_v2(Bucket=other).get("Contents", [])}
    assert code != 0 or there != wanted.keys()


def test_what_is_right_is_left_and_a_copy_is_like_its_version(
    sandbox: Sandbox, s3: Any, bucket: str, tmp_path: Path
) -> None:
    """By hand, since this is about what the versions carry; `at` is the present."""
    kms = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:us-east-1:123456789012:key/1"}
    first = s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"1",
        StorageClass="STANDARD_IA",
        ContentType="image/jpeg",
        CacheControl="no-cache",
        Metadata={"dog": "rex"},
        Tagging="owner=jane",
        **kms,
    )["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    s3.put_object(Bucket=bucket, Key="kk", Body=b"2")
    run = restore(sandbox, tmp_path, bucket, key="k", version_id=first)
    assert not run["failed"] and run["changed"], run
    head = s3.head_object(Bucket=bucket, Key="k")
    assert (head["StorageClass"], head["ContentType"], head["CacheControl"]) == (
        "STANDARD_IA",
        "image/jpeg",
        "no-cache",
    )
    assert head["Metadata"]["dog"] == "rex" and {name: head[name] for name in kms} == kms
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "owner", "Value": "jane"}]
    again = restore(sandbox, tmp_path, bucket, key="k", version_id=first)
    assert (again["failed"], again["changed"]) == (False, False)


def test_beyond_five_gigabytes_in_parts_and_known_again(
    sandbox: Sandbox, s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOST_IN_ONE", "PART"):
        monkeypatch.setattr(object_copy, name, 5 * 2**20)
    monkeypatch.setattr(object_copy.parts, "__defaults__", (5 * 2**20,))
    body = bytes(range(256)) * (6 * 2**12)
    large = s3.put_object(Bucket=bucket, Key="k", Body=body, ContentType="image/jpeg", Tagging="a=b")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=body[::-1])
    run = restore(sandbox, tmp_path, bucket, key="k", version_id=large)
    assert not run["failed"], run
    there = s3.get_object(Bucket=bucket, Key="k")
    assert there["Body"].read() == body and there["ContentType"] == "image/jpeg" and there["ETag"].endswith('-2"')
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "a", "Value": "b"}]
    again = restore(sandbox, tmp_path, bucket, key="k", version_id=large)
    assert (again["failed"], again["changed"]) == (False, False)


def test_archived_versions_are_named_and_copied_once_they_are_back(
    sandbox: Sandbox, s3: Any, bucket: str, tmp_path: Path
) -> None:
    past(sandbox, bucket, ("k", EARLIER, "old", {"storage_class": "GLACIER"}), ("k", LATER, "new"), ("m", EARLIER, "m"))
    refused = restore(sandbox, tmp_path, bucket, at=ago(NOW))
    assert refused["failed"] and "RestoreObject first (k)" in refused["msg"]
    skipped = restore(sandbox, tmp_path, bucket, at=ago(NOW), archived="skip")
    assert (skipped["failed"], skipped["changed"], skipped["archived"]) == (False, False, ["k"])
    version = s3.list_object_versions(Bucket=bucket, Prefix="k")["Versions"][1]["VersionId"]
    s3.restore_object(Bucket=bucket, Key="k", VersionId=version, RestoreRequest={"Days": 1})
    run = restore(sandbox, tmp_path, bucket, at=ago(NOW))
    assert not run["failed"], run
    assert contents(s3, bucket) == {"k": "old", "m": "m"}


def test_a_mirror_of_the_backup_loses_nothing_and_is_taken_back(
    sandbox: Sandbox, s3: Any, bucket: str, tmp_path: Path
) -> None:
    backup = new_bucket(s3)
    same, ours, theirs = ("same", EARLIER, "1"), ("p/a", LATER, "bad"), ("copy/a", EARLIER, "good")
    past(sandbox, bucket, same, ours, ("p/only ours", LATER, "x"), ("p/right", LATER, "r"))
    past(sandbox, backup, theirs, ("copy/only theirs", EARLIER, "y"), ("copy/right", EARLIER, "r"))
    before = contents(s3, bucket)
    run = restore(sandbox, tmp_path, bucket, backup_bucket=backup, prefix="p/", backup_prefix="copy/")
    assert not run["failed"], run
    assert (run["before"]["copy"], run["before"]["delete"], run["before"]["right"]) == (2, 1, 1)
    assert contents(s3, bucket) == {"same": "1", "p/a": "good", "p/only theirs": "y", "p/right": "r"}
    (undo,) = run["undo"]
    undo["arguments"].pop("region")
    assert not restore(sandbox, tmp_path, **undo["arguments"])["failed"]
    assert contents(s3, bucket) == before
    assert not restore(sandbox, tmp_path, **undo["arguments"])["changed"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    refused = restore(sandbox, tmp_path, bucket, backup_bucket=backup, prefix="p/", backup_prefix="copy/")
    assert refused["failed"] and "allow_unversioned=true" in refused["msg"]


def test_ended_half_way_it_goes_on_and_both_manifests_take_all_back(
    sandbox: Sandbox, s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{number:03}" for number in range(60)]
    past(sandbox, bucket, *[(key, EARLIER, key) for key in keys], *[(key, LATER, "bad") for key in keys])
    before, begun = contents(s3, bucket), itertools.count()
    copy = object_copy.Copier.__call__

    def stopping(self: object_copy.Copier, action: Any, lost: int) -> str | None:
        if next(begun) >= 30:
            raise ClientError({"Error": {"Code": "ExpiredToken"}, "ResponseMetadata": {}}, "CopyObject")
        return copy(self, action, lost)

    with monkeypatch.context() as patch:
        patch.setattr(object_copy.Copier, "__call__", stopping)
        first = restore(sandbox, tmp_path, bucket, at=ago(NOW))
    assert first["failed"] and "credentials have expired" in first["msg"] and "undo_manifest" in first["msg"]
    again = tmp_path / "again"
    again.mkdir()
    second = restore(sandbox, again, bucket, at=ago(NOW))
    assert second["before"]["copy"] == 30 and second["before"]["right"] == 30
    assert contents(s3, bucket) == {key: key for key in keys}
    for folder in (again, tmp_path):
        back = restore(sandbox, tmp_path, bucket, undo_manifest=str(folder / "manifest.jsonl"))
        assert not back["failed"], back
    assert contents(s3, bucket) == before


def test_batch_operations_copies_what_is_too_much_and_its_copies_are_taken_back(
    sandbox: Sandbox, s3: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists, role = new_bucket(s3), sandbox.state["regions"][REGION]["uploads_role"]
    ia = {"storage_class": "STANDARD_IA"}
    keys = [f"dog {number}, é" for number in range(20)]
    past(sandbox, bucket, *[(key, EARLIER, key, *([ia] if "1" in key else [])) for key in keys])
    past(sandbox, bucket, *[(key, LATER, "bad") for key in keys], ("right", EARLIER, "r"), ("lost", EARLIER, "l"))
    past(sandbox, bucket, ("lost", LATER, None))
    before = contents(s3, bucket)
    account = sandbox.state["account_id"]
    batch = {
        "batch_above": 10,
        "batch_role_arn": f"arn:aws:iam::{account}:role/{role}",
        "manifest_bucket": lists,
        "at": ago(NOW),
    }
    # It gives up waiting; the jobs go on, and the next run finds them or what they did.
    late = restore(sandbox, tmp_path, bucket, wait_timeout=0, **batch)
    assert late["failed"] and "S3 Batch Operations job" in late["msg"]
    run = restore(sandbox, tmp_path, bucket, **batch)
    assert not run["failed"], run
    assert contents(s3, bucket) == {**{key: key for key in keys}, "right": "r", "lost": "l"}
    classes = {each["Key"]: each["StorageClass"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {key for key, name in classes.items() if name == "STANDARD_IA"} == {key for key in keys if "1" in key}
    assert len(s3.list_objects_v2(Bucket=lists, Prefix="s3_restore/batch/")["Contents"]) == 2
    arguments = {"bucket": bucket, "undo_manifest": str(tmp_path / "manifest.jsonl")}
    back = restore(sandbox, tmp_path, **arguments)
    assert not back["failed"], back
    assert contents(s3, bucket) == before

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""evidence_bundle: nothing in it is ever replaced, and a run that is killed anywhere is gone on with."""

from __future__ import annotations

import base64
import json
import stat
import subprocess

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils import evidence
from ansible_collections.sre.runbooks.plugins.module_utils import verb as engine
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.object_lock import Retention, longer
from ansible_collections.sre.runbooks.plugins.modules import evidence_bundle
from ansible_collections.sre.runbooks.tests.unit.module_main import run_main


class Killed(BaseException):
    """kill -9 between two calls."""


class Storage:
    """Stands for Aws: a bucket, and who calls. `trouble` is what becomes of the next changes: lost, reset, killed or nothing."""

    region, silent, missed = "us-east-1", frozenset(), ()

    def __init__(self):
        self.objects, self.locked, self.rule, self.trouble = {}, True, None, []

    def __call__(self, connection):
        return self

    def read(self, service, operation, **asked):
        if operation == "get_caller_identity":
            return {"Arn": "arn:aws:iam::123456789012:user/oncall"}
        if operation == "get_object_lock_configuration":
            if not self.locked:
                raise refused("ObjectLockConfigurationNotFoundError", operation)
            rule = {"Rule": {"DefaultRetention": self.rule}} if self.rule else {}
            return {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled", **rule}}
        if asked["Key"] not in self.objects:
            raise refused("404", operation)
        return {"ChecksumSHA256": self.objects[asked["Key"]]["ChecksumSHA256"]}

    def change(self, service, operation, **asked):
        trouble = self.trouble.pop(0) if self.trouble else ""
        if trouble == "killed":
            raise Killed
        if trouble != "reset":
            if asked["Key"] in self.objects:
                raise refused("PreconditionFailed", operation)
            self.objects[asked["Key"]] = asked
        if trouble:
            raise LostAnswer("s3:PutObject in us-east-1 got no answer")
        return {}

    @property
    def names(self):
        return sorted(key.rpartition("/")[2] for key in self.objects)


def refused(code, operation):
    problem = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    return ClientError(problem, operation)


@pytest.fixture
def storage(monkeypatch):
    storage = Storage()
    monkeypatch.setattr(engine, "Aws", storage)
    monkeypatch.setattr(engine.time, "sleep", lambda _seconds: None)
    return storage


@pytest.fixture
def bundle(tmp_path, storage):
    """Runs the verb for one incident; `bundle.folder` is its folder."""

    def run(*items, check=False, **given):
        asked = {"incident": "breach", "dest": str(tmp_path), "items": list(items), "region": "us-east-1"}
        return run_main(evidence_bundle.main, check, **asked, **given)

    run.folder = tmp_path / "breach"
    return run


def verify(folder, manifest):
    return subprocess.run(["sha256sum", "--strict", "-c", manifest], cwd=folder, capture_output=True, check=False)


A, B = {"name": "a.json", "content": {"pid": 1}, "source": "SSM"}, {"name": "b.txt", "content": "x\n"}


def test_evidence_is_for_its_owner_only_and_sha256sum_checks_it(bundle):
    result = bundle(A, B, taken_by="R. Engineer")
    assert result["changed"] and [step["do"] for step in result["steps"]] == ["keep", "keep", "seal"]
    assert verify(bundle.folder, result["manifest"]).returncode == 0
    assert stat.S_IMODE(bundle.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(each.stat().st_mode) for each in bundle.folder.iterdir()} == {0o600}
    note = json.loads((bundle.folder / "custody-0001.json").read_text())
    assert (note["taken_by"], note["principal"]) == ("R. Engineer", "arn:aws:iam::123456789012:user/oncall")
    assert [(each["name"], each["source"]) for each in note["files"]] == [("a.json", "SSM"), ("b.txt", None)]
    assert json.loads((bundle.folder / "a.json").read_text()) == {"pid": 1}
    (bundle.folder / "b.txt").write_text("y\n")
    assert verify(bundle.folder, result["manifest"]).returncode == 1


def test_what_is_evidence_is_in_no_answer(bundle):
    assert "hunter2" not in json.dumps(bundle({"name": "a", "content": "password=hunter2"}))


def test_the_same_again_changes_nothing_and_more_is_added_to_it(bundle):
    first = bundle(A)
    again = bundle(A)
    assert not again["changed"] and again["manifest_sha256"] == first["manifest_sha256"]
    more = bundle(B)
    assert more["manifest"] == "manifest-0002.sha256" and verify(bundle.folder, more["manifest"]).returncode == 0
    note = json.loads((bundle.folder / "custody-0002.json").read_text())
    assert note["manifest_before"]["sha256"] == first["manifest_sha256"]
    assert [each["name"] for each in note["files"]] == ["b.txt"]


def test_something_else_of_the_same_name_is_kept_beside_it(bundle, tmp_path):
    bundle(A)
    (tmp_path / "later").write_text("later")
    later = {"name": "a.json", "path": str(tmp_path / "later")}
    assert next(step["what"] for step in bundle(later)["steps"]) == "keep a.json.2 (5 bytes)"
    assert not bundle(later)["changed"] and not bundle(A)["changed"]
    assert (bundle.folder / "a.json.2").read_text() == "later" and "pid" in (bundle.folder / "a.json").read_text()


def test_check_mode_writes_and_stores_nothing(bundle, storage):
    planned = bundle(A, check=True, bucket="locked")
    assert [step["do"] for step in planned["steps"]] == ["keep", "seal", "lock"]
    assert planned["after"] == {"files": 3, "manifest": "manifest-0001.sha256", "stored": 3}
    assert not bundle.folder.exists() and not storage.objects
    assert bundle(A, bucket="locked")["after"] == planned["after"]


def test_all_of_it_is_locked_and_arrives_as_it_is(bundle, storage):
    storage.rule = {"Mode": "GOVERNANCE", "Years": 1}
    result = bundle(A, bucket="locked", lock_mode="COMPLIANCE", retention_days=7)
    assert sorted(storage.objects) == sorted(result["object_keys"])
    for asked in storage.objects.values():
        file = next(each for each in result["files"] if asked["Key"].endswith("/" + each["name"]))
        assert base64.b64decode(asked["ChecksumSHA256"]).hex() == file["sha256"] and asked["IfNoneMatch"] == "*"
        assert asked["ObjectLockMode"] == "COMPLIANCE"
    assert "for 365 days (COMPLIANCE)" in result["steps"][-1]["what"]
    assert list(storage.objects)[-1].endswith("manifest-0001.sha256")


@pytest.mark.parametrize("trouble", [["lost"], ["reset"], ["", "lost", "reset"]])
def test_a_lost_answer_stores_each_object_once(bundle, storage, trouble):
    storage.trouble = trouble
    result = bundle(A, bucket="locked")
    assert not result["failed"] and storage.names == ["a.json", "custody-0001.json", "manifest-0001.sha256"]


@pytest.mark.parametrize("number", range(3))
def test_killed_while_it_stores_it_goes_on_with_the_rest(bundle, storage, number):
    storage.trouble = [""] * number + ["killed"]
    with pytest.raises(Killed):
        bundle(A, bucket="locked")
    assert len(storage.objects) == number
    result = bundle(A, bucket="locked")
    assert result["before"]["stored"] == number and result["after"]["stored"] == 3
    assert result["manifest"] == "manifest-0001.sha256"


@pytest.mark.parametrize("written", range(4))
def test_killed_while_it_writes_it_loses_nothing(bundle, monkeypatch, written):
    create, left = evidence._create, [""] * written

    def killed(*arguments):
        if not left:
            raise Killed
        left.pop()
        create(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(evidence, "_create", killed)
        bundle(A, B)
    kept = {each.name: each.read_bytes() for each in bundle.folder.iterdir()}
    result = bundle(A, B)
    assert not result["failed"] and verify(bundle.folder, result["manifest"]).returncode == 0
    assert kept.items() <= {each.name: each.read_bytes() for each in bundle.folder.iterdir()}.items()
    assert {"a.json", "b.txt"} <= evidence.look(bundle.folder).listed.keys()


def test_what_was_changed_is_said_and_left_as_it_is(bundle, storage):
    bundle(A, B, bucket="locked")
    (bundle.folder / "b.txt").write_text("y\n")
    assert "manifest-0001.sha256 lists it (b.txt)" in bundle(A)["msg"]
    (bundle.folder / "b.txt").write_text("x\n")
    next(each for key, each in storage.objects.items() if key.endswith("b.txt"))["ChecksumSHA256"] = "AAAA"
    assert "something else for b.txt" in bundle(bucket="locked")["msg"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"incident": "../breach"}, "names no folder"),
        ({"retention_days": 0}, "locks nothing"),
        ({"items": [{"name": "../a", "content": "x"}]}, "cannot be the name"),
        ({"items": [{"name": "custody-0001.json", "content": "x"}]}, "cannot be the name"),
        ({"items": [{"name": "a", "path": "/nowhere"}]}, "check its path"),
        ({"bucket": "open"}, "has no Object Lock"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, storage, given, complaint):
    storage.locked = False
    asked = {"incident": "breach", "dest": str(tmp_path), "region": "us-east-1"} | given
    assert complaint in run_main(evidence_bundle.main, **asked)["msg"]
    assert not list(tmp_path.iterdir())


def test_too_large_for_a_bucket(monkeypatch, storage):
    file = evidence.File("disk", 2 << 30, "00")
    observed = {"folder": "f", "bundle": evidence.Bundle(), "items": [evidence.Item("disk", file)], "stored": {}}
    with pytest.raises(Refusal, match="keep a disk by a snapshot"):
        evidence_bundle.EvidenceBundle.plan(observed, {"bucket": "locked"})


def test_a_bucket_that_locks_longer_is_obeyed():
    usual = Retention("COMPLIANCE", 30)
    assert longer(Retention("GOVERNANCE", 90), usual) == Retention("COMPLIANCE", 90)
    assert longer(Retention("GOVERNANCE", 1), None) == Retention("GOVERNANCE", 1)

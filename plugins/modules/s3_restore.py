#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: s3_restore
version_added: 0.1.0
short_description: Bring objects in S3 back to what they were
description:
  - Brings one object, or all below a prefix, back to what they were at a time, from the versions of the bucket; or makes a prefix
    the mirror of a backup bucket. Nothing is ever deleted for good, so that all can be taken back.
  - An object of which only delete markers hide the right version loses these markers, so that the very version is there again,
    with its metadata, ACL, encryption, lock and age. That of a deletion is then only known from the manifest;
    O(delete_markers=keep) copies instead.
  - Any other version is copied over its object with its metadata, tags, storage class, encryption and redirect. ACL and lock of
    a single version are not carried over by S3. A copy of an object made in parts or encrypted by KMS gets the metadata
    C(sre-restored-from), since its ETag is another.
  - An object that was not there at that time gets a delete marker.
  - An object with the right version, or with the right ETag and size, is left alone, whatever its metadata.
  - Calls go out side by side, more as long as S3 takes them and fewer when it answers C(SlowDown).
  - Killed or failed anywhere, the same task goes on with what is not yet right.
  - Time is that of the version as S3 lists it, to the second. Of an object uploaded in parts it is the time when its upload began.
  - With O(key) alone it lists the versions of that object and changes nothing.
  - B(Risk:) what was written after that time is hidden by it, though still there as a version. Stop what writes first.
options:
  bucket:
    description: The bucket, in O(region).
    type: str
    required: true
  prefix:
    description: Only objects whose names begin so; all by default.
    type: str
    default: ""
  key:
    description: Only this object.
    type: str
  at:
    description: The objects as they were at the end of this second, ISO 8601; without a zone it is UTC.
    type: str
  version_id:
    description: The version that O(key) is to have.
    type: str
  backup_bucket:
    description:
      - Make the objects below O(prefix) the mirror of this bucket's, as C(aws s3 sync --delete) does, by versions, so that
        nothing is lost.
    type: str
  backup_prefix:
    description: What the names begin with in the backup, in place of O(prefix). The same by default.
    type: str
  backup_region:
    description: The region of O(backup_bucket), O(region) by default.
    type: str
  undo_manifest:
    description:
      - Take back what the run that wrote this manifest did. Its copies and delete markers are removed, and what it undeleted is
        deleted again, unless it was written since.
    type: path
  delete_markers:
    description: Whether markers that hide the right version are removed, or kept below a copy of it.
    type: str
    choices: [remove, keep]
    default: remove
  archived:
    description:
      - What to do when versions to be copied are archived (C(GLACIER), C(DEEP_ARCHIVE)) and need C(RestoreObject) first. They are
        named either way.
    type: str
    choices: [refuse, skip]
    default: refuse
  accept_deletes:
    description:
      - Accept that more than half of the objects that are there now get a delete marker. Without it that is taken for a typing
        error in O(at), O(prefix) or O(backup_prefix).
    type: bool
    default: false
  allow_unversioned:
    description:
      - With O(backup_bucket), write to a bucket without versions as well. B(Risk:) what is overwritten or deleted there is gone,
        and the run cannot be taken back.
    type: bool
    default: false
  manifest:
    description:
      - File that takes what was done, for the undo. By default one of its own in the record of the run, or in the
        present folder where there is no record.
    type: path
  manifest_bucket:
    description:
      - Bucket that takes a copy of the manifest too, below C(s3_restore/); and the lists and reports of S3 Batch Operations.
    type: str
  batch_above:
    description:
      - With O(at), where more objects than this are to be copied, S3 Batch Operations copies them. This verb writes its lists to
        O(manifest_bucket), starts one job for each storage class, waits for them and checks what they did; run again, it finds jobs
        that still run. Objects that were uploaded in parts, and all where the bucket encrypts by KMS, it copies itself.
      - A copy that Batch Operations makes is encrypted as the bucket is by default.
    type: int
    default: 1000000
  batch_role_arn:
    description: The role under which S3 Batch Operations copies. It must be trusted by C(batchoperations.s3.amazonaws.com).
    type: str
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
seealso:
  - name: Restoring previous versions
    description: AWS documentation.
    link: https://docs.aws.amazon.com/AmazonS3/latest/userguide/RestoringPreviousVersions.html
  - name: Copy objects by S3 Batch Operations
    description: AWS documentation.
    link: https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-copy-object.html
"""

EXAMPLES = r"""
- name: The photos as they were before the clean-up job
  sre.runbooks.s3_restore:
    bucket: regami-uploads
    prefix: dogs/photos/
    at: "2024-01-15T12:00:00Z"
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Which versions there are of one photo
  sre.runbooks.s3_restore:
    bucket: regami-uploads
    key: dogs/photos/123.jpg
    region: us-east-1

- name: The whole bucket from its backup
  sre.runbooks.s3_restore:
    bucket: regami-uploads
    backup_bucket: regami-uploads-backup
    accept_deletes: true
    region: us-east-1
"""

RETURN = r"""
before:
  description:
    - How many objects are right, and how many must be copied (with their bytes), undeleted, deleted or, being archived, left.
      C(delete) is deletion by a delete marker.
  returned: unless refused
  type: dict
  sample: {bucket: regami-uploads, right: 4000, copy: 1000, copy_bytes: 52428800, undelete: 5000, delete: 500, withdraw: 0,
    archived: 0}
after:
  description: The same at the end, from another listing; as predicted in check mode.
  returned: success
  type: dict
  sample: {bucket: regami-uploads, right: 10500, copy: 0, copy_bytes: 0, undelete: 0, delete: 0, withdraw: 0, archived: 0}
steps:
  description: What was done, or would be done in check mode, in order, with counts and bytes.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: undelete, what: remove the delete markers of 5000 objects of regami-uploads, before: null, after: 5000}
    - {do: copy, what: "copy 1000 versions (50.0 MiB) over their objects in regami-uploads", before: null, after: 1000}
    - {do: check, what: check that all objects are what they were, before: null, after: null}
undo:
  description: The same verb with the manifest of what was done.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.s3_restore
      arguments: {bucket: regami-uploads, region: us-east-1, undo_manifest: incidents/20260301-120500/s3_restore-regami-uploads.jsonl}
manifest:
  description: The file that says what was done to each object; null where nothing was.
  returned: unless refused
  type: str
  sample: incidents/20260301-120500/s3_restore-regami-uploads.jsonl
archived:
  description: The first archived objects that were left, since they need C(RestoreObject).
  returned: unless refused
  type: list
  elements: str
  sample: []
versions:
  description: With O(key), its versions, newest first, 50 at most.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {version_id: 3HL4kqtJvjVBH40Nrjfkd, modified: "2026-03-01T11:00:00Z", delete_marker: false, size: 52428, storage_class: STANDARD}
failures:
  description: Where objects could not be changed, the first of them and why.
  returned: on failure
  type: list
  elements: str
  sample: ["dogs/photos/7.jpg: missing permission s3:PutObject in us-east-1: Access Denied"]
notes:
  description: Risks, overrides that were used, and what was left.
  returned: success
  type: list
  elements: str
  sample: ["stop what writes to regami-uploads first: what it writes meanwhile is hidden too"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 0.0
"""

import datetime
import functools
import itertools
import os

try:
    from botocore import exceptions as boto_errors
except ImportError:
    pass

from ansible_collections.sre.runbooks.plugins.module_utils import object_batch, object_manifest, object_versions, record
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of
from ansible_collections.sre.runbooks.plugins.module_utils.errors import HalfDone, LostAnswer, Refusal, Stop, near
from ansible_collections.sre.runbooks.plugins.module_utils.object_copy import Backup, Copier
from ansible_collections.sre.runbooks.plugins.module_utils.object_restore import (
    Doing,
    bucket_facts,
    closer_look,
    still_to_undo,
    survey,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

MOST_VERSIONS_SHOWN = 50
# How the actions of a step are called.
KINDS = {"withdraw": "withdraw", "undelete": "unmark", "delete": "mark"}

SERVICES = ("s3", "s3control", "sts", "dynamodb")
# Seconds that a job of S3 Batch Operations usually takes at least.
USUAL_BATCH = 600
ARGUMENTS = dict(
    bucket=dict(type="str", required=True),
    prefix=dict(type="str", default=""),
    key=dict(type="str", no_log=False),
    at=dict(type="str"),
    version_id=dict(type="str"),
    backup_bucket=dict(type="str"),
    backup_prefix=dict(type="str"),
    backup_region=dict(type="str"),
    undo_manifest=dict(type="path"),
    delete_markers=dict(type="str", choices=["remove", "keep"], default="remove"),
    archived=dict(type="str", choices=["refuse", "skip"], default="refuse"),
    accept_deletes=dict(type="bool", default=False),
    allow_unversioned=dict(type="bool", default=False),
    manifest=dict(type="path"),
    manifest_bucket=dict(type="str"),
    batch_above=dict(type="int", default=1_000_000),
    batch_role_arn=dict(type="str"),
)
CONDITIONS = dict(
    mutually_exclusive=[
        ("at", "version_id", "backup_bucket", "undo_manifest"),
        ("key", "backup_bucket"),
        ("key", "undo_manifest"),
    ],
    required_one_of=[("at", "key", "backup_bucket", "undo_manifest")],
    required_by={"version_id": "key", "backup_prefix": "backup_bucket", "backup_region": "backup_bucket"},
)


class S3Restore(Verb):
    """Objects as they were."""

    def __init__(self, module):
        super().__init__(module)
        self.bucket = self.params["bucket"]
        self.prefix = self.params["key"] or self.params["prefix"]
        path = self.params["manifest"] or self._own_manifest()
        # An undo is not undone: the restore itself can be run again.
        self.manifest = None if self.params["undo_manifest"] else object_manifest.Manifest(path, self.bucket)
        self._seen, self._end = None, None
        self._batch_began, self._has_noted = None, False
        self._batch = object_batch.Batch(
            self.aws,
            self.bucket,
            self.prefix,
            self.params["at"],
            self.params["manifest_bucket"],
            self.params["batch_role_arn"],
        )

    def _own_manifest(self):
        """In the record of the run it is known before there is one: a preflight names it, for the undo of a run that is killed."""
        folder = os.environ.get(record.FOLDER_VARIABLE)
        if folder:
            return os.path.join(folder, f"s3_restore-{self.bucket}.jsonl")
        return f"s3_restore-{self.bucket}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}.jsonl"

    def observe(self):
        now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S}"
        try:
            facts = bucket_facts(self.aws, self.bucket)
        except boto_errors.ClientError as error:
            if code_of(error) != "NoSuchBucket":
                raise
            there = [each["Name"] for each in self.aws.read("s3", "list_buckets")["Buckets"]]
            raise Refusal(f"there is no bucket {self.bucket} ({near(self.bucket, there)}): check bucket") from error
        versions = self._versions() if self.params["key"] else []
        # Who names no role has no jobs.
        jobs = self._batch.jobs() if self.params["batch_role_arn"] and self.params["at"] else []
        under_way = [job["JobId"] for job in jobs if job["Status"] not in object_batch.ENDED]
        notes = bool(jobs) and not under_way and not self._has_noted and not self.check_mode
        self._batch_began = object_batch.began(jobs) if notes else None
        found = self._survey(facts["kms_by_default"])
        seen = {"bucket": self.bucket, "now": now, "versions": versions, "survey": found, "tally": found.tally}
        seen["jobs"] = under_way
        self._has_noted = self._has_noted or notes
        return {**seen, **facts, "archived": found.archived_keys}

    def _versions(self):
        """What there is of one object, newest first."""
        listed = object_versions.of_key(self.aws, self.bucket, self.prefix)
        return list(itertools.islice(listed, MOST_VERSIONS_SHOWN))

    def _survey(self, kms_by_default):
        """What each object needs, by the way that was asked for."""
        wanted, backup = self.params, None
        if wanted["undo_manifest"]:
            stream = ((action, True) for action in object_manifest.actions(wanted["undo_manifest"], self.bucket))
            look = functools.partial(still_to_undo, self.aws, self.bucket)
            return survey(stream, look, self.keep_lease, look_always=True)
        if wanted["backup_bucket"]:
            there = self.prefix if wanted["backup_prefix"] is None else wanted["backup_prefix"]
            backup = Backup(wanted["backup_bucket"], wanted["backup_region"], self.prefix, there)
            stream = self._mirrored(backup)
        elif wanted["at"] or wanted["version_id"]:
            stream = self._as_it_was()
        else:
            stream = ()
        self._copier = Copier(self.aws, self.bucket, kms_by_default, backup)
        return survey(stream, closer_look(self.aws, self.bucket, self._copier.source), self.keep_lease)

    def _mirrored(self, backup):
        ours = object_versions.current(self.aws, self.bucket, self.prefix)
        theirs = object_versions.current(self.aws, backup.bucket, backup.prefix, backup.region, self.prefix)
        return ((action, True) for action in object_versions.mirror(ours, theirs))

    def _as_it_was(self):
        wanted = self.params
        is_wanted = (
            object_versions.with_id(wanted["version_id"])
            if wanted["version_id"]
            else object_versions.as_at(object_versions.second(wanted["at"]))
        )
        if wanted["key"]:
            entries = ((self.prefix, each) for each in object_versions.of_key(self.aws, self.bucket, self.prefix))
        else:
            entries = object_versions.entries(self.aws, self.bucket, self.prefix)
        for key, versions, found in object_versions.by_key(entries, is_wanted):
            action = object_versions.decide(key, versions, found, wanted["delete_markers"] == "remove")
            if action is None and found:
                self._note_batch_copy(key, versions[0], found)
            yield action, not versions[0].is_marker

    def _note_batch_copy(self, key, top, wanted):
        """A job tells nobody which versions it has made: the listing after it does."""
        if self._batch_began and top.id != wanted.id and top.modified >= self._batch_began:
            self.manifest.add("copied", key, top.id)

    @staticmethod
    def plan(observed, wanted):
        tally, bucket = observed["tally"], observed["bucket"]
        returned = {
            "archived": observed["archived"],
            "versions": [version.shown() for version in observed["versions"]],
        }
        _refuse(observed, wanted)
        if observed["jobs"]:
            what = f"wait for S3 Batch Operations jobs {', '.join(observed['jobs'])}"
            wait = Step("await_jobs", what, arguments={"jobs": observed["jobs"]}, waits=True, look_again=True)
            return Plan((wait,), {}, (), returned)
        notes = list(_notes(observed, wanted))
        copy = _copies(observed, wanted)
        mebibytes = f"{tally.copy_bytes / 2**20:.1f} MiB"
        source = f"from {wanted['backup_bucket']} " if wanted["backup_bucket"] else ""
        by_batch = "have S3 Batch Operations " if copy == "batch" else ""
        steps = [
            Step(do, what, None, count)
            for do, count, what in (
                ("withdraw", tally.withdraw, f"remove {tally.withdraw} copies that the restore has made in {bucket}"),
                ("undelete", tally.unmark, f"remove the delete markers of {tally.unmark} objects of {bucket}"),
                (
                    copy,
                    tally.copy,
                    f"{by_batch}copy {tally.copy} versions ({mebibytes}) {source}over their objects in {bucket}",
                ),
                ("delete", tally.mark, f"put delete markers on {tally.mark} objects of {bucket} that were not there"),
            )
            if count
        ]
        if not steps:
            return Plan((), {}, tuple(notes), returned)
        check = Step("check", "check that all objects are what they were", waits=True)
        done = object_versions.Tally(right=tally.right + tally.left, archived=tally.archived)
        return Plan((*steps, check), _view(bucket, done), tuple(notes), returned)

    # The steps, named as in the plan. Each takes its objects from the latest survey.

    def apply(self, step):
        doing = Doing(self.aws, self.bucket, self.manifest, self.keep_lease)
        try:
            self._apply(step, doing)
        except LostAnswer:
            raise  # looked at again, not the end
        except Stop as stop:
            if not doing.has_changed:
                raise
            told = (
                f"; {self.manifest.path} says what was done, and undo_manifest takes it back" if self.manifest else ""
            )
            raise HalfDone(f"{stop}{told}", **stop.found) from (stop.__cause__ or stop)

    def _apply(self, step, doing):
        found = self._seen["survey"]
        match step.do:
            case "copy":
                doing.copy(self._copier, found.actions("copy"), step.after)
                if doing.archived_keys:
                    self.notes.append(f"left, since archived: {', '.join(doing.archived_keys[:3])}")
            case "batch":
                doing.copy(self._copier, (each for each in found.actions("copy") if not object_batch.fits(each)), None)
                self._has_noted = False
                self._await(self._batch.start(found))
            case "await_jobs":
                self._await(step.arguments["jobs"])
            case "check":
                self._check()
            case do:
                doing.delete(found.actions(KINDS[do]), step.after, {"undelete": "unmarked", "delete": "marked"}.get(do))

    def _await(self, jobs):
        for name in jobs:
            self.wait(
                functools.partial(self._batch.look, name),
                self._batch.is_over,
                f"S3 Batch Operations job {name}",
                usual=USUAL_BATCH,
                state=object_batch.state,
            )

    def _check(self):
        self._end = self.observe()
        self._keep_a_copy()
        left = self._end["tally"].left
        if left:
            raise Stop(
                f"{left} objects of {self.bucket} are still not what they were: somebody writes to it, or a part was left "
                f"({self._end['tally']}): stop what writes, then run the same command again"
            )

    def _keep_a_copy(self):
        if not self.params["manifest_bucket"] or not self.manifest or not self.manifest.is_begun:
            return
        with open(self.manifest.path, "rb") as file:
            self.aws.change(
                "s3",
                "put_object",
                Bucket=self.params["manifest_bucket"],
                Key=f"s3_restore/{os.path.basename(self.manifest.path)}",
                Body=file,
            )

    def observe_end(self):
        return self._end or self.observe()

    def undo(self, before, done):
        if self.manifest is None or not (self.manifest.is_begun or self.check_mode):
            return []
        arguments = {"bucket": self.bucket, "region": self.aws.region, "undo_manifest": self.manifest.path}
        return [{"verb": "sre.runbooks.s3_restore", "arguments": arguments}]

    def returned(self):
        return {"manifest": self.manifest.path if self.manifest and self.manifest.is_begun else None}

    def view(self, observed):
        self._seen = observed
        return _view(observed["bucket"], observed["tally"])


def _view(bucket, tally):
    return {
        "bucket": bucket,
        "right": tally.right,
        "copy": tally.copy,
        "copy_bytes": tally.copy_bytes,
        "undelete": tally.unmark,
        "delete": tally.mark,
        "withdraw": tally.withdraw,
        "archived": tally.archived,
    }


def _copies(observed, wanted):
    """Who copies: the step of that name."""
    # Of a copy that KMS has encrypted nothing would tell that it is one, since a job cannot mark each.
    if not wanted["at"] or observed["tally"].copy <= wanted["batch_above"] or observed["kms_by_default"]:
        return "copy"
    if not (wanted["batch_role_arn"] and wanted["manifest_bucket"]):
        raise Refusal(
            f"{observed['tally'].copy} versions are to be copied, which is for S3 Batch Operations: say batch_role_arn and "
            f"manifest_bucket, or a higher batch_above"
        )
    return "batch"


def _refuse(observed, wanted):
    """Raises Refusal where a gate is closed."""
    tally, bucket = observed["tally"], observed["bucket"]
    mirrors = bool(wanted["backup_bucket"])
    if observed["versioning"] != "Enabled" and not (mirrors and wanted["allow_unversioned"]):
        state = "suspended" if observed["versioning"] else "off"
        otherwise = ", or say allow_unversioned=true" if mirrors else ""
        raise Refusal(
            f"versioning of {bucket} is {state}, so that what is overwritten there is lost: turn it on first "
            f"(aws s3api put-bucket-versioning){otherwise}"
        )
    if wanted["at"] and object_versions.second(wanted["at"]) > observed["now"]:
        raise Refusal(f"at={wanted['at']} lies ahead: nothing of {bucket} is known of that time yet")
    if wanted["version_id"]:
        _refuse_version(observed, wanted)
    if not (tally.right + tally.left + tally.archived) and (wanted["at"] or mirrors):
        below = wanted["key"] or wanted["prefix"]
        raise Refusal(f"nothing is, or was, below s3://{bucket}/{below}: check bucket and prefix")
    if tally.archived and wanted["archived"] == "refuse":
        raise Refusal(
            f"{tally.archived} versions are archived and need RestoreObject first ({', '.join(observed['archived'][:3])}): "
            f"ask for them (aws s3api restore-object) and run the same command again, or say archived=skip"
        )
    if observed["mfa_delete"] and tally.unmark + tally.withdraw:
        raise Refusal(f"{bucket} removes delete markers and versions only with MFA: say delete_markers=keep")
    if tally.mark * 2 > tally.there and not (wanted["accept_deletes"] or wanted["key"] or wanted["undo_manifest"]):
        raise Refusal(
            f"{tally.mark} of the {tally.there} objects that are there would get a delete marker: check at, prefix and "
            f"backup_bucket, or say accept_deletes=true"
        )


def _refuse_version(observed, wanted):
    found = [version for version in observed["versions"] if version.id == wanted["version_id"]]
    if not found:
        there = ", ".join(version.id for version in observed["versions"][:3])
        raise Refusal(
            f"{wanted['key']} has no version {wanted['version_id']} among its newest {MOST_VERSIONS_SHOWN} "
            f"({f'the newest are {there}' if there else 'it has none at all'}): check key and version_id"
        )
    if found[0].is_marker:
        raise Refusal(f"{wanted['version_id']} of {wanted['key']} is a delete marker: take another version, or say at")


def _notes(observed, wanted):
    tally, bucket = observed["tally"], observed["bucket"]
    if tally.archived:
        yield f"left: {tally.archived} versions that are archived and need RestoreObject first"
    if tally.copy + tally.mark and not wanted["undo_manifest"]:
        yield f"stop what writes to {bucket} first: what it writes meanwhile is hidden too"
    if observed["replicated"] and tally.unmark:
        yield f"{bucket} is replicated, but not the removal of delete markers: the other side goes on without these objects"
    if observed["versioning"] != "Enabled":
        yield f"accepted: {bucket} keeps no versions, so what is overwritten or deleted is gone and nothing undoes this run"
    if wanted["accept_deletes"] and tally.mark * 2 > tally.there:
        yield f"accepted: {tally.mark} of {tally.there} objects get a delete marker"


def main():
    run(verb_module(ARGUMENTS, **CONDITIONS), S3Restore)


if __name__ == "__main__":
    main()

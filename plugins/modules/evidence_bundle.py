#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: evidence_bundle
version_added: 0.2.0
short_description: Keep the evidence of an incident, with checksums, a note of custody and a bucket that lets nobody delete it
description:
  - Writes each of O(items) as a file, adds a note of who took it, when and from where, and a manifest of SHA-256 checksums that
    C(sha256sum -c) reads. With O(bucket) all of them go there too, locked for O(retention_days).
  - The same incident again adds to the same bundle. Nothing in it is ever replaced; something else under a name that is taken
    is kept beside it, as C(NAME.2).
  - Before anything is added, all that is there is checked against the newest manifest, and what the bucket has against the files;
    where they differ it stops.
  - Killed anywhere, the same task again keeps what is there and adds the rest.
  - B(Risk:) evidence is kept as it is, so the files hold whatever secrets it holds; they are for their owner only (mode 0600
    in a folder of 0700). What is locked in V(COMPLIANCE) mode nobody can delete before its time, and it is paid for as long.
options:
  incident:
    description: Name of the incident, which names the bundle; letters, digits, dots, C(-) and C(_).
    type: str
    required: true
  dest:
    description: The folder in which the bundle's folder is. Default is C(evidence) beside the records of the runs.
    type: path
  items:
    description: What to keep. An empty list checks what is there, and stores what the bucket lacks.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the file.
        type: str
        required: true
      content:
        description: Its content. Text is kept as it is, anything else is written as JSON.
        type: raw
      path:
        description: A file on the controller to copy instead.
        type: path
      source:
        description: How it was come by, for the note of custody, such as the id of a command.
        type: str
  taken_by:
    description: Who takes it. Default is the user of the controller.
    type: str
  bucket:
    description: Bucket with Object Lock to store it in too. One without it is refused.
    type: str
  bucket_region:
    description: Its region. Default is O(region).
    type: str
  prefix:
    description: What the keys of the objects begin with, before the incident.
    type: str
    default: evidence/
  retention_days:
    description: Days for which it cannot be deleted; the bucket's own default where that is longer.
    type: int
    default: 90
  lock_mode:
    description:
      - V(GOVERNANCE) leaves those with the permission C(s3:BypassGovernanceRetention) a way to delete it, V(COMPLIANCE) nobody.
      - The bucket's own default where that is stricter.
    type: str
    choices: [GOVERNANCE, COMPLIANCE]
    default: GOVERNANCE
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(sts:GetCallerIdentity), and with O(bucket) C(s3:GetBucketObjectLockConfiguration), C(s3:GetObject), C(s3:ListBucket),
    C(s3:PutObject) and C(s3:PutObjectRetention).
seealso:
  - name: Object Lock
    description: What its modes allow to whom.
    link: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html
"""

EXAMPLES = r"""
- name: Keep what was seen on the instance
  sre.runbooks.evidence_bundle:
    incident: 2026-11-21-api
    items:
      - name: processes.json
        content: {pid: 4711, command: xmrig}
        source: SSM command 2a9d7bdf-9c0a-4d0e-8a9c-5c3f5a7c2f11
    taken_by: R. Engineer
    bucket: regami-evidence
    retention_days: 365
    region: us-east-1
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
bundle:
  description: The folder of the bundle.
  returned: unless refused
  type: str
  sample: /srv/incidents/evidence/2026-11-21-api
manifest:
  description: Name of its newest manifest; null while there is none.
  returned: unless refused
  type: str
  sample: manifest-0001.sha256
manifest_sha256:
  description: SHA-256 of that, which stands for all of it; to be written down elsewhere.
  returned: unless refused
  type: str
  sample: 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
files:
  description: All of its files, with what they are now.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {name: processes.json, bytes: 40, sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
object_keys:
  description: The keys that they have in O(bucket).
  returned: unless refused
  type: list
  elements: str
  sample: [evidence/2026-11-21-api/3a6eb0790f39/processes.json]
before:
  description: How many files the bundle had, how many of them the bucket, and the newest manifest.
  returned: unless refused
  type: dict
  sample: {files: 0, stored: 0, manifest: null}
after:
  description: The same at the end; in check mode as predicted.
  returned: success
  type: dict
  sample: {files: 3, stored: 3, manifest: manifest-0001.sha256}
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: keep
      what: keep processes.json (40 bytes)
      before: null
      after: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: note who took it, and list it all in manifest.json
      instead: "evidence is kept, and Object Lock lets nobody delete it from the bucket before its time is over"
notes:
  description: Where it is, in words.
  returned: unless refused
  type: list
  elements: str
  sample: ["evidence: incidents/evidence/2026-11-21-api, manifest-0001.sha256 is 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import os
import re
import socket

from ansible_collections.sre.runbooks.plugins.module_utils import evidence, record
from ansible_collections.sre.runbooks.plugins.module_utils.aws import reason, together, tried_together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.lease import identity
from ansible_collections.sre.runbooks.plugins.module_utils.object_lock import LARGEST, MODES, Retention, Store, longer
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("s3", "sts")
ARGUMENTS = dict(
    incident=dict(type="str", required=True),
    dest=dict(type="path"),
    items=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            name=dict(type="str", required=True),
            content=dict(type="raw"),
            path=dict(type="path"),
            source=dict(type="str"),
        ),
        required_one_of=[("content", "path")],
        mutually_exclusive=[("content", "path")],
    ),
    taken_by=dict(type="str"),
    bucket=dict(type="str"),
    bucket_region=dict(type="str"),
    prefix=dict(type="str", default="evidence/"),
    retention_days=dict(type="int", default=90),
    lock_mode=dict(type="str", choices=list(MODES), default="GOVERNANCE"),
)


class EvidenceBundle(Verb):
    """Look what is there, keep what is new, seal and store it."""

    INSTEAD = "evidence is kept, and Object Lock lets nobody delete it from the bucket before its time is over"

    def __init__(self, module):
        super().__init__(module)
        wanted = self.params
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", wanted["incident"]):
            raise Refusal(f"incident {wanted['incident']!r} names no folder: letters, digits, dots, - and _ only")
        if wanted["retention_days"] < 1:
            raise Refusal(f"retention_days={wanted['retention_days']} locks nothing: one day is the least")
        self.folder = os.path.join(evidence.home(wanted["dest"]), wanted["incident"])
        self.items = [evidence.item(each) for each in wanted["items"]]
        # What was found may be secret, and an answer tells the arguments again.
        wanted["items"] = [{"name": each.name} for each in self.items]
        self.store = Store(self.aws, wanted["bucket"], wanted["bucket_region"]) if wanted["bucket"] else None
        self.sources = {each.name: each.source for each in self.items}

    def observe(self):
        bundle = evidence.look(self.folder)
        evidence.refuse_altered(bundle, self.folder)
        found = {"folder": self.folder, "bundle": bundle, "items": self.items, "stored": {}, "usual": None}
        if self.store:
            found["usual"] = self.store.usual()
            found["stored"] = self._stored(bundle)
        return found

    def _stored(self, bundle):
        """{name: SHA-256} of those of its files that the bucket has."""
        if bundle.key is None:
            return {}
        there = together(
            **{name: lambda name=name: self.store.sha256(self._key(bundle, name)) for name in bundle.files}
        )
        return {name: sha256 for name, sha256 in there.items() if sha256 is not None}

    def _key(self, bundle, name):
        return f"{self.params['prefix']}{self.params['incident']}/{bundle.key}/{name}"

    @staticmethod
    def plan(observed, wanted):
        bundle, stored = observed["bundle"], observed["stored"]
        new = evidence.unkept(bundle, observed["items"])
        if strange := [name for name, sha256 in stored.items() if sha256 != bundle.files[name].sha256]:
            raise Stop(
                f"bucket {wanted['bucket']} has something else for {', '.join(strange[:5])} than {observed['folder']}: one of them "
                f"was changed after it was taken; leave both, and take evidence under another name of the incident"
            )
        sizes = {
            **{name: each.bytes for name, each in bundle.files.items()},
            **{n: e.file.bytes for n, e in new.items()},
        }
        if wanted["bucket"] and (large := [name for name, size in sizes.items() if size > LARGEST]):
            raise Refusal(
                f"{large[0]} has more than {LARGEST >> 30} GiB: split it, or keep a disk by a snapshot of its volume"
            )
        steps = [
            Step(
                "keep", f"keep {name} ({each.file.bytes} bytes)", None, each.file.sha256, {"name": name, "found": each}
            )
            for name, each in new.items()
        ]
        count, manifest, notes = len(bundle.files), bundle.manifest and bundle.manifest.name, ()
        if steps or bundle.unsealed:
            count, before, manifest = count + len(new) + 2, manifest, f"manifest-{bundle.next_number:04}.sha256"
            steps.append(Step("seal", f"note who took it, and list it all in {manifest}", before, manifest))
        elif manifest:
            notes = (_where(observed["folder"], bundle),)
        missing, after = count - len(stored), {"files": count, "manifest": manifest}
        if wanted["bucket"]:
            after["stored"] = count
        if wanted["bucket"] and missing:
            asked = longer(Retention(wanted["lock_mode"], wanted["retention_days"]), observed["usual"])
            what = f"lock {missing} of {count} files in {wanted['bucket']} for {asked.days} days ({asked.mode})"
            steps.append(Step("lock", what, len(stored), count, {"retention": asked}))
        return Plan(tuple(steps), after, notes)

    def keep(self, name, found):
        self.sources[name] = found.source
        evidence.keep(self.folder, name, found)

    def seal(self):
        me = tried_together({"arn": lambda: self.aws.read("sts", "get_caller_identity")["Arn"]})["arn"]
        if isinstance(me, Exception):
            self.notes.append(f"the note of custody does not name the AWS principal: {reason(me)}")
            me = None
        evidence.seal(
            self.folder,
            {
                "incident": self.params["incident"],
                "taken_by": self.params["taken_by"] or identity()["holder"],
                "principal": me,
                "controller": socket.gethostname(),
                "sources": self.sources,
            },
        )
        self.notes.append(_where(self.folder, evidence.look(self.folder)))

    def lock(self, retention):
        bundle = evidence.look(self.folder)
        stored = self._stored(bundle)
        # The manifest comes last: where it is, all that it lists is.
        for name in sorted(bundle.files.keys() - stored.keys(), key=lambda name: (name.startswith("manifest-"), name)):
            self.keep_lease()
            with open(os.path.join(self.folder, name), "rb") as file:
                self.store.put(self._key(bundle, name), file.read(), bundle.files[name].sha256, retention)

    def view(self, observed):
        bundle = observed["bundle"]
        return {
            "files": len(bundle.files),
            "stored": len(observed["stored"]),
            "manifest": bundle.manifest and bundle.manifest.name,
        }

    def returned(self):
        bundle = evidence.look(self.folder)
        manifest = bundle.manifest
        return {
            "bundle": self.folder,
            "manifest": manifest and manifest.name,
            "manifest_sha256": manifest and manifest.sha256,
            "files": [each.told() for _name, each in sorted(bundle.files.items())],
            "object_keys": [self._key(bundle, name) for name in sorted(bundle.files)]
            if self.store and bundle.key
            else [],
        }


def _where(folder, bundle):
    return f"evidence: {record.shown(folder)}, {bundle.manifest.name} is {bundle.manifest.sha256}"


def main():
    run(verb_module(ARGUMENTS), EvidenceBundle)


if __name__ == "__main__":
    main()

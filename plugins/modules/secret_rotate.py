#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_rotate
version_added: 0.3.0
short_description: Give a secret of AWS Secrets Manager a new version, then retire the old one
description:
  - Puts a new version with the values in O(values) and makes it the current one; the former one stays as the previous version
    until O(state=retired), which takes its last label away, so that nobody is given it any more and AWS deletes it.
  - The version has an id that follows from O(rotation). A run that was killed finds its own version again and generates nothing
    twice, and the same task later changes nothing.
  - Tasks of ECS read a secret when they start; M(sre.runbooks.ecs_restart) replaces them.
  - B(Risk:) whoever reads the secret from now on gets the new value. Let what checks it know it first, with O(state=staged).
options:
  secret:
    description: Name or ARN of the secret.
    type: str
    required: true
  rotation:
    description: Name of this rotation, the same for all of its steps, such as that of the incident.
    type: str
    required: true
  state:
    description:
      - V(staged) puts the new version, labelled C(AWSPENDING), and nobody uses it yet. V(current) makes it the current one.
      - V(former) makes the previous version the current one again.
      - V(retired) takes the label C(AWSPREVIOUS) away.
    type: str
    choices: [staged, current, former, retired]
    default: current
extends_documentation_fragment:
  - sre.runbooks.new_values
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - A secret that Secrets Manager rotates by itself is rotated by the function that it names; a rotation of it under way is refused.
seealso:
  - module: sre.runbooks.k8s_secret_rotate
  - name: Labels of versions
    description: User guide of Secrets Manager.
    link: https://docs.aws.amazon.com/secretsmanager/latest/userguide/whats-in-a-secret.html
"""

EXAMPLES = r"""
- name: A new version that tasks get when they start
  sre.runbooks.secret_rotate:
    secret: regami/database-password
    rotation: breach-2026-03-01
    values:
      - length: 40
    region: us-east-1
    lease: "{{ lock.lease }}"
"""

RETURN = r"""
before:
  description: The labels of the versions as found, by version; C(new) is the one of this rotation.
  returned: unless refused
  type: dict
  sample: {new: [], others: {0f4e2b5c-5f0e-4bb4-9f0a-b7d0f4f0c111: [AWSCURRENT]}}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {new: [AWSCURRENT], others: {0f4e2b5c-5f0e-4bb4-9f0a-b7d0f4f0c111: [AWSPREVIOUS]}}
version:
  description: Id of the version of this rotation.
  returned: unless refused
  type: str
  sample: 6f0c1a1e-3b6f-5c57-8f0e-2f0a7a1c9d10
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: put, what: put a new version of regami/database-password, before: null, after: AWSPENDING}
    - {do: label, what: make it the current one, before: null, after: AWSCURRENT}
undo:
  description: The same verb with O(state=former), where a version became the current one; that nothing does, where the former was retired.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.secret_rotate
      arguments: {secret: regami/database-password, rotation: breach-2026-03-01, state: former, region: us-east-1}
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import json
import uuid

from ansible_collections.sre.runbooks.plugins.module_utils import new_values
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("secretsmanager", "dynamodb")
ARGUMENTS = dict(
    secret=dict(type="str", required=True, no_log=False),
    rotation=dict(type="str", required=True),
    state=dict(type="str", choices=["staged", "current", "former", "retired"], default="current"),
    values=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(key=dict(type="str", no_log=False), **new_values.VALUE_OPTIONS),
        **new_values.CONDITIONS,
    ),
)
CURRENT = "AWSCURRENT"
PREVIOUS = "AWSPREVIOUS"
PENDING = "AWSPENDING"


class SecretRotate(Verb):
    """A version, and who has which label."""

    def __init__(self, module):
        super().__init__(module)
        self.id, self.value, self.version = self.params["secret"], None, None

    def observe(self):
        try:
            found = self.aws.read("secretsmanager", "describe_secret", SecretId=self.id)
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                raise Refusal(f"there is no secret {self.id} in {self.aws.region}: check secret") from error
            raise
        self.version = version_of(found["ARN"], self.params["rotation"])
        versions = {name: sorted(labels) for name, labels in found.get("VersionIdsToStages", {}).items()}
        if self.params["state"] in ("staged", "current") and not versions.get(self.version) and self.value is None:
            self.value = self._made() if self.params["values"] else None
        return {
            "name": found["Name"],
            "deleted": found.get("DeletedDate"),
            "versions": versions,
            "version": self.version,
        }

    def _made(self):
        """The new value; here, so that one that cannot be had refuses before anything is changed."""
        former = self.aws.read("secretsmanager", "get_secret_value", SecretId=self.id, VersionStage=CURRENT)
        return new_text(former.get("SecretString"), self.params["values"])

    @staticmethod
    def plan(observed, wanted):
        if observed["deleted"]:
            raise Refusal(
                f"the secret {observed['name']} is to be deleted: restore it first (aws secretsmanager restore-secret)"
            )
        return {"former": _former, "retired": _retired}.get(wanted["state"], _forward)(observed, wanted)

    # The steps, named as in the plan.

    def put(self):
        self.aws.change(
            "secretsmanager",
            "put_secret_value",
            SecretId=self.id,
            ClientRequestToken=self.version,
            SecretString=self.value,
            VersionStages=[PENDING],
        )

    def label(self, label, target, source):
        """AWS moves AWSPREVIOUS by itself when AWSCURRENT moves."""
        ends = {"MoveToVersionId": target, "RemoveFromVersionId": source}
        ends = {key: value for key, value in ends.items() if value}
        self.aws.change("secretsmanager", "update_secret_version_stage", SecretId=self.id, VersionStage=label, **ends)

    def undo(self, before, done):
        if self.params["state"] == "retired":
            cannot = f"the former version of {self.id} was retired, so there is none to go back to"
            return [{"cannot": cannot, "instead": "rotate it anew, under another name"}]
        if self.params["state"] != "current" or not any(step["after"] == CURRENT for step in done):
            return []
        names = {name: self.params[name] for name in ("secret", "rotation")}
        return [
            {"verb": "sre.runbooks.secret_rotate", "arguments": dict(names, state="former", region=self.aws.region)}
        ]

    def returned(self):
        return {"version": self.version}

    def view(self, observed):
        return _view(observed["versions"], observed["version"])


def version_of(arn, rotation):
    """The id of the version that this rotation makes; a request token of AWS has 32 to 64 characters."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{arn}#{rotation}"))


def new_text(former, values):
    """What the secret is to be: one value for all of it, or fields of its JSON.

    Raises:
        Refusal: the values do not fit what it is.
    """
    keys = [given.get("key") for given in values]
    if keys == [None]:
        return new_values.make(values[0], former)
    if None in keys:
        raise Refusal(
            "one of the values is for the whole secret, so there can be no other: give each a key, or give one value"
        )
    try:
        fields = json.loads(former or "")
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise Refusal(f"the secret is no JSON with fields {', '.join(keys)}: leave key out to replace all of it")
    return json.dumps(
        {**fields, **{given["key"]: new_values.make(given, fields.get(given["key"])) for given in values}}
    )


def _view(versions, version):
    return {
        "new": versions.get(version, []),
        "others": {name: labels for name, labels in versions.items() if name != version},
    }


def _at(versions, label):
    return next((name for name, labels in versions.items() if label in labels), None)


def _forward(observed, wanted):
    """Pure: what is left until the version of this rotation is staged, or the current one."""
    name, versions, version = observed["name"], observed["versions"], observed["version"]
    labels, current, pending = versions.get(version, []), _at(versions, CURRENT), _at(versions, PENDING)
    if pending not in (None, version, current):
        raise Refusal(
            f"the secret {name} is being rotated already (version {pending} is AWSPENDING): let that end, or take its label away "
            f"(aws secretsmanager update-secret-version-stage)"
        )
    if PREVIOUS in labels:
        raise Refusal(f"rotation {wanted['rotation']} of {name} was taken back: give another name as rotation")
    unstage = _label(f"end the staging of {name}", PENDING, None, version)
    if CURRENT in labels:
        after = dict(versions, **{version: [label for label in labels if label != PENDING]})
        return Plan((unstage,), _view(after, version)) if PENDING in labels else Plan()
    steps, after = [], {name: list(labels) for name, labels in versions.items()}
    if not labels:
        if not wanted["values"]:
            raise Refusal(f"there is no new value for {name}: give values")
        steps.append(Step("put", f"put a new version of {name}", None, PENDING))
        after[version] = [PENDING]
    if wanted["state"] == "current":
        steps += [
            _label(f"make the new version of {name} the current one", CURRENT, version, current),
            unstage,
        ]
        after = _swapped(after, version, current)
    return Plan(tuple(steps), _view(after, version))


def _swapped(versions, target, source):
    """Pure: the labels once AWSCURRENT has gone from `source` to `target`."""
    moving = (CURRENT, PREVIOUS, PENDING)
    after = {name: [label for label in labels if label not in moving] for name, labels in versions.items()}
    after[target] = sorted([*after.get(target, []), CURRENT])
    after[source] = sorted([*after.get(source, []), PREVIOUS])
    return {name: labels for name, labels in after.items() if labels}


def _former(observed, wanted):
    name, versions, version = observed["name"], observed["versions"], observed["version"]
    current, previous = _at(versions, CURRENT), _at(versions, PREVIOUS)
    if current != version:
        return Plan(notes=(f"the version of rotation {wanted['rotation']} is not the current one of {name}",))
    if previous is None:
        raise Refusal(f"the former version of {name} was retired, so there is none to go back to: rotate it anew")
    step = _label(f"make the former version of {name} the current one", CURRENT, previous, version)
    return Plan((step,), _view(_swapped(versions, previous, version), version))


def _retired(observed, wanted):
    name, versions, version = observed["name"], observed["versions"], observed["version"]
    if _at(versions, CURRENT) != version:
        raise Refusal(
            f"the version of rotation {wanted['rotation']} is not the current one of {name}: state=current comes first"
        )
    previous = _at(versions, PREVIOUS)
    if previous is None:
        return Plan()
    left = {name: [label for label in labels if label != PREVIOUS] for name, labels in versions.items()}
    step = _label(f"give nobody the former version of {name} any more", PREVIOUS, None, previous)
    return Plan((step,), _view({name: labels for name, labels in left.items() if labels}, version))


def _label(what, label, target, source):
    return Step("label", what, source, label if target else None, {"label": label, "target": target, "source": source})


def main():
    run(verb_module(ARGUMENTS), SecretRotate)


if __name__ == "__main__":
    main()

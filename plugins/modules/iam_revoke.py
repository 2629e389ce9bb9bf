#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: iam_revoke
version_added: 0.3.0
short_description: Take the sessions and keys of a role or user away, and give them back
description:
  - Denies everything to sessions of the principal that were issued before now, by an inline policy on C(aws:TokenIssueTime), as
    the IAM console does. Sessions issued later work, so that a service whose tasks are replaced goes on.
  - Access keys of a user are set inactive, not deleted. Which of them were active is kept in a tag of the user, so that any
    controller can give back exactly these.
  - A console password is told in a note; a new sign-in with it is not denied.
  - The role or user that runs this is refused, since it could not give back anything afterwards.
  - Giving back ends the denial, so a stolen session that is not over yet would work again. It is refused until none can be left
    of those that were denied, which takes as long as the longest session of the role, or 36 hours for a user.
  - B(Risk:) whatever runs with an older session or with a key of the principal stops working at once. Tasks and instances get
    new sessions by themselves only when theirs end; replace them.
options:
  principal:
    description:
      - ARN of the role or user, C(role/NAME) or C(user/NAME). The ARN of a session, as CloudTrail tells it, means its role.
    type: str
    required: true
  state:
    description: V(revoked) takes away, V(restored) gives back what this verb took.
    type: str
    choices: [revoked, restored]
    default: revoked
  renew:
    description: Deny sessions again that were issued since an earlier revocation, for O(state=revoked).
    type: bool
    default: false
  accept_live_sessions:
    description: Give back although denied sessions may not be over yet, for O(state=restored).
    type: bool
    default: false
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - IAM takes some seconds to tell every region of it.
  - Roles of services and of IAM Identity Center cannot be changed by anybody, and are refused with what to do instead.
seealso:
  - name: Revoke IAM role temporary security credentials
    description: What the policy does, in the user guide of IAM.
    link: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html
"""

EXAMPLES = r"""
- name: No former session of the tasks' role does anything any more
  sre.runbooks.iam_revoke:
    principal: arn:aws:sts::123456789012:assumed-role/regami-batch/6c1f8a7e
    region: us-east-1
    lease: "{{ lock.lease }}"

- name: Give a user its keys back
  sre.runbooks.iam_revoke:
    principal: user/deploy
    state: restored
    accept_live_sessions: true
    region: us-east-1
"""

RETURN = r"""
before:
  description:
    - The principal as found. C(denied_before) is the time before which sessions are denied, null where none are; C(keys) has the
      access keys of a user with their status.
  returned: unless refused
  type: dict
  sample: {denied_before: null, keys: {AKIAIOSFODNN7EXAMPLE: Active}, console_password: false}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {denied_before: "2026-03-01T08:02:11Z", keys: {AKIAIOSFODNN7EXAMPLE: Inactive}, console_password: false}
steps:
  description: What was done, or in check mode would be.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: deny
      what: deny everything to sessions of user deploy issued before 2026-03-01T08:02:11Z
      before: null
      after: "2026-03-01T08:02:11Z"
    - {do: turn, what: set key AKIAIOSFODNN7EXAMPLE of deploy Inactive, before: Active, after: Inactive}
undo:
  description: The same verb with O(state=restored); for a restoration what to do instead, since that gives access away.
  returned: unless refused
  type: list
  elements: dict
  sample: [{verb: sre.runbooks.iam_revoke, arguments: {principal: user/deploy, state: restored, region: us-east-1}}]
notes:
  description: What a person must know.
  returned: unless refused
  type: list
  elements: str
  sample: ["user deploy has a console password, with which it can sign in anew: aws iam delete-login-profile --user-name deploy"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import email.utils
import json
from datetime import UTC, datetime, timedelta

from ansible_collections.sre.runbooks.plugins.module_utils import principals
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("iam", "sts", "dynamodb")
ARGUMENTS = dict(
    principal=dict(type="str", required=True),
    state=dict(type="str", choices=["revoked", "restored"], default="revoked"),
    renew=dict(type="bool", default=False),
    accept_live_sessions=dict(type="bool", default=False),
)

# The inline policy, and the tag that has the ids of the keys that were active.
POLICY = "sre.runbooks-revoked-sessions"
MARK = "sre.runbooks/revoked-keys"
ACTIVE = "Active"
INACTIVE = "Inactive"
# What GetSessionToken gives a user at most, in seconds.
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetSessionToken.html
LONGEST_OF_USER = 36 * 3600


class IamRevoke(Verb):
    """A deny for what was issued before, and keys that are inactive."""

    # Of a restoration, which gives access away.
    INSTEAD = "playbooks/security_breach.yml -e steps=revoke -e principal=ARN takes it away again"

    def __init__(self, module):
        super().__init__(module)
        self.principal = principals.parse(self.params["principal"])
        self.kind = self.principal.kind
        self.named = {f"{self.kind.title()}Name": self.principal.name}
        self.moment = None  # as AWS has it, at the first look

    def observe(self):
        looks = {"caller": self._caller, "principal": self._principal, "policy": self._policy}
        if self.kind == "user":
            looks |= {"keys": self._keys, "profile": lambda: self._there("get_login_profile", **self.named)}
        seen = together(**looks)
        return dict({"keys": {}, "profile": None}, **seen, moment=self.moment)

    def _caller(self):
        """Who we are; the clock of AWS comes with the answer, and may be ahead of ours."""
        answer = self.aws.read("sts", "get_caller_identity")
        told = email.utils.parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        if self.moment is None:
            self.moment = told.astimezone(UTC) + timedelta(seconds=1)  # what is issued in this second, too
        return answer

    def _principal(self):
        found = self._there(f"get_{self.kind}", **self.named)
        return found and found[self.kind.title()]

    def _policy(self):
        found = self._there(f"get_{self.kind}_policy", PolicyName=POLICY, **self.named)
        return found and found["PolicyDocument"]

    def _keys(self):
        found = self._there("list_access_keys", **self.named) or {"AccessKeyMetadata": []}
        return {each["AccessKeyId"]: each["Status"] for each in found["AccessKeyMetadata"]}

    def _there(self, operation, **arguments):
        try:
            return self.aws.read("iam", operation, **arguments)
        except Exception as error:
            if code_of(error) == "NoSuchEntity":
                return None
            raise

    @staticmethod
    def plan(observed, wanted):
        principal = principals.parse(wanted["principal"])
        _gate(principal, observed)
        if wanted["state"] == "restored":
            return _restored(principal, observed, wanted)
        return _revoked(principal, observed, wanted)

    # The steps, named as in the plan.

    def keep(self, ids):
        self.aws.change("iam", "tag_user", **self.named, Tags=[{"Key": MARK, "Value": " ".join(ids)}])

    def forget(self):
        self.aws.change("iam", "untag_user", **self.named, TagKeys=[MARK])

    def deny(self, moment):
        policy = json.dumps(document(moment))
        self.aws.change("iam", f"put_{self.kind}_policy", **self.named, PolicyName=POLICY, PolicyDocument=policy)

    def allow(self):
        self.aws.change("iam", f"delete_{self.kind}_policy", **self.named, PolicyName=POLICY)

    def turn(self, key, status):
        self.aws.change("iam", "update_access_key", **self.named, AccessKeyId=key, Status=status)

    def undo(self, before, done):
        if self.params["state"] == "restored":
            return super().undo(before, done)
        arguments = {"principal": self.principal.plain, "state": "restored", "region": self.aws.region}
        return [{"verb": "sre.runbooks.iam_revoke", "arguments": arguments}]

    def view(self, observed):
        return {
            "denied_before": denied_before(observed["policy"]),
            "keys": observed["keys"],
            "console_password": observed["profile"] is not None,
        }


def document(moment):
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html"""
    issued = {"DateLessThan": {"aws:TokenIssueTime": moment}}
    statement = {"Effect": "Deny", "Action": ["*"], "Resource": ["*"], "Condition": issued}
    return {"Version": "2012-10-17", "Statement": [statement]}


def denied_before(policy):
    return policy and policy["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"]


def _gate(principal, observed):
    found, caller = observed["principal"], observed["caller"]
    if principal.account and principal.account != caller["Account"]:
        raise Refusal(f"{principal} is of account {principal.account}, and this run is in {caller['Account']}")
    if found is None:
        raise Refusal(f"there is no {principal} in account {caller['Account']}: check principal")
    if principal.kind == "role" and found["Path"].startswith("/aws-service-role/"):
        raise Refusal(f"{principal} is a service-linked role, which only its service changes: revoke what uses it")
    if principal.kind == "role" and found["Path"].startswith("/aws-reserved/"):
        raise Refusal(
            f"{principal} belongs to IAM Identity Center, which alone may change it: disable the user's access there, and attach "
            f"a denial to the permission set"
        )
    if principals.same(caller["Arn"], principal):
        raise Refusal(
            f"{principal} is who runs this ({caller['Arn']}): it would shut itself out: use another profile (AWS_PROFILE)"
        )


def _kept(observed):
    tags = {tag["Key"]: tag["Value"] for tag in observed["principal"].get("Tags", [])}
    return tags[MARK].split() if MARK in tags else None


def _revoked(principal, observed, wanted):
    """Pure: what is left to take away."""
    active = sorted(key for key, status in observed["keys"].items() if status == ACTIVE)
    kept, since = _kept(observed), denied_before(observed["policy"])
    moment = observed["moment"].strftime("%Y-%m-%dT%H:%M:%SZ")
    steps, notes = [], []
    ids = sorted({*(kept or ()), *active})
    if active and ids != kept:
        what = f"write down on {principal.name} which keys were active"
        steps.append(Step("keep", what, kept, ids, {"ids": ids}))
    if since is None or wanted["renew"]:
        what = f"deny everything to sessions of {principal} issued before {moment}"
        steps.append(Step("deny", what, since, moment, {"moment": moment}))
    else:
        notes.append(
            f"sessions of {principal} are denied that were issued before {since}; renew=true denies later ones"
        )
    steps += [_turn(principal, key, ACTIVE, INACTIVE) for key in active]
    if observed["profile"] is not None:
        notes.append(
            f"{principal} has a console password, with which it can sign in anew: aws iam delete-login-profile --user-name "
            f"{principal.name}"
        )
    if steps:
        notes.append(f"what runs as {principal} has to be replaced, to get sessions that are not denied")
    keys = dict.fromkeys(observed["keys"], INACTIVE)
    after = {"denied_before": moment if since is None or wanted["renew"] else since, "keys": keys}
    return Plan(tuple(steps), after, tuple(notes))


def _restored(principal, observed, wanted):
    """Pure: what is left to give back."""
    kept, since = _kept(observed), denied_before(observed["policy"])
    steps, notes = [], []
    if since is None and kept is None:
        return Plan(notes=(f"nothing was taken from {principal}: there is nothing to give back",))
    if since is not None:
        longest = observed["principal"].get("MaxSessionDuration", LONGEST_OF_USER)
        over = datetime.fromisoformat(since.replace("Z", "+00:00")) + timedelta(seconds=longest)
        if observed["moment"] < over:
            left = f"sessions of {principal} issued before {since} may last until {over:%Y-%m-%dT%H:%M:%SZ}"
            if not wanted["accept_live_sessions"]:
                raise Refusal(f"{left}, and a stolen one would work again: wait, or say accept_live_sessions=true")
            notes.append(f"override accept_live_sessions: {left}")
    back = [key for key in kept or () if observed["keys"].get(key) == INACTIVE]
    steps += [_turn(principal, key, INACTIVE, ACTIVE) for key in back]
    if since is not None:
        steps.append(Step("allow", f"deny nothing to sessions of {principal} any more", since, None))
    if kept is not None:
        steps.append(Step("forget", f"forget which keys {principal.name} had active", kept, None))
    return Plan(
        tuple(steps),
        {"denied_before": None, "keys": dict(observed["keys"], **dict.fromkeys(back, ACTIVE))},
        tuple(notes),
    )


def _turn(principal, key, before, after):
    what = f"set key {key} of {principal.name} {after}"
    return Step("turn", what, before, after, {"key": key, "status": after})


def main():
    run(verb_module(ARGUMENTS), IamRevoke)


if __name__ == "__main__":
    main()

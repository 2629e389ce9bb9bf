# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a whole bucket needs to be what it was, found in one pass with little memory, and done in many small calls."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
import time

from . import object_versions, waiting
from .aws import attempt, code_of, explain, is_denied, is_unknown, reason, together
from .congestion import Window, carry_out
from .errors import Stop
from .object_copy import Archived, is_archived, is_marked
from .object_versions import Action, Tally

# Keys that one DeleteObjects takes. https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
MOST_DELETED = 1000
# So many doubtful objects are looked at together.
DOUBTFUL = 500
# So many names stand in an answer.
NAMED = 20
# After so many objects that could not be changed something is wrong with more than these.
MOST_FAILURES = 100
# What S3 says of a key of DeleteObjects that may be sent again.
_PASSING = ("SlowDown", "InternalError", "ServiceUnavailable")
_PASSING_TRIES = 5


class Progress:
    """Tells who is watching how far it is."""

    def __init__(self, what, total=None):
        self._what, self._of, self._count, self._said = what, f" of {total}" if total else "", 0, time.monotonic()

    def step(self, by=1):
        self._count += by
        if time.monotonic() - self._said >= waiting.SAY_EVERY:
            self._said = time.monotonic()
            waiting.say(f"{self._what}: {self._count}{self._of}")


class Survey:
    """What each object needs: counted in `tally`, and kept on disk in the order in which it was found."""

    def __init__(self):
        self.tally, self.archived_keys = Tally(), []
        self._spool = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 it goes with this object

    def add(self, action, is_there=True):
        self.tally.count(action, is_there)
        if action is None:
            return
        if action.is_archived:
            if len(self.archived_keys) < NAMED:
                self.archived_keys.append(action.key)
            return
        self._spool.write(json.dumps(action.packed()) + "\n")

    def actions(self, do):
        """Yields those of one kind."""
        self._spool.seek(0)
        begin = f'["{do}"'
        for line in self._spool:
            if line.startswith(begin):
                yield Action.unpacked(json.loads(line))

    def storage_classes(self):
        """Of all that is to be copied."""
        return sorted({action.wanted.storage_class for action in self.actions("copy")})


def survey(decisions, look, tick, look_always=False):
    """The Survey of a stream of (Action or None, whether an object is there).

    Args:
        look: function(action, lost) -> the action, None where the object is right after all, as only a closer look shows.
        look_always: whether every action needs that.
        tick: called now and then, for who keeps a lease.
    """
    found, doubtful = Survey(), []
    progress = Progress("objects looked at")

    def settle():
        for action, seen in carry_out(look, doubtful, tick=tick):
            if isinstance(seen, Exception):
                raise seen if isinstance(seen, Stop) else Stop(f"{action.key}: {reason(seen)}")
            found.add(seen)
        doubtful.clear()

    for action, is_there in decisions:
        progress.step()
        if action is not None and (look_always or action.is_doubtful or action.is_archived):
            doubtful.append(action)
            if len(doubtful) == DOUBTFUL:
                settle()
        else:
            found.add(action, is_there)
    settle()
    return found


def closer_look(aws, bucket, source):
    """The `look` of a survey. `source`: function(action) -> (region, arguments that name the version to copy)."""

    def look(action, _lost):
        if action.is_doubtful:
            head = _head(aws, None, Bucket=bucket, Key=action.key)
            if head and is_marked(head, action.wanted):
                return None
        if action.is_archived:
            region, named = source(action)
            head = _head(aws, region, **named)
            if head and not is_archived(head):
                return action.readable()
        return action

    return look


def _head(aws, region, **named):
    """HeadObject, or None where there is nothing (more)."""
    try:
        return aws.once("s3", "head_object", region=region, **named)
    except Exception as error:
        if code_of(error) in ("404", "405"):
            return None
        raise


def still_to_undo(aws, bucket, action, _lost):
    """The `look` of an undo: what a manifest's line is about may be undone already, or lie below what somebody wrote since."""
    if action.do != "mark" and not action.markers:
        return _under_way(aws, bucket, action)
    if action.do == "mark":
        head = _head(aws, None, Bucket=bucket, Key=action.key)
        return action if head and head.get("VersionId") == action.top.id else None
    try:
        aws.once("s3", "head_object", Bucket=bucket, Key=action.key, VersionId=action.markers[0])
    except Exception as error:
        if code_of(error) == "404":
            return None
        if code_of(error) != "405":  # a delete marker has nothing to tell but that it is one
            raise
    return action


def _under_way(aws, bucket, action):
    """The action with the version that a killed run has made, or None. A run copies over what is another, and deletes what is there:
    a newest version that is the wanted one again, or a marker, is its own."""
    newest = object_versions.newest(aws, bucket, action.key)
    if newest is None or newest.is_marker != (action.do == "unmark"):
        return None
    is_ours = action.do == "unmark" or newest.etag == action.wanted.etag
    is_ours = is_ours or is_marked(_head(aws, None, Bucket=bucket, Key=action.key) or {}, action.wanted)
    return dataclasses.replace(action, markers=(newest.id,)) if is_ours else None


class Doing:
    """Carries the actions of a survey out, and writes down what was done.

    Args:
        tick: keeps the lease.
        manifest: takes what was done; None where it is an undo.

    Attributes:
        has_changed: whether anything was done.
    """

    def __init__(self, aws, bucket, manifest, tick):
        self._aws, self._bucket, self._manifest, self._tick = aws, bucket, manifest, tick
        self._window = Window()
        self.archived_keys = []
        self._failures, self._failed, self._first = {}, 0, None
        self.has_changed = False

    def copy(self, copier, actions, total):
        progress = Progress("objects copied", total)
        begun = self._told(
            self._until_hopeless(actions), lambda action: self._manifest.will_copy(action.key, action.wanted)
        )
        for action, version in carry_out(copier, begun, self._window, self._tick):
            progress.step()
            if isinstance(version, Archived):
                self.archived_keys.append(action.key)
                continue
            if isinstance(version, Exception):
                self._note(action.key, version)
                continue
            self.has_changed = True
            if self._manifest and version:
                self._manifest.add("copied", action.key, version)
        self._end("copied")

    def delete(self, actions, total, did=None):
        """By version where an action names versions, else by a new delete marker. `did`: what the manifest says of it."""
        progress = Progress("objects changed", total)
        each_version = (
            (action, version) for action in self._until_hopeless(actions) for version in action.markers or (None,)
        )
        will = {"unmarked": self._will_unmark, "marked": self._will_mark}.get(did)
        batches = iter(lambda: tuple(itertools.islice(self._told(each_version, will), MOST_DELETED)), ())
        for batch, answer in carry_out(self._delete, batches, self._window, self._tick):
            progress.step(len(batch))
            if isinstance(answer, Exception):
                for action, _version in batch[:1]:
                    self._note(action.key, answer, len(batch))
                continue
            done, refused = answer
            for key, why in refused:
                self._note(key, Stop(why))
            self.has_changed = self.has_changed or bool(done)
            for action, version in done:
                if self._manifest and did == "marked":
                    self._manifest.add(did, action.key, version)
        self._end("changed")

    def _told(self, items, will):
        """`items`, of each of which the manifest knows before anything is done with it."""
        for item in items:
            if self._manifest:
                will(item)
            yield item

    def _will_unmark(self, item):
        action, marker = item
        self._manifest.will_unmark(action.key, marker, action.wanted.id)

    def _will_mark(self, item):
        self._manifest.will_mark(item[0].key)

    def _delete(self, batch, lost):
        """([(action, version id, of the marker where one was made)], [(key, why not)]) of one DeleteObjects."""
        done, left, refused = [], list(batch), []
        if lost and batch[0][1] is None:
            left = []
            for action, _none in batch:
                marker = self._marker_over(action)
                (done if marker else left).append((action, marker))
        for again in range(_PASSING_TRIES + 1):
            if not left:
                break
            time.sleep(0.3 * again)
            objects = [{"Key": action.key} | ({"VersionId": version} if version else {}) for action, version in left]
            answer = self._aws.once("s3", "delete_objects", Bucket=self._bucket, Delete={"Objects": objects})
            errors = {(each["Key"], each.get("VersionId")): each for each in answer.get("Errors", [])}
            made = {each["Key"]: each.get("DeleteMarkerVersionId") for each in answer.get("Deleted", [])}
            passing = []
            for action, version in left:
                error = errors.get((action.key, version)) or errors.get((action.key, None))
                if error is None:
                    done.append((action, version or made.get(action.key)))
                elif error["Code"] in _PASSING and again < _PASSING_TRIES:
                    passing.append((action, version))
                else:
                    refused.append((action.key, f"{error['Code']}: {error.get('Message', '')}"))
            left = passing
        return done, refused

    def _marker_over(self, action):
        """Id of the delete marker that a call whose answer was lost has put there, or None."""
        newest = object_versions.newest(self._aws, self._bucket, action.key)
        return newest.id if newest and newest.is_marker else None

    def _until_hopeless(self, actions):
        for action in actions:
            if self._failed >= MOST_FAILURES:
                return
            yield action

    def _note(self, key, error, count=1):
        if is_unknown(error):
            self._failed = MOST_FAILURES
        self._first = self._first or error
        self._failed += count
        if sum(map(len, self._failures.values())) < NAMED:
            self._failures.setdefault(explain(error) if code_of(error) else str(error), []).append(key)

    def _end(self, what):
        if not self._failed:
            return
        told = "; ".join(f"{', '.join(keys[:3])}: {why}" for why, keys in list(self._failures.items())[:3])
        failures = [f"{key}: {why}" for why, keys in self._failures.items() for key in keys]
        raise Stop(f"{self._failed} objects could not be {what}: {told}", failures=failures) from self._first


def bucket_facts(aws, bucket):
    """{versioning, mfa_delete, kms_by_default, replicated} of a bucket."""

    def tried(operation):
        """What it says, {} where nothing of the kind is configured, None where it cannot be read."""
        found = attempt(lambda: aws.read("s3", operation, Bucket=bucket), Exception)
        if not isinstance(found, Exception):
            return found
        if is_denied(found):
            aws.do_without(found)
        return {} if "NotFound" in code_of(found) else None

    seen = together(
        versioning=lambda: aws.read("s3", "get_bucket_versioning", Bucket=bucket),
        encryption=lambda: tried("get_bucket_encryption"),
        replication=lambda: tried("get_bucket_replication"),
    )
    encryption = seen["encryption"]
    rules = [] if encryption is None else encryption.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    return {
        "versioning": seen["versioning"].get("Status"),
        "mfa_delete": seen["versioning"].get("MFADelete") == "Enabled",
        # Where it cannot be read the careful answer is yes: a copy is then marked as one.
        "kms_by_default": encryption is None
        or any(
            rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm", "AES256") != "AES256"
            for rule in rules
        ),
        "replicated": bool(seen["replication"]),
    }

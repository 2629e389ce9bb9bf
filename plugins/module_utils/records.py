# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records that a run may know of: those of its controller, and those of the bucket where the team has one."""

from __future__ import annotations

import os
import time
from dataclasses import replace

try:
    from botocore import exceptions as boto_errors
except ImportError:
    pass

from . import decisions, incidents, record, record_mirror
from .aws import Aws
from .errors import Overtaken, Refusal, Stop
from .record_bucket import Bucket, own_name, run_key, why

# Seconds for which one looks again where others always decide first.
PATIENCE = 30
ARGUMENTS = dict(
    records=dict(type="path"),
    record_bucket=dict(type="str"),
    record_bucket_region=dict(type="str"),
)


class Records:
    """Records, as a verb meets them.

    Args:
        wanted: options of the verb, ARGUMENTS among them, and `environment_name` of one that decides something.
        connection: (region, endpoint_url, boto_params) of `get_aws_connection_info`.
    """

    def __init__(self, wanted, connection):
        self.own = os.environ.get(record.FOLDER_VARIABLE)
        self.folder = wanted["records"] or (os.path.dirname(self.own) if self.own else None)
        self._name, self._region = wanted["record_bucket"], wanted["record_bucket_region"] or connection[0]
        self._connection = connection
        self._env, self._decisions = wanted.get("environment_name"), None
        self._decided, self._may_decide, self._connected = [], False, None

    def required_folder(self):
        """The folder of all records. Raises Refusal where there is none."""
        if not self.folder:
            raise Refusal(
                "nothing says where the records are: enable the callback sre.runbooks.incident (ansible.cfg of the clone does), "
                "or name records"
            )
        return self.folder

    def bucket(self):
        """The Bucket, with connections of its own; None where the team has none."""
        return Bucket(Aws(self._connection), self._name, self._region) if self._name else None

    def known(self):
        """({ID: Incident} of all that may be joined, notes for people): a bucket that cannot be read is told, and stops nobody."""
        found = incidents.known(incidents.recent(self.folder, time.time())) if self.folder else {}
        decided, notes = self.decided()
        if notes:
            return found, notes
        elsewhere, notes = self.elsewhere(lambda bucket: bucket.known(decided))
        elsewhere = elsewhere or {}
        same = {each: incidents.both(elsewhere[each], found[each]) for each in found.keys() & elsewhere.keys()}
        return {**elsewhere, **found, **same}, notes

    def decided(self):
        """(what controllers have decided of the environment in the bucket, the first first; notes for people).

        Each event has its run as `record`, of a run of this controller by the name that it has here. What is planned from now on is
        planned by this look, until the next one.
        """
        found, notes = self.elsewhere(self._read_decisions)
        self._decided, self._may_decide = found or [], found is not None
        return self._decided, notes

    def _read_decisions(self, bucket):
        self._decisions = self._decisions or decisions.Decisions(bucket, self._env)
        found = self._decisions.read(time.time() - 86400 * incidents.STALE_AFTER)
        names = {key: own_name(key) if self._is_own(key) else key for key in {event["record"] for event in found}}
        return [dict(event, record=names[event["record"]]) for event in found]

    def noted(self, plan, look):
        """The Plan in force whose `entries` may be written: `plan`, made by what `decided` has read, or, where another controller has
        decided something since, the one that `look()` makes then. A bucket that does not take it is told, and stops nobody.

        Raises what `look` does.
        """
        until = time.monotonic() + PATIENCE
        while plan.returned["entries"] and self._may_decide and self.own:
            entries, notes = self._decisions.stamped(plan.returned["entries"]), ()
            try:
                self._decisions.add(entries, self._own_key())
            except Overtaken:
                if time.monotonic() < until:
                    plan = look()
                    continue
                notes = (f"others decide in {self._name} without a pause: this was noted without looking again",)
            except (Stop, boto_errors.BotoCoreError, boto_errors.ClientError) as error:
                notes = (f"{why(error, self._name)}; another controller may have decided otherwise",)
            return replace(plan, returned=dict(plan.returned, entries=entries), notes=(*plan.notes, *notes))
        return plan

    def _own_key(self):
        return run_key(os.path.basename(self.own), record.events(self.own, ("run_started",))[0]["run"])

    def mirror(self):
        """Begin to deliver the record of this run to the bucket, where there is one."""
        if self._name and self.own:
            record_mirror.begin(self.bucket, self.own)

    def runs_of(self, incident):
        """({run: all its events} of the runs of an incident, of whatever controller, and what was decided by the last look of `known`;
        notes for people on what may be missing)."""
        notes = self.fetch(incident)
        joined = incidents.of(incidents.runs(self.folder, ("joined",)), incident)
        runs = {name: record.events(os.path.join(self.folder, name)) for name in joined}
        return decisions.completed(runs, [each for each in self._decided if each.get("incident") == incident]), notes

    def newest_first(self, env):
        """Names of the runs of an environment, of whatever controller, each as `run` takes it. Raises Refusal."""
        try:
            own = {name for name in os.listdir(self.required_folder()) if name.endswith(f"-{env}")}
        except OSError:
            own = set()
        elsewhere = [key for key in self._asked(Bucket.runs) if own_name(key).endswith(f"-{env}")]
        return sorted([*own, *(key for key in elsewhere if not self._is_own(key))], key=own_name, reverse=True)

    def run(self, name):
        """(name, events) of one run, of this controller or, where that has none of the name, of another one; no events where
        nobody has any. Raises Refusal where other controllers may have it and cannot be asked, or several have.
        """
        folder = self.required_folder()
        events = record.events(os.path.join(folder, name))
        if not self._name or (events and own_name(name) == name):
            return name, events
        found = [key for key in self._asked(Bucket.runs, name) if name in (key, own_name(key))]
        if len(found) > 1:
            raise Refusal(f"several controllers began {name}: say one of {', '.join(found)}")
        for key in found:
            self._asked(Bucket.fetch_run, key, folder)
            return key, record.events(os.path.join(folder, key))
        return name, events

    def _asked(self, ask, *given):
        """What the bucket answers to one of its methods; [] without a bucket. Raises Refusal."""
        if not self._name:
            return []
        try:
            return ask(self._asked_again(), *given)
        except (Stop, boto_errors.BotoCoreError, boto_errors.ClientError) as error:
            raise Refusal(f"{why(error, self._name)}; nothing was changed") from error

    def _asked_again(self):
        """The Bucket of this process, connected once."""
        self._connected = self._connected or self.bucket()
        return self._connected

    def _is_own(self, key):
        name = own_name(key)
        started = record.events(os.path.join(self.folder or "", name), ("run_started",))
        return bool(started) and run_key(name, started[0]["run"]) == key

    def elsewhere(self, ask):
        """(`ask(bucket)`, notes for people): None where there is no bucket, or it cannot be read, which the notes say."""
        if not self._name:
            return None, []
        try:
            return ask(self._asked_again()), []
        except (Stop, boto_errors.BotoCoreError, boto_errors.ClientError) as error:
            return None, [why(error, self._name)]

    def fetch(self, incident):
        """Have the runs of an incident that other controllers wrote in `folder` too; returns notes for people."""
        _names, notes = self.elsewhere(lambda bucket: bucket.fetch(incident, self.required_folder()))
        return [f"{note}; what other controllers did may be missing" for note in notes]

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

from . import incidents, record, record_mirror
from .aws import Aws
from .errors import Refusal, Stop
from .record_bucket import Bucket, own_name, run_key, why

ARGUMENTS = dict(
    records=dict(type="path"),
    record_bucket=dict(type="str"),
    record_bucket_region=dict(type="str"),
)


class Records:
    """Records, as a verb meets them.

    Args:
        wanted: options of the verb, ARGUMENTS among them.
        connection: (region, endpoint_url, boto_params) of `get_aws_connection_info`.
    """

    def __init__(self, wanted, connection):
        self.own = os.environ.get(record.FOLDER_VARIABLE)
        self.folder = wanted["records"] or (os.path.dirname(self.own) if self.own else None)
        self._name, self._region = wanted["record_bucket"], wanted["record_bucket_region"] or connection[0]
        self._connection = connection

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
        elsewhere, notes = self.elsewhere(lambda bucket: bucket.known())
        if elsewhere is None:
            return found, notes
        # Closed by one controller is closed for all.
        closed = {
            each: replace(found[each], closed=elsewhere[each].closed)
            for each in found
            if each in elsewhere and elsewhere[each].closed
        }
        return {**elsewhere, **found, **closed}, []

    def mirror(self):
        """Begin to deliver the record of this run to the bucket, where there is one."""
        if self._name and self.own:
            record_mirror.begin(self.bucket, self.own)

    def runs_of(self, incident):
        """({run: all its events} of the runs of an incident, of whatever controller; notes for people on what may be missing)."""
        notes = self.fetch(incident)
        joined = incidents.of(incidents.runs(self.folder, ("joined",)), incident)
        return {name: record.events(os.path.join(self.folder, name)) for name in joined}, notes

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
            return ask(self.bucket(), *given)
        except (Stop, boto_errors.BotoCoreError, boto_errors.ClientError) as error:
            raise Refusal(f"{why(error, self._name)}; nothing was changed") from error

    def _is_own(self, key):
        name = own_name(key)
        started = record.events(os.path.join(self.folder, name), ("run_started",))
        return bool(started) and run_key(name, started[0]["run"]) == key

    def elsewhere(self, ask):
        """(`ask(bucket)`, notes for people): None where there is no bucket, or it cannot be read, which the notes say."""
        if not self._name:
            return None, []
        try:
            return ask(self.bucket()), []
        except (Stop, boto_errors.BotoCoreError, boto_errors.ClientError) as error:
            return None, [why(error, self._name)]

    def fetch(self, incident):
        """Have the runs of an incident that other controllers wrote in `folder` too; returns notes for people."""
        _names, notes = self.elsewhere(lambda bucket: bucket.fetch(incident, self.required_folder()))
        return [f"{note}; what other controllers did may be missing" for note in notes]

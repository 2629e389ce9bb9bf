# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records in a bucket, for teams whose controllers are many, or end with the job, as AWX's do.

Each event is an object of its own: S3 appends to nothing, and two controllers that write one object lose one another's lines.

    runs/<run>/<number of the line>.json      one event
    runs/<run>/<file>                         the report and the pages, once the run has ended
    incidents/<ID>/runs/<run>                 empty: the run joined
    incidents/<ID>/opened, closed             the event that says so
    decided/<environment>/<number>.json       see decisions.py

Writing an object again writes the same, so whoever was killed in between begins a line too early, and never one too late.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

try:
    from botocore import exceptions as boto_errors
except ImportError:
    pass

from . import incidents, record
from .aws import BRIEF_TIMEOUT, THROTTLED, code_of, explain, is_unreachable
from .errors import LostAnswer, Overtaken

SIDE_BY_SIDE = 16
# What a run leaves beside its timeline that a review shows.
FILES = (".json", ".html", ".md")
# Seconds before each time that an object which must be the first is sent.
PAUSES = (0, 0.1, 0.4, 1, 2)


def run_key(name, run):
    """The name of a run in the bucket: two controllers may begin the same playbook within one second.

    Args:
        name: of the record's folder.
        run: identity of the process, as `run_started` has it.
    """
    return f"{name}.{hashlib.sha256(run.encode()).hexdigest()[:8]}"


def own_name(key):
    """The name that the controller of a run gave to its record; `key` as in the bucket, or that name itself."""
    return re.sub(r"\.[0-9a-f]{8}$", "", key)


def last_of_all(file):
    """In this order of the files of a run, who finds its report finds all."""
    return file == record.REPORT, file


def objects_of(key, number, event):
    """Pure: {object key: body} for one event, the `number`th of the run `key`."""
    body = json.dumps(event, default=str).encode()
    made = {f"runs/{key}/{number:06}.json": body}
    if event["event"] == "joined":
        made[f"incidents/{event['incident']}/runs/{key}"] = b""
    elif event["event"] in (incidents.OPENED, incidents.CLOSED):
        made[f"incidents/{event['incident']}/{event['event']}"] = body
    return made


class Bucket:
    """The bucket of records.

    Args:
        aws: the Aws whose credentials are used; each call is sent once and waits briefly, since nobody may wait for a record.
        name, region: of the bucket.
    """

    def __init__(self, aws, name, region):
        self._client = aws.client("s3", region, timeout=BRIEF_TIMEOUT)
        self.name, self.region = name, region

    def put(self, key, body):
        self._client.put_object(Bucket=self.name, Key=key, Body=body)

    def get(self, key):
        return self._client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put_first(self, key, body):
        """Write an object where none is.

        A lost answer tells nothing: the same is sent again, and what is there then may be what was sent before.

        Raises:
            Overtaken: somebody else wrote another one there.
            LostAnswer: S3 does not answer, and it may be there or not.
        """
        lost = None
        for pause in PAUSES:
            time.sleep(pause)
            try:
                if self._is_first(key, body):
                    return
            except (boto_errors.BotoCoreError, boto_errors.ClientError) as error:
                if not _may_be_sent_again(error):
                    raise
                lost = error
            else:
                raise Overtaken(f"{key} is there already")
        raise LostAnswer(explain(lost, "s3", "put_object", self.region)) from lost

    def _is_first(self, key, body):
        try:
            self._client.put_object(Bucket=self.name, Key=key, Body=body, IfNoneMatch="*")
            return True
        except boto_errors.ClientError as error:
            if code_of(error) != "PreconditionFailed":
                raise
        return self.get(key) == body

    def keys(self, prefix):
        return [key for key, _at in self.listed(prefix)]

    def listed(self, prefix):
        """[(key, when it was written in epoch seconds)]."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [(each["Key"], each["LastModified"].timestamp()) for page in pages for each in page.get("Contents", [])]

    def known(self, decided=()):
        """{ID: Incident} of all incidents there; `decided` are the events of `Decisions.read`, which come here before all else."""
        marks = {}
        for key in self.keys("incidents/"):
            _root, incident, what = key.split("/", 2)
            marks.setdefault(incident, set()).add(what)
        still = [each for each, seen in marks.items() if incidents.OPENED in seen and incidents.CLOSED not in seen]
        opened = self.get_all(f"incidents/{incident}/{incidents.OPENED}" for incident in still).values()
        over = {each for each, seen in marks.items() if incidents.CLOSED in seen}
        events = [*map(json.loads, opened), *(event for event in decided if event.get("incident") not in over)]
        # Nobody joins the others, so what they were called need not be read.
        others = {each: incidents.Incident(each, "", closed="before") for each in marks if each not in still}
        return others | incidents.known({"": events})

    def runs(self, beginning=""):
        """Names of the runs there, as `run_key` makes them, that begin with `beginning`."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=f"runs/{beginning}", Delimiter="/"
        )
        found = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])]
        return [each.split("/")[1] for each in found]

    def reports(self, runs):
        """Texts of the reports of `runs`, without those of runs that left none."""
        names = (f"runs/{run}/{record.REPORT}" for run in runs)
        with ThreadPoolExecutor(max_workers=SIDE_BY_SIDE) as pool:
            return [body.decode() for body in pool.map(self._if_there, names) if body is not None]

    def _if_there(self, key):
        try:
            return self.get(key)
        except boto_errors.ClientError as error:
            if code_of(error) == "NoSuchKey":
                return None
            raise

    def fetch(self, incident, parent):
        """Write the runs of an incident that other controllers wrote into the folder `parent`; returns their names."""
        own = incidents.runs(parent, ("run_started",)).items()
        here = {run_key(name, events[0]["run"]) for name, events in own}
        prefix = f"incidents/{incident}/runs/"
        elsewhere = [key for each in self.keys(prefix) if (key := each.removeprefix(prefix)) not in here]
        for key in elsewhere:
            self.fetch_run(key, parent)
        return elsewhere

    def fetch_run(self, key, parent):
        """Write a run into the folder `parent`."""
        folder = os.path.join(parent, key)
        if os.path.exists(os.path.join(folder, record.REPORT)):
            return  # it has ended, and was had whole
        os.makedirs(folder, mode=0o700, exist_ok=True)
        bodies = self.get_all(sorted(self.keys(f"runs/{key}/")))
        texts = {name.rpartition("/")[2]: body.decode() for name, body in bodies.items()}
        lines = [texts.pop(name) for name in list(texts) if name.removesuffix(".json").isdigit()]
        record.write(os.path.join(folder, record.TIMELINE), "".join(f"{line}\n" for line in lines))
        for file in sorted(texts, key=last_of_all):
            record.write(os.path.join(folder, file), texts[file])

    def get_all(self, keys):
        """{key: body}, in the order of `keys`; read side by side."""
        keys = list(keys)
        with ThreadPoolExecutor(max_workers=SIDE_BY_SIDE) as pool:
            return dict(zip(keys, pool.map(self.get, keys), strict=True))


def _may_be_sent_again(error):
    """Whether S3 did not answer, or not for now: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html has a
    409 for who meets a deletion."""
    if isinstance(error, boto_errors.ClientError):
        is_fault = error.response["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500
        return is_fault or code_of(error) in (*THROTTLED, "ConditionalRequestConflict")
    return is_unreachable(error)


def why(error, bucket):
    """One line for people."""
    text = explain(error, "s3") if isinstance(error, boto_errors.ClientError) else str(error)
    return f"the records in {bucket} cannot be had: {text}"

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Records in a bucket, for teams whose controllers are many, or end with the job, as AWX's do.

Each event is an object of its own: S3 appends to nothing, and two controllers that write one object lose one another's lines.

    runs/<run>/<number of the line>.json      one event
    runs/<run>/<file>                         the report and the pages, once the run has ended
    incidents/<ID>/runs/<run>                 empty: the run joined
    incidents/<ID>/opened, closed             the event that says so

Writing an object again writes the same, so whoever was killed in between begins a line too early, and never one too late.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor

try:
    from botocore import exceptions as boto_errors
except ImportError:
    pass

from . import incidents, record
from .aws import BRIEF_TIMEOUT, code_of, explain

SIDE_BY_SIDE = 16
# What a run leaves beside its timeline that a review shows.
FILES = (".json", ".html", ".md")


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

    def keys(self, prefix):
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def known(self):
        """{ID: Incident} of all incidents there."""
        marks = {}
        for key in self.keys("incidents/"):
            _root, incident, what = key.split("/", 2)
            marks.setdefault(incident, set()).add(what)
        still = [each for each, seen in marks.items() if incidents.OPENED in seen and incidents.CLOSED not in seen]
        events = self._all(f"incidents/{incident}/{incidents.OPENED}" for incident in still)
        # Nobody joins the others, so what they were called need not be read.
        others = {each: incidents.Incident(each, "", closed="before") for each in marks if each not in still}
        return others | incidents.known({"": [json.loads(body) for body in events.values()]})

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
        bodies = self._all(sorted(self.keys(f"runs/{key}/")))
        texts = {name.rpartition("/")[2]: body.decode() for name, body in bodies.items()}
        lines = [texts.pop(name) for name in list(texts) if name.removesuffix(".json").isdigit()]
        record.write(os.path.join(folder, record.TIMELINE), "".join(f"{line}\n" for line in lines))
        for file in sorted(texts, key=last_of_all):
            record.write(os.path.join(folder, file), texts[file])

    def _all(self, keys):
        """{key: body}, in the order of `keys`; read side by side."""
        keys = list(keys)
        with ThreadPoolExecutor(max_workers=SIDE_BY_SIDE) as pool:
            return dict(zip(keys, pool.map(self.get, keys), strict=True))


def why(error, bucket):
    """One line for people."""
    text = explain(error, "s3") if isinstance(error, boto_errors.ClientError) else str(error)
    return f"the records in {bucket} cannot be had: {text}"

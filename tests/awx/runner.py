# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a job with ansible-runner in the way of AWX 24.6.1: a copy of the project, an inventory that is a script, nobody at a keyboard.

By `RunJob` of awx/main/tasks/jobs.py (arguments, environment, extra variables) and awx/main/utils/safe_yaml.py, which marks each text of
the extra variables as none to be rendered.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.awx.jobs import Job
from tests.awx.placed import ROOT

BIN = Path(sys.executable).parent
DEADLINE = 120
NOT_OF_THE_PROJECT = shutil.ignore_patterns(".git", ".venv", ".cache", ".sandbox", "incidents", "tests", "__pycache__")
# Of the container; the relative part is what ansible.cfg of the project has.
COLLECTIONS = "requirements_collections:.ansible/collections:~/.ansible/collections:/usr/share/ansible/collections"


class Done(NamedTuple):
    succeeded: bool
    shown: str
    artifacts: dict[str, Any]


class _Unsafe(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True


_Unsafe.add_representer(str, lambda dumper, text: dumper.represent_scalar("!unsafe", text))


def inventory(source: str, environment: dict[str, str]) -> str:
    """What an update of an inventory source keeps of a folder of the repository: each variable as it is written."""
    return subprocess.run(
        [BIN / "ansible-inventory", "--inventory", source, "--list", "--export"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def run(job: Job, folder: Path, hosts: str, environment: dict[str, str]) -> Done:
    """In a folder of its own below this one, with these hosts as `inventory` has them."""
    private = folder / f"awx_{job.number}"
    shutil.copytree(ROOT, private / "project", symlinks=True, ignore=NOT_OF_THE_PROJECT)
    (private / "inventory").mkdir()
    script = private / "inventory" / "hosts"
    script.write_text(f"#!{BIN / 'python'}\nprint({hosts!r})\n")
    script.chmod(0o700)
    of_awx = {"awx_job_id": job.number, "tower_job_id": job.number, "awx_user_name": "jane"}
    options = ["-u", "root", "--diff"]
    options += ["--check"] * (job.job_type == "check")
    options += ["-l", job.limit] * bool(job.limit) + ["-t", job.tags] * bool(job.tags)
    given = {"JOB_ID": str(job.number), "ANSIBLE_COLLECTIONS_PATH": f"{private}/{COLLECTIONS}"}
    given |= {"ANSIBLE_RETRY_FILES_ENABLED": "False", "ANSIBLE_HOST_KEY_CHECKING": "False"}
    (private / "env").mkdir()
    (private / "env" / "extravars").write_text(yaml.dump(job.extra_vars | of_awx, Dumper=_Unsafe))
    (private / "env" / "cmdline").write_text(shlex.join(options))
    (private / "env" / "envvars").write_text(json.dumps(given))
    done = subprocess.run(
        [BIN / "ansible-runner", "run", private, "--playbook", job.playbook],
        # The project brings its own configuration.
        env={name: value for name, value in environment.items() if name != "ANSIBLE_CONFIG"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return Done(done.returncode == 0, done.stdout, _artifacts(private))


def _artifacts(private: Path) -> dict[str, Any]:
    """What AWX keeps of a job for the next one of its workflow: `set_stats`, in the last event."""
    events = (json.loads(path.read_text()) for path in private.glob("artifacts/*/job_events/*.json"))
    last = (event["event_data"] for event in events if event["event"] == "playbook_on_stats")
    return next(last, {}).get("artifact_data", {})

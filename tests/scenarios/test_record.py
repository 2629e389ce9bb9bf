# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the record keeps of tasks that are written otherwise than one after the other."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from runbook import BIN, REPOSITORY
from world import WEST, World

PLAY = """
- hosts: api-sandbox
  gather_facts: false
  module_defaults:
    group/sre.runbooks.aws:
      endpoint_url: "{{ aws_endpoint_url }}"
      access_key: "{{ aws_access_key_id }}"
      secret_key: "{{ aws_secret_access_key }}"
  tasks:
    - name: As many tasks as there are wanted
      sre.runbooks.ecs_scale:
        cluster: "{{ ecs_cluster }}"
        service: "{{ item }}"
        desired_count: 3
        region: "{{ aws_region }}"
      check_mode: true
      loop: ["{{ ecs_service }}", no-such-service]
      ignore_errors: true
    - name: A lease each
      sre.runbooks.incident_lock:
        name: "{{ item }}"
        table: "{{ lock_table }}"
        region: us-west-2
        state: "{{ state }}"
      loop: [one, two]
"""


def test_every_turn_of_a_loop_stands_in_it(untouched: World, tmp_path: Path) -> None:
    play = tmp_path / "loop.yml"
    play.write_text(PLAY)
    before = set(untouched.runbook.incidents.iterdir())
    for state in ("held", "released"):
        ran = subprocess.run(
            [BIN / "ansible-playbook", str(play), "-e", f"state={state}"],
            cwd=REPOSITORY,
            env=untouched.runbook.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
    held = min(set(untouched.runbook.incidents.iterdir()) - before)
    scaled, leased = [
        event
        for event in map(json.loads, (held / "timeline.jsonl").read_text().splitlines())
        if event["event"] in ("step", "preflight")
    ]
    assert any("desired count" in step["what"] for step in scaled["steps"])
    assert "no-such-service" in scaled["message"]
    assert [step["what"] for step in leased["steps"]] == ["take the lease one", "take the lease two"]
    assert untouched.lease(WEST) is None

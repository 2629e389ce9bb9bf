# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts through the real ansible-rulebook: which playbooks start, how often, for which hosts, and what waits for whom."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from rulebook import of_alertmanager, started
from runbook import REPOSITORY

pytestmark = pytest.mark.skipif(not shutil.which("java"), reason="ansible-rulebook needs Java 17")

# What each playbook of this stand-in collection prints, and what it hands to the rulebook.
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: "RAN {name} on {{{{ ansible_play_hosts | join('+') }}}} {said}."
    - ansible.builtin.set_stats:
        data: {{sre_runbooks: {{proposal: {{{proposal}}}}}, meta: {{hosts: "{{{{ inventory_hostname }}}}"}}}}
"""
SAID = "{{ alert | default('') }}{{ by | default('') }} {{ title | default('') }}"
FOUND = "playbook: rollback_deployment, remediate: false, because: errors since, command: roll back, id: rollback-1"


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """ansible.cfg of a collection that has our rulebook and its plugins, and playbooks that only tell that they ran."""
    collection = tmp_path / "ansible_collections/sre/runbooks"
    (collection / "playbooks").mkdir(parents=True)
    for name in ("extensions", "galaxy.yml"):
        (collection / name).symlink_to(REPOSITORY / name)
    proposals = {
        "triage": f"{FOUND}, state: waiting",
        "approve": f"{FOUND}, state: approved",
        "high_error_rate": "state: none",
    }
    for name in ("alert", "triage", "approve", "high_error_rate", "rollback_deployment"):
        text = PLAYBOOK.format(name=name, said=SAID, proposal=proposals.get(name, "state: none"))
        (collection / f"playbooks/{name}.yml").write_text(text)
    (tmp_path / "hosts.yml").write_text(
        "all: {hosts: {api: {ansible_connection: local}, web: {ansible_connection: local}}}"
    )
    (tmp_path / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {tmp_path}\n")
    return tmp_path / "ansible.cfg"


def ran(printed: str) -> Counter:
    """How often each playbook ran on which hosts, with what it was told."""
    told = re.findall(r"RAN (\w+) on (\S+) (.*?)\.", printed)
    # One line for each host.
    return Counter({each: count // len(each[1].split("+")) for each, count in Counter(told).items()})


def test_alerts_start_what_looks_and_people_what_changes(stand_in: Path, tmp_path: Path) -> None:
    ours = str(tmp_path / "ansible_collections/sre/runbooks/playbooks")
    with started(tmp_path, stand_in, tmp_path / "hosts.yml", {}, playbooks=ours) as rulebook:
        for _time in range(8):
            assert rulebook.alert(of_alertmanager("ServiceDown", "{{ 7 * 7 }} down")) == 200
        assert rulebook.alert(of_alertmanager("Foreign", runbook_env="elsewhere")) == 200
        assert rulebook.alert(of_alertmanager("HighErrorRate", runbook_host="web")) == 200
        # Who may send alerts cannot approve what they lead to, and nobody else can do either.
        assert rulebook.alert(of_alertmanager("ServiceDown"), token="wrong") == 401
        assert rulebook.decide({"proposal": "rollback-1", "by": "jane"}, token="of-the-monitoring") == 401
        printed = rulebook.until("rollback-1 waits for an approval: roll back", "left alone", "RAN high_error_rate")
        assert "RAN rollback_deployment" not in printed
        assert rulebook.decide({"proposal": "rollback-1", "by": "jane"}) == 200
        printed = rulebook.until("RAN rollback_deployment")
    seen = ran(printed)
    # The storm started one look, and what it says is no template. The look of one host, and what is approved, stay with their host.
    assert {each: count for each, count in seen.items() if each[0] in ("alert", "triage")} == {
        ("alert", "api+web", "service_down ({ 7 * 7 }} down"): 1,
        ("alert", "web", "high_error_rate it is broken"): 1,
        ("triage", "api+web", " "): 1,
    }
    assert seen["high_error_rate", "web", " "] == 1
    assert [each[1] for each in seen if each[0] == "rollback_deployment"] in (["api"], ["web"])
    assert ("approve", "api+web", "jane ") in seen

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts through the real ansible-rulebook: which playbooks start, how often, for which hosts, and what waits for whom."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from alarms import ringing
from rulebook import of_alertmanager, started
from runbook import REPOSITORY
from world import EAST, World, wait_until

from ansible_collections.sre.runbooks.plugins.module_utils import incidents
from ansible_collections.sre.runbooks.tests.unit.notifier_services import COMPONENT, Services

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
SAID = "{{ alert | default('') }}{{ 'tickets' if tickets | default(false) else '' }}{{ by | default('') }} {{ title | default('') }}"
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
    for name in ("alert", "triage", "approve", "high_error_rate", "readiness", "rollback_deployment"):
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
        # It is on again: that is news, but what there is to see was looked at.
        assert rulebook.alert(of_alertmanager("ServiceDown", "down again", starts="2026-11-22T03:01:00Z")) == 200
        assert rulebook.alert(of_alertmanager("Foreign", runbook_env="elsewhere")) == 200
        assert rulebook.alert(of_alertmanager("HighErrorRate", runbook_host="web")) == 200
        for state in ("firing", "firing", "resolved"):
            ready = of_alertmanager("NotReady", status=state, runbook_kind="readiness", runbook_host="api")
            assert rulebook.alert(ready) == 200
        # Who may send alerts cannot approve what they lead to, and nobody else can do either.
        assert rulebook.alert(of_alertmanager("ServiceDown"), token="wrong") == 401
        assert rulebook.decide({"proposal": "rollback-1", "by": "jane"}, token="of-the-monitoring") == 401
        printed = rulebook.until(
            "rollback-1 waits for an approval: roll back", "left alone", "RAN high_error_rate", "RAN readiness"
        )
        assert "RAN rollback_deployment" not in printed
        assert rulebook.decide({"proposal": "rollback-1", "by": "jane"}) == 200
        printed = rulebook.until("RAN rollback_deployment")
        # What is not ready is no incident: a look at that host for each turn it takes, and nothing noted.
        wait_until(lambda: ran(rulebook.output.read_text())["readiness", "api", "tickets "] == 2, "both looks ran")
    seen = ran(printed)
    # The storm was noted once and started one look, and what it says is no template. The look of one host, and what is approved, stay
    # with their host.
    assert {each: count for each, count in seen.items() if each[0] in ("alert", "triage")} == {
        ("alert", "api+web", "service_down ({ 7 * 7 }} down"): 1,
        ("alert", "api+web", "service_down down again"): 1,
        ("alert", "web", "high_error_rate it is broken"): 1,
        ("triage", "api+web", " "): 1,
    }
    assert seen["high_error_rate", "web", " "] == 1
    assert [each[1] for each in seen if each[0] == "rollback_deployment"] in (["api"], ["web"])
    assert ("approve", "api+web", "jane ") in seen


@pytest.fixture
def services() -> Iterator[Services]:
    there = Services()
    yield there
    there.close()


def beside(services: Services, folder: Path) -> Path:
    """An inventory with this repository's and, stronger, who hears of incidents."""
    route = {
        "slack": ["#incidents"],
        "incident_channel": True,
        "pagerduty": "critical",
        "statuspage": {"impact": "major", "components": {COMPONENT: "partial_outage"}},
        "jira": True,
        "update_minutes": 30,
    }
    ours = {
        **services.inventory,
        "notify_routes": {"P1": route},
        "notify_public_name": "the API",
        "review_folder": str(folder / "reviews"),
    }
    path = folder / "who_hears.yml"
    path.write_text(yaml.safe_dump({"all": {"hosts": {"api-sandbox": ours}}}))
    return path


@pytest.mark.soak
def test_from_the_alarm_to_the_review_with_no_hand_on_it_but_the_approval(
    world: World, services: Services, tmp_path: Path
) -> None:
    alarm = ringing(world)
    world.start_users()
    world.sandbox.fault("bad-build", build="erroring")
    wait_until(lambda: world.sandbox.control("load", action="report")["failed_requests"] > 40, "users see errors")
    environment = world.runbook.environment | {
        "SRE_RUNBOOKS_INCIDENTS": str(tmp_path / "incidents"),
        "ANSIBLE_INVENTORY": f"{REPOSITORY / 'inventories/sandbox'},{beside(services, tmp_path)}",
        "ANSIBLE_INVENTORY_ENABLED": "yaml,ini,host_list,sre.runbooks.configured",
        "AWS_ACCESS_KEY_ID": "sandbox",
        "AWS_SECRET_ACCESS_KEY": "sandbox-secret",
    }
    endpoint = world.aws("sqs").meta.endpoint_url
    told = {
        "playbooks": str(REPOSITORY / "playbooks"),
        "alarms_queue_url": alarm.queue,
        "alarms_queue_region": EAST,
        "alarms_endpoint_url": endpoint,
    }
    inventory = REPOSITORY / "extensions/eda/inventory.yml"
    with started(tmp_path, REPOSITORY / "ansible.cfg", inventory, environment, env="sandbox", **told) as rulebook:
        alarm.set("ALARM")
        proposal = re.search(r"(\S+) waits for an approval", rulebook.until(" waits for an approval"))[1]
        assert not [event for event in events(tmp_path) if event.get("calls")], "nothing is changed before"
        assert rulebook.decide({"proposal": proposal, "by": "jane"}) == 200
        rulebook.until("RECOVERED in")
        world.stop_users()
        alarm.set("OK")
        rulebook.until("the last alert is over: errors above 1 %")
        rulebook.until("NOTED in", "told: jira: OPS-3")
    seen = [
        event
        for event in events(tmp_path)
        if event["event"] in ("opened", "proposed", "approved", "run_ended", "noted", "closed")
    ]
    assert [event["event"] for event in seen] == [
        "opened",
        "run_ended",
        "proposed",
        "run_ended",
        "approved",
        "run_ended",
        "run_ended",
        "noted",
        "closed",
        "run_ended",
    ]
    assert (seen[0]["severity"], seen[0]["title"]) == ("P1", "errors above 1 %")
    assert (seen[2]["playbook"], seen[2]["host"], seen[4]["by"]) == ("high_error_rate", "api-sandbox", "jane")
    assert seen[6]["outcome"] == "recovered"
    assert_heard(services, seen[0]["incident"], proposal)
    assert_reviewed(tmp_path / "reviews", seen[0]["incident"], proposal)


def assert_heard(services: Services, incident: str, proposal: str) -> None:
    """Everybody heard of it in order: opened, proposed, begun, recovered, over."""
    assert services.of("pagerduty") == [f"{what} {incident}" for what in ("trigger", "acknowledge", "resolve")]
    assert [what.split()[1] for what in services.of("statuspage")] == [
        "investigating",
        "identified",
        "monitoring",
        "resolved",
    ]
    assert services.statuspage.component == "operational"
    mine = services.slack.texts(f"#inc-{incident}")[::-1]
    assert [text.splitlines()[0].strip("*") for text in mine] == [
        "INCIDENT P1: errors above 1 %",
        "UPDATE P1: errors above 1 %",
        "Find the cause of errors, and mend it: begun for regami-api in sandbox",
        "Find the cause of errors, and mend it: recovered for regami-api in sandbox",
        "RESOLVED P1: errors above 1 %",
    ]
    assert f"{proposal} waits for an approval: ansible-playbook playbooks/high_error_rate.yml" in mine[1]
    assert "Closed by: monitoring" in mine[-1]
    assert [text.split()[0].strip("*") for text in services.slack.texts("#incidents")[::-1]] == [
        "INCIDENT",
        "UPDATE",
        "RESOLVED",
    ]
    assert services.jira.issues[0]["summary"].startswith("Keep in code, or take back: roll regami-service back to")
    assert "-e run=2" in services.jira.issues[0]["description"], "the record is named"


def assert_reviewed(folder: Path, incident: str, proposal: str) -> None:
    """The draft and the page tell of the alert, of what was proposed, of who approved it, and when it was what."""
    draft, page = ((folder / f"{incident}.{kind}").read_text() for kind in ("md", "html"))
    assert "- [ ] Why was it closed" not in draft
    for name in ("Began", "Detected", "Acknowledged", "Mitigated", "Resolved"):
        assert re.search(rf"\| \*\*{name}\*\* \| 20\S+ \S+ UTC \(", draft), (name, draft)
    assert "| **Incident commander** | jane |" in draft
    for text in (draft, page):
        told = (
            "users see errors",
            "monitoring opened the incident: errors above 1 %, P1",
            "proposed: ansible-playbook playbooks/high_error_rate.yml",
            f"jane approved {proposal}",
            "the status page says: Our team has begun to mend it.",
            "roll regami-service back to",
            "monitoring closed it: the last alert is over: errors above 1 %",
        )
        story = text[text.index("## Timeline" if text is draft else "What happened") :]
        places = [story.index(each) for each in told]
        assert places == sorted(places)
    assert f"by jane, who approved {proposal}" in draft and "likely cause: a bad deployment" in draft


def events(folder: Path) -> list[dict]:
    """All that the records say, each run being part of the one incident."""
    runs = incidents.runs(str(folder / "incidents"))
    assert len({incidents.joined(each) for each in runs.values()} - {None}) == 1
    return incidents.merged(runs)

# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract's checks pass a small tree that keeps it, and name what is missing when one thing of it is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract import checks

VERB, PLAYBOOK, ROLE = "plugins/modules/stop_service.py", "playbooks/stop.yml", "roles/guard"
UNIT_TESTS = "tests/unit/plugins/modules/test_stop_service.py"

GOOD = {
    "meta/runtime.yml": """
action_groups:
  aws:
    - metadata: {extend_group: [amazon.aws.aws]}
    - stop_service
plugin_routing:
  action:
    stop_service: {redirect: sre.runbooks.verb}
""",
    VERB: '''
DOCUMENTATION = r"""
module: stop_service
short_description: Stop a service
description: [Stops it.]
attributes:
  check_mode: {support: full, description: Makes every read and no change.}
  diff_mode: {support: full, description: Prints the steps.}
options:
  service: {description: Its name., type: str, required: true}
  tasks: {description: How many stay., type: int, default: 0}
  drain:
    description: How to drain.
    type: dict
    suboptions:
      seconds: {description: For how long., type: int, required: true}
"""
EXAMPLES = r"""
- name: Stop it
  sre.runbooks.stop_service:
    service: regami-service
    tasks: "{{ tasks_left }}"
    drain: {seconds: 30}
"""
RETURN = r"""
before: {description: State found., returned: always, type: dict, sample: {}}
after: {description: State now., returned: always, type: dict, sample: {}}
steps: {description: What was done., returned: always, type: list, elements: dict, sample: []}
undo: {description: Always empty., returned: always, type: list, elements: dict, sample: []}
waited_seconds: {description: Time spent in waits., returned: always, type: float, sample: 0.5}
"""
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb

SERVICES = ("ecs",)


class StopService(Verb):
    @staticmethod
    def plan(observed, wanted):
        return Plan()


def main():
    AnsibleModule(
        argument_spec=dict(
            service=dict(type="str", required=True),
            tasks=dict(type="int", default=0),
            drain=dict(type="dict", options=dict(seconds=dict(type="int", required=True))),
        ),
        supports_check_mode=True,
    )
''',
    UNIT_TESTS: "from x import stop_service\nstop_service.plan({}, {})\n",
    PLAYBOOK: """
- name: Stop a service
  hosts: "{{ env }}"
  roles: [sre.runbooks.guard]
  tasks:
    - name: Together or not at all
      block:
        - name: Stop it
          sre.runbooks.stop_service: {service: regami-service}
""",
    "playbooks/stop/steps.yml": "- name: Say so\n  ansible.builtin.debug: {msg: stopped}\n",
    "roles/guard/meta/argument_specs.yml": "argument_specs: {main: {options: {env: {type: str, required: true}}}}",
    "roles/guard/tasks/main.yml": "- name: Refuse\n  ansible.builtin.assert: {that: env is defined}\n",
    "README.md": "| playbook | what it does |\n|---|---|\n| `stop` | stops a service |\n",
    "changelogs/fragments/stop.yml": "major_changes: [stop playbook - stops a service.]",
    "extensions/molecule/stop/molecule.yml": "platforms: []",
    "extensions/molecule/stop/converge.yml": "- import_playbook: ../../../playbooks/stop.yml",
    "extensions/molecule/stop/verify.yml": "[]",
}


# What is broken (file, text in it, text instead), and the check and the fault that tell.
BROKEN = [
    ("meta/runtime.yml", "sre.runbooks.verb", "sre.runbooks.other", checks.runs_in_the_controller, "does not redirect"),
    (VERB, 'SERVICES = ("ecs",)', "", checks.names_its_services, "SERVICES"),
    ("meta/runtime.yml", "    - stop_service\n", "", checks.takes_module_defaults, "not in action_groups.aws"),
    ("meta/runtime.yml", "amazon.aws.aws", "amazon.aws.other", checks.takes_module_defaults, "does not extend"),
    (VERB, "check_mode: {support: full", "check_mode: {support: none", checks.supports_check_and_diff, "check_mode"),
    (VERB, "diff_mode: {support: full", "diff_mode: {support: none", checks.supports_check_and_diff, "diff_mode"),
    (VERB, "supports_check_mode=True", "supports_check_mode=False", checks.supports_check_and_diff, "main()"),
    (VERB, "tasks=dict(", "count=dict(", checks.documents_its_arguments, "count: not in DOCUMENTATION"),
    (VERB, "tasks=dict(", "count=dict(", checks.documents_its_arguments, "tasks: in DOCUMENTATION only"),
    (VERB, '"int", default=0)', '"int", default=1)', checks.documents_its_arguments, "default is 1"),
    (VERB, "seconds: {description: For how long., type: int", "seconds: {description: For how long., type: str",
     checks.documents_its_arguments, "drain.seconds: type is int"),
    (VERB, "  sre.runbooks.stop_service:", "  stop_service:", checks.shows_examples, "no task uses"),
    (VERB, "- name: Stop it", "- name: 'Stop it", checks.shows_examples, "no valid YAML"),
    (VERB, "    service: regami-service\n", "", checks.shows_examples, "missing required arguments: service"),
    (VERB, "drain: {seconds: 30}", "drain: {seconds: soon}", checks.shows_examples, "use 1"),
    (VERB, "tasks: \"{{", "task: \"{{", checks.shows_examples, "use 1: task. Supported parameters"),
    (VERB, "undo: {", "redo: {", checks.documents_its_answer, "undo is missing"),
    (VERB, ", sample: 0.5", "", checks.documents_its_answer, "waited_seconds has no sample"),
    (UNIT_TESTS, ".plan(", ".main(", checks.has_unit_tests_of_its_plan, "no test"),
    (VERB, "class StopService(Verb):", "class StopService(Verb):\n    INSTEAD = 'start it'", checks.undoes_or_says_what_instead,
     "not always empty"),
    (VERB, "Always empty.", "How to go back.", checks.undoes_or_says_what_instead, "neither undo() nor INSTEAD"),
    (VERB, "Plan()", "Plan((Step('stop', 'stop it'),))", checks.undoes_or_says_what_instead, "StopService: plans steps"),
    ("README.md", "| `stop` |", "| `go` |", checks.has_a_row_in_the_readme, "no table row for stop"),
    ("extensions/molecule/stop/verify.yml", "[]", None, checks.has_a_molecule_scenario, "stop/verify.yml is missing"),
    ("changelogs/fragments/stop.yml", "stop playbook", "go playbook", checks.is_in_the_changelog, "speaks of stop"),
    (PLAYBOOK, "  roles: [sre.runbooks.guard]\n", "", checks.checks_its_arguments, "argument_spec"),
    ("roles/guard/meta/argument_specs.yml", "main:", "other:", checks.checks_its_arguments, "argument_spec"),
    (PLAYBOOK, "sre.runbooks.stop_service: {service: regami-service}", "ansible.builtin.shell: aws ecs update-service",
     checks.leaves_no_work_to_a_shell, "task 'Stop it': shell"),
    ("playbooks/stop/steps.yml", "ansible.builtin.debug", "raw", checks.leaves_no_work_to_a_shell, "steps.yml: task"),
    ("roles/guard/meta/argument_specs.yml", "main:", "other:", checks.specifies_its_arguments, "no options"),
    ("roles/guard/tasks/main.yml", "ansible.builtin.assert: {that: env is defined}", "command: sleep 60",
     checks.has_no_shell_tasks, "tasks/main.yml: task 'Refuse': command"),
]  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> checks.Tree:
    for name, text in GOOD.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return checks.Tree(tmp_path)


def _subject(tree: checks.Tree, check: checks.Check) -> Path:
    kinds = ((checks.VERB_CHECKS, VERB), (checks.PLAYBOOK_CHECKS, PLAYBOOK), (checks.ROLE_CHECKS, ROLE))
    return next(tree.root / name for its_checks, name in kinds if check in its_checks)


@pytest.mark.parametrize("check", checks.VERB_CHECKS + checks.PLAYBOOK_CHECKS + checks.ROLE_CHECKS)
def test_a_tree_that_keeps_the_contract_passes(tree: checks.Tree, check: checks.Check) -> None:
    assert list(check(tree, _subject(tree, check))) == []


@pytest.mark.parametrize(("name", "old", "new", "check", "fault"), BROKEN)
def test_what_is_missing_is_named(
    tree: checks.Tree, name: str, old: str, new: str | None, check: checks.Check, fault: str
) -> None:
    path = tree.root / name
    assert old in GOOD[name]
    if new is None:
        path.unlink()
    else:
        path.write_text(GOOD[name].replace(old, new), encoding="utf-8")
    faults = list(check(tree, _subject(tree, check)))
    assert any(fault in found for found in faults), faults


def test_every_check_is_seen_to_fail() -> None:
    assert {broken[3] for broken in BROKEN} == {*checks.VERB_CHECKS, *checks.PLAYBOOK_CHECKS, *checks.ROLE_CHECKS}


def test_the_tree_finds_its_files(tree: checks.Tree) -> None:
    assert [tree.verbs(), tree.playbooks(), tree.roles()] == [[tree.root / name] for name in (VERB, PLAYBOOK, ROLE)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("log to {root}/x.log", True),
        ("see {home}/.aws/config", True),
        ("see {parent}/other/notes", True),
        ("in https://{registry}.org/simple", True),
        ("pip install --{index}-url somewhere", True),
        ("see ~/.aws/config and {{home}}/.ansible", False),
        ("uv pip compile --no-emit-index-url", False),
        ("under .cache{parent}/x", False),
    ],
)
def test_places_of_this_machine_are_found(tmp_path: Path, line: str, found: bool) -> None:
    root = tmp_path / "clone"
    text = line.format(root=root, parent=tmp_path, home=Path.home(), registry="py" + "pi", index="index")
    assert bool(list(checks.names_no_machine(root, text))) is found

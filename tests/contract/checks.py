# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every verb, playbook, role and file of the collection must have.

A check takes the tree and one file and yields what is missing, one line for each thing. What ansible-test, ansible-lint
and antsibull-changelog already check is not repeated here.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.loader import fragment_loader
from ansible.utils.plugin_docs import get_docstring

NAMESPACE = "sre.runbooks"
PACKAGE = f"ansible_collections.{NAMESPACE}"

# What each verb answers, whatever it did; `diff` besides is ansible-core's own key and needs no documentation.
RETURNED = ("before", "after", "steps", "undo", "waited_seconds")

# How AnsibleModule calls the conditions between arguments.
CONDITIONS = ("mutually_exclusive", "required_together", "required_one_of", "required_if", "required_by")

# What code and DOCUMENTATION both say of an option, and what leaving it out means.
OPTION_KEYS = {"type": "str", "required": False, "default": None, "choices": None, "elements": None}

# Its counterpart is an AWX: tests/awx.
TESTED_WITHOUT_SANDBOX = {"awx_setup"}

# A lease is given back at the end of the run that took it, and no run is taken back for it (way_back.call).
OF_THE_RUN = {"incident_lock"}

COMMAND_MODULES = {"command", "shell", "raw", "script"}

Check = Callable[["Tree", Path], Iterator[str]]


class Tree:
    """A collection root and what its files say, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def verbs(self) -> list[Path]:
        return sorted(path for path in self.root.glob("plugins/modules/*.py") if path.name != "__init__.py")

    def playbooks(self) -> list[Path]:
        return sorted(path for path in self.root.glob("playbooks/*.yml") if not path.stem.endswith(".meta"))

    def roles(self) -> list[Path]:
        return sorted(path for path in self.root.glob("roles/*") if path.is_dir())

    def text(self, name: str) -> str:
        """The text of a file of the tree, empty where there is none."""
        path = self.root / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @functools.cached_property
    def runtime(self) -> dict[str, Any]:
        return yaml.safe_load(self.text("meta/runtime.yml")) or {}

    @functools.cached_property
    def unit_tests(self) -> list[str]:
        return [path.read_text(encoding="utf-8") for path in sorted(self.root.glob("tests/unit/**/test_*.py"))]

    @functools.cached_property
    def changelog(self) -> str:
        names = [*self.root.glob("changelogs/fragments/*.y*ml"), *self.root.glob("changelogs/changelog.yaml")]
        return "\n".join(path.read_text(encoding="utf-8") for path in names)


@functools.cache
def documentation(verb: Path) -> tuple[dict[str, Any], Any, dict[str, Any]]:
    """DOCUMENTATION with its fragments merged in, EXAMPLES as text and RETURN of a module."""
    doc, examples, returned, _ = get_docstring(str(verb), fragment_loader, collection_name=NAMESPACE, is_module=True)
    return doc or {}, examples or "", returned or {}


class _Captured(Exception):
    """Carries the arguments of AnsibleModule out of a module's main()."""


@functools.cache
def argument_spec(verb: Path) -> dict[str, Any]:
    """What a module's main() gives to AnsibleModule: its argument_spec and the conditions between arguments."""

    def capture(_self: AnsibleModule, **kwargs: Any) -> None:
        raise _Captured(kwargs)

    with mock.patch.object(AnsibleModule, "__init__", capture):
        try:
            _load(verb).main()
        except _Captured as captured:
            return captured.args[0]
    raise AssertionError(f"{verb.name}: main() makes no AnsibleModule")


def _load(verb: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}.plugins.modules.{verb.stem}", verb)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- verbs ---


def runs_in_the_controller(tree: Tree, verb: Path) -> Iterator[str]:
    actions = tree.runtime.get("plugin_routing", {}).get("action", {})
    if actions.get(verb.stem, {}).get("redirect") != f"{NAMESPACE}.verb":
        yield f"meta/runtime.yml: plugin_routing.action.{verb.stem} does not redirect to {NAMESPACE}.verb"


def names_its_services(_tree: Tree, verb: Path) -> Iterator[str]:
    """The callback loads the models of these before ansible forks; a model that is missing costs each task 0.1 s."""
    if not isinstance(getattr(_load(verb), "SERVICES", None), tuple):
        yield "SERVICES: no tuple of the AWS services that the verb asks"


def takes_module_defaults(tree: Tree, verb: Path) -> Iterator[str]:
    members = tree.runtime.get("action_groups", {}).get("aws", [])
    if verb.stem not in members:
        yield f"meta/runtime.yml: {verb.stem} is not in action_groups.aws"
    if not any(
        isinstance(entry, dict) and "amazon.aws.aws" in entry.get("metadata", {}).get("extend_group", [])
        for entry in members
    ):
        yield "meta/runtime.yml: action_groups.aws does not extend amazon.aws.aws"


def supports_check_and_diff(_tree: Tree, verb: Path) -> Iterator[str]:
    attributes = documentation(verb)[0].get("attributes", {})
    for mode in ("check_mode", "diff_mode"):
        if attributes.get(mode, {}).get("support") != "full":
            yield f"DOCUMENTATION: attributes.{mode}.support is not full"
    if not argument_spec(verb).get("supports_check_mode"):
        yield "main(): the module is made without supports_check_mode=True"


def documents_its_arguments(_tree: Tree, verb: Path) -> Iterator[str]:
    yield from _compare(argument_spec(verb)["argument_spec"], documentation(verb)[0].get("options") or {}, "")


def _compare(spec: dict[str, Any], options: dict[str, Any], prefix: str) -> Iterator[str]:
    for name in sorted(spec.keys() - options.keys()):
        yield f"{prefix}{name}: not in DOCUMENTATION"
    for name in sorted(options.keys() - spec.keys()):
        yield f"{prefix}{name}: in DOCUMENTATION only"
    for name in sorted(spec.keys() & options.keys()):
        code, documented = spec[name], options[name]
        for key, unset in OPTION_KEYS.items():
            if code.get(key, unset) != documented.get(key, unset):
                yield f"{prefix}{name}: {key} is {code.get(key)} in the code, {documented.get(key)} in DOCUMENTATION"
        yield from _compare(code.get("options") or {}, documented.get("suboptions") or {}, f"{prefix}{name}.")


def shows_examples(_tree: Tree, verb: Path) -> Iterator[str]:
    examples = documentation(verb)[1]
    try:
        tasks = yaml.safe_load(examples) if isinstance(examples, str) else examples
    except yaml.YAMLError as error:
        yield f"EXAMPLES: no valid YAML: {error}"
        return
    uses = [task[f"{NAMESPACE}.{verb.stem}"] for task in _tasks(tasks) if f"{NAMESPACE}.{verb.stem}" in task]
    if not uses:
        yield f"EXAMPLES: no task uses {NAMESPACE}.{verb.stem} by that name"
    spec = argument_spec(verb)
    conditions = {name: spec.get(name) for name in CONDITIONS}
    validator = ArgumentSpecValidator(spec["argument_spec"], **conditions)
    for number, arguments in enumerate(uses, 1):
        for message in validator.validate(_settle(arguments or {}, spec["argument_spec"])).error_messages:
            yield f"EXAMPLES: use {number}: {message}"


def _settle(arguments: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """`arguments` with a value of the right type wherever a template stands, since only a run would know it."""
    return {
        name: _sample(spec.get(name, {})) if isinstance(value, str) and "{{" in value else value
        for name, value in arguments.items()
    }


def _sample(option: dict[str, Any]) -> Any:
    if option.get("choices"):
        return option["choices"][0]
    if option.get("type") == "dict":
        return {name: _sample(inner) for name, inner in (option.get("options") or {}).items() if inner.get("required")}
    return {"bool": True, "int": 1, "float": 1.0, "list": []}.get(option.get("type", "str"), "sample")


def documents_its_answer(_tree: Tree, verb: Path) -> Iterator[str]:
    returned = documentation(verb)[2]
    for key in RETURNED:
        if key not in returned:
            yield f"RETURN: {key} is missing"
        elif "sample" not in returned[key]:
            yield f"RETURN: {key} has no sample"


def has_unit_tests_of_its_plan(tree: Tree, verb: Path) -> Iterator[str]:
    if not any(re.search(rf"\b{verb.stem}\b", text) and re.search(r"\bplan\b", text) for text in tree.unit_tests):
        yield f"tests/unit: no test_*.py speaks of {verb.stem} and its plan"


@functools.cache
def engine() -> type:
    """What every verb is made from; found only once the collection can be imported."""
    return importlib.import_module(f"{PACKAGE}.plugins.module_utils.verb").Verb


def verb_classes(verb: Path) -> list[type]:
    """The classes on the engine that a module defines: one."""
    module = _load(verb)
    return [
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, engine()) and each.__module__ == module.__name__
    ]


def is_taken_back(cls: type) -> bool:
    return cls.undo is not engine().undo


def says_how_to_go_back(cls: type) -> bool:
    return is_taken_back(cls) or cls.INSTEAD is not None


def undoes_or_says_what_instead(_tree: Tree, verb: Path) -> Iterator[str]:
    """What a run changed is taken back, or whoever wants that is told what to do instead."""
    if verb.stem in OF_THE_RUN:
        return
    says_empty = str(documentation(verb)[2].get("undo", {}).get("description")).startswith("Always empty")
    for cls in verb_classes(verb):
        if says_how_to_go_back(cls):
            if says_empty:
                yield "RETURN: undo is not always empty"
        elif not says_empty:
            yield "RETURN: undo is always empty, since there is neither undo() nor INSTEAD"
        elif cls.is_change is engine().is_change and re.search(r"\bStep\(", verb.read_text(encoding="utf-8")):
            yield f"{cls.__name__}: plans steps, and has neither undo() nor INSTEAD: what takes them back, or what can be done instead?"


# --- playbooks ---


def has_a_row_in_the_readme(tree: Tree, playbook: Path) -> Iterator[str]:
    if not re.search(rf"^\|.*\b{playbook.stem}\b.*\|", tree.text("README.md"), re.MULTILINE):
        yield f"README.md: no table row for {playbook.stem}"


def has_a_molecule_scenario(tree: Tree, playbook: Path) -> Iterator[str]:
    """One of its own, or one of another playbook of the same part that runs it too; none where there is nothing simulated to act on."""
    if playbook.stem in TESTED_WITHOUT_SANDBOX:
        return
    runs = f"import_playbook: ../../../playbooks/{playbook.name}"
    for converge in tree.root.glob("extensions/molecule/*/converge.yml"):
        if runs in converge.read_text(encoding="utf-8"):
            missing = [name for name in ("molecule.yml", "verify.yml") if not (converge.parent / name).is_file()]
            yield from (f"extensions/molecule/{converge.parent.name}/{name} is missing" for name in missing)
            return
    yield f"extensions/molecule/{playbook.stem}: no converge.yml runs {playbook.name}"


def is_in_the_changelog(tree: Tree, playbook: Path) -> Iterator[str]:
    if not re.search(rf"\b{playbook.stem}\b", tree.changelog):
        yield f"changelogs: no fragment speaks of {playbook.stem}"


def checks_its_arguments(tree: Tree, playbook: Path) -> Iterator[str]:
    """A role with an argument spec, or a spec of the playbook's own: bad input stops it before anything else does."""
    tasks = list(_tasks(yaml.safe_load(playbook.read_text(encoding="utf-8"))))
    roles = {role.removeprefix(f"{NAMESPACE}.") for role in _roles(tasks)}
    specified = {path.name for path in tree.roles() if _role_options(path)}
    if not roles & specified and not any("validate_argument_spec" in _module_names(task) for task in tasks):
        yield "uses no role with meta/argument_specs.yml and no ansible.builtin.validate_argument_spec"


def leaves_no_work_to_a_shell(_tree: Tree, playbook: Path) -> Iterator[str]:
    """A command can be neither planned, gated, waited for nor undone; a verb can."""
    for path in [playbook, *sorted(playbook.with_suffix("").glob("*.yml"))]:
        yield from _commands(path)


# --- roles ---


def specifies_its_arguments(_tree: Tree, role: Path) -> Iterator[str]:
    if not _role_options(role):
        yield "meta/argument_specs.yml: no options for the entry point main"


def has_no_shell_tasks(_tree: Tree, role: Path) -> Iterator[str]:
    for path in sorted([*role.glob("tasks/*.yml"), *role.glob("handlers/*.yml")]):
        yield from _commands(path)


def _role_options(role: Path) -> dict[str, Any]:
    path = role / "meta/argument_specs.yml"
    specs = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return (specs.get("argument_specs", {}).get("main") or {}).get("options") or {}


# --- every file ---

# No list of machines: whatever machine this runs on, its own places must not be written down. Where the clone lies
# directly under a common folder (/tmp/clone), that folder says nothing.
_COMMON = {Path(name) for name in ("/", "/tmp", "/var/tmp", "/home", "/opt", "/srv", "/usr/src")}
_REGISTRY = re.compile(
    r"(?:pypi|pythonhosted|npmjs|rubygems|crates|(?:deb|ftp|security)\.debian)\.(?:org|com|io)\b"
    r"|--(?:extra-)?index-url\b"
)


def names_no_machine(root: Path, text: str) -> Iterator[str]:
    """Paths of this machine and package registries, as `line number: what`."""
    places = {root, root.parent, Path.home()} - _COMMON
    machine = re.compile(r"(?<![\w.~}-])(?:" + "|".join(re.escape(str(place)) for place in sorted(places)) + r")(?=/)")
    for number, line in enumerate(text.splitlines(), 1):
        for found in (machine.search(line), _REGISTRY.search(line)):
            if found:
                yield f"{number}: {found.group()}"


def own_files(root: Path) -> list[Path]:
    """The files that git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = [root / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


# --- YAML of plays and tasks ---


def _tasks(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of plays, blocks, tasks and handlers, at any depth."""
    if isinstance(node, list):
        for entry in node:
            yield from _tasks(entry)
    elif isinstance(node, dict):
        yield node
        for key in ("pre_tasks", "tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            yield from _tasks(node.get(key))


def _module_names(task: dict[str, Any]) -> set[str]:
    """The keys of a task by their last part: `ansible.builtin.command` and `command` are one."""
    return {key.rpartition(".")[2] for key in task}


def _commands(path: Path) -> Iterator[str]:
    for task in _tasks(yaml.safe_load(path.read_text(encoding="utf-8"))):
        for name in _module_names(task) & COMMAND_MODULES:
            yield f"{path.parent.name}/{path.name}: task {task.get('name')!r}: {name} does what a verb should"


def _roles(tasks: list[dict[str, Any]]) -> Iterator[str]:
    for task in tasks:
        for entry in task.get("roles") or []:
            yield entry if isinstance(entry, str) else entry.get("role") or entry.get("name")
        for key in task:
            if key.rpartition(".")[2] in ("include_role", "import_role"):
                yield task[key]["name"]


VERB_CHECKS: list[Check] = [
    runs_in_the_controller,
    names_its_services,
    takes_module_defaults,
    supports_check_and_diff,
    documents_its_arguments,
    shows_examples,
    documents_its_answer,
    has_unit_tests_of_its_plan,
    undoes_or_says_what_instead,
]
PLAYBOOK_CHECKS: list[Check] = [
    has_a_row_in_the_readme,
    has_a_molecule_scenario,
    is_in_the_changelog,
    checks_its_arguments,
    leaves_no_work_to_a_shell,
]
ROLE_CHECKS: list[Check] = [specifies_its_arguments, has_no_shell_tasks]

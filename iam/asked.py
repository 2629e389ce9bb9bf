# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which permissions the code of a playbook's verbs names, read without running it: for paths that no test takes against a sandbox.

What is reachable from a verb's module is followed by names through plugins/module_utils: functions, classes, and of a class that is
reached the methods whose name occurs anywhere in what is reached, as an attribute or, since steps are called by their names, as a
text. That is more than what a run can come to, and hardly less.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import botocore.session
from botocore import xform_name

from ansible_collections.sre.runbooks.plugins.module_utils.aws import IAM_ACTION, IAM_PREFIX

from .policy import METRIC, is_look
from .reached import reached

PLUGINS = Path(__file__).parents[1] / "plugins"
# Methods of module_utils/aws.py that send a call: (service, operation, ...).
SENDS = {"change", "once", "read"}
# Who asks as another role needs none of it: so connections of such are called.
AS_ANOTHER = "as_role"
# Who one is, one is told in any case.
FREE = {"sts:GetCallerIdentity"}
# What a call needs besides its own permission; `sandbox/permissions.py` has the pages of AWS that tell it.
WITH = {
    "autoscaling:StartInstanceRefresh": {"ec2:RunInstances", "iam:PassRole"},
    "codedeploy:CreateDeployment": {"codedeploy:GetDeploymentConfig", "codedeploy:RegisterApplicationRevision"},
    "ecs:RegisterTaskDefinition": {"ecs:TagResource", "iam:PassRole"},
    "ecs:RunTask": {"iam:PassRole"},
    # Whose policy is read is looked at.
    "iam:GetGroupPolicy": {"iam:GetGroup"},
    "iam:GetRolePolicy": {"iam:GetRole"},
    "iam:GetUserPolicy": {"iam:GetUser"},
}
# The lease of whoever has one: playbooks without this verb tell theirs none.
LEASE, LEASE_VERB = {"dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}, "incident_lock"
# Playbooks that change nothing ask no verb to.
ONLY_LOOK = {"incident_review", "network_diagnosis", "readiness", "recovery_validation", "triage"}
# What it takes back is asked by the verbs of another playbook's run, under the policy of that.
WITH_ANOTHER = {"undo"}
# But for what it came to, where alarms see it.
TOLD = {"readiness": {METRIC}}
# Sessions are of users and roles.
GROUPS = {"iam:DeleteGroupPolicy", "iam:GetGroup", "iam:GetGroupPolicy", "iam:PutGroupPolicy"}
# What a playbook never comes to, since it asks its verbs for one direction only.
NEVER = {
    "security_breach": {
        "elasticloadbalancing:RegisterTargets",
        "iam:DeleteRolePolicy",
        "iam:DeleteUserPolicy",
        "iam:UntagUser",
    },
    "security_release": {
        "autoscaling:DetachInstances",
        "ec2:CreateSecurityGroup",
        "ec2:CreateSnapshots",
        "elasticloadbalancing:CreateRule",
        "elasticloadbalancing:DeregisterTargets",
        "iam:PutRolePolicy",
        "iam:PutUserPolicy",
        "iam:TagUser",
    },
}


def asked_by(playbook: Path) -> dict[str, set[str]]:
    """{permission: verbs of `playbook` whose code names it}, but for what the playbook never has them do."""
    verbs, found = verbs_of(playbook), {}
    never = GROUPS | NEVER.get(playbook.stem, set()) | (set() if LEASE_VERB in verbs else LEASE)
    for verb in sorted(verbs):
        for action in permissions(verb) - never:
            if playbook.stem not in ONLY_LOOK or is_look(action) or action in TOLD.get(playbook.stem, ()):
                found.setdefault(action, set()).add(verb)
    return found


def verbs_of(playbook: Path) -> set[str]:
    named = {name for path in reached(playbook) for name in re.findall(r"sre\.runbooks\.(\w+):", path.read_text())}
    return {name for name in named if (PLUGINS / "modules" / f"{name}.py").exists()}


# With a gap it says little but with two words besides.
GAP = "[a-z]+"
_OPERATION = re.compile(r"[a-z]+(_[a-z]+)+|[a-z]+_GAP_[a-z]+|[a-z]+(_[a-z]+)+_GAP".replace("GAP", re.escape(GAP)))


@cache
def permissions(verb: str) -> set[str]:
    """Those of all calls that code reachable from a verb may send."""
    found = _Reach(_load("modules", verb))
    sent = [each for node in found.nodes for each in _calls(node)]
    calls = [(service, operation) for by, service, operation in sent if by != AS_ANOTHER]
    # A helper is given the name of the operation, or of the service: then it stands somewhere as a text, perhaps with a gap.
    texts = found.texts - {operation for *_, operation in sent}
    operations = re.compile("|".join(text for text in sorted(texts) if _OPERATION.fullmatch(text)))
    services = found.texts & _services()
    pairs = {
        (api, name)
        for service, operation in calls
        for api in ([service] if service else services)
        for name in _operations(api)
        if (name == operation if operation else operations.fullmatch(name))
    }
    actions = {_permission(*pair) for pair in pairs} - FREE
    return actions.union(*(WITH.get(action, set()) for action in actions))


def _permission(service: str, operation: str) -> str:
    action = f"{IAM_PREFIX.get(service, service)}:{_operations(service)[operation]}"
    return IAM_ACTION.get(action, action)


def _calls(node: ast.AST) -> Iterator[tuple[str, str | None, str | None]]:
    """(by which connection, service, operation) of a call that this sends, None for what is a variable."""
    is_sent = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENDS
    if is_sent and len(node.args) > 1:
        service, operation = (each.value if isinstance(each, ast.Constant) else None for each in node.args[:2])
        # Other things have methods of these names: Kubernetes is asked by ("PATCH", path).
        if (service or operation) and service in _services() | {None}:
            yield ast.unparse(node.func.value), service, operation


@cache
def _services() -> set[str]:
    return set(botocore.session.get_session().get_available_services())


@cache
def _operations(service: str) -> dict[str, str]:
    """{operation in Python: operation}."""
    model = botocore.session.get_session().get_service_model(service)
    return {xform_name(name): name for name in model.operation_names}


@dataclass
class _File:
    """Definitions of one file by name, and what its imports of this collection stand for."""

    units: dict[str, ast.AST] = field(default_factory=dict)
    members: dict[str, tuple[str, str]] = field(default_factory=dict)  # {name here: (file, name there)}
    files: dict[str, str] = field(default_factory=dict)  # {name here: file}


@cache
def _load(folder: str, name: str) -> _File:
    path, found = PLUGINS / folder / f"{name}.py", _File()
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    for node in tree.body:
        for each in [node, *getattr(node, "targets", [])]:
            names = [getattr(each, "name", None), getattr(each, "id", None)]
            found.units |= {name: node for name in names if name}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            where = (node.module or "").removeprefix("ansible_collections.sre.runbooks.plugins.module_utils").strip(".")
            for each in node.names:
                if where:
                    found.members[each.asname or each.name] = (where, each.name)
                else:
                    found.files[each.asname or each.name] = each.name
    return found


class _Reach:
    """`nodes` of all that is reachable from the whole of one file, and the `texts` in it."""

    def __init__(self, file: _File) -> None:
        self.nodes: list[ast.AST] = []
        self.texts: set[str] = set()
        self._attributes: set[str] = set()
        self._methods: dict[str, list[tuple[_File, ast.AST]]] = {}  # of classes reached, not reached themselves so far
        self._seen: set[int] = set()
        for unit in file.units.values():
            self._into(file, unit, whole=True)

    def _into(self, file: _File, unit: ast.AST, whole: bool = False) -> None:
        if id(unit) in self._seen:
            return
        self._seen.add(id(unit))
        for node in self._parts(file, unit, whole):
            self.nodes.append(node)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.texts.add(node.value)
                self._called(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (each.value if isinstance(each, ast.Constant) else GAP for each in node.values)
                self.texts.add("".join(parts))
            elif isinstance(node, ast.Name) and id(node) not in self._seen:
                self._named(file, node.id)
            elif isinstance(node, ast.Attribute):
                self._called(node.attr)
                if isinstance(node.value, ast.Name) and node.value.id in file.files:
                    self._seen.add(id(node.value))  # walked through after this
                    self._named(_load("module_utils", file.files[node.value.id]), node.attr)

    def _parts(self, file: _File, unit: ast.AST, whole: bool) -> Iterator[ast.AST]:
        """All of it; of a class the methods only that something calls, now or later."""
        if whole or not isinstance(unit, ast.ClassDef):
            yield from ast.walk(unit)
            return
        for each in [*unit.bases, *unit.body]:
            name = getattr(each, "name", "__")
            if name.startswith("__") or name in self._attributes:
                yield from ast.walk(each)
            else:
                self._methods.setdefault(name, []).append((file, each))

    def _named(self, file: _File, name: str) -> None:
        if name in file.units:
            self._into(file, file.units[name])
        elif name in file.files:  # a file as a value: whoever has it may call all that is in it
            there = _load("module_utils", file.files[name])
            for unit in there.units.values():
                self._into(there, unit)
        elif name in file.members:
            where, there = file.members[name]
            self._named(_load("module_utils", where), there)

    def _called(self, name: str) -> None:
        if name not in self._attributes:
            self._attributes.add(name)
            for file, method in self._methods.pop(name, []):
                self._into(file, method)

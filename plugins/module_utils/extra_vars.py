# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was said with -e, or answered in a survey, against the argument specs beside the playbook.

A typing error in the name of an override is worse than one in its value: the run goes on as if nothing had been said. The specs
have the form that ansible-core reads from 2.20 on (playbook guide, "Play argument validation"), which leaves names that it does
not know alone; so this holds for older ones too, and refuses them.
"""

from __future__ import annotations

import difflib
import glob
import os
from typing import NamedTuple

try:
    import yaml
except ImportError:
    yaml = None

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

# What the callback found, for the guard's process.
REFUSED_VARIABLE = "SRE_RUNBOOKS_REFUSED"
# What a job leaves for the next one of a workflow, which AWX gives to it as an extra variable.
ARTIFACTS = "sre_runbooks"
# Beside it, what ansible-rulebook limits the hosts by of what it starts from such a dict.
LIMITS = "meta"
# Where ansible puts words that have no name, such as the second one of `-e "title=two words"`.
STRAY = "_raw_params"
# What AWX and ansible-rulebook add by themselves, and what ansible itself reads.
_ADDED = ("ansible_", "awx_", "tower_")
_TYPES = {
    "bool": "true or false",
    "dict": "a mapping",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "path": "a path",
    "str": "text",
}


class Arguments(NamedTuple):
    """The options of a playbook by name: what may be said to it, and what others take, or the inventory has."""

    playbook: str
    options: dict
    others: dict


def arguments(playbook):
    """The Arguments of the playbook at this path; None where no spec lies beside it.

    A spec names the parts of shared.meta.yml that belong to its playbook as `shared`, and playbooks whose tasks its own runs as
    `tasks_of`: what may be said to those may be said to it.
    """
    folder, name = os.path.split(os.path.splitext(playbook)[0])
    if yaml is None or not os.path.exists(os.path.join(folder, f"{name}.meta.yml")):
        return None
    own, shared = _specs(folder, name)[name], _specs(folder, "shared")
    options = {}
    for spec in [shared[part] for part in own["shared"]] + [
        _specs(folder, each)[each] for each in own.get("tasks_of", [])
    ]:
        options.update(spec["options"])
    others = {
        each: option for part in [*_of_roles(folder), *shared.values()] for each, option in part["options"].items()
    }
    return Arguments(name, options | own["options"], others)


def _of_roles(folder):
    """The argument specs of the roles beside the folder of the playbooks, whose variables an inventory may set, too."""
    for path in sorted(glob.glob(os.path.join(folder, "..", "roles", "*", "meta", "argument_specs.yml"))):
        yield from _read(path).values()


def _specs(folder, name):
    return _read(os.path.join(folder, f"{name}.meta.yml"))


def _read(path):
    with open(path, encoding="utf-8") as text:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["argument_specs"]


def artifacts(**values):
    """What a verb returns so that the next job of a workflow, and who waits for this one, has these values.

    It is the key by which `set_stats` works: the strategy of ansible takes it from any task, and AWX keeps it as the artifacts of the job.
    """
    return {"ansible_stats": {"data": {ARTIFACTS: values}, "per_host": False, "aggregate": True}}


def unanswered(said, there):
    """Names of the options that were said, but are empty: AWX 24.6 gives a question that nobody answered as "" or null.

    Of what the inventory has, an empty value says something: no bucket, no commands.
    """
    return [name for name in said if name in there.options and said[name] in (None, "")]


def refusal(said, there, in_inventory):
    """Why these extra variables are refused, in one line; None where all are right.

    Args:
        said: values by name.
        there: Arguments of the playbook.
        in_inventory: function without arguments that returns the names that the inventory has; asked for names that no spec has.
    """
    known = there.others | there.options
    strange = [
        name for name in said if name not in known and name not in (ARTIFACTS, LIMITS) and not name.startswith(_ADDED)
    ]
    if strange:
        own = set(in_inventory())
        strange = [name for name in strange if name not in own]
    wrong = [_strange(name, there, known) for name in strange if name != STRAY]
    if STRAY in said:
        # They are not told again, since they may be a part of a secret.
        wrong.append('what follows a space in -e has no name, and is lost: say -e \'{"name": "two words"}\'')
    wrong += [fault for name in said if name in known and (fault := _misfit(name, said[name], there, known[name]))]
    return f"{'; '.join(wrong)}; nothing was changed" if wrong else None


def _strange(name, there, known):
    near = difflib.get_close_matches(name, there.options, 1) or difflib.get_close_matches(name, known, 1)
    meant = f": did you mean {near[0]}?" if near else f", which has {', '.join(sorted(there.options))}"
    return f"{name} is no variable of {there.playbook}{meant}"


def _misfit(name, value, there, option):
    """Why the value is none of the option; a template is not judged before it is rendered."""
    if "{{" in str(value):
        return None
    spec = {key: option[key] for key in ("type", "elements", "choices") if key in option}
    if not ArgumentSpecValidator({name: spec}).validate({name: value}).error_messages:
        return None
    wanted = f"one of {', '.join(map(str, option['choices']))}" if "choices" in option else _TYPES[option["type"]]
    # What the inventory has may be a secret.
    return f"{name}={value} must be {wanted}" if name in there.options else f"{name} must be {wanted}"

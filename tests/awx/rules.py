# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX 24.6.1 takes and what it refuses, by the names of its source.

Surveys: `JobTemplateSurveySpec._validate_spec_data` (awx/api/views). Answers: `SurveyJobTemplateMixin` (awx/main/models/mixins.py).
The page that asks: awx/ui/src/util/prompt/getSurveyValues.js and LaunchPrompt/steps/useSurveyStep.js. Schedules:
`SchedulePreviewSerializer` (awx/api/serializers.py). Credential types: `CredentialTypeInputField`, `CredentialTypeInjectorField`
(awx/main/fields.py). Playbooks of a project: awx/main/utils/ansible.py.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrulestr
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

# The type of the default, which AWX wants as JSON has it.
QUESTIONS = {"text": str, "textarea": str, "password": str, "multiplechoice": str, "multiselect": str}
QUESTIONS |= {"integer": int, "float": float}
NAME = re.compile(r"[a-zA-Z_]+[a-zA-Z0-9_]*")
# ENV_BLOCKLIST of awx/main/constants.py.
NOT_TO_BE_SET = {"VIRTUAL_ENV", "PATH", "PYTHONPATH", "JOB_ID", "INVENTORY_ID", "INVENTORY_SOURCE_ID", "REST_API_URL"}
NOT_TO_BE_SET |= {"INVENTORY_UPDATE_ID", "AD_HOC_COMMAND_ID", "REST_API_TOKEN", "MAX_EVENT_RES", "CALLBACK_QUEUE"}
NOT_TO_BE_SET |= {"CALLBACK_CONNECTION", "CACHE", "JOB_CALLBACK_DEBUG", "INVENTORY_HOSTVARS", "AWX_HOST"}
NOT_TO_BE_SET |= {"PROJECT_REVISION", "SUPERVISOR_CONFIG_PATH"}


class BadRequest(Exception):
    """Carries the answer of status 400."""


def check_survey(spec: dict[str, Any]) -> None:
    """Raises BadRequest for a survey that AWX does not take."""
    for field, kind in (("name", str), ("description", str), ("spec", list)):
        if not isinstance(spec.get(field), kind):
            raise BadRequest({"error": f"Field '{field}' is missing from survey spec, or of another type."})
    if not spec["spec"]:
        raise BadRequest({"error": "'spec' doesn't contain any items."})
    seen = set()
    for number, question in enumerate(spec["spec"]):
        for field, kind in (("type", str), ("question_name", str), ("variable", str), ("required", bool)):
            if not isinstance(question.get(field), kind):
                raise BadRequest({"error": f"'{field}' missing from survey question {number}, or of another type."})
        if question["variable"] in seen:
            raise BadRequest({"error": f"'variable' '{question['variable']}' duplicated in survey question {number}."})
        seen.add(question["variable"])
        if fault := _fault_of(question):
            raise BadRequest({"error": f"Survey question {number}: {fault}"})


def _fault_of(question: dict[str, Any]) -> str:
    kind, default = question["type"], question.get("default", "")
    if kind not in QUESTIONS:
        return f"'{kind}' is not one of the allowed question types."
    if default != "" and (not isinstance(default, QUESTIONS[kind]) or isinstance(default, bool)):
        return f"Default value {default} expected to be {kind}."
    if isinstance(default, str) and default.startswith("$encrypted$"):
        return "$encrypted$ is a reserved keyword."
    if any(not isinstance(question.get(limit, 0), int | None) for limit in ("min", "max")):
        return "The limits are expected to be integer."
    if kind not in ("multiplechoice", "multiselect"):
        return ""
    if "choices" not in question:
        return f"{kind} must specify choices."
    if isinstance(question["choices"], str):  # blank lines are taken out, so it is read back otherwise than it was sent
        question["choices"] = "\n".join(line for line in question["choices"].splitlines() if line.strip())
    defaults = [line for line in default.splitlines() if line.strip()]
    if kind == "multiplechoice" and len(defaults) > 1:
        return "Multiple Choice (Single Select) can only have one default value."
    if any(line not in question["choices"] for line in defaults):
        return "Default choice must be answered from the choices listed."
    return ""


def faults_of_answers(spec: Iterable[dict[str, Any]], answers: dict[str, Any], required: bool = True) -> list[str]:
    """Why these answers are none, in the words of AWX; what is asked and not answered counts only where it is required."""
    return [fault for question in spec for fault in _faults_of_answer(question, answers, required)]


def _faults_of_answer(question: dict[str, Any], answers: dict[str, Any], required: bool) -> Iterator[str]:
    name, kind = question["variable"], question["type"]
    if name not in answers:
        if question["required"] and required:
            yield f"'{name}' value missing"
        return
    value = answers[name]
    wanted = {"integer": int, "float": float | int, "multiselect": list}.get(kind, str)
    if not isinstance(value, wanted) or isinstance(value, bool):
        yield f"Value {value} for '{name}' expected to be of type {kind}."
    elif kind in ("multiplechoice", "multiselect"):
        choices = question["choices"]
        choices = choices.splitlines() if isinstance(choices, str) else choices
        for one in value if kind == "multiselect" else [value]:
            if one not in choices:
                yield f"Value {one} for '{name}' expected to be one of {choices}."
    else:
        size = len(value) if isinstance(value, str) else value
        if question.get("min") is not None and size < question["min"]:
            yield f"'{name}' value {value} is too small (must be at least {question['min']})."
        if question.get("max") is not None and size > question["max"]:
            yield f"'{name}' value {value} is too large (must be no more than {question['max']})."


def from_the_page(spec: Iterable[dict[str, Any]], typed: dict[str, Any]) -> dict[str, Any]:
    """What the page of AWX sends when a person has typed this: defaults stand in the fields, and what is empty is not sent."""
    shown = {}
    for question in spec:
        default = question.get("default", "")
        shown[question["variable"]] = default.splitlines() if question["type"] == "multiselect" else default
    return {name: value for name, value in (shown | typed).items() if value not in ("", [])}


def with_defaults(spec: Iterable[dict[str, Any]], said: dict[str, Any]) -> dict[str, Any]:
    """The extra variables of a job: what was said, over the defaults of the survey that are answers (`_update_unified_job_kwargs`)."""
    defaults = {each["variable"]: each["default"] for each in spec if each.get("default") is not None}
    taken = {
        each["variable"]: defaults[each["variable"]]
        for each in spec
        if each["variable"] in defaults and not faults_of_answers([each], defaults)
    }
    return taken | said


def check_rrule(rule: str) -> None:
    """Raises BadRequest for a rule that no schedule of AWX may have."""
    starts = re.findall(r"DTSTART(?:;TZID=[^\s:]+)?:\d{8}T\d{6}Z?", rule)
    rules = re.findall(r"(?:RRULE|EXRULE):\S+", rule)
    counts = [int(count) for count in re.findall(r"COUNT=(\d+)", rule)]
    faults = {
        "Valid DTSTART required in rrule. Value should start with: DTSTART:YYYYMMDDTHHMMSSZ": not starts,
        "DTSTART cannot be a naive datetime.": re.search(r"DTSTART:\d{8}T\d{6}(?!Z|\d)", rule),
        "Multiple DTSTART is not supported.": len(starts) > 1,
        "One or more rule required in rrule.": "rrule:" not in rule.lower(),
        "EXDATE not allowed in rrule.": "exdate:" in rule.lower(),
        "RDATE not allowed in rrule.": "rdate:" in rule.lower(),
        "INTERVAL required in rrule": any("interval" not in each.lower() for each in rules),
        "SECONDLY is not supported": any("secondly" in each.lower() for each in rules),
        "BYDAY with numeric prefix not supported": re.search(r"BYDAY[:=][0-9]+[a-zA-Z]{2}", rule),
        "RRULE may not contain both COUNT and UNTIL": any("COUNT" in each and "UNTIL" in each for each in rules),
        "COUNT > 999 is unsupported": any(count > 999 for count in counts),
        "Ensure this field has no more than 255 characters.": len(rule) > 255,
    }
    found = [fault for fault, there in faults.items() if there]
    if not found:
        try:
            for zone in re.findall(r"TZID=([^\s:]+)", rule):
                ZoneInfo(zone)
            rrulestr("\n".join(rule.split()), forceset=True)
        except (ValueError, ZoneInfoNotFoundError) as error:
            found = [f"rrule parsing failed validation: {error}"]
    if found:
        raise BadRequest({"rrule": found})


def check_credential_type(kind: str, inputs: dict[str, Any], injectors: dict[str, Any]) -> None:
    """Raises BadRequest for a credential type that AWX does not take."""
    if kind not in ("cloud", "net"):
        raise BadRequest({"kind": [f"Must be 'cloud' or 'net', not {kind}"]})
    fields = inputs.get("fields", [])
    names = [field.get("id", "") for field in fields]
    if strange := set(inputs) - {"fields", "required"}:
        raise BadRequest({"inputs": [f"Additional properties are not allowed ({', '.join(strange)})"]})
    known = {
        "type",
        "format",
        "choices",
        "id",
        "label",
        "help_text",
        "multiline",
        "secret",
        "ask_at_runtime",
        "default",
    }
    for field in fields:
        kind_of = field.get("type", "string")
        if not NAME.fullmatch(field.get("id", "")) or not isinstance(field.get("label"), str) or set(field) - known:
            raise BadRequest({"inputs": [f"{field} is no field"]})
        if kind_of not in ("string", "boolean") or (
            kind_of == "boolean" and {"secret", "multiline", "format"} & set(field)
        ):
            raise BadRequest({"inputs": [f"{field['id']}: not allowed for {kind_of} type"]})
    if "tower" in names or len(names) != len(set(names)):
        raise BadRequest({"inputs": ["field IDs must be unique, and none may be tower"]})
    if missing := set(inputs.get("required", [])) - set(names):
        raise BadRequest({"inputs": [f"required but not defined: {missing}"]})
    _check_injectors(names, injectors)


def _check_injectors(names: list[str], injectors: dict[str, Any]) -> None:
    files = list(injectors.get("file", {}))
    if set(injectors) - {"file", "env", "extra_vars"} or any(
        not re.fullmatch(r"template(\.[a-zA-Z_]+[a-zA-Z0-9_]*)?", name) for name in files
    ):
        raise BadRequest({"injectors": ["not env, extra_vars, or files named template"]})
    for name in injectors.get("env", {}):
        if not NAME.fullmatch(name) or name.startswith("ANSIBLE_") or name in NOT_TO_BE_SET:
            raise BadRequest({"injectors": [f"Environment variable {name} is not allowed to be used in credentials."]})
    tower = {"filename": {name.partition(".")[2]: "x" for name in files} if files != ["template"] else "x"}
    for into, templates in injectors.items():
        for name, template in templates.items():
            if not template.isascii():
                raise BadRequest({"injectors": [f"{name} in {into} is not ASCII"]})
            try:
                render(template, dict.fromkeys(names, "EXAMPLE") | {"tower": tower}, strict=True)
            except TemplateError as error:
                raise BadRequest({"injectors": [f"{name} in {into}: {error}"]}) from error


def render(template: str, values: dict[str, Any], strict: bool = False) -> str:
    """An injector; a field that was left empty renders as nothing."""
    undefined = {"undefined": StrictUndefined} if strict else {}
    return ImmutableSandboxedEnvironment(**undefined).from_string(template).render(values)


@functools.cache
def playbooks(project: Path) -> list[str]:
    """What AWX offers as playbooks of a project: YAML with a line that begins with hosts or an import, outside of roles and the like."""
    line = re.compile(r"^\s*?-?\s*?(?:hosts|(ansible\.builtin\.)?import_playbook|include):\s*?.*?$", re.MULTILINE)
    found = []
    for folder, folders, names in os.walk(project):
        folders[:] = [
            each for each in folders if each not in ("roles", "tasks", "group_vars", "host_vars") and each[0] != "."
        ]
        for name in names:
            path = Path(folder, name)
            if path.suffix in (".yml", ".yaml") and line.search(path.read_text(encoding="utf-8", errors="ignore")):
                found.append(str(path.relative_to(project)))
    return sorted(found)

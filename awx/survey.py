# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An argument spec as the survey of a job template.

AWX has seven types of questions (AWX User Guide, "Surveys"; what it accepts is in its `JobTemplateSurveySpec`), none of them yes
or no, and checks the type of each default. A password question would report a change on every set-up, since AWX never gives its
default back, so secrets are no questions; they come by credentials.
"""

from __future__ import annotations

from typing import Any

# An answer that is empty counts as none (extra_vars.py).
NOT_SAID = ""
_PLAIN = {"str": "text", "path": "text", "int": "integer", "float": "float", "list": "text"}


def survey(options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The survey with one question for each option, in their order."""
    return {"name": "", "description": "", "spec": [_question(name, option) for name, option in options.items()]}


def _question(name: str, option: dict[str, Any]) -> dict[str, Any]:
    """Raises KeyError for an option that no question can ask for, such as a mapping."""
    question = {
        "question_name": name.replace("_", " "),
        "question_description": option["description"],
        "variable": name,
        "required": option.get("required", False),
    }
    if option["type"] == "list" and "choices" in option:
        return question | {"type": "multiselect", "choices": option["choices"]}
    if option["type"] == "list":
        question["question_description"] += " Several are separated by commas."
    if option["type"] == "bool":
        return _one_of(question, ["false", "true"], str(option.get("default", NOT_SAID)).lower())
    if "choices" in option:
        return _one_of(question, option["choices"], option.get("default", NOT_SAID))
    question["type"] = _PLAIN[option["type"]]
    if "default" in option:
        # JSON has one kind of numbers, AWX two.
        question["default"] = float(option["default"]) if option["type"] == "float" else option["default"]
    return question


def _one_of(question: dict[str, Any], choices: list[str], default: str) -> dict[str, Any]:
    """A question that may be left open has that as a choice, since the page of AWX shows no other way to leave it open."""
    if not question["required"] and default == NOT_SAID:
        choices = [NOT_SAID, *choices]
    chosen = {} if question["required"] and default == NOT_SAID else {"default": default}
    return question | {"type": "multiplechoice", "choices": choices} | chosen

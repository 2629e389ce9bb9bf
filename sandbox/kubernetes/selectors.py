# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Label and field selectors.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .errors import bad_request

Test = Callable[[dict], bool]

_SET = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")
_TERMS = re.compile(r",(?![^(]*\))")


def labels(text: str) -> Test:
    """A test of an object's labels. Raises BadRequest."""
    terms = [_term(term.strip()) for term in _TERMS.split(text) if term.strip()]
    return lambda found: all(term(found or {}) for term in terms)


def _term(text: str) -> Test:
    if found := _SET.match(text):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda has: has.get(key) in values
        return lambda has: has.get(key) not in values
    for operator in ("!=", "==", "="):
        key, separator, value = (part.strip() for part in text.partition(operator))
        if separator:
            if operator == "!=":
                return lambda has: has.get(key) != value
            return lambda has: has.get(key) == value
    if not re.fullmatch(r"!?[A-Za-z0-9._/-]+", text):
        raise bad_request(f"unable to parse requirement: {text!r}")
    if text.startswith("!"):
        return lambda has: text[1:].strip() not in has
    return lambda has: text in has


def of_object(selector: dict | None) -> Test:
    """A test of labels for a LabelSelector object: matchLabels and matchExpressions. None selects nothing."""
    if selector is None:
        return lambda has: False
    tests: list[Test] = [
        lambda has, key=key, value=value: has.get(key) == value
        for key, value in (selector.get("matchLabels") or {}).items()
    ]
    for each in selector.get("matchExpressions") or []:
        key, operator, values = each["key"], each["operator"], set(each.get("values") or [])
        tests.append(
            {
                "In": lambda has, key=key, values=values: has.get(key) in values,
                "NotIn": lambda has, key=key, values=values: has.get(key) not in values,
                "Exists": lambda has, key=key: key in has,
                "DoesNotExist": lambda has, key=key: key not in has,
            }[operator]
        )
    return lambda has: all(test(has or {}) for test in tests)


def as_text(selector: dict | None) -> str:
    """As the scale subresource shows it: app=web,tier in (a,b)."""
    parts = [f"{key}={value}" for key, value in sorted(((selector or {}).get("matchLabels") or {}).items())]
    for each in (selector or {}).get("matchExpressions") or []:
        values = ",".join(sorted(each.get("values") or []))
        parts.append(
            {
                "In": f"{each['key']} in ({values})",
                "NotIn": f"{each['key']} notin ({values})",
                "Exists": each["key"],
                "DoesNotExist": f"!{each['key']}",
            }[each["operator"]]
        )
    return ",".join(parts)


def fields(text: str) -> Test:
    """A test of an object by paths such as metadata.name, status.phase, involvedObject.uid. Raises BadRequest."""
    tests: list[Test] = []
    for term in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([A-Za-z0-9.]+)\s*(!=|==|=)\s*(.*)", term)
        if not found:
            raise bad_request(f'invalid field selector: "{term}"; can\'t understand "{term}"')
        path, operator, value = found.groups()
        tests.append(lambda has, path=path, value=value, equal=operator != "!=": (_at(has, path) == value) == equal)
    return lambda has: all(test(has) for test in tests)


def _at(found: dict, path: str) -> str:
    for step in path.split("."):
        found = found.get(step) if isinstance(found, dict) else None
    return "" if found is None else str(found)

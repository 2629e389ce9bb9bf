# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers that say no: each is a Status object, as the API server words it.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .resources import Resource


class ApiError(Exception):
    """A request that is refused: HTTP status `code`, machine-readable `reason`, a message for people."""

    def __init__(self, code: int, reason: str, message: str, details: dict | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def status(self) -> dict[str, Any]:
        answer = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return answer if self.details is None else answer | {"details": self.details}


def success(code: int | None = None, details: dict | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if details:
        answer["details"] = details
    return answer if code is None else answer | {"code": code}


def _details(resource: Resource, name: str) -> dict:
    group = {"group": resource.group} if resource.group else {}
    return {"name": name, **group, "kind": resource.plural}


def not_found(resource: Resource, name: str) -> ApiError:
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', _details(resource, name))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(resource: Resource, name: str) -> ApiError:
    return ApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', _details(resource, name))


def conflict(resource: Resource, name: str, why: str | None = None) -> ApiError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def field_conflicts(conflicts: list[tuple[str, str, str]]) -> ApiError:
    """Of a server-side apply. `conflicts`: (manager, API version, path of the field)."""
    lines = [(f'conflict with "{manager}" using {version}', path) for manager, version, path in conflicts]
    causes = [{"reason": "FieldManagerConflict", "message": line, "field": path} for line, path in lines]
    if len(lines) == 1:
        message = f"Apply failed with 1 conflict: {lines[0][0]}: {lines[0][1]}"
    else:
        message = "\n".join(
            [f"Apply failed with {len(lines)} conflicts:", *(f"{line}:\n- {path}" for line, path in lines)]
        )
    return ApiError(409, "Conflict", message, {"causes": causes})


def invalid(resource: Resource, name: str, problems: list[tuple[str, str, str]]) -> ApiError:
    """`problems`: (field, reason such as FieldValueRequired, message)."""
    lines = [f"{field}: {message}" for field, _, message in problems]
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    group = {"group": resource.group} if resource.group else {}
    return ApiError(
        422,
        "Invalid",
        f'{resource.kind}{"." + resource.group if resource.group else ""} "{name}" is invalid: {text}',
        {
            "name": name,
            **group,
            "kind": resource.kind,
            "causes": [{"reason": reason, "message": message, "field": field} for field, reason, message in problems],
        },
    )


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def method_not_allowed() -> ApiError:
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def unsupported_media_type(wanted: str) -> ApiError:
    message = f"the body of the request was in an unknown format - accepted media types include: {wanted}"
    return ApiError(415, "UnsupportedMediaType", message)


def expired(wanted: int, oldest: int) -> ApiError:
    return ApiError(410, "Expired", f"too old resource version: {wanted} ({oldest})")


def too_many_requests(message: str, causes: list[dict] | None = None) -> ApiError:
    return ApiError(429, "TooManyRequests", message, {"causes": causes} if causes else {})

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Task definitions: which a name means, in which order they are listed, and what is left of one that was given up."""

from __future__ import annotations

from typing import Any

from . import state


def usable(backend: Any, name: str) -> Any:
    """The task definition that a service or a task is to run. Raises ClientException as AWS does."""
    from moto.ecs.exceptions import EcsClientException, TaskDefinitionNotFoundException

    try:
        definition = backend.describe_task_definition(name)
    except TaskDefinitionNotFoundException:
        raise EcsClientException("TaskDefinition not found.") from None
    if definition.status != "ACTIVE":
        raise EcsClientException("TaskDefinition is inactive")
    return definition


def register_task_definition(backend: Any, *args: Any, **kwargs: Any) -> Any:
    definition = state.moto["register_task_definition"](backend, *args, **kwargs)
    definition.registered_at = state.now()
    definition.registered_by = f"arn:aws:iam::{backend.account_id}:user/sandbox"
    return definition


def describe_task_definition(backend: Any, task_definition_str: str) -> Any:
    """Also: a family means its latest ACTIVE revision, and a revision is a number."""
    from moto.ecs.exceptions import EcsClientException, TaskDefinitionNotFoundException

    family, _, revision = task_definition_str.split("/")[-1].partition(":")
    known = backend.task_definitions.get(family, {})
    if revision and not revision.isdigit():
        raise EcsClientException(f"Invalid revision number. Number: {revision}")
    if not revision:
        active = [number for number, each in known.items() if each.status == "ACTIVE"]
        revision = max(active, default=0)
    if int(revision) not in known:
        raise TaskDefinitionNotFoundException
    return known[int(revision)]


def list_task_definitions(response: Any) -> Any:
    from moto.core.responses import ActionResult

    prefix, status = response._get_param("familyPrefix"), response._get_param("status", "ACTIVE")
    revisions = [
        definition
        for family in sorted(response.ecs_backend.task_definitions)
        for _, definition in sorted(response.ecs_backend.task_definitions[family].items())
        if prefix in (None, family) and definition.status == status
    ]
    if response._get_param("sort") == "DESC":
        revisions.reverse()
    page, more = paged(response, revisions, 100)
    return ActionResult({"taskDefinitionArns": [each.arn for each in page], **more})


def paged(response: Any, entries: list, default: int) -> tuple[list, dict]:
    """The page that a request asks for, and `nextToken` where there are more."""
    first, size = int(response._get_param("nextToken") or 0), int(response._get_param("maxResults") or default)
    more = {"nextToken": str(first + size)} if len(entries) > first + size else {}
    return entries[first : first + size], more


def deregister_task_definition(backend: Any, task_definition_str: str) -> Any:
    definition = state.moto["deregister_task_definition"](backend, task_definition_str)
    definition.deregistered_at = state.now()
    return definition


def delete_task_definitions(backend: Any, task_definitions: list[str]) -> Any:
    """Also: what is being deleted can still be described, and its number is not given again.

    https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteTaskDefinitions.html
    """
    deleted, failures = state.moto["delete_task_definitions"](backend, task_definitions)
    for definition in deleted:
        definition.delete_requested_at = state.now()
        backend.task_definitions[definition.family][definition.revision] = definition
    return deleted, failures


BACKEND = (
    register_task_definition,
    describe_task_definition,
    deregister_task_definition,
    delete_task_definitions,
)
RESPONSE = (list_task_definitions,)

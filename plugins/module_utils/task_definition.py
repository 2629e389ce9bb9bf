# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ECS task definitions as data: a new revision that differs in one thing. Pure functions.

A value of an environment variable may be a secret. Only the host and port of the named variables leave this file.
"""

from __future__ import annotations

import copy
import re

from .errors import Refusal

# What DescribeTaskDefinition answers and RegisterTaskDefinition does not take; all else is copied, so that a field that
# AWS adds tomorrow is not lost. https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskDefinition.html
READ_ONLY = frozenset(
    (
        "taskDefinitionArn",
        "revision",
        "status",
        "requiresAttributes",
        "compatibilities",
        "registeredAt",
        "registeredBy",
        "deregisteredAt",
        "deleteRequestedAt",
    )
)

_HOST = r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+"
# An "@" behind the host means that a password was not percent-encoded and the host is not where it seems to be.
_URL = re.compile(
    rf"(?P<head>[^/?#]*://(?:[^/?#]*@)?)(?P<host>{_HOST})(?::(?P<port>[0-9]+))?(?P<tail>(?:[/?#;][^@]*)?)"
)
_BARE = re.compile(rf"(?P<head>)(?P<host>{_HOST})(?::(?P<port>[0-9]+))?(?P<tail>)")


def short(arn):
    """family:revision of a task definition ARN."""
    return arn.rpartition("/")[2]


def family(arn):
    """The family of a task definition ARN or family:revision."""
    return short(arn).partition(":")[0]


def number(arn):
    """The revision number of a task definition ARN or family:revision."""
    return int(short(arn).partition(":")[2])


def registerable(definition, tags=()):
    """The arguments of RegisterTaskDefinition that make the same task definition again.

    Args:
        definition, tags: `taskDefinition` and `tags` of DescribeTaskDefinition. Tags whose key starts with "aws:" are
            written by AWS itself (CloudFormation for one), which refuses them in requests.
    """
    request = {key: copy.deepcopy(value) for key, value in definition.items() if key not in READ_ONLY}
    own = [dict(tag) for tag in tags if not tag["key"].startswith("aws:")]
    return dict(request, tags=own) if own else request


def equal(one, other):
    """Do two requests make the same task definition? The order of variables, secrets and tags means nothing."""
    return _ordered(one) == _ordered(other)


def _ordered(request):
    request = copy.deepcopy(request)
    request["tags"] = sorted(request.get("tags", []), key=lambda tag: tag["key"])
    for container in request.get("containerDefinitions", []):
        for key in ("environment", "secrets"):
            container[key] = sorted(container.get(key, []), key=lambda entry: entry["name"])
    return request


def differences(old, new):
    """Pure: what one task definition has otherwise than another, a line each. Variables and secrets by name only: a value of
    theirs may be a secret."""
    lines = [f"{key}: {old.get(key)} -> {new.get(key)}" for key in ("cpu", "memory") if old.get(key) != new.get(key)]
    was, now = ({each["name"]: each for each in one["containerDefinitions"]} for one in (old, new))
    lines += [f"container {name} is gone" for name in was.keys() - now.keys()]
    lines += [f"container {name} is new, of {now[name]['image']}" for name in now.keys() - was.keys()]
    for name in sorted(was.keys() & now.keys()):
        lines += _differences_of_container(name, was[name], now[name])
    known = READ_ONLY | {"cpu", "memory", "containerDefinitions", "tags"}
    return lines + [f"{key} changed" for key in sorted(_changed(old, new) - known)]


def _changed(old, new):
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def _differences_of_container(name, old, new):
    for key in ("image", "cpu", "memory"):
        if old.get(key) != new.get(key):
            yield f"{name}: {key} {old.get(key)} -> {new.get(key)}"
    for key, value, what in (("environment", "value", "variable"), ("secrets", "valueFrom", "secret")):
        was, now = ({each["name"]: each.get(value) for each in one.get(key, [])} for one in (old, new))
        for variable in sorted(was.keys() | now.keys()):
            if was.get(variable) != now.get(variable):
                how = "is new" if variable not in was else "is gone" if variable not in now else "changed"
                yield f"{name}: {what} {variable} {how}"
    shown = {"name", "image", "cpu", "memory", "environment", "secrets"}
    yield from (f"{name}: {key} changed" for key in sorted(_changed(old, new) - shown))


def only_container(containers, name, where):
    """The container of that name, of a task definition or of a pod template; without a name the only one.

    Raises:
        Refusal: there is none, or more than one to choose from.
    """
    found = [each for each in containers if name in (None, each["name"])]
    if len(found) != 1:
        there = ", ".join(each["name"] for each in containers)
        raise Refusal(
            f"{where} has {'no container ' + name if name else 'several containers'} (it has: {there}): give one as container"
        )
    return found[0]


def repoint(request, variables, host, port=None, container=None, made_from=None):
    """`request` with the address in each of `variables` replaced; all else as it was.

    Args:
        container: name of the only container to change; default is each one that has a variable.
        made_from: a variable whose value is the pattern for those that are missing, in each container that has it.

    Raises:
        Refusal: a variable is missing, comes from a secret, or holds no address.
    """
    if not re.fullmatch(_HOST, host):
        raise Refusal(f"endpoint_host {host} is not a bare host name: give the port as endpoint_port, and no URL")
    request = copy.deepcopy(request)
    containers = _containers(request, container)
    for variable in variables:
        _refuse_secret(containers, variable)
        entries = _entries(containers, variable)
        if not entries and made_from:
            _refuse_secret(containers, made_from)
            for each in containers:
                pattern = [
                    dict(entry, name=variable) for entry in each.get("environment", []) if entry["name"] == made_from
                ]
                each.setdefault("environment", []).extend(pattern)
            entries = _entries(containers, variable)
        if not entries:
            raise Refusal(_missing(request["family"], containers, variable))
        for name, entry in entries:
            try:
                entry["value"] = readdress(entry["value"], host, port)
            except ValueError:
                raise Refusal(
                    f"{variable} of container {name} in {request['family']} is neither a URL with a single host "
                    f"nor host[:port]: set it by hand in a new revision, then give it as task_definition"
                ) from None
    return request


def _entries(containers, variable):
    """[(container's name, entry of its environment)] of a variable."""
    return [
        (each["name"], entry)
        for each in containers
        for entry in each.get("environment", [])
        if entry["name"] == variable
    ]


def container(request, name=None):
    """The container of that name, or the only one there is.

    Raises:
        Refusal: there is none, or several and no name.
    """
    found = _containers(request, name)
    if len(found) > 1:
        there = ", ".join(each["name"] for each in found)
        raise Refusal(f"{request['family']} has several containers ({there}): say which one is meant")
    return found[0]


def set_variable(container, name, value):
    """Give a container a variable, in place; None takes it out. All others stay, and their order.

    Raises:
        Refusal: a secret has that name.
    """
    _refuse_secret([container], name)
    entries = [dict(each) for each in container.get("environment", [])]
    known = next((each for each in entries if each["name"] == name), None)
    if value is None:
        entries = [each for each in entries if each["name"] != name]
    elif known:
        known["value"] = value
    else:
        entries.append({"name": name, "value": value})
    container["environment"] = entries


def readdress(value, host, port=None):
    """`value` (a URL, host, host:port, or a port alone) with another host, and another port where one is given.

    A bare host stays without a port: whoever reads it takes the port from elsewhere. User, path and query are kept.

    Raises:
        ValueError: there is no single address in it. Its text does not repeat the value, which may hold a password.
    """
    if value.isdigit():
        return str(port) if port else value
    found = _match(value)
    bare = not found["head"] and not found["port"]
    new_port = "" if bare else port or found["port"]
    return f"{found['head']}{host}{f':{new_port}' if new_port else ''}{found['tail']}"


def addresses(definition, variables, container=None):
    """{"container.VARIABLE": "host:port"} as far as there are such variables: what may be shown of them."""
    shown = {}
    for each in definition["containerDefinitions"]:
        for entry in each.get("environment", []):
            if entry["name"] in variables and container in (None, each["name"]):
                shown[f"{each['name']}.{entry['name']}"] = _address(entry["value"])
    return shown


def _address(value):
    if value.isdigit():
        return value
    try:
        found = _match(value)
    except ValueError:
        return "(no address)"
    return found["host"] + (f":{found['port']}" if found["port"] else "")


def _match(value):
    found = _URL.fullmatch(value) or _BARE.fullmatch(value)
    if not found:
        raise ValueError("no address")
    return found


def _containers(request, name):
    containers = [each for each in request["containerDefinitions"] if name in (None, each["name"])]
    if not containers:
        there = ", ".join(each["name"] for each in request["containerDefinitions"])
        raise Refusal(f"{request['family']} has no container {name} (it has: {there}): check the container option")
    return containers


def _refuse_secret(containers, variable):
    for each in containers:
        for secret in each.get("secrets", []):
            if secret["name"] == variable:
                raise Refusal(
                    f"{variable} of container {each['name']} comes from the secret {secret['valueFrom']}, not from "
                    f"the task definition: change the address in that secret, then force a new deployment"
                )


def _missing(name, containers, variable):
    there = sorted({entry["name"] for each in containers for entry in each.get("environment", [])})
    files = [file["value"] for each in containers for file in each.get("environmentFiles", [])]
    also = f"; it may be in the environment file {', '.join(files)}, which cannot be changed from here" if files else ""
    has = ", ".join(there) or "none"
    return f"{name} has no environment variable {variable} (it has: {has}){also}: check the variables option"

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that closes an Ingress to its users, or tells an application of maintenance, and takes it back: pure functions.

What is changed is written on the object itself, in one annotation: what each changed field had, and what it was given. So
any controller opens what another one has closed, and what somebody else changed meanwhile is known and left alone.

What is observed is a dict:
    ingress, config_map: the objects as the API sends them (None: not asked for; config_map also: not there)
    others: ingresses of the namespace that serve a host of this one, controller: of its class (None: unknown)
    snippets: whether its controller takes snippets (None: cannot be seen), stamp: the time, reconcilers: who would put it back
    page: how many addresses serve `maintenance_service` (None: cannot be seen, or it is not asked for)
"""

from __future__ import annotations

import copy
import json

from .closed_listener import OPEN, PAGES, allowed, answer
from .errors import Refusal
from .verb import Plan, Step

MARK = "sre.runbooks/traffic"
# https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/
SNIPPET = "nginx.ingress.kubernetes.io/server-snippet"
# The older name is known to every version; the newer one would win over it.
RANGES = "nginx.ingress.kubernetes.io/whitelist-source-range"
NEWER_RANGES = "nginx.ingress.kubernetes.io/allowlist-source-range"
NOBODY = "255.255.255.255/32"
# https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/annotations/#actions
OURS = "sre-runbooks-traffic"
ALB_ACTION = f"alb.ingress.kubernetes.io/actions.{OURS}"
NGINX, ALB = "k8s.io/ingress-nginx", "ingress.k8s.aws/alb"
# https://kubernetes.io/docs/concepts/services-networking/ingress/#deprecated-annotation
CLASS = "kubernetes.io/ingress.class"
DEFAULT_BACKEND = "backend.default"
WAYS = ("snippet", "source_range", "alb_action", "service")


def plan(observed, wanted):
    """The steps that are left, the one that keeps users out first.

    Raises:
        Refusal: there is no way to close this ingress, or it would not last.
    """
    if not wanted["ingress"] and (wanted["state"] == "blocked" or not wanted["config_map"]):
        raise Refusal("nothing is named that could be closed: give ingress, or config_map for state=maintenance")
    closing = closes(wanted)
    steps, notes, after, told = [], [], {}, None
    if wanted["ingress"]:
        steps, notes, told = _ingress(observed, wanted, closing)
    if wanted["config_map"]:
        first, more = _config_map(observed, wanted)
        steps, notes = (steps + first if closing else first + steps), notes + more
    if steps:
        if observed["reconcilers"]:
            who = " and ".join(observed["reconcilers"])
            if wanted["when_managed"] == "refuse":
                raise Refusal(
                    f"{_names(wanted)} is managed by {who} and would be put back: suspend that and say when_managed=note"
                )
            notes.append(
                f"{_names(wanted)} is managed by {who}: what is changed here is put back unless that is suspended"
            )
        after = {"state": wanted["state"], "since": None if wanted["state"] == OPEN else observed["stamp"]}
    elif wanted["state"] != OPEN:
        notes.append(f"{_names(wanted)} is {wanted['state']} since {view(observed)['since']}")
    return Plan(tuple(steps), after, tuple(notes), {"status_code": told and told["status_code"]})


def closes(wanted):
    """Is the ingress itself to be closed? An application that shows its own page needs its users to reach it."""
    return wanted["state"] == "blocked" or (wanted["state"] == "maintenance" and not wanted["config_map"])


# --- the ingress ---


def _ingress(observed, wanted, closing):
    """[step], [note], and what users are answered (None: as before)."""
    present = _state(observed["ingress"])
    former, notes = original(observed["ingress"])
    goal, told = former, None
    if closing:
        way = choose(observed, wanted, former)
        goal = closed(former, way, wanted)
        told = _told(way, wanted)
        mark = dict(_mark(former, goal), state=wanted["state"], since=observed["stamp"], **told)
        before = _known(observed["ingress"])
        if before and all(before.get(key) == mark[key] for key in mark if key != "since"):
            mark["since"] = before["since"]
        goal = _annotated(goal, {MARK: json.dumps(mark, sort_keys=True)})
        notes = [*_remarks(observed, way, wanted)]  # what others changed is part of what it had, and kept
    if _fields(goal) == _fields(observed["ingress"]):
        return [], notes, told
    name = wanted["ingress"]
    what = f"open {name} as it was"
    if closing:
        what = f"close {name} ({told['way']}): {told['status_code'] or wanted['maintenance_service']['name']} {_whom(wanted)}"
    arguments = {"resource": "ingresses", "name": name, "operations": patch(observed["ingress"], goal)}
    return [Step("patch", what, present, told and dict(told, state=wanted["state"]), arguments)], notes, told


def choose(observed, wanted, former):
    """Which of WAYS closes it.

    Raises:
        Refusal: none can, or not the one that was asked for.
    """
    controller, name = observed["controller"], wanted["ingress"]
    possible = {
        NGINX: ("snippet", "source_range"),
        ALB: ("alb_action",),
    }.get(controller, ())
    if wanted["maintenance_service"]:
        possible = (*possible, "service")
    if wanted["way"] != "auto" and wanted["way"] not in possible:
        raise Refusal(
            f"way={wanted['way']} is none for {name}, whose controller is {controller or 'unknown'}: "
            f"{' or '.join(possible) or 'give maintenance_service, which every controller can send requests to'}"
        )
    if not possible:
        raise Refusal(
            f"{name} belongs to the controller {controller or 'of an unknown class'}, which no annotation known here closes: give "
            f"maintenance_service, a Service of its namespace to send every request to"
        )
    way = wanted["way"]
    if way == "auto" and wanted["allow_from"]:
        way = "source_range" if controller == NGINX else possible[0]
    elif way == "auto" and wanted["state"] == "maintenance" and wanted["maintenance_service"]:
        way = "service"
    elif way == "auto" and controller == NGINX:
        way = "snippet" if observed["snippets"] and not _snippets_of(observed["others"]) else "source_range"
    elif way == "auto":
        way = possible[0]
    if way == "service" and observed["page"] == 0:
        raise Refusal(
            f"no pod serves {wanted['maintenance_service']['name']}, so users would see an error in place of its page: start it, or "
            f"leave maintenance_service out"
        )
    if wanted["allow_from"] and way != "source_range":
        raise Refusal(f"{name} is closed by {way}, which can let nobody through: leave allow_from out")
    return way


def closed(former, way, wanted):
    """The object that lets no user through, without its mark."""
    if way == "snippet":
        return _annotated(former, {SNIPPET: snippet(wanted)})
    if way == "source_range":
        networks = ",".join(str(each) for each in allowed(wanted["allow_from"]))
        return _annotated(former, {RANGES: networks or NOBODY, NEWER_RANGES: None})
    if way == "service":
        service = wanted["maintenance_service"]
        return _led_to(former, {"service": {"name": service["name"], "port": {"number": service["port"]}}})
    config = answer(wanted)["FixedResponseConfig"]
    action = {
        "type": "fixed-response",
        "fixedResponseConfig": {key[0].lower() + key[1:]: config[key] for key in config},
    }
    led = _led_to(former, {"service": {"name": OURS, "port": {"name": "use-annotation"}}})
    return _annotated(led, {ALB_ACTION: json.dumps(action)})


def snippet(wanted):
    """What NGINX does with every request of the host.

    Raises:
        Refusal: the text cannot stand in NGINX's configuration.
    """
    kind, text = PAGES[wanted["state"]]
    if wanted["body"] is not None:
        kind, text = wanted["content_type"] or kind, wanted["body"]
    elif wanted["state"] == "blocked":
        return f"return {wanted['status_code']};"
    if "$" in text or "\n" in text:
        raise Refusal("body has a $ or a line break, which NGINX would not take as it stands: leave it out")
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'default_type {kind}; return {wanted["status_code"]} "{quoted}";'


def _remarks(observed, way, wanted):
    names = ", ".join(each["metadata"]["name"] for each in observed["others"])
    if way == "source_range" and not wanted["allow_from"]:
        yield (
            f"{wanted['ingress']} answers 403, not {wanted['status_code']}: its controller takes no snippets, or does not say so "
            f"(allow-snippet-annotations, annotations-risk-level)"
        )
    if names and way == "snippet":
        yield f"{names} serve the same host, and are closed with it"
    elif names:
        yield f"{names} serve the same host, and stay open"


# --- the application ---


def _config_map(observed, wanted):
    """[step], [note]"""
    there, name, key = observed["config_map"], wanted["config_map"], wanted["config_map_key"]
    present = _state(there)
    if wanted["state"] != "maintenance":
        if there is None:
            return [], []
        if (there.get("data") or {}).get(key) == "true" and not _known(there):
            return [], [f"{name} says {key}=true, which is none of ours: it stays"]
        former, notes = original(there)
        if (_known(there) or {}).get("created") and not former.get("data"):
            arguments = {"name": name, "uid": there["metadata"]["uid"]}
            return [
                Step("remove", f"remove {name}, which was made for the maintenance", present, None, arguments)
            ], notes
        return _changed(there, former, f"give {name} its former content", present, None, notes)
    if there is None:
        mark = {"state": "maintenance", "since": observed["stamp"], "created": True, "before": {f"data.{key}": None}}
        mark["set"] = {f"data.{key}": "true"}
        made = {
            "metadata": {"name": name, "annotations": {MARK: json.dumps(mark, sort_keys=True)}},
            "data": {key: "true"},
        }
        step = Step("create", f"make {name}: {key}=true", None, {"state": "maintenance"}, {"name": name, "body": made})
        return [step], []
    former, _notes = original(there)
    if (former.get("data") or {}).get(key) == "true":
        return [], [f"{name} says {key}=true already, by somebody else"]
    goal = dict(former, data=dict(former.get("data") or {}, **{key: "true"}))
    known = _known(there) or {}
    mark = dict(_mark(former, goal), state="maintenance", since=known.get("since", observed["stamp"]))
    if known.get("created"):
        mark["created"] = True
    goal = _annotated(goal, {MARK: json.dumps(mark, sort_keys=True)})
    return _changed(there, goal, f"set {name}: {key}=true", present, {"state": "maintenance"}, [])


def _changed(there, goal, what, before, after, notes):
    if _fields(there) == _fields(goal):
        return [], notes
    arguments = {"resource": "configmaps", "name": there["metadata"]["name"], "operations": patch(there, goal)}
    return [Step("patch", what, before, after, arguments)], notes


# --- what an object had ---


def original(item):
    """(the object as it was before it was closed, notes on what somebody else has changed since)."""
    known = _known(item)
    if not known:
        return item, []
    fields, notes = _fields(item), []
    for key, value in known["before"].items():
        if fields.get(key) == known["set"][key]:
            fields[key] = value
        elif fields.get(key) != value:
            notes.append(
                f"{key} of {item['metadata']['name']} was changed to {fields.get(key)!r} by somebody else meanwhile and stays; "
                f"before it was closed it was {value!r}"
            )
    strange = [
        key for key, value in fields.items() if key not in known["before"] and value and value == known.get("backend")
    ]
    if strange:
        raise Refusal(
            f"{', '.join(strange)} of {item['metadata']['name']} was added while it was closed and leads where nobody serves: say "
            f"where it is to lead, then run the same command again"
        )
    del fields[f"annotation.{MARK}"]
    return _with(item, fields), notes


def patch(present, goal):
    """JSON patch from one to the other, for exactly the version that was seen."""
    operations = [{"op": "test", "path": "/metadata/resourceVersion", "value": present["metadata"]["resourceVersion"]}]
    annotations = goal["metadata"].get("annotations")
    if annotations != present["metadata"].get("annotations"):
        operations.append(
            {"op": "remove", "path": "/metadata/annotations"}
            if annotations is None
            else {"op": "add", "path": "/metadata/annotations", "value": annotations}
        )
    for part in ("spec", "data"):
        if goal.get(part) != present.get(part):
            operations.append(
                {"op": "add", "path": f"/{part}", "value": goal[part]}
                if goal.get(part) is not None
                else {"op": "remove", "path": f"/{part}"}
            )
    return operations


def _mark(former, goal):
    """What differs, as it was and as it is set."""
    was, new = _fields(former), _fields(goal)
    keys = [key for key in {**was, **new} if was.get(key) != new.get(key)]
    backends = [new[key] for key in keys if key.startswith("backend.")]
    led = {"backend": backends[0]} if backends else {}
    return {"before": {key: was.get(key) for key in keys}, "set": {key: new.get(key) for key in keys}, **led}


def _fields(item):
    """{field: value} of all that may be changed here; each backend is known by its host and path."""
    if item is None:
        return {}
    found = {f"annotation.{key}": value for key, value in (item["metadata"].get("annotations") or {}).items()}
    found |= {f"data.{key}": value for key, value in (item.get("data") or {}).items()}
    for key, holder in _backends(item):
        found[key] = holder[_slot(key)]
    return found


def _with(item, fields):
    """The object with these fields; those with None are not there."""
    goal = copy.deepcopy(item)
    for part, holder, name in (("annotation", goal["metadata"], "annotations"), ("data", goal, "data")):
        values = {
            key.partition(".")[2]: value
            for key, value in fields.items()
            if key.startswith(f"{part}.") and value is not None
        }
        if values:
            holder[name] = values
        else:
            holder.pop(name, None)
    for key, holder in _backends(goal):
        if fields.get(key) is not None:
            holder[_slot(key)] = fields[key]
    return goal


def _backends(item):
    """(field, what holds its backend) of every path, and of the default backend."""
    spec = item.get("spec") or {}
    if "defaultBackend" in spec:
        yield DEFAULT_BACKEND, spec
    for rule in spec.get("rules") or []:
        for each in (rule.get("http") or {}).get("paths") or []:
            yield f"backend.{rule.get('host', '*')} path {each.get('path', '/')} {each.get('pathType', '')}", each


def _slot(key):
    return "defaultBackend" if key == DEFAULT_BACKEND else "backend"


def _annotated(item, values):
    return _with(item, _fields(item) | {f"annotation.{key}": value for key, value in values.items()})


def _led_to(item, backend):
    return _with(item, {key: backend if key.startswith("backend.") else value for key, value in _fields(item).items()})


def _known(item):
    """Our mark on it, None where there is none."""
    text = ((item or {}).get("metadata", {}).get("annotations") or {}).get(MARK)
    return json.loads(text) if text else None


def _snippets_of(ingresses):
    """NGINX takes the snippet of one ingress for each host, the oldest, and passes over all others."""
    return [each for each in ingresses if SNIPPET in (each["metadata"].get("annotations") or {})]


# --- for people ---


def view(observed):
    """{state, since, ingress, config_map} as they are."""
    marks = [_known(observed["ingress"]), _known(observed["config_map"])]
    first = next((mark for mark in marks if mark), None)
    return {
        "state": first["state"] if first else OPEN,
        "since": first and first["since"],
        "ingress": _state(observed["ingress"]),
        "config_map": _state(observed["config_map"]),
    }


def _state(item):
    known = _known(item)
    if not known:
        return None
    return {key: known[key] for key in ("state", "since", "way", "status_code", "allow_from") if key in known}


def _told(way, wanted):
    return {
        "way": way,
        "status_code": {"source_range": 403, "service": None}.get(way, wanted["status_code"]),
        "allow_from": [str(each) for each in allowed(wanted["allow_from"])],
    }


def _whom(wanted):
    return "for everybody" + (f" but {', '.join(wanted['allow_from'])}" if wanted["allow_from"] else "")


def _names(wanted):
    return " and ".join(filter(None, (wanted["ingress"], wanted["config_map"])))

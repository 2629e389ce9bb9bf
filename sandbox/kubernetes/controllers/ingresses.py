# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ingress-nginx: serves the Ingresses of its class over HTTP, obeys the annotations that close one, and its webhook.

Its address is given to each Ingress, where a cloud would put a balancer in front. Snippets are allowed by the ConfigMap alone.
https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/
https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/configmap/#annotations-risk-level
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ... import elbv2
from ...addresses import Addresses
from ...listeners import Condition, Fixed, Forward, Listener, Rule
from ...proxy import Balancer, Group, Proxy, Target
from ..errors import bad_request
from ..resources import CONFIG_MAPS, ENDPOINTS, INGRESS_CLASSES, INGRESSES, SERVICES
from ..store import Store

if TYPE_CHECKING:
    from ...world import World

NAMESPACE, CONFIG = "ingress-nginx", "ingress-nginx-controller"
CLASS, CONTROLLER = "nginx", "k8s.io/ingress-nginx"
PREFIX = "nginx.ingress.kubernetes.io/"
SNIPPET = f"{PREFIX}server-snippet"
PORT = 80
_RETURN = re.compile(r'(?:default_type\s+(\S+)\s*;\s*)?return\s+(\d{3})(?:\s+"((?:\\.|[^"\\])*)")?\s*;', re.DOTALL)

_addresses = Addresses(112)


class Ingresses:
    """`address` is where it listens, at the port of the sandbox's load balancers."""

    def __init__(self, world: World, store: Store, region: str) -> None:
        self._world, self._store, self._region = world, store, region
        self.address = _addresses.free([elbv2.served_at(PORT)])
        self._balancer = Balancer(CONTROLLER, CONTROLLER, region, "", self.address, server="nginx")
        self._listener = self._balancer.listeners[PORT] = Listener(PORT, rules=(_NOBODY,))
        self._groups: dict[str, Group] = {}
        self._proxy: Proxy | None = None

    def sync(self) -> None:
        found = sorted(filter(self._is_mine, self._store.list(INGRESSES)), key=_age)
        if found and self._proxy is None:
            settings = self._world.settings
            self._proxy = Proxy(lambda region: region in self._world.cut_regions, 1, settings.hold_seconds)
            self._proxy.serve(self._balancer, self._listener, elbv2.served_at(PORT))
        self._listener.rules = (*self._snippets(found), *self._paths(found), _NOBODY)
        status = {"loadBalancer": {"ingress": [{"ip": self.address}]}}
        for each in found:
            if each.get("status") != status:
                self._store.change(INGRESSES, each, lambda it: it.update(status=status))

    def close(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None

    def admit(self, ingress: dict) -> None:
        """Its webhook. Raises ApiError."""
        config, annotations = self._config, ingress["metadata"].get("annotations") or {}
        snippets = [name for name in annotations if name.startswith(PREFIX) and name.endswith("-snippet")]
        if not snippets or not self._is_mine(ingress):
            return
        if config.get("allow-snippet-annotations") != "true":
            why = (
                f"{snippets[0]} annotation cannot be used. Snippet directives are disabled by the Ingress administrator"
            )
        elif config.get("annotations-risk-level", "High") != "Critical":
            why = "annotation group ServerSnippet contains risky annotation based on ingress configuration"
        else:
            return
        raise bad_request(f'admission webhook "validate.nginx.ingress.kubernetes.io" denied the request: {why}')

    @property
    def _config(self) -> dict[str, str]:
        found = self._store.find(CONFIG_MAPS, NAMESPACE, CONFIG) or {}
        return found.get("data") or {}

    def _is_mine(self, ingress: dict) -> bool:
        named = ingress["spec"].get("ingressClassName")
        if named is None:
            return (ingress["metadata"].get("annotations") or {}).get("kubernetes.io/ingress.class") == CLASS
        found = self._store.find(INGRESS_CLASSES, "", named)
        return found is not None and found["spec"].get("controller") == CONTROLLER

    # ---- what it serves ----------------------------------------------------------------------------------------------

    def _snippets(self, ingresses: list[dict]) -> list[Rule]:
        """The one of the oldest ingress of a host counts; of all that NGINX could do, only an answer is understood here."""
        config = self._config
        if (config.get("allow-snippet-annotations"), config.get("annotations-risk-level")) != ("true", "Critical"):
            return []
        first: dict[str, str] = {}
        for ingress in ingresses:
            for rule in ingress["spec"].get("rules") or []:
                if text := _annotation(ingress, "server-snippet"):
                    first.setdefault(rule.get("host", "*"), text)
        rules = []
        for host, text in first.items():
            if found := _RETURN.search(text):
                kind, status, body = found.groups()
                page = (
                    (kind or "text/plain", re.sub(r"\\(.)", r"\1", body)) if body is not None else _error(int(status))
                )
                rules.append(Rule(_host(host), (Fixed(int(status), *page),)))
        return rules

    def _paths(self, ingresses: list[dict]) -> list[Rule]:
        """The longest path first, an exact one before its prefix."""
        found: list[tuple[tuple, list[Rule]]] = []
        for ingress in ingresses:
            for rule in ingress["spec"].get("rules") or []:
                for path in (rule.get("http") or {}).get("paths") or []:
                    place, exact = path.get("path", "/"), path.get("pathType") == "Exact"
                    patterns = (place,) if exact else (place, f"{place.rstrip('/')}/*")
                    where = (*_host(rule.get("host", "*")), Condition("path-pattern", patterns))
                    order = (rule.get("host", "*") == "*", -len(place), not exact)
                    found.append((order, self._rules(ingress, where, path["backend"])))
        return [rule for _, rules in sorted(found, key=lambda each: each[0]) for rule in rules]

    def _rules(self, ingress: dict, where: tuple[Condition, ...], backend: dict) -> list[Rule]:
        refused = Fixed(403, *_error(403))
        group = self._group(ingress["metadata"]["namespace"], backend["service"])
        forward = Forward(((group, 1),))
        allowed = _ranges(ingress, "allowlist-source-range") or _ranges(ingress, "whitelist-source-range")
        rules = []
        if denied := _ranges(ingress, "denylist-source-range"):
            rules.append(Rule((*where, Condition("source-ip", denied)), (refused,)))
        if allowed:
            rules.append(Rule((*where, Condition("source-ip", allowed)), (forward,)))
            return [*rules, Rule(where, (refused,))]
        return [*rules, Rule(where, (forward,))]

    def _group(self, namespace: str, service: dict) -> Group:
        """The ready pods of a Service; one that is not there has none, and NGINX answers 503."""
        key = f"{namespace}/{service['name']}:{service['port']}"
        group = self._groups.setdefault(key, Group(key, self._region, in_use=True))
        wanted = {(each, port) for each, port in self._ready(namespace, service)}
        known = {(target.address, target.port): target for target in group.targets}
        if wanted != known.keys():
            group.targets = [known.get(each) or Target(*each, "healthy", "", "") for each in sorted(wanted)]
        return group

    def _ready(self, namespace: str, service: dict) -> list[tuple[str, int]]:
        found = self._store.find(SERVICES, namespace, service["name"]) or {"spec": {}}
        ports = [
            each.get("name")
            for each in found["spec"].get("ports") or []
            if service["port"] in ({"number": each["port"]}, {"name": each.get("name")})
        ]
        endpoints = self._store.find(ENDPOINTS, namespace, service["name"]) or {}
        return [
            (address["ip"], port["port"])
            for subset in endpoints.get("subsets") or []
            for port in subset["ports"]
            if port.get("name") in ports
            for address in subset.get("addresses") or []
        ]


def _age(ingress: dict) -> tuple[str, int]:
    return ingress["metadata"]["creationTimestamp"], int(ingress["metadata"]["resourceVersion"])


def _annotation(ingress: dict, name: str) -> str:
    return (ingress["metadata"].get("annotations") or {}).get(PREFIX + name, "")


def _ranges(ingress: dict, name: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in _annotation(ingress, name).split(",") if each.strip())


def _host(host: str) -> tuple[Condition, ...]:
    return () if host == "*" else (Condition("host-header", (host,)),)


def _error(status: int) -> tuple[str, str]:
    """NGINX's own page."""
    title = {403: "403 Forbidden", 404: "404 Not Found", 503: "503 Service Temporarily Unavailable"}.get(
        status, str(status)
    )
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    return "text/html", page


_NOBODY = Rule((), (Fixed(404, *_error(404)),))


def seeds() -> list[tuple[Any, str, dict]]:
    """(resource, namespace, object): as a chart installs it today, without snippets."""
    config = {"metadata": {"name": CONFIG}, "data": {"allow-snippet-annotations": "false"}}
    return [
        (INGRESS_CLASSES, "", {"metadata": {"name": CLASS}, "spec": {"controller": CONTROLLER}}),
        (CONFIG_MAPS, NAMESPACE, config),
    ]

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules of a listener make of one request. Pure but for the dice of weighted target groups.

https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-rules.html
"""

from __future__ import annotations

import base64
import random
import time
from dataclasses import dataclass
from fnmatch import fnmatch, fnmatchcase
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from .proxy import Group

STICKY_COOKIE = "AWSALBTG"
SESSION_COOKIE = "AWSELBAuthSessionCookie"


@dataclass(frozen=True)
class Asked:
    """A request as rules look at it. `headers`: names in lower case."""

    method: str
    host: str
    port: int  # of the listener
    path: str
    query: str
    headers: dict[str, str]
    client: str
    protocol: str = "http"

    @property
    def cookies(self) -> dict[str, str]:
        pairs = (each.strip().partition("=") for each in self.headers.get("cookie", "").split(";"))
        return {name: value for name, _, value in pairs if name}


@dataclass(frozen=True)
class Page:
    """An answer of the balancer's own."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


@dataclass(frozen=True)
class Condition:
    """One of a rule's conditions; any of its values is enough. `name`: of the header."""

    field: str
    values: tuple[str, ...] = ()
    name: str = ""
    pairs: tuple[tuple[str | None, str], ...] = ()  # of the query string: key (None: any) and value

    def matches(self, asked: Asked) -> bool:
        match self.field:
            case "host-header":
                return any(fnmatch(asked.host.lower(), value.lower()) for value in self.values)
            case "path-pattern":
                return any(fnmatchcase(asked.path, value) for value in self.values)
            case "http-request-method":
                return asked.method in self.values
            case "http-header":
                given = asked.headers.get(self.name.lower())
                return given is not None and any(fnmatch(given.lower(), value.lower()) for value in self.values)
            case "query-string":
                given = parse_qsl(asked.query.lower(), keep_blank_values=True)
                return any(
                    (key is None or fnmatch(name, key.lower())) and fnmatch(value, wanted.lower())
                    for key, wanted in self.pairs
                    for name, value in given
                )
            case "source-ip":
                return any(ip_address(asked.client) in ip_network(value) for value in self.values)
        raise ValueError(f"unknown condition {self.field}")


@dataclass(frozen=True)
class Forward:
    """To one of the groups by weight; `sticky_seconds` binds a client to the group that it came to.

    A cookie outlives a change of weights, weight 0 included: it holds as long as the rule still names the group.
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/rule-action-types.html#forward-actions
    """

    groups: tuple[tuple[Group, int], ...]
    sticky_seconds: int | None = None

    def choose(self, asked: Asked) -> tuple[Group | None, tuple[tuple[str, str], ...]]:
        """The group (None: none may get it) and the headers that the answer gets."""
        if self.sticky_seconds is None:
            return self._draw(), ()
        group = self._bound(asked.cookies.get(STICKY_COOKIE, ""))
        if group is not None:
            return group, ()
        group = self._draw()
        return group, self._bind(group) if group else ()

    def _draw(self) -> Group | None:
        groups, weights = zip(*self.groups, strict=True) if self.groups else ((), ())
        return random.choices(groups, weights)[0] if sum(weights) else None

    def _bound(self, cookie: str) -> Group | None:
        try:
            until, _, arn = base64.urlsafe_b64decode(cookie).decode().partition(" ")
            if float(until) < time.time():
                return None
        except ValueError:
            return None
        return next((group for group, _ in self.groups if group.arn == arn), None)

    def _bind(self, group: Group) -> tuple[tuple[str, str], ...]:
        value = base64.urlsafe_b64encode(f"{time.time() + self.sticky_seconds} {group.arn}".encode()).decode()
        rest = f"Max-Age={self.sticky_seconds}; Path=/"
        return (
            ("Set-Cookie", f"{STICKY_COOKIE}={value}; {rest}"),
            ("Set-Cookie", f"{STICKY_COOKIE}CORS={value}; {rest}; SameSite=None; Secure"),
        )


@dataclass(frozen=True)
class Fixed:
    status: int
    kind: str = "text/plain"
    text: str = ""

    def page(self, asked: Asked) -> Page:
        return Page(self.status, (("Content-Type", self.kind),), self.text)


@dataclass(frozen=True)
class Redirect:
    """`#{host}` and its like stand for that part of the request."""

    status: int
    protocol: str = "#{protocol}"
    host: str = "#{host}"
    port: str = "#{port}"
    path: str = "/#{path}"
    query: str = "#{query}"

    def page(self, asked: Asked) -> Page:
        def fill(text: str) -> str:
            for name, value in (
                ("protocol", asked.protocol),
                ("host", asked.host),
                ("port", str(asked.port)),
                ("path", asked.path.lstrip("/")),
                ("query", asked.query),
            ):
                text = text.replace(f"#{{{name}}}", value)
            return text

        query = fill(self.query)
        place = f"{fill(self.protocol).lower()}://{fill(self.host)}:{fill(self.port)}{fill(self.path)}"
        return Page(self.status, (("Location", place + (f"?{query}" if query else "")),))


@dataclass(frozen=True)
class Authenticate:
    """Lets a request with a session go on. There is no identity provider here: its cookie is a session.

    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html
    """

    endpoint: str
    client_id: str
    scope: str = "openid"
    cookie: str = SESSION_COOKIE
    otherwise: str = "authenticate"  # or deny, allow

    def page(self, asked: Asked) -> Page | None:
        """None: the request goes on to the next action."""
        if self.otherwise == "allow" or f"{self.cookie}-0" in asked.cookies:
            return None
        if self.otherwise == "deny":
            return Page(401)
        back = f"https://{asked.host}/oauth2/idpresponse"
        question = {
            "client_id": self.client_id,
            "redirect_uri": back,
            "response_type": "code",
            "scope": self.scope,
        }
        return Page(302, (("Location", f"{self.endpoint}?{urlencode(question)}"),))


@dataclass(frozen=True)
class Rule:
    """All conditions must match; the actions are taken in their order. No condition matches every request."""

    conditions: tuple[Condition, ...] = ()
    actions: tuple[Forward | Fixed | Redirect | Authenticate, ...] = ()

    def matches(self, asked: Asked) -> bool:
        return all(condition.matches(asked) for condition in self.conditions)


@dataclass(eq=False)
class Listener:
    """`port` is the one of its configuration; where it is served in truth is the proxy's affair."""

    port: int
    protocol: str = "HTTP"
    rules: tuple[Rule, ...] = ()  # in order of priority, the default last
    tls: SSLContext | None = None

    def forwards(self) -> list[Forward]:
        return [action for rule in self.rules for action in rule.actions if isinstance(action, Forward)]

    def decide(self, asked: Asked) -> Page | tuple[Group | None, tuple[tuple[str, str], ...]]:
        """An answer of the balancer's own, or the group to send the request to with headers for its answer."""
        rule = next(rule for rule in self.rules if rule.matches(asked))
        for action in rule.actions:
            if isinstance(action, Forward):
                return action.choose(asked)
            if page := action.page(asked):
                return page
        return None, ()


# ---- from AWS's API --------------------------------------------------------------------------------------------------


def rule_of(conditions: list[dict], actions: list[dict], group: Callable[[str], Group], region: str) -> Rule:
    """A rule as CreateRule takes it; `group` finds one by its ARN."""
    ordered = sorted(actions, key=lambda each: int(each.get("Order") or 0))
    return Rule(tuple(map(_condition, conditions)), tuple(_action(each, group, region) for each in ordered))


def _condition(given: dict) -> Condition:
    field = given["Field"]
    config = next((given[name] for name in given if name.endswith("Config")), given)
    if field == "query-string":
        return Condition(field, pairs=tuple((each.get("Key"), each["Value"]) for each in config["Values"]))
    return Condition(field, tuple(config["Values"]), config.get("HttpHeaderName", ""))


def _action(given: dict, group: Callable[[str], Group], region: str) -> Forward | Fixed | Redirect | Authenticate:
    match given["Type"]:
        case "forward":
            config = given.get("ForwardConfig") or {}
            sticky = config.get("TargetGroupStickinessConfig") or {}
            pairs = config.get("TargetGroups") or [given]
            return Forward(
                tuple((group(each["TargetGroupArn"]), int(each.get("Weight", 1))) for each in pairs),
                int(sticky["DurationSeconds"]) if is_on(sticky.get("Enabled")) else None,
            )
        case "fixed-response":
            config = given["FixedResponseConfig"]
            return Fixed(
                int(config["StatusCode"]), config.get("ContentType") or "text/plain", config.get("MessageBody") or ""
            )
        case "redirect":
            config = given["RedirectConfig"]
            parts = {name.lower(): value for name, value in config.items() if name != "StatusCode"}
            return Redirect(int(config["StatusCode"].removeprefix("HTTP_")), **parts)
        case "authenticate-oidc":
            config = given["AuthenticateOidcConfig"]
            endpoint, client_id = config["AuthorizationEndpoint"], config["ClientId"]
        case _:
            config = given["AuthenticateCognitoConfig"]
            endpoint = f"https://{config['UserPoolDomain']}.auth.{region}.amazoncognito.com/oauth2/authorize"
            client_id = config["UserPoolClientId"]
    return Authenticate(
        endpoint,
        client_id,
        config.get("Scope") or "openid",
        config.get("SessionCookieName") or SESSION_COOKIE,
        config.get("OnUnauthenticatedRequest") or "authenticate",
    )


def is_on(value: object) -> bool:
    """A boolean of the query protocol."""
    return str(value).lower() == "true"

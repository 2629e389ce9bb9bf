# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data path of a load balancer: an HTTP reverse proxy with real health checks, one event loop for all of them.

It knows nothing of AWS's API: elbv2.py tells it which balancers, rules, groups and targets there are, and reads back
target states and counts.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .listeners import Asked, Listener, Page

# Until AWS notices by itself that a node does not answer, which takes it a minute or two.
NODE_SECONDS = 20.0
HOP_BY_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"upgrade", b"transfer-encoding"}
REASONS = {
    301: "Moved Permanently",
    302: "Found",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}


# State, reason and description as DescribeTargetHealth words them.
REGISTERING = "initial", "Elb.RegistrationInProgress", "Target registration is in progress"
NOT_IN_USE = (
    "unused",
    "Target.NotInUse",
    "Target group is not configured to receive traffic from the load balancer",
)


@dataclass(eq=False)
class Target:
    """A registered address. `state`, `reason` and `description` are those of DescribeTargetHealth."""

    address: str
    port: int
    state: str = REGISTERING[0]
    reason: str = REGISTERING[1]
    description: str = REGISTERING[2]
    passed: int = 0
    failed: int = 0
    in_flight: int = 0
    drain_until: float | None = None  # monotonic; set when it was deregistered
    host: str = ""  # where it is, if its registered id is no address
    zone: str = ""

    @property
    def drained(self) -> bool:
        """Deregistered, and nothing is in hand (or the deregistration delay is over)."""
        return self.drain_until is not None and (self.in_flight == 0 or time.monotonic() > self.drain_until)

    def become(self, state: str, reason: str = "", description: str = "") -> None:
        self.state, self.reason, self.description = state, reason, description


@dataclass(eq=False)
class Group:
    """A target group and how its targets are checked."""

    arn: str
    region: str
    source: str | None = None  # the address of the balancer that uses it, by which instances know it
    path: str = "/"
    codes: tuple[range, ...] = (range(200, 201),)
    timeout: float = 2.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 2
    in_use: bool = False  # a listener refers to it; else nothing is checked
    sick: bool = False  # a fault: every check fails
    targets: list[Target] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    response_times: list[float] = field(default_factory=list)

    def healthy(self) -> list[Target]:
        return [target for target in self.targets if target.state == "healthy"]

    def routable(self, shifted: str = "") -> list[Target]:
        """Where requests go: healthy targets; where all are unhealthy, all of them (it fails open).

        None in the zone that traffic is `shifted` away from, unless all targets are there.
        https://docs.aws.amazon.com/elasticloadbalancing/latest/application/target-group-health-checks.html
        https://docs.aws.amazon.com/elasticloadbalancing/latest/application/zonal-shift.html
        """
        elsewhere = [target for target in self.targets if not shifted or target.zone != shifted] or self.targets
        healthy = [target for target in elsewhere if target.state == "healthy"]
        return healthy or [target for target in elsewhere if target.state == "unhealthy"]

    def use(self, in_use: bool) -> None:
        """A listener begins, or ceases, to refer to it: checks begin anew, or end."""
        if in_use != self.in_use:
            self.in_use = in_use
            for target in self.targets:
                if target.drain_until is None:
                    target.passed = target.failed = 0
                    target.become(*(REGISTERING if in_use else NOT_IN_USE))

    def judge(self, target: Target, failure: tuple[str, str] | None) -> None:
        """Count one check. A new target needs one good check, one that was unhealthy needs `healthy_threshold`."""
        if target.drain_until is not None or not self.in_use:
            return
        if failure is None:
            target.passed, target.failed = target.passed + 1, 0
            if target.state == "initial" or target.passed >= self.healthy_threshold:
                target.become("healthy")
        else:
            target.passed, target.failed = 0, target.failed + 1
            if target.failed >= self.unhealthy_threshold:
                target.become("unhealthy", *failure)
            elif target.state == "initial":
                target.become("initial", "Elb.InitialHealthChecking", "Initial health checks in progress")


@dataclass(eq=False)
class Balancer:
    arn: str
    name: str
    region: str
    dns_name: str
    address: str
    idle_timeout: float = 60.0
    server: str = "awselb/2.0"  # as it calls itself
    zones: tuple[str, ...] = ()  # it has a node in each
    shifted: str = ""  # the zone that traffic is shifted away from
    listeners: dict[int, Listener] = field(default_factory=dict)  # by the port of their configuration
    connections: int = 0
    counts: Counter = field(default_factory=Counter)

    @property
    def groups(self) -> list[Group]:
        """Every group that it forwards to, once."""
        return list(
            dict.fromkeys(
                group
                for listener in self.listeners.values()
                for forward in listener.forwards()
                for group, _ in forward.groups
            )
        )


@dataclass
class Request:
    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes:
        return next((value for key, value in self.headers if key.lower() == name), b"")

    @property
    def keep_alive(self) -> bool:
        default = b"close" if self.version == b"HTTP/1.0" else b"keep-alive"
        return (self.header(b"connection").lower() or default) != b"close"


class Broken(Exception):
    """The target's answer cannot be used."""


class Proxy:
    """Serves balancers and checks targets in a thread of its own.

    `is_cut(region)` says whether a region is unreachable; requests there hang `hold_seconds` at most and are dropped.
    `seconds_down(zone)` says how long a zone has failed, 0 while it works.
    """

    def __init__(
        self,
        is_cut: Callable[[str], bool],
        probe_seconds: float,
        hold_seconds: float,
        seconds_down: Callable[[str], float] = lambda zone: 0.0,
    ) -> None:
        self._is_cut, self._probe_seconds, self._hold_seconds = is_cut, probe_seconds, hold_seconds
        self._seconds_down = seconds_down
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task] = set()
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._turn = 0
        self._thread = threading.Thread(target=self._loop.run_forever, name="load balancers", daemon=True)
        self._thread.start()

    def serve(self, balancer: Balancer, listener: Listener, port: int) -> None:
        """Serve a listener at `port` of the balancer's address, once. Raises OSError when the port is taken."""
        key = balancer.arn, listener.port

        async def start() -> None:
            if key not in self._servers:
                self._servers[key] = await asyncio.start_server(
                    lambda reader, writer: self._client(balancer, listener.port, reader, writer),
                    balancer.address,
                    port,
                    backlog=256,
                    ssl=listener.tls,
                )

        asyncio.run_coroutine_threadsafe(start(), self._loop).result(5)

    def end(self, arn: str, port: int) -> None:
        """Close what serves the listener at `port` of the balancer; requests in hand are answered."""

        async def close() -> None:
            if server := self._servers.pop((arn, port), None):
                server.close()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(5)

    @property
    def serving(self) -> list[tuple[str, int]]:
        """Balancer's ARN and listener's port of all that is served."""
        return list(self._servers)

    def watch(self, group: Group, target: Target) -> None:
        """Check the target until it is deregistered."""
        self._loop.call_soon_threadsafe(self._start, self._watch(group, target))

    def close(self) -> None:
        async def end() -> None:
            for server in self._servers.values():
                server.close()
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _start(self, coroutine) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- health checks --------------------------------------------------------------------------------------------

    async def _watch(self, group: Group, target: Target) -> None:
        while target.drain_until is None:
            if group.in_use:
                group.judge(target, await self._check(group, target))
            await asyncio.sleep(self._probe_seconds)

    async def _check(self, group: Group, target: Target) -> tuple[str, str] | None:
        """None when it passed, else reason and description as AWS words them."""
        if group.sick:
            return "Target.FailedHealthChecks", "Health checks failed"
        head = f"GET {group.path} HTTP/1.1\r\nHost: {target.address}:{target.port}\r\nConnection: close\r\n"
        request = f"{head}User-Agent: ELB-HealthChecker/2.0\r\n\r\n".encode()
        try:
            async with asyncio.timeout(group.timeout):
                status, _, _ = await _exchange(target, request, group.source)
        except TimeoutError:
            return "Target.Timeout", "Request timed out"
        except (OSError, Broken):
            return "Target.FailedHealthChecks", "Health checks failed"
        if any(status in codes for codes in group.codes):
            return None
        return "Target.ResponseCodeMismatch", f"Health checks failed with these codes: [{status}]"

    # ---- requests -------------------------------------------------------------------------------------------------

    async def _client(
        self, balancer: Balancer, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            if await self._came_to_a_dead_node(balancer):
                writer.transport.abort()
                return
            while request := await _read_request(reader):
                if not self._is_cut(balancer.region):
                    answer = await self._answer(balancer, port, request, writer.get_extra_info("peername")[0])
                if self._is_cut(balancer.region):
                    await self._hold(balancer.region)
                    writer.transport.abort()
                    return
                writer.write(_response(*answer, request.keep_alive, request.method == b"HEAD"))
                await writer.drain()
                if not request.keep_alive:
                    return
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.close()

    async def _came_to_a_dead_node(self, balancer: Balancer) -> bool:
        """Clients come to the nodes in turn, which the DNS name has one address of for each zone. Those of a node in a zone that
        has failed hang, until AWS has taken it out of DNS, or a zonal shift has done so at once.

        https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/how-elastic-load-balancing-works.html
        """
        nodes = [
            zone for zone in balancer.zones if zone != balancer.shifted and self._seconds_down(zone) < NODE_SECONDS
        ]
        balancer.connections += 1
        if not nodes or not self._seconds_down(zone := nodes[balancer.connections % len(nodes)]):
            return False
        deadline = time.monotonic() + self._hold_seconds
        while self._seconds_down(zone) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        return True

    async def _hold(self, region: str) -> None:
        deadline = time.monotonic() + self._hold_seconds
        while self._is_cut(region) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)

    async def _answer(
        self, balancer: Balancer, port: int, request: Request, client: str
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        balancer.counts["RequestCount"] += 1
        listener = balancer.listeners.get(port)
        if listener is None:  # it was deleted while the connection was open
            return self._refuse(balancer, 503)
        decided = listener.decide(_asked(request, listener, client))
        if isinstance(decided, Page):
            return _own(balancer, decided)
        group, extra = decided
        routable = group.routable(balancer.shifted) if group else []
        if not routable:
            return self._refuse(balancer, 503)
        self._turn += 1
        target = routable[self._turn % len(routable)]
        group.counts["RequestCount"] += 1
        started = time.monotonic()
        target.in_flight += 1
        try:
            async with asyncio.timeout(balancer.idle_timeout):
                status, headers, body = await _exchange(target, _forwarded(request, client, listener), group.source)
        except TimeoutError:
            return self._refuse(balancer, 504)
        except (OSError, Broken):
            group.counts["TargetConnectionErrorCount"] += 1
            return self._refuse(balancer, 502)
        finally:
            target.in_flight -= 1
        group.response_times.append(time.monotonic() - started)
        group.counts[f"HTTPCode_Target_{status // 100}XX_Count"] += 1
        return status, headers + _bytes(extra), body

    @staticmethod
    def _refuse(balancer: Balancer, status: int) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The balancer's own error page."""
        balancer.counts["HTTPCode_ELB_5XX_Count"] += 1
        balancer.counts[f"HTTPCode_ELB_{status}_Count"] += 1
        title = f"{status} {REASONS[status]}"
        page = (
            f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</html>"
        )
        return status, [(b"Server", balancer.server.encode()), (b"Content-Type", b"text/html")], page.encode()


def _own(balancer: Balancer, page: Page) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    return page.status, _bytes((("Server", balancer.server), *page.headers)), page.body.encode()


def _bytes(headers: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers]


def _asked(request: Request, listener: Listener, client: str) -> Asked:
    path, _, query = request.target.decode("latin-1").partition("?")
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
    return Asked(
        request.method.decode("latin-1"),
        headers.get("host", "").partition(":")[0],
        listener.port,
        path,
        query,
        headers,
        client,
        listener.protocol.lower(),
    )


def _parse(head: bytes) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    first, *lines = head.rstrip(b"\r\n").split(b"\r\n")
    headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.strip(), value.strip()))
    return first.split(b" ", 2), headers


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None at its end. Raises ValueError when it is no HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    (method, target, version), headers = _parse(head)
    request = Request(method, target, version, headers, b"")
    if request.header(b"transfer-encoding").lower() == b"chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            request.body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
    elif length := int(request.header(b"content-length") or 0):
        request.body = await reader.readexactly(length)
    return request


def _forwarded(request: Request, client: str, listener: Listener) -> bytes:
    lines = [b" ".join((request.method, request.target, b"HTTP/1.1"))]
    for name, value in request.headers:
        if name.lower() not in HOP_BY_HOP | {b"content-length"} and not name.lower().startswith(b"x-forwarded-"):
            lines.append(name + b": " + value)
    chain = b", ".join(filter(None, [request.header(b"x-forwarded-for"), client.encode()]))
    lines += [
        b"X-Forwarded-For: " + chain,
        b"X-Forwarded-Proto: " + listener.protocol.lower().encode(),
        b"X-Forwarded-Port: %d" % listener.port,
    ]
    lines += [b"Content-Length: %d" % len(request.body), b"Connection: close", b"", b""]
    return b"\r\n".join(lines) + request.body


async def _exchange(target: Target, request: bytes, source: str | None) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """One request on a connection of its own. Raises OSError, TimeoutError, or Broken when the answer is cut short."""
    own = (source, 0) if source and target.host else None
    reader, writer = await asyncio.open_connection(target.host or target.address, target.port, local_addr=own)
    try:
        writer.write(request)
        answer = await reader.read(-1)
    finally:
        writer.close()
    head, separator, body = answer.partition(b"\r\n\r\n")
    try:
        (_, status, *_), headers = _parse(head)
        length = next((int(value) for name, value in headers if name.lower() == b"content-length"), len(body))
        if not separator or (len(body) < length and not request.startswith(b"HEAD ")):
            raise Broken("the answer is cut short")
        return int(status), [pair for pair in headers if pair[0].lower() not in HOP_BY_HOP], body
    except ValueError as error:
        raise Broken("the answer is no HTTP") from error


def _response(status: int, headers: list[tuple[bytes, bytes]], body: bytes, keep_alive: bool, head: bool) -> bytes:
    lines = [b"HTTP/1.1 %d %s" % (status, REASONS.get(status, "OK").encode())]
    lines += [name + b": " + value for name, value in headers if name.lower() != b"content-length" or head]
    if not head:
        lines.append(b"Content-Length: %d" % len(body))
    lines += [b"Connection: keep-alive" if keep_alive else b"Connection: close", b"", b""]
    return b"\r\n".join(lines) + (b"" if head else body)

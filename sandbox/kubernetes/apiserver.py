# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API over HTTPS: authentication, failures injected in front, the call log, watches as they are framed.

A watch is a chunked answer with one JSON object a line:
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import json
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..listener import Handler, Server
from .discovery import Raw
from .errors import ApiError, too_many_requests, unauthorized
from .requests import Request

if TYPE_CHECKING:
    from .cluster import Cluster

USER = "sandbox"


class _Server(Server):
    cluster: Cluster


class _Handler(Handler):
    server: _Server

    def do_request(self) -> None:
        cluster, world = self.server.cluster, self.server.cluster.world
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self.body())
        world.ready.wait(30)
        started = time.time()
        if cluster.region in world.cut_regions:
            self._log(request, started, None, "region-cut")
            world.hold(cluster.region)
            self.drop()
            return
        seconds, rule = world.rules.take("kubernetes", request.action, cluster.region)
        if seconds:
            time.sleep(seconds)
        kind = rule.kind if rule else ("latency" if seconds else None)
        if kind == "reset":
            self._log(request, started, None, kind)
            self.drop()
            return
        status, answer = self._answer(request, kind)
        self._log(request, started, status, kind)
        if kind == "lost-answer":
            self.drop()
        elif isinstance(answer, Iterator):
            self._stream(answer, request.verb == "watch")
        else:
            self._send(status, answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_request

    def _answer(self, request: Request, kind: str | None) -> tuple[int, Any]:
        cluster = self.server.cluster
        try:
            if request.headers.get("authorization") != f"Bearer {cluster.token}":
                raise unauthorized()
            if kind not in (None, "latency", "lost-answer"):
                raise _injected(kind, request)
            cluster.wake()
            return cluster.api.handle(request)
        except ApiError as refused:
            return refused.code, refused.status()
        except Exception as failure:
            cluster.world.log(f"kubernetes {request.action}: " + "".join(traceback.format_exception(failure)))
            message = f"Internal error occurred: {type(failure).__name__}: {failure}"
            return 500, ApiError(500, "InternalError", message).status()

    def _send(self, status: int, answer: Any) -> None:
        kind, body = _encoded(answer)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, parts: Iterator[Any], of_objects: bool) -> None:
        """Until they end, the client leaves, or the region is cut off. None means that nothing happened."""
        cluster = self.server.cluster
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if of_objects else "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        try:
            for part in parts:
                if cluster.region in cluster.world.cut_regions:
                    cluster.world.hold(cluster.region)
                    self.drop()
                    return
                if part is not None:
                    body = part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
                    self.wfile.flush()
                elif self._client_left():
                    self.drop()
                    return
            self.wfile.write(b"0\r\n\r\n")
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _client_left(self) -> bool:
        """A client has nothing to say during a watch: what can be read is its end."""
        self.connection.settimeout(0.0)
        try:
            return self.connection.recv(1) == b""
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(self.timeout)

    def _log(self, request: Request, started: float, status: int | None, kind: str | None) -> None:
        cluster = self.server.cluster
        cluster.world.calls.add(
            {
                "time": round(started, 4),
                "seconds": round(time.time() - started, 4),
                "service": "kubernetes",
                "action": request.action,
                "region": cluster.region,
                "status": status,
                "fault": kind,
                "mutation": request.is_change,
            }
        )


def _encoded(answer: Any) -> tuple[str, bytes]:
    """Content type and body."""
    if isinstance(answer, Raw):
        return answer.content_type, answer.body
    if isinstance(answer, str | bytes):
        return "text/plain; charset=utf-8", answer.encode() if isinstance(answer, str) else answer
    return "application/json", json.dumps(answer).encode() + b"\n"


def _injected(kind: str, request: Request) -> ApiError:
    if kind == "throttle":
        return too_many_requests("the server has received too many requests and has asked us to try again later")
    if kind == "expired-token":
        return unauthorized()
    if kind == "denied" and request.target is not None:
        target = request.target
        group = target.resource.group
        where = f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
        return ApiError(
            403,
            "Forbidden",
            f'{target.resource.qualified} "{target.name}" is forbidden: User "{USER}" cannot {request.verb} resource '
            f'"{target.resource.plural}" in API group "{group}"{where}',
            {"name": target.name, "group": group, "kind": target.resource.plural},
        )
    return ApiError(500, "InternalError", "Internal error occurred: injected failure", {})


def listen(cluster: Cluster, context: ssl.SSLContext, host: str) -> int:
    """Serve until the process ends; returns the port."""
    server = _Server((host, 0), _Handler)
    # The handshake belongs to the connection's own thread, not to the one that accepts.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.cluster = cluster
    threading.Thread(target=server.serve_forever, args=(0.1,), name="kube-apiserver", daemon=True).start()
    return server.server_port

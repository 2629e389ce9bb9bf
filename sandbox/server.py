# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The AWS endpoint: moto behind one lock, with failures injected in front, a log of the calls and the control API."""

from __future__ import annotations

import io
import json
import os
import threading
import time
import traceback
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from .access import session_of
from .listener import Handler, Server
from .permissions import needed
from .wire import ApiError, Call, Response, error, fault, result
from .world import SEED_KEY

if TYPE_CHECKING:
    from .world import World

os.environ.setdefault("MOTO_DISABLE_GLOBAL_CORS", "true")
# Nothing asks for Amazon's images; moto would make thousands of them, with a volume and a snapshot each, for every reset.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")


class _Server(Server):
    world: World
    app: Any
    region: str | None = None


class _Handler(Handler):
    server: _Server

    def do_request(self) -> None:
        world = self.server.world
        body = self.body()
        if self.path.startswith("/_sandbox/"):
            self._send(_control(world, self.command, self.path, body))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = Call(self.command, self.path, headers, body, self.server.region, source=self.client_address[0])
        if call.access_key == SEED_KEY:
            self._send(_dispatch(self.server, call))
            return
        world.ready.wait(30)
        started = time.time()
        if call.region in world.cut_regions:
            self._log(call, started, None, "region-cut")
            world.hold(call.region)
            self.drop()
            return
        seconds, rule = world.rules.take(call.service, call.action, call.region)
        if seconds:
            time.sleep(seconds)
        kind = rule.kind if rule else ("latency" if seconds else None)
        if kind == "reset":
            self._log(call, started, None, kind)
            self.drop()
            return
        answered = kind in (None, "latency", "lost-answer")
        response = _dispatch(self.server, call) if answered else fault(call, kind, rule.code)
        self._log(call, started, response.status, kind)
        if kind == "lost-answer":
            self.drop()
        else:
            self._send(response)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_request

    def _log(self, call: Call, started: float, status: int | None, kind: str | None) -> None:
        world = self.server.world
        # What a run asks as a role that it tries, that role needs.
        is_own = call.playbook and session_of(call.access_key) is None
        needs = needed(call, world.account_id) if is_own else []
        world.observed.add(call.playbook, needs)
        world.calls.add(
            {
                "time": round(started, 4),
                "seconds": round(time.time() - started, 4),
                "service": call.service,
                "action": call.action,
                "region": call.region,
                "status": status,
                "fault": kind,
                "mutation": call.is_change,
                "playbook": call.playbook,
                "needs": [need.action for need in needs],
            }
        )

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            if name.lower() not in ("content-length", "date", "server", "connection", "transfer-encoding", "status"):
                self.send_header(name, value)
        # That of a HEAD tells how long the answer to a GET would be.
        told = {name.lower(): value for name, value in response.headers.items()}.get("content-length")
        length = told if self.command == "HEAD" and told else str(len(response.body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)


def _dispatch(server: _Server, call: Call) -> Response:
    world = server.world
    with world.lock:
        try:
            _pass_gates(world, call)
            handler = world.handlers.get(call.service)
            answer = handler(call) if handler else _moto(server.app, call)
            response = answer if isinstance(answer, Response) else result(call, answer)
        except ApiError as refused:
            return error(call, refused.code, refused.message, refused.status)
        except Exception as failure:
            return _unanswerable(world, call, failure)
        # What moto has no route for; the answer to a HEAD never has a body, and an object may well be a page.
        if (response.status == 404 and not response.body and call.method != "HEAD") or (
            response.status >= 400 and b"<!doctype html" in response.body[:20].lower()
        ):
            return _unanswerable(world, call, NotImplementedError())
        if call.is_change and response.status < 300:
            for follow_up in world.after_change:
                follow_up(call)
        return response


def _hand_over(server: _Server, request: Any, **_event: Any) -> Any:
    """The answer to a request of the seeding client, as `do_request` gives it: hundreds of calls that need no connection.

    A handler of botocore's event `before-send`: what it returns is taken for what came off the wire.
    """
    from botocore.awsrequest import AWSResponse
    from urllib3 import HTTPResponse

    url = urlsplit(request.url)
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    body = request.body or b""
    if hasattr(body, "read"):
        body = body.read()
    call = Call(
        request.method,
        f"{url.path}?{url.query}" if url.query else url.path,
        {"host": url.netloc, **headers},
        body.encode() if isinstance(body, str) else bytes(body),
        source="127.0.0.1",
    )
    response = _dispatch(server, call)
    is_head = request.method == "HEAD"
    known = {
        name: str(value) for name, value in response.headers.items() if is_head or name.lower() != "content-length"
    }
    raw = HTTPResponse(
        io.BytesIO(b"" if is_head else response.body),
        known,
        response.status,
        preload_content=False,
        request_method=request.method,
    )
    return AWSResponse(request.url, response.status, raw.headers, raw)


def _pass_gates(world: World, call: Call) -> None:
    """Raises ApiError where one of them refuses it."""
    try:
        for gate in world.gates:
            gate(call)
    except ApiError as refused:
        for follow_up in world.after_refusal:
            follow_up(call, refused)
        raise


def _unanswerable(world: World, call: Call, failure: Exception) -> Response:
    """A 4xx for what moto cannot do: clients retry a 500, and an HTML page tells them nothing."""
    if not isinstance(failure, NotImplementedError):
        world.log(f"{call.service} {call.action}: " + "".join(traceback.format_exception(failure)))
    name = f"{call.service} {call.action}"
    detail = "" if isinstance(failure, NotImplementedError) else f": {type(failure).__name__}: {failure}"
    return error(call, "SandboxUnsupported", f"the sandbox does not know {name}{detail}")


def _moto(app: Any, call: Call) -> Response:
    url = urlsplit(call.target)
    environ = {
        "REQUEST_METHOD": call.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(url.path, "latin-1"),
        "QUERY_STRING": url.query,
        "RAW_URI": call.target,
        "REQUEST_URI": call.target,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(call.body)),
        "CONTENT_TYPE": call.headers.get("content-type", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(call.body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in call.headers.items():
        if name not in ("content-type", "content-length", "transfer-encoding"):
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    answer: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        answer.update(status=int(status.split()[0]), headers=dict(headers))

    chunks = app(environ, start_response)
    body = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    return Response(answer["status"], answer["headers"], body)


def _control(world: World, method: str, target: str, body: bytes) -> Response:
    """GET calls?since=N, status, faults; POST fault, heal, reset, down and what the parts add."""
    url = urlsplit(target)
    verb = url.path.removeprefix("/_sandbox/")
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    try:
        answer = _controls(world, method, verb, query if method == "GET" else json.loads(body or b"{}"))
        return Response(200, {"Content-Type": "application/json"}, json.dumps(answer, default=str).encode())
    except (ValueError, KeyError) as refused:
        status, message = 400, str(refused)
    except Exception as failure:
        world.log(traceback.format_exc())
        status, message = 500, f"{type(failure).__name__}: {failure}"
    return Response(status, {"Content-Type": "application/json"}, json.dumps({"error": message}).encode())


def _controls(world: World, method: str, verb: str, args: dict) -> Any:
    if method == "GET":
        match verb:
            case "calls":
                return world.calls.since(int(args.get("since", 0)))
            case "status":
                return world.status()
            case "faults":
                return {
                    name: {"description": each.description, "parameters": each.parameters, "options": each.options}
                    for name, each in world.faults.items()
                }
    else:
        match verb:
            case "fault":
                return world.apply_fault(args.pop("name"), **args)
            case "heal":
                return world.heal(args.get("name"))
            case "reset":
                return world.reset()
            case "down":
                return world.closed.set()
        for part in world.parts:
            if verb in getattr(part, "control", {}):
                return part.control[verb](world, args)
    raise ValueError(f"unknown control {method} {verb}")


_app: Any = None


def listen(world: World, region: str | None = None, host: str = "127.0.0.1", port: int = 0) -> str:
    """Serve the AWS API at host:port until the process ends; returns the URL.

    With `region` all calls that come this way count as that region's, whatever they are signed for.
    """
    global _app
    if _app is None:
        from moto import backends
        from moto.core import responses
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        # moto inspects the whole response class anew for every call, which costs more than most calls.
        responses.method_names_from_class = lru_cache(responses.method_names_from_class)
        # And it lists the folder that it is installed in, twice.
        known = frozenset(backends.list_of_moto_modules())
        backends.list_of_moto_modules = lambda: known
        _app = DomainDispatcherApplication(create_backend_app)
    server = _Server((host, port), _Handler)
    server.world, server.app, server.region = world, _app, region
    if region is None:
        world.hand_over = partial(_hand_over, server)
    threading.Thread(target=server.serve_forever, args=(0.1,), name="endpoint", daemon=True).start()
    return f"http://{host}:{server.server_port}"

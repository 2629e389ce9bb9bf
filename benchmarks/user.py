# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A user of the simulated service, who knows its public name only."""

from __future__ import annotations

import http.client
import json
import time

import dns.message
import dns.query

from sandbox.client import Sandbox


def ask(sandbox: Sandbox, method: str, path: str, body: object = None) -> tuple[int, dict[str, str], dict] | None:
    """(status, headers, JSON) of one request, None where nothing answers; the sandbox's name server resolves the name."""
    state = sandbox.state
    server, port = state["dns"].split(":")
    try:
        question = dns.message.make_query(state["public_name"], "A")
        address = dns.query.udp(question, server, port=int(port), timeout=2).answer[-1][0].to_text()
        connection = http.client.HTTPConnection(address, state["http_port"], timeout=5)
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Host": state["public_name"]})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), json.loads(response.read() or b"{}")
    except (OSError, IndexError, ValueError, http.client.HTTPException):
        return None


def write(sandbox: Sandbox) -> str | None:
    """Where (host:port of the database) one new row was committed, or None."""
    answer = ask(sandbox, "POST", "/v1/rows", {"id": time.time_ns(), "payload": "benchmark"})
    return answer[2].get("database") if answer and answer[0] == 201 else None

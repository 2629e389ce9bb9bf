# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The builds of the application, each as a process of its own; no database answers them."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from core_helpers import wait_until

from sandbox.builds import BUILDS, build_of, environment_of, tag_of
from sandbox.client import REPOSITORY
from sandbox.misbehaviour import of_build
from sandbox.world import World

REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com/regami-api"


@pytest.mark.parametrize(
    ("image", "tag", "build"),
    [
        (f"{REGISTRY}:v1", "v1", "good"),
        (f"{REGISTRY}:v3-erroring", "v3-erroring", "erroring"),
        (f"{REGISTRY}:2024-06-01-slow", "2024-06-01-slow", "slow"),
        (f"{REGISTRY}:erroring", "erroring", "erroring"),
        (f"{REGISTRY}:v3-release", "v3-release", "good"),
        ("localhost:5000/regami-api", "latest", "good"),
        (f"{REGISTRY}:v4-leaking@sha256:{'0' * 64}", "v4-leaking", "leaking"),
    ],
)
def test_tag_says_which_build(image, tag, build):
    assert (tag_of(image), build_of(image)) == (tag, build)


def test_every_build_misbehaves_in_its_own_way():
    assert [type(of_build(name)).__name__.lower() for name in BUILDS] == list(BUILDS)


@contextmanager
def application(tag, **environment):
    """A process of that image, and where it listens."""
    port = World.free_port()
    settings = {"DATABASE_URL": "postgresql://127.0.0.1:1/regami", "DATABASE_PASSWORD": "x"}
    settings |= {"APP_HOST": "127.0.0.1", "APP_PORT": str(port), **environment_of(f"{REGISTRY}:{tag}")}
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.app"],
        cwd=REPOSITORY,
        env=os.environ | settings | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.communicate()


def ask(port, path, body=None):
    """Status and version of an answer; None while nothing listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST" if body else "GET", path, body)
        response = connection.getresponse()
        response.read()
        return response.status, response.getheader("X-App-Version")
    except ConnectionRefusedError:
        return None
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("tag", "health", "first", "second"),
    [("v1", 200, 503, 503), ("v3-erroring", 200, 500, 503), ("v6-unhealthy", 500, 503, 503)],
)
def test_answers_of_a_build(tag, health, first, second):
    """503 is what a good build says of the database that is missing here."""
    with application(tag) as (process, port):
        wait_until(lambda: ask(port, "/health"), "it listens")
        assert ask(port, "/health") == (health, tag)
        assert [ask(port, "/v1/rows", '{"id": 1, "payload": "x"}') for _ in range(2)] == [(first, tag), (second, tag)]
        process.kill()
        errors = [line for line in process.stdout.read().splitlines() if line.startswith("ERROR POST /v1/rows")]
    assert len(errors) == 2


def test_crashing_build_says_why_and_ends():
    with application("v4-crashing") as (process, _):
        assert process.wait(10) == 1
        assert "FATAL ModuleNotFoundError" in process.stdout.read()


def test_slow_build_listens_late():
    with application("v5-slow", APP_SLOW_SECONDS="0.3") as (process, port):
        wait_until(lambda: ask(port, "/health") == (200, "v5-slow"), "it listens after all")
    with application("v5-slow", APP_SLOW_SECONDS="60") as (process, port):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert ask(port, "/health") is None


def test_leaking_build_keeps_every_connection():
    opened, build = [], of_build("leaking")

    def connect():
        opened.append(object())
        return opened[-1]

    for _ in range(3):
        build.on_request(connect)
    assert build._lost == opened and len(opened) == 3

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sandbox's world: what its parts share, and its life: install once, then seed, start, stop for every reset.

A part is a module with any of
    prepare(world)   start slow work that needs no moto; once per process, before anything else
    install(world)   patch moto's classes; once per process, before the endpoint serves
    seed(world)      create resources; moto is empty, the endpoint serves, nothing of the part runs
    start(world)     threads and listeners
    stop(world)      end them; may be called twice
    wake(world, name)  users are about to come to the public name: start what sleeps until it is needed
    status(world)    rows {"region", "kind", "name", "state", "detail"} for people
    faults           name -> Fault
    control          name -> function(world, arguments) behind POST /_sandbox/<name>
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from . import addresses
from .faults import Fault, Rules
from .permissions import OBSERVED_VARIABLE, Observed
from .processes import Process, Spawner

# In the order in which they are seeded and started; stopped in reverse.
PARTS = (
    "faults",
    "basics",
    "access",
    "simulation",
    "object_lock",
    "s3",
    "s3_batch",
    "subnets",
    "zones",
    "interfaces",
    "instances",
    "connection_tracking",
    "cloudwatch",
    "alarms",
    "queues",
    "quotas",
    "cloudtrail",
    "logs",
    "instance_classes",
    "parameter_groups",
    "rds",
    "rds_restore",
    "multi_az",
    "distress",
    "schema",
    "aurora",
    "elasticache",
    "partner",
    "elbv2",
    "zonal_shift",
    "ecr",
    "ecs",
    "autoscaling",
    "green",
    "route53",
    "codedeploy",
    "arc",
    "kubernetes",
    "recovery",
    "fleet",
    "ebs",
    "ssm",
    "usage",
    "load",
    "flow_logs",
    "experiments",
    "incidents",
)

# Calls with this access key seed the world: not recorded, not failed, not held back during a reset.
SEED_KEY = "SANDBOXSEEDSANDBOXSE"

# The AWS CLI has an address of its own for RDS in us-east-1, which AWS_ENDPOINT_URL does not replace: hence --endpoint-url.
_ENVIRONMENT = """\
export AWS_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID=sandbox AWS_SECRET_ACCESS_KEY=sandbox AWS_PAGER=
export KUBECONFIG={home}/kubeconfig
aws() {{ command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }}
"""


@dataclass
class Settings:
    """How long things take, in seconds."""

    promotion_seconds: float = 2.0  # a promotion, or an Aurora switchover, shows `modifying` at least this long
    dns_ttl: int = 5
    insync_seconds: float = 0.3  # until a change batch of Route 53 has reached its name servers
    metric_seconds: float = 5.0  # between two points of a CloudWatch metric
    backup_seconds: float = 1.0  # an instance shows `backing-up` this long when backups are turned on
    log_seconds: float = 5.0  # the log of a database reaches its backup this often; RDS: five minutes
    create_seconds: float = 1.0  # creating, rebooting, deleting, modifying show at least this long
    probe_seconds: float = 0.5  # between two health checks of a target
    deployment_minute: float = 1.0  # what deployments of CodeDeploy take for a minute
    hold_seconds: float = 30.0  # a call to a region that is cut off hangs this long, then the connection drops


# What a fault is called that nobody is to know.
UNDISCLOSED = "undisclosed"


class Stopped(Exception):
    """The world is being reset or taken down: background work ends here."""


class World:
    regions = ("us-east-1", "us-west-2")
    account_id = "123456789012"

    def __init__(self, home: Path, settings: Settings | None = None) -> None:
        self.home = home
        self.settings = settings or Settings()
        self.lock = threading.RLock()
        self.endpoint_url = ""
        # What answers a seeding client's botocore.awsrequest.AWSPreparedRequest; of the endpoint, once that listens.
        self.hand_over: Callable | None = None
        self.state: dict[str, Any] = {}
        self.rules = Rules()
        self.cut_regions: set[str] = set()
        self.active_faults: list[tuple[str, dict]] = []
        self.secret_faults: set[str] = set()
        # Services that moto has no backend for: name -> function(wire.Call) -> dict, or wire.Response where it is not JSON
        # (wire.ApiError for an error).
        self.handlers: dict[str, Callable] = {}
        # Called inside the lock before each call that is no seeding, with the server.Call; raise server.ApiError to refuse it.
        self.gates: list[Callable] = []
        # Called inside the lock after each change through the API, with the server.Call.
        self.after_change: list[Callable] = []
        # Called inside the lock after each call that a gate refused, with the server.Call and the server.ApiError.
        self.after_refusal: list[Callable] = []
        self.observed = Observed(os.environ.get(OBSERVED_VARIABLE))
        self.seeding = False
        self.ready = threading.Event()
        self.closed = threading.Event()
        self._control = threading.Lock()
        self._stopping = threading.Event()
        self._healed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._local = threading.local()
        self._clients: dict[tuple[str, str], Any] = {}
        self._spawner = Spawner(home)
        self._log_lock = threading.Lock()
        self.parts = [import_module(f"sandbox.{name}") for name in PARTS]

    # ---- what parts use -------------------------------------------------------------------------------------------

    def log(self, line: str) -> None:
        with self._log_lock:
            print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)

    def secret(self, name: str) -> str:
        """The password `name`, made up on first use and kept in <home>/secrets/<name> (0600)."""
        path = self.home / "secrets" / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(18))
        return path.read_text()

    @staticmethod
    def free_port(host: str = "127.0.0.1") -> int:
        return addresses.free_port(host)

    def spawn(
        self,
        name: str,
        argv: list[str],
        env: dict[str, str] | None = None,
        log: Path | None = None,
        as_postgres: bool = False,
        region: str | None = None,
        stdout: int | None = None,
        cwd: Path | None = None,
    ) -> Process:
        """A child that dies with the sandbox. `region`: it freezes when that region is cut off.

        Its output goes to the file `log`, or to a pipe (`stdout=subprocess.PIPE`, then read Process.stdout).
        """
        from .postgres import unprivileged_user

        user = unprivileged_user() if as_postgres else None
        return self._spawner.spawn(name, argv, region=region, env=env, log=log, user=user, stdout=stdout, cwd=cwd)

    @property
    def processes(self) -> list[Process]:
        return [process for process in self._spawner.processes if process.poll() is None]

    def backend(self, service: str, region: str) -> Any:
        """moto's backend; hold `lock` around its use. Global services (route53, iam): region "aws"."""
        from moto.backends import get_backend

        return get_backend(service)[self.account_id][region]

    def client(self, service: str, region: str) -> Any:
        """A boto3 client for seeding."""
        key = (service, region)
        if key not in self._clients:
            import boto3
            from botocore.config import Config

            if "" not in self._clients:
                self._clients[""] = boto3.Session(aws_access_key_id=SEED_KEY, aws_secret_access_key="seed")
            # botocore says anew in each call which machine this is, unless it is told what to say.
            config = Config(retries={"total_max_attempts": 1}, user_agent="sandbox")
            self._clients[key] = self._clients[""].client(
                service, region, endpoint_url=self.endpoint_url, config=config
            )
            if self.hand_over:
                self._clients[key].meta.events.register("before-send", self.hand_over)
        return self._clients[key]

    def background(self, function: Callable, *args: Any) -> threading.Thread:
        """Run `function` in a thread that ends, through `pause`, when the world stops."""
        stopping = self._stopping

        def run() -> None:
            self._local.stopping = stopping
            try:
                function(*args)
            except Stopped:
                pass
            except Exception as error:
                if not stopping.is_set():
                    self.log(f"{getattr(function, '__name__', function)}: {type(error).__name__}: {error}")

        thread = threading.Thread(target=run, daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()
        return thread

    def pause(self, seconds: float) -> None:
        """Sleep in a background thread; raises Stopped when the world stops meanwhile."""
        if getattr(self._local, "stopping", self._stopping).wait(seconds):
            raise Stopped

    # ---- life -----------------------------------------------------------------------------------------------------

    def each(self, function: str, reverse: bool = False) -> None:
        for part in reversed(self.parts) if reverse else self.parts:
            if hasattr(part, function):
                getattr(part, function)(self)

    def wake(self, name: str) -> None:
        for part in self.parts:
            if hasattr(part, "wake"):
                part.wake(self, name)

    def install(self) -> None:
        self.each("prepare")
        self.each("install")

    def begin(self) -> None:
        """Seed an empty world and start it."""
        if self._stopping.is_set():
            self._stopping = threading.Event()
        self.state = {"endpoint_url": self.endpoint_url, "account_id": self.account_id, "regions": {}}
        self.seeding = True
        try:
            self.each("seed")
        finally:
            self.seeding = False
        self.each("start")
        self.save_state()
        self.ready.set()

    def end(self) -> None:
        """Stop every part and every background thread. May be called twice."""
        self.ready.clear()
        self._stopping.set()
        self.cut_regions.clear()
        self.uncut()
        self.rules.clear()
        self.active_faults.clear()
        self.secret_faults.clear()
        self.each("stop", reverse=True)
        for thread in self._threads:
            thread.join(5)
        self._threads.clear()

    def reset(self) -> None:
        from moto.core.base_backend import BackendDict
        from moto.core.model_instances import reset_model_data

        with self._control:
            self.end()
            with self.lock:
                BackendDict.reset()
                reset_model_data()
            self.calls.clear()
            self.begin()

    def close(self) -> None:
        self.end()
        for process in self.processes:
            process.kill()
        self.closed.set()

    def save_state(self) -> None:
        """sandbox.json, and env.sh for a person's shell."""
        (self.home / "env.sh").write_text(_ENVIRONMENT.format(url=self.endpoint_url, home=self.home))
        path = self.home / "sandbox.json"
        scratch = path.with_suffix(".new")
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(self.state, file, indent=1)
        scratch.replace(path)

    # ---- failures -------------------------------------------------------------------------------------------------

    @property
    def faults(self) -> dict[str, Fault]:
        return {name: fault for part in self.parts for name, fault in getattr(part, "faults", {}).items()}

    def apply_fault(self, name: str, secretly: bool = False, **args: Any) -> None:
        """`secretly`: neither status nor log tells which it is, as a drill wants it."""
        if name not in self.faults:
            raise ValueError(f"unknown fault {name!r}: see `fault list`")
        with self._control:
            try:
                self.faults[name].apply(self, **args)
            except TypeError as error:
                raise ValueError(f"fault {name}: {error}") from error
            self.active_faults.append((name, args))
            if secretly:
                self.secret_faults.add(name)
        self.log(f"fault {UNDISCLOSED if secretly else name} {'' if secretly else args or ''}")

    def heal(self, name: str | None = None) -> list[str]:
        """End the fault `name`, or all that are active. Returns what was healed."""
        if name is not None and name not in self.faults:
            raise ValueError(f"unknown fault {name!r}: see `fault list`")
        with self._control:
            healed = [] if name is None else [name]
            for active, _ in reversed(self.active_faults):
                if name is None and active not in healed:
                    healed.append(active)
            for each in healed:
                self.faults[each].heal(self)
            self.active_faults = [entry for entry in self.active_faults if entry[0] not in healed]
            self.secret_faults -= set(healed)
        self.log(f"healed {', '.join(healed) or 'nothing'}")
        return healed

    def hold(self, region: str) -> None:
        """Hang as long as `region` is cut off, at most `hold_seconds`."""
        healed = self._healed
        if region in self.cut_regions:
            healed.wait(self.settings.hold_seconds)

    def uncut(self) -> None:
        healed, self._healed = self._healed, threading.Event()
        healed.set()

    def status(self) -> dict[str, Any]:
        rows: list[dict] = []
        for part in self.parts:
            if hasattr(part, "status"):
                rows += part.status(self)
        return {
            "home": str(self.home),
            "endpoint_url": self.endpoint_url,
            "settings": asdict(self.settings),
            "rows": rows,
            "cut_regions": sorted(self.cut_regions),
            "faults": [
                {"name": UNDISCLOSED} if name in self.secret_faults else {"name": name, **args}
                for name, args in self.active_faults
            ],
            "calls": len(self.calls),
        }

    @property
    def calls(self) -> Any:
        return self.__dict__.setdefault("_calls", CallLog(self.home / "calls.jsonl"))


class CallLog:
    """Every API call, one JSON object a line, flushed as it happens."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock, self._entries = path, threading.Lock(), []
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 it stays open as long as the sandbox

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: dict) -> None:
        with self._lock:
            entry = {"n": len(self._entries), **entry}
            self._entries.append(entry)
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def since(self, n: int) -> list[dict]:
        with self._lock:
            return self._entries[n:]

    def clear(self) -> None:
        with self._lock:
            self._entries = []
            self._file.truncate(0)

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m benchmarks.readiness: readiness.yml of many services against one, in one run.

The services are hosts of an inventory that is made up; behind all of them are the resources of one sandbox, in which AWS answers at
once. So the time is that of the controller, and the rates are the highest that it lets itself reach. Exit code 1: a run came to
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from sandbox.client import Sandbox

from ..contest import REPOSITORY
from . import QUOTAS, rates

MANY = "many"
HOST = REPOSITORY / "inventories/sandbox/host_vars/api-sandbox.yml"
# Of a look that has told: all is ready, something is not, something cannot be told.
ENDS = (0, 2, 4)
# Seconds.
PATIENCE = 60.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readiness", description=__doc__)
    parser.add_argument("--services", type=int, default=200, metavar="N", help="how many (default 200)")
    parser.add_argument(
        "--scenario", default="all", metavar="NAMES", help="as -e scenario of readiness.yml (default all)"
    )
    parser.add_argument("--forks", type=int, metavar="N", help="instead of what ansible.cfg says")
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="sre-bench-"))
    folder.chmod(0o711)  # PostgreSQL's user passes through
    sandbox = Sandbox(folder / "sandbox")
    seconds, calls = {}, []
    try:
        sandbox.up(promotion_seconds=0, dns_ttl=0, insync_seconds=0)
        _deploy(sandbox)
        for count in (1, args.services):
            first, started = sandbox.status()["calls"], time.monotonic()
            ended = _look(sandbox, folder, count, args)
            seconds[count] = time.monotonic() - started
            calls = sandbox.calls(first)
            if ended.returncode not in ENDS:
                print(ended.stdout[-3000:], file=sys.stderr)
                return 1
            print(
                f"{count} services: {seconds[count]:.1f} s, {len(calls)} calls to AWS, exit code {ended.returncode}",
                flush=True,
            )
    finally:
        sandbox.down()
    shutil.rmtree(folder, ignore_errors=True)
    factor = seconds[args.services] / seconds[1]
    print(f"{args.services} services take {factor:.1f} times as long as one, on {os.cpu_count()} cores")
    print(f"{'of AWS':25}{'region':12}{'calls':>7}{'most in 1 s':>13}  {'quota':16}throttled and repeated")
    for rate in rates(calls):
        quota = "{} + {}/s".format(*QUOTAS[rate.service]) if rate.service in QUOTAS else "none published"
        over = "" if rate.missing is None else f"{rate.missing}"
        print(f"{rate.service:25}{rate.region:12}{rate.calls:>7}{rate.most:>13}  {quota:16}{over}")
    return 0


def _deploy(sandbox: Sandbox) -> None:
    """On the first day the revision before the present one is deregistered, so that nothing could be rolled back."""
    ecs, names = sandbox.boto("ecs"), sandbox.state["regions"]["us-east-1"]
    where = {"cluster": names["cluster"], "service": names["service"]}
    newest = ecs.list_task_definitions(familyPrefix="regami-api", sort="DESC")["taskDefinitionArns"][0]
    ecs.update_service(**where, taskDefinition=newest)
    until = time.monotonic() + PATIENCE
    while (
        ecs.describe_services(cluster=where["cluster"], services=[where["service"]])["services"][0]["deployments"][0][
            "rolloutState"
        ]
        != "COMPLETED"
    ):
        if time.monotonic() > until:
            raise TimeoutError(f"{newest} is not deployed")
        time.sleep(0.1)


def _look(sandbox: Sandbox, folder: Path, count: int, args: argparse.Namespace) -> subprocess.CompletedProcess:
    known = {**yaml.safe_load(HOST.read_text()), "peer": "api-sandbox-secondary"}
    hosts = {f"service-{number:03}": {**known, "service_name": f"service-{number:03}"} for number in range(count)}
    inventory = folder / f"{count}.yml"
    inventory.write_text(
        yaml.safe_dump({MANY: {"hosts": hosts}, "service_sandbox": {"hosts": dict.fromkeys(hosts)}}, sort_keys=False)
    )
    variables = json.dumps({"env": MANY, "scenario": args.scenario})
    command = ["ansible-playbook", "playbooks/readiness.yml", "-i", "inventories/sandbox", "-i", str(inventory)]
    return subprocess.run(
        [*command, "-e", variables, *(["-f", str(args.forks)] if args.forks else [])],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "SRE_SANDBOX_HOME": str(sandbox.home),
            "SRE_RUNBOOKS_INCIDENTS": str(folder / "incidents"),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""python -m sandbox: two simulated AWS regions to practise and test in."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import fields

from .client import Sandbox, SandboxError
from .world import Settings

NEXT = """\
next:   python -m sandbox status
        python -m sandbox fault list
        python -m sandbox down"""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        each = commands.add_parser(name, help=help, description=help)
        each.add_argument("--home", help="folder of its state (default: $SRE_SANDBOX_HOME, else .sandbox)")
        return each

    up = command("up", "start the two regions and wait until they serve")
    for setting in fields(Settings):
        option = "--" + setting.name.replace("_", "-")
        kind = type(setting.default)
        up.add_argument(option, type=kind, metavar="N", help=f"seconds (default {setting.default})")
    status = command("status", "show databases, services, DNS and active faults")
    status.add_argument("--json", action="store_true", help="as one JSON object")
    fault = command("fault", "make something fail; `fault list` names the failures")
    fault.add_argument("name", metavar="NAME")
    fault.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments and --options")
    heal = command("heal", "end a failure, or all of them")
    heal.add_argument("name", nargs="?", metavar="NAME")
    load = command("load", "the users: numbered writes, and reads, through a public name")
    load.add_argument("action", choices=("start", "stop", "report"))
    load.add_argument("--pinned", action="store_true", help="start: one more writer never asks DNS again")
    load.add_argument("--name", help="start: the public name (default: that of the ECS service)")
    load.add_argument("--rate", type=float, metavar="N", help="start: rows written a second")
    load.add_argument("--reads", type=float, metavar="N", help="start: rows read a second")
    green = command("green", "bring another version up beside the one that runs, in a target group of its own")
    green.add_argument("--tag", help="tag of its image, which says how it behaves (default v1)")
    green.add_argument("--tasks", type=int, metavar="N", help="number of tasks (default 2)")
    green.add_argument("--detached", action="store_true", help="behind no listener, so that nothing checks its targets")
    command("reset", "bring back the first state without starting anew")
    command("down", "end everything and remove its files")
    return root


def fault_arguments(name: str, known: dict, given: list[str]) -> dict[str, str]:
    """Typed arguments to names: positions to `parameters`, --option value to `options`.

    Raises SandboxError in one line that says how the fault is called.
    """
    usage = " ".join(
        [name, *(p.upper() for p in known["parameters"]), *(f"[--{o} {o.upper()}]" for o in known["options"])]
    )
    args, positions, rest = {}, list(known["parameters"]), list(given)
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and word[2:].replace("-", "_") in known["options"] and rest:
            args[word[2:].replace("-", "_")] = rest.pop(0)
        elif not word.startswith("--") and positions:
            args[positions.pop(0)] = word
        else:
            raise SandboxError(f"fault {name} does not know {word!r}: fault {usage}")
    if positions:
        raise SandboxError(f"fault {name} lacks {positions[0].upper()}: fault {usage}")
    return args


def print_status(status: dict) -> None:
    rows = [("REGION", "KIND", "NAME", "STATE", "DETAIL")]
    rows += [
        tuple(str(row.get(key, "")) for key in ("region", "kind", "name", "state", "detail")) for row in status["rows"]
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip())
    for active in status["faults"]:
        details = " ".join(f"{key}={value}" for key, value in active.items() if key != "name")
        print(f"fault: {active['name']} {details}".rstrip())


def run(args: argparse.Namespace) -> None:
    sandbox = Sandbox(args.home)
    match args.command:
        case "up":
            started = time.monotonic()
            chosen = {field.name: getattr(args, field.name) for field in fields(Settings)}
            state = sandbox.up(stays=True, **{name: value for name, value in chosen.items() if value is not None})
            print(f"sandbox up in {time.monotonic() - started:.1f} s, state in {sandbox.home / 'sandbox.json'}")
            print(f"AWS:    {state['endpoint_url']}  regions {', '.join(state['regions'])}")
            print(f"shell:  source {sandbox.home / 'env.sh'}  # then type aws commands")
            if "public_url" in state:
                print(f"users:  {state['public_url']}  resolver {state['dns']}")
            print(NEXT)
        case "status":
            status = sandbox.status()
            print(json.dumps(status, indent=1)) if args.json else print_status(status)
        case "fault" if args.name == "list":
            for name, known in sandbox.faults().items():
                print(f"{' '.join([name, *(p.upper() for p in known['parameters'])]):32} {known['description']}")
        case "fault":
            known = sandbox.faults().get(args.name)
            if known is None:
                raise SandboxError(f"unknown fault {args.name!r}: see `fault list`")
            sandbox.fault(args.name, **fault_arguments(args.name, known, args.arguments))
            print(f"fault {args.name}: {known['description']}")
        case "heal":
            print(f"healed: {', '.join(sandbox.heal(args.name)) or 'nothing was wrong'}")
        case "load":
            given = {name: getattr(args, name) for name in ("pinned", "name", "rate", "reads")}
            options = {name: value for name, value in given.items() if value is not None and value is not False}
            print(json.dumps(sandbox.control("load", action=args.action, **options), indent=1))
        case "green":
            given = {name: getattr(args, name) for name in ("tag", "tasks") if getattr(args, name) is not None}
            print(json.dumps(sandbox.control("green", attached=not args.detached, **given), indent=1))
        case "reset":
            started = time.monotonic()
            sandbox.reset()
            print(f"sandbox reset in {time.monotonic() - started:.1f} s")
        case "down":
            sandbox.down()
            print(f"sandbox down, {sandbox.home} removed")


def main(argv: list[str] | None = None) -> int:
    try:
        run(parser().parse_args(argv))
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: incident
type: notification
short_description: Writes the record of a run
version_added: 0.1.0
description:
  - Writes C(<incidents_dir>/<time>-<playbook>-<env>/) for each run that uses a verb of this collection,
    C(timeline.jsonl) as it happens and C(report.json) at the end. A run that is killed leaves its timeline.
  - Loads the verbs of a play, boto3 and the service models before ansible forks, so that each task finds them in memory.
  - Holds what was said with C(-e) against the argument spec beside the playbook, for M(sre.runbooks.run_guard) to refuse.
requirements:
  - enabled in configuration, as ansible.cfg of the clone does
options:
  incidents_dir:
    description: Folder of the records, from the folder that ansible is started in.
    type: str
    default: incidents
    env:
      - name: SRE_RUNBOOKS_INCIDENTS
    ini:
      - section: callback_incident
        key: incidents_dir
"""

import gc
import importlib
import os
import re
import time

from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, lookup_loader, test_loader
from ansible.vars.plugins import get_vars_from_inventory_sources

from ansible_collections.sre.runbooks.plugins.module_utils import (
    aws,
    extra_vars,
    incidents,
    pace,
    patience,
    readiness,
    record,
    record_mirror,
    timeline,
    way_back,
)
from ansible_collections.sre.runbooks.plugins.module_utils.lease import identity, run_id

# So long an ended run waits until the bucket has its record.
DELIVERY_SECONDS = 5
# What a step of the timeline has of its verb's result, where that has it.
KEPT = ("mode", "unfenced", "user_errors", "stopped", "resource", "readiness")
# What two of these decide by what is logged so far, and log, would be decided twice side by side: an incident is opened once, a
# proposal is answered once. So long one waits for the other; those of other controllers meet in the bucket, see decisions.py.
ONE_AT_A_TIME = ("sre.runbooks.incident_log", "sre.runbooks.run_approval")
TURN_SECONDS = 30
# What meta/runtime.yml resolves each verb to.
VERB = "sre.runbooks.verb"


class CallbackModule(CallbackBase):
    """One record for each run of ansible-playbook."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "sre.runbooks.incident"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display=None, options=None):
        super().__init__(display, options)
        self.folder = self.incident = self.turn = None
        self.playbook = self.env = self.arguments = None
        self.started = time.time()
        self.task_started = {}
        self.over_at = None
        self.report = {"steps": [], "verification": [], "undo": [], "notes": []}
        self.changed = self.failed = self.unfenced = self.logged = False
        # The process that lives as long as the run: a lease held by it is free once it is gone.
        os.environ["SRE_RUNBOOKS_RUN"] = run_id(os.getpid())
        for variable in (record.FOLDER_VARIABLE, patience.SILENT_VARIABLE, extra_vars.REFUSED_VARIABLE):
            os.environ.pop(variable, None)

    def v2_playbook_on_start(self, playbook):
        name = os.path.basename(playbook._file_name)
        self.playbook = os.path.splitext(name)[0]
        os.environ[aws.PLAYBOOK_VARIABLE] = re.sub(r"[^\w-]", "_", self.playbook)
        self.arguments = extra_vars.arguments(os.path.join(playbook._basedir, name))

    def v2_playbook_on_play_start(self, play):
        if self.arguments:
            self._judge(play.get_variable_manager())
        said = play.get_variable_manager().extra_vars
        self.env = str(said.get("env", "none"))
        # AWX says in no other way who launched a job: the user of its container is always the same.
        if said.get("awx_user_name"):
            os.environ["AWX_USER"] = str(said["awx_user_name"])
        verbs = {action for block in play.tasks + play.handlers for action in _verbs(block)}
        if verbs and self.folder is None:
            self._open()
        _preload(verbs)

    def _judge(self, variables):
        """A callback cannot stop a run; the guard does, in a process that is forked from this one."""
        said = variables.extra_vars
        for name in extra_vars.unanswered(said, self.arguments):
            del said[name]
        refusal = extra_vars.refusal(said, self.arguments, lambda: _names_in(variables._inventory, variables._loader))
        if refusal:
            os.environ[extra_vars.REFUSED_VARIABLE] = refusal

    def v2_playbook_on_include(self, included_file):
        if not included_file._is_role:
            _preload(_verbs_named_in(included_file._filename))

    def v2_playbook_on_task_start(self, task, is_conditional):
        self._end_turn()  # that of a task that was skipped
        if self.folder and task.action in ONE_AT_A_TIME:
            self.turn = record.take_turn(os.path.dirname(self.folder), TURN_SECONDS)
        self.task_started[task._uuid] = time.time()

    def v2_playbook_on_handler_task_start(self, task):
        self.v2_playbook_on_task_start(task, False)

    def _open(self):
        parent = os.path.abspath(self.get_option("incidents_dir"))
        suffix = f"-{self.playbook}-{self.env}"
        resumes = record.unfinished(parent, suffix)
        base = os.path.join(parent, time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime(self.started)))
        for attempt in ["", *(f".{number}" for number in range(1, 100))]:
            try:
                os.makedirs(base + attempt + suffix, mode=0o700)
            except FileExistsError:
                continue
            self.folder = base + attempt + suffix
            break
        os.environ[record.FOLDER_VARIABLE] = self.folder
        pace.begin()
        me = identity()
        self.report.update(
            playbook=self.playbook, env=self.env, started=_iso(self.started), by=me["holder"], resumes=resumes
        )
        record.append(
            self.folder,
            event="run_started",
            playbook=self.playbook,
            env=self.env,
            by=me["holder"],
            run=me["run"],
            check_mode=bool(context.CLIARGS.get("check")),
            resumes=resumes,
        )

    def v2_runner_on_ok(self, result):
        self._ended(result, "changed" if result.result.get("changed") else "ok")

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._ended(result, "ignored" if ignore_errors else "rescued" if _is_rescued(result.task) else "failed")

    def v2_runner_on_unreachable(self, result):
        self._ended(result, "unreachable")

    def _ended(self, result, state):
        started = self.task_started.get(result.task._uuid)
        if self.folder is None or started is None:
            return
        outcome, verb = result.result, result.task.resolved_action == VERB
        turns = outcome.get("results", []) if result.task.loop else [outcome]
        event = {
            "step": result.task.get_name(),
            "host": result.host.get_name(),
            "state": state,
            "duration": round(time.time() - started, 3),
        }
        if scenario := result.task.get_vars().get(readiness.SCENARIO):
            event["scenario"] = scenario
        for turn in turns:
            if turn.get("silent_regions"):
                self._remember(turn["silent_regions"])
        preflight = verb and result.task.check_mode and not context.CLIARGS.get("check")
        if verb:
            # What failed has the last word.
            by_weight = sorted(turns, key=lambda turn: bool(turn.get("failed")))
            event.update({key: turn[key] for turn in by_weight for key in KEPT if turn.get(key)})
            for key, nothing in (("steps", []), ("notes", []), ("waited_seconds", 0.0)):
                if total := sum((turn.get(key, nothing) for turn in turns), nothing):
                    event[key] = total
            event["verb"] = result.task.action
            if calls := [call for turn in turns if (call := way_back.call(result.task.action, turn))]:
                event["calls"] = calls
            if lease := next((turn["lease"] for turn in turns if turn.get("lease")), None):
                event["lease"] = {key: lease[key] for key in ("name", "table", "region")}
        if state in ("failed", "unreachable", "ignored", "rescued"):
            event["message"] = "; ".join(turn.get("msg", "") for turn in turns if turn.get("failed")) or outcome.get(
                "msg", ""
            )
        # Before the step itself: what was decided in the bucket has its time from there.
        for entry in (entry for turn in turns for entry in turn.get("entries", []) if verb):
            self._log(entry)
        record.append(self.folder, event="preflight" if preflight else "step", **event)
        self._end_turn()
        if verb and not preflight:
            for turn in turns:
                self._collect(turn, state)

    def _end_turn(self):
        if self.turn is not None:
            record.end_turn(self.turn)
            self.turn = None

    def _log(self, entry):
        """What a verb has for the timeline. The first that names an incident makes the run a part of it."""
        incident = entry.get("incident")
        if incident and self.incident is None:
            self.incident = self.report["incident"] = incident
            at = {"time": entry["time"]} if "time" in entry else {}
            record.append(self.folder, event="joined", incident=incident, env=self.env, **at)
        if entry["event"] in incidents.LOGGED:
            self.logged = True
        if entry["event"] != "joined":
            record.append(self.folder, **entry)

    def _remember(self, silent):
        """For the verbs that follow, and for the report. Hosts are asked side by side: what they waited is no sum."""
        known = self.report.setdefault("silent_regions", {})
        for region, found in silent.items():
            known[region] = max(known.get(region, found), found, key=lambda each: each["waited"])
        waited = {region: found["waited"] for region, found in known.items()}
        os.environ[patience.SILENT_VARIABLE] = patience.text(waited)

    def _collect(self, outcome, state):
        """What the report keeps of one verb's result."""
        self.changed |= state == "changed" or bool(outcome.get("changed"))
        self.report["steps"] += outcome.get("steps", [])
        self.report["undo"] = outcome.get("undo", []) + self.report["undo"]
        self.report["notes"] += [note for note in outcome.get("notes", []) if note not in self.report["notes"]]
        self.report["verification"] += outcome.get("verification", [])
        self.unfenced |= bool(outcome.get("unfenced"))
        self.over_at = outcome.get("run_over_at") or self.over_at
        for key in ("mode", "possible_loss_seconds", "user_errors"):
            if outcome.get(key) is not None:
                self.report[key] = outcome[key]

    def v2_playbook_on_stats(self, stats):
        if self.folder is None:
            return
        failed = any(stats.failures.get(host) or stats.dark.get(host) for host in stats.processed)
        finished = time.time()
        # Who must hear of the end hears of it afterwards, and may be slow.
        recovered = self.over_at or finished
        outcome = record.outcome(
            failed, bool(context.CLIARGS.get("check")), self.changed, self.report["verification"], self.logged
        )
        self.report.update(
            outcome=outcome,
            finished=_iso(finished),
            hosts=sorted(stats.processed),
            unfenced=self.unfenced,
            recovery_seconds=round(recovered - self.started, 2),
        )
        self.report["notes"] += way_back.left_alone(record.events(self.folder, ("step",)))
        record.append(self.folder, event="run_ended", outcome=outcome, seconds=self.report["recovery_seconds"])
        record.write_report(self.folder, self.report)
        self._say(outcome)
        self._await_delivery()

    def _await_delivery(self):
        """A controller that ends with its job, as AWX's does, takes with it what was not delivered."""
        until = time.monotonic() + DELIVERY_SECONDS
        while record_mirror.is_whole(self.folder) is False:
            if time.monotonic() > until:
                self._display.display("  note: the bucket does not have all of the record yet", color="yellow")
                return
            time.sleep(0.05)

    def _say(self, outcome):
        """The last lines that the engineer reads."""
        # How long each look took at each of many services tells nobody anything.
        looked_at = readiness.written(self.folder)
        for line in readiness.table(looked_at) if looked_at else timeline.draw(record.events(self.folder)):
            self._display.display(line)
        colour = {"recovered": "green", "noop": "green", "noted": "green", "planned": "cyan"}.get(outcome, "red")
        self._display.display(f"\n{outcome.upper()} in {self.report['recovery_seconds']:.1f} s", color=colour)
        for region, found in self.report.get("silent_regions", {}).items():
            if found["allowed"] is not None:
                told = f"{found['waited']:.1f} s of the {found['allowed']:g} s that this run waits for it in all"
                self._display.display(f"  silent: {region} did not answer, {told}", color="yellow")
        for note in self.report["notes"]:
            self._display.display(f"  note: {note}", color="yellow")
        for check in self.report["verification"]:
            ended = {True: "passed", False: "FAILED"}.get(check["ok"], "not asked")
            measured = f": {check['seen']}" if "requests" in check else ""
            self._display.display(f"  {ended}: {check['name']}{measured}")
        self._display.display(f"  record: {record.shown(self.folder)}")


def _preload(verbs):
    """Load what the play's tasks need before ansible forks: each worker would load it anew, some 0.1 s a task."""
    modules = [importlib.import_module(f"ansible_collections.sre.runbooks.plugins.modules.{verb}") for verb in verbs]
    if modules:
        aws.preload({service for module in modules for service in module.SERVICES})
    # What inventories are written with.
    for name in ("env", "file"):
        lookup_loader.get(f"ansible.builtin.{name}", class_only=True)
    filter_loader.get("ansible.builtin.from_json")
    test_loader.get("ansible.builtin.file")
    # What was loaded stays. Without this each worker copies it when it collects garbage, and the end takes it apart.
    gc.freeze()


def _names_in(inventory, loader):
    """Names of all variables of the inventory, its group_vars and host_vars."""
    there = [*inventory.groups.values(), *inventory.get_hosts(ignore_limits=True, ignore_restrictions=True)]
    names = {name for each in there for name in each.get_vars()}
    return names.union(get_vars_from_inventory_sources(loader, inventory._sources, there, "task"))


def _verbs(block):
    """Names of the verbs of this collection in a block and the blocks in it, as far as they are imported statically."""
    for task in block.block + block.rescue + block.always:
        if hasattr(task, "block"):
            yield from _verbs(task)
        elif (task.resolved_action or "") == VERB:
            yield task.action.rpartition(".")[2]


def _is_rescued(task):
    """Whether the playbook itself goes on where the task fails: it stands in a block with a `rescue`."""
    child, parent = task, task._parent
    while parent:
        if getattr(parent, "rescue", None) and any(each._uuid == child._uuid for each in parent.block):
            return True
        child, parent = parent, parent._parent
    return False


def _verbs_named_in(path):
    """Names of the verbs in a file of tasks that the play includes as it runs."""
    with open(path, encoding="utf-8") as lines:
        return set(re.findall(r"(?m)^\s*(?:- )?sre\.runbooks\.(\w+):", lines.read()))


def _iso(seconds):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

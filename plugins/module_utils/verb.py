# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The contract of a verb: observe, plan, refuse or show, apply, wait, and what undoes it.

A verb is a class with
    observe() -> dict                      reads only
    plan(observed) -> Plan                 static and pure; raises Refusal where a gate is closed
    apply(step)                            one mutation with its wait; called in the order of the plan
    undo(before, steps) -> list            how to go back, as verbs with their arguments; or why not, and what to do instead
`run` does the rest, the same way for each of them. Its module names in SERVICES the AWS services that it asks, whose
models the incident callback loads before ansible forks.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass, field, replace

try:
    from botocore import exceptions as boto_errors
except ImportError:
    pass

from ansible_collections.amazon.aws.plugins.module_utils.botocore import get_aws_connection_info
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule

from . import read_only, waiting
from .aws import Aws, explain, is_denied, is_unknown
from .errors import (
    HalfDone,
    LeaseLost,
    LostAnswer,
    NotLetIn,
    Overtaken,
    Stop,
    TakenBack,
    Throttled,
    Unreachable,
    WaitTimeout,
    WouldChange,
)
from .lease import Lease

# Times that one step is sent again after its answer was lost and a fresh look shows that it was not applied.
LOST_ANSWER_TRIES = 3

# Why a verb stopped, as `stopped` of its result.
REFUSED, DENIED, UNANSWERED, ASKED = "refused", "denied", "unanswered", "asked"
_NO_REFUSAL = ((WouldChange, ASKED), ((Unreachable, Throttled), UNANSWERED), (NotLetIn, DENIED))

COMMON_ARGUMENTS = dict(
    wait_timeout=dict(type="int", default=1800),
    lease=dict(
        type="dict",
        options=dict(
            name=dict(type="str", required=True),
            table=dict(type="str", required=True),
            region=dict(type="str", required=True),
            ttl=dict(type="int", default=60),
            token=dict(type="int", required=True, no_log=False),
        ),
    ),
)


@dataclass(frozen=True)
class Step:
    """One mutation. `do` names it for the code, `what` for people; before and after are what it changes.

    After a step with `look_again` the state is observed and planned anew: what follows depends on how the step ends.
    One that `waits` only changes nothing: alone it leaves the task "ok", and it may begin under a lease not asked for just now.
    """

    do: str
    what: str
    before: object = None
    after: object = None
    arguments: dict = field(default_factory=dict)
    look_again: bool = False
    waits: bool = False

    def shown(self):
        return {"do": self.do, "what": self.what, "before": self.before, "after": self.after}


@dataclass(frozen=True)
class Plan:
    """The steps that are left, the state they end in, what a person must know (risks, overrides used), and results."""

    steps: tuple = ()
    after: dict = field(default_factory=dict)
    notes: tuple = ()
    returned: dict = field(default_factory=dict)


class Verb:
    """What every verb has: parameters, AWS, a clock for its waits, and the lease to keep alive."""

    # For a verb whose changes nothing takes back: what a person can do instead.
    INSTEAD = None

    def __init__(self, module):
        self.params = module.params
        self.check_mode = module.check_mode
        self.aws = Aws(self.connection(module))
        self.waited_seconds = 0.0
        self.notes = []  # what a person must know and only the doing has shown
        lease = self.params.get("lease")
        self._lease = Lease(self.aws, **lease) if lease else None
        self._parent = os.getppid()

    @staticmethod
    def connection(module):
        """How to reach AWS: (region, endpoint_url, boto_params). A verb that needs it for its lease alone may read options
        of the same name otherwise."""
        return get_aws_connection_info(module)

    def observe(self):
        raise NotImplementedError

    @staticmethod
    def plan(observed, wanted):
        raise NotImplementedError

    def note(self, plan):
        """What only keeps the books has its entries taken here by whoever else keeps them; returns the Plan in force."""
        return plan

    def observe_end(self):
        """What `view` needs once all is done; a verb that keeps the rest need not read it again."""
        return self.observe()

    def apply(self, step):
        """Do one step: the method of the step's name with the step's arguments."""
        return getattr(self, step.do)(**step.arguments)

    def undo(self, before, done):
        """How to go back from the steps `done`, shown as in results, to the state `before`; a list of
        {verb, arguments}: this does it;
        {stays, instead}: nothing takes that back; what a person can do, and all else is taken back all the same;
        {cannot, instead}: nothing takes that back, and with it nothing else of the run may be.
        """
        if self.INSTEAD is None:
            return []
        return [{"stays": "; ".join(step["what"] for step in done), "instead": self.INSTEAD}]

    def returned(self):
        """What this verb returns besides the contract."""
        return {}

    def silent_regions(self):
        """{silent_regions} for the callback, which tells the verbs that follow: {region: {waited, allowed} in seconds}."""
        if not self.aws.silent:
            return {}
        return {"silent_regions": {region: self.aws.patience.of(region) for region in sorted(self.aws.silent)}}

    def all_notes(self, plan):
        """What a person must know, in the end."""
        asked_no_more = self.aws.patience.notes() if self.aws.silent else []
        return [*plan.notes, *self.notes, *dict.fromkeys(self.aws.missed), *asked_no_more]

    def is_change(self, steps):
        """Whether carrying out `steps`, waits left out, counts as a change of the target."""
        return bool(steps)

    def view(self, observed):
        """The part of what was observed that goes into before, after and diff."""
        return observed

    def keep_lease(self, always=False):
        """Called in each wait, and (`always`) before each change: raises LeaseLost when another run took over.

        So it does when the run that began this was killed: ansible gives each task a session of its own, which outlives it,
        and nobody would hear what this changes.
        """
        if os.getppid() != self._parent:
            raise LeaseLost("the run that began this was killed, so nothing more is changed")
        if self._lease is not None:
            self._lease.renew(always=always)

    def wait(self, look, done, what, usual=None, state=str, pace=None):
        """`wait_until` with this verb's deadline and lease; adds to waited_seconds."""
        try:
            seen, seconds = waiting.wait_until(
                look, done, what, self.params["wait_timeout"], usual=usual, tick=self.keep_lease, state=state, pace=pace
            )
        except WaitTimeout:
            self.waited_seconds += self.params["wait_timeout"]
            raise
        self.waited_seconds += seconds
        return seen


def verb_module(argument_spec, **kwargs):
    """The AnsibleAWSModule of a verb."""
    return AnsibleAWSModule(argument_spec=dict(COMMON_ARGUMENTS, **argument_spec), supports_check_mode=True, **kwargs)


def run(module, verb_class):
    """Carry a verb out; exits through the module."""
    done = []
    verb = None
    before = {}
    plan = Plan()
    try:
        verb = verb_class(module)
        observed = verb.observe()
        before = verb.view(observed)
        plan = verb.plan(observed, verb.params)
        if not module.check_mode:
            plan = verb.note(plan)
        after = dict(before, **plan.after)
        if plan.steps and not module.check_mode:
            plan = _apply(verb, plan, done)
            after = verb.view(verb.observe_end())
    except WouldChange as asked:
        # No gate has stopped it, and what it would go on with is not known.
        module.exit_json(changed=False, msg=str(asked), **_told_of(module, asked))
    except Stop as stop:
        taken_back = isinstance(stop, TakenBack)
        module.fail_json(
            **_failure(verb, str(stop), before, done, plan, taken_back), **stop.found, **_told_of(module, stop)
        )
    except boto_errors.ClientError as error:
        module.fail_json(**_failure(verb, explain(error), before, done, plan), **_told_of(module, error))
    told = plan.steps if module.check_mode else done
    steps = [step.shown() for step in told]
    changes = _changes(verb, before, told)
    if read_only.is_on():
        changes["changed"] = False  # of a run that only asks what would be done
    # A task that only asks says that it changes nothing; this answers it all the same.
    asked = {"already_so": not changes["changed"]} if module.check_mode else {}
    module.exit_json(
        **changes,
        **asked,
        before=before,
        after=after,
        steps=steps,
        notes=verb.all_notes(plan),
        waited_seconds=round(verb.waited_seconds, 2),
        diff=_diff(before, after, steps),
        **dict(plan.returned, **verb.returned(), **verb.silent_regions()),
    )


def _apply(verb, plan, done):
    """Every step of the plan; after a lost answer look again and go on from what is true now. Returns the plan in force."""
    first, steps, lost, unanswered = plan, list(plan.steps), Counter(), set()
    while steps:
        step = steps.pop(0)
        verb.keep_lease(always=not step.waits)
        waiting.say(step.what)
        try:
            verb.apply(step)
        except LostAnswer as error:
            lost[step.what] += 1
            overtaken = isinstance(error, Overtaken)
            if not overtaken:
                unanswered.add(step.what)
            if lost[step.what] > LOST_ANSWER_TRIES:
                ends = (
                    "something else goes on changing it"
                    if overtaken
                    else "run the same command again when the API answers"
                )
                raise Stop(f"{error}; looked again {LOST_ANSWER_TRIES} times and it is not applied: {ends}") from error
            waiting.say(
                f"{error}; looking again" if overtaken else f"no answer ({step.what}); looking whether it was applied"
            )
            time.sleep(0.2 * lost[step.what])
            plan = verb.plan(verb.observe(), verb.params)
            # What overtook a step whose answer was lost before is that very step, applied late.
            if step.what in unanswered and step.what not in [remaining.what for remaining in plan.steps]:
                done.append(step)
            steps = list(plan.steps)
            continue
        except HalfDone:
            done.append(replace(step, what=f"{step.what}, in part"))
            raise
        done.append(step)
        if step.look_again:
            plan = verb.plan(verb.observe(), verb.params)
            steps = list(plan.steps)
    # What the first look found (what may be lost, what was overridden) stays true however often we looked since.
    return Plan(
        plan.steps, plan.after, tuple(dict.fromkeys(first.notes + plan.notes)), dict(plan.returned, **first.returned)
    )


def _told_of(module, stop):
    """For who asks many verbs at once: why, and on which resource."""
    named = [
        module.params[name]
        for name, option in module.argument_spec.items()
        if option.get("required")
        and option.get("type") == "str"
        and not option.get("no_log")
        # Of another place than that of the resource.
        and not name.endswith("_region")
    ]
    return {"stopped": why_stopped(stop), "resource": "/".join(filter(None, named))}


def why_stopped(stop):
    """Of a Stop or a ClientError: is it a gate, may this run not ask, is there no answer, or would it go on from here?"""
    told = next((why for kinds, why in _NO_REFUSAL if isinstance(stop, kinds)), None)
    let_in = not any(is_denied(error) or is_unknown(error) for error in (stop, stop.__cause__))
    return told or (REFUSED if let_in else DENIED)


def _failure(verb, message, before, done, plan, taken_back=False):
    if done and not taken_back:
        # A step that was repeated after another one's answer was lost is told once.
        told = "; ".join(dict.fromkeys(step.what for step in done))
        message = f"{message}. Done so far: {told}. The same command again goes on from here"
    silent = verb.silent_regions() if verb else {}
    if not done:
        return dict(msg=message, **silent)  # nothing happened: the sentence is all there is to read
    return dict(
        msg=message,
        **silent,
        before=before,
        steps=[step.shown() for step in done],
        notes=verb.all_notes(plan),
        waited_seconds=round(verb.waited_seconds, 2),
        **_changes(verb, before, [] if taken_back else done),
        **dict(plan.returned, **verb.returned()),
    )


def _changes(verb, before, steps):
    """What of `steps` is a change, and what undoes it."""
    changes = [step.shown() for step in steps if not step.waits]
    changed = verb.is_change(changes)
    return {"changed": changed, "undo": verb.undo(before, changes) if changed and changes else []}


def _diff(before, after, steps):
    """Before and after as text; the steps as a prepared diff, so that --diff prints the plan in order."""
    lines = [f"{number}. {step['what']}\n" for number, step in enumerate(steps, 1)]
    changed = {key: (before.get(key), after.get(key)) for key in after if before.get(key) != after.get(key)}
    for key, (old, new) in changed.items():
        lines.append(f"-  {key}: {old}\n+  {key}: {new}\n")
    return {"prepared": "".join(lines)} if lines else {}

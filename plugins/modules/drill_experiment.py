#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drill_experiment
version_added: 0.4.0
short_description: Hold a drill by an experiment of AWS FIS, and measure the recovery
description:
  - Starts the experiment that O(template_id) describes, asks O(checks) until they fail, and on until somebody has recovered the service
    and they pass for O(steady_seconds). Measures how long that took. Recovering is up to the people who practise.
  - Refuses where the service is not well before, where the template has no alarm as a stop condition or one of them is in alarm, where
    an experiment of it is under way, and where O(consent) is not the account's id.
  - Ends the experiment in any case, recovered or not, after O(max_seconds) at the latest. Where this run is killed itself, AWS FIS
    ends the experiment after the durations of its actions, or when one of its stop conditions is met.
  - "B(Risk:) breaks what the template names, in the account of the credentials."
options:
  template_id:
    description: Id of the experiment template, in O(region).
    type: str
    required: true
  consent:
    description: The id of the account in which something is to be broken. It has to be typed by whoever answers for that.
    type: str
    required: true
  scenario:
    description: What the report is to say of the drill besides, such as its name. It is returned as it is given.
    type: dict
    default: {}
  rehearse:
    description:
      - Have AWS FIS resolve the targets and skip the actions, so that nothing is broken. Every gate is asked as for a drill, and the
        permissions of the experiment's role are seen to be enough to find the targets.
    type: bool
    default: false
  steady_seconds:
    description: All is well once O(checks) have passed for so long.
    type: float
    default: 60
  show_seconds:
    description: Where nothing fails within so long after the experiment began, there was nothing to recover from.
    type: float
    default: 300
  max_seconds:
    description: After so long the drill is ended, recovered or not.
    type: float
    default: 1800
  every_seconds:
    description: Seconds between two rounds of O(checks).
    type: float
    default: 1
extends_documentation_fragment:
  - sre.runbooks.checks
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Needs C(fis:GetExperimentTemplate), C(fis:ListExperiments), C(fis:StartExperiment), C(fis:GetExperiment), C(fis:StopExperiment),
    C(cloudwatch:DescribeAlarms) and C(sts:GetCallerIdentity).
  - Checks with another method than GET, HEAD or OPTIONS are not asked.
seealso:
  - module: sre.runbooks.smoke_test
"""

EXAMPLES = r"""
- name: Break it and see how long the recovery takes
  sre.runbooks.drill_experiment:
    template_id: EXT1a2b3c4d5e6f7
    consent: "123456789012"
    checks:
      - name: health
        url: https://api.regami.test/health?check=db
    scenario: {name: db_failover}
    region: us-east-1

- name: See that it could be held
  sre.runbooks.drill_experiment:
    template_id: EXT1a2b3c4d5e6f7
    consent: "123456789012"
    rehearse: true
    checks:
      - name: health
        url: https://api.regami.test/health?check=db
    region: us-east-1
"""

RETURN = r"""
drill:
  description: What came of it.
  returned: when it was held
  type: dict
  contains:
    experiment:
      description: Id of the experiment.
      type: str
      returned: when it was held
    scenario:
      description: O(scenario), as it was given.
      type: dict
      returned: when it was held
    outcome:
      description: V(recovered), V(out of time), V(void) where nothing failed, or V(stopped) by a stop condition.
      type: str
      returned: when it was held
    broke:
      description: When the experiment began, in seconds since the epoch, as the other times.
      type: float
      returned: when it was held
    paged:
      description: When a check failed first.
      type: float
      returned: when it was held
    recovered:
      description: Since when all checks pass.
      type: float
      returned: when it was held
    ended:
      description: When it was over.
      type: float
      returned: when it was held
    rounds:
      description: For each second since it broke how many rounds of the checks passed and failed.
      type: list
      elements: list
      returned: when it was held
  sample:
    experiment: EXP1a2b3c4d5e6f7
    scenario: {name: db_failover}
    outcome: recovered
    broke: 1780000000.0
    paged: 1780000004.2
    recovered: 1780000065.9
    ended: 1780000126.0
    rounds: [[0, 1, 0], [4, 0, 1]]
before:
  description: The template, its stop conditions, and whether the service was well.
  returned: unless refused
  type: dict
  sample: {template: EXT1a2b3c4d5e6f7, stop_alarms: [orders-lost], failing: []}
after:
  description: The same at the end.
  returned: success
  type: dict
  sample: {template: EXT1a2b3c4d5e6f7, stop_alarms: [orders-lost], failing: []}
steps:
  description: What was done, or would be done in check mode.
  returned: unless refused
  type: list
  elements: dict
  sample: [{do: hold, what: "break it by EXT1a2b3c4d5e6f7 (aws:rds:reboot-db-instances) until it is recovered", before: null, after: null}]
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: break it by database_failover (aws:rds:reboot-db-instances) until it is recovered
      instead: "the experiment is over; playbooks/recovery_validation.yml says whether all is well"
notes:
  description: What came of it, in words.
  returned: success
  type: list
  elements: str
  sample: ["the drill was recovered 61.7 s after the first failed check"]
waited_seconds:
  description: Time that the drill took.
  returned: unless refused
  type: float
  sample: 126.0
"""

import time
import uuid
from collections import Counter

from ansible_collections.sre.runbooks.plugins.module_utils import drill_watch, smoke, waiting
from ansible_collections.sre.runbooks.plugins.module_utils.aws import code_of, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ("fis", "cloudwatch", "sts", "dynamodb")
ARGUMENTS = dict(
    smoke.CHECK_ARGUMENTS,
    template_id=dict(type="str", required=True),
    consent=dict(type="str", required=True),
    scenario=dict(type="dict", default={}),
    rehearse=dict(type="bool", default=False),
    steady_seconds=dict(type="float", default=60),
    show_seconds=dict(type="float", default=300),
    max_seconds=dict(type="float", default=1800),
    every_seconds=dict(type="float", default=1),
)
# https://docs.aws.amazon.com/fis/latest/APIReference/API_ExperimentState.html
UNDER_WAY = ("pending", "initiating", "running", "stopping")
ALARM = "aws:cloudwatch:alarm"
# Before: what failed once may have met a target on its way out.
LOOKS = 3
BETWEEN_LOOKS = 0.5


class DrillExperiment(Verb):
    """Break, watch, end."""

    INSTEAD = "the experiment is over; playbooks/recovery_validation.yml says whether all is well"

    def __init__(self, module):
        super().__init__(module)
        self.held = {}
        self._token = str(uuid.uuid4())

    def observe(self):
        smoke.refuse_malformed(self.params["checks"], self.params["dns_servers"])
        seen = together(
            template=self._template,
            under_way=self._under_way,
            account=lambda: self.aws.read("sts", "get_caller_identity")["Account"],
            failing=lambda: smoke.complaints(self.params["checks"], self.params["dns_servers"], LOOKS, BETWEEN_LOOKS),
        )
        arns = [each["value"] for each in seen["template"]["stopConditions"] if each["source"] == ALARM]
        return dict(seen, alarms=self._alarms(arns))

    def _template(self):
        name = self.params["template_id"]
        try:
            return self.aws.read("fis", "get_experiment_template", id=name)["experimentTemplate"]
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                raise Refusal(
                    f"there is no experiment template {name} in {self.aws.region}: check template_id"
                ) from error
            raise

    def _under_way(self):
        found, more = [], {}
        while True:
            answer = self.aws.read("fis", "list_experiments", experimentTemplateId=self.params["template_id"], **more)
            found += [each["id"] for each in answer["experiments"] if each["state"]["status"] in UNDER_WAY]
            if not answer.get("nextToken"):
                return found
            more = {"nextToken": answer["nextToken"]}

    def _alarms(self, arns):
        """{name of the alarm: its state, None where there is no such alarm}."""
        names = [arn.partition(":alarm:")[2] for arn in arns]
        if not names:
            return {}
        found = self.aws.read("cloudwatch", "describe_alarms", AlarmNames=names)
        states = {each["AlarmName"]: each["StateValue"] for each in found["MetricAlarms"] + found["CompositeAlarms"]}
        return {name: states.get(name) for name in names}

    @staticmethod
    def plan(observed, wanted):
        name, account = wanted["template_id"], observed["account"]
        if wanted["consent"] != account:
            raise Refusal(
                f"consent is {wanted['consent']!r} and these credentials are of account {account}: something is broken only where "
                f"somebody who answers for it types its id"
            )
        if not observed["alarms"]:
            raise Refusal(f"{name} has no alarm as a stop condition: nothing would end it where it does harm; add one")
        for alarm, state in observed["alarms"].items():
            if state is None:
                raise Refusal(f"the alarm {alarm} that is to stop {name} does not exist: correct its stop condition")
            if state == "ALARM":
                raise Refusal(f"the alarm {alarm} that is to stop {name} is in alarm already: mend that first")
        if observed["under_way"]:
            raise Refusal(f"the experiment {observed['under_way'][0]} of {name} is under way: end it first")
        if not wanted["checks"]:
            raise Refusal("checks is empty: nothing would tell whether the service is well")
        if observed["failing"]:
            raise Refusal(f"the service is not well, so nothing is broken: {observed['failing'][0]}")
        actions = ", ".join(sorted({each["actionId"] for each in observed["template"]["actions"].values()}))
        if wanted["rehearse"]:
            # It waits for AWS, and changes nothing.
            what = f"have AWS FIS resolve the targets of {name} and skip its actions ({actions})"
            return Plan((Step("rehearse", what, waits=True),))
        return Plan((Step("hold", f"break it by {name} ({actions}) until it is recovered"),))

    def rehearse(self):
        experiment = self._start("skip-all")
        self._await_end(experiment)
        found = self.aws.read("fis", "get_experiment", id=experiment)["experiment"]["state"]
        if found["status"] != "completed":
            raise Stop(
                f"the rehearsal {experiment} {found['status']}: {found.get('reason') or 'AWS FIS does not say why'}"
            )
        self.notes.append(f"the rehearsal {experiment} completed: its targets are there, and nothing was broken")

    def hold(self):
        """Start the experiment and watch; whatever happens, end it."""
        experiment = self._start("run-all")
        try:
            self._watch(experiment)
        finally:
            self._end(experiment)
        if self.held["outcome"] in (drill_watch.OUT_OF_TIME, drill_watch.STOPPED):
            after = self.held["ended"] - self.held["broke"]
            raise Stop(
                f"the service was not recovered: {self.held['outcome']} after {after:.0f} s; the experiment {experiment} is ended: "
                "bring the service back by its runbook",
                **self.returned(),
            )

    def _start(self, mode):
        """Id of the experiment. By its token a call that is sent again, its answer lost, starts no second one."""
        for remaining in (2, 1, 0):
            try:
                return self.aws.change(
                    "fis",
                    "start_experiment",
                    experimentTemplateId=self.params["template_id"],
                    clientToken=self._token,
                    experimentOptions={"actionsMode": mode},
                    tags={"sre.runbooks": "drill"},
                )["experiment"]["id"]
            except LostAnswer:
                if not remaining:
                    raise
        return None

    def _watch(self, experiment):
        broke = time.time()
        watch = drill_watch.Watch(
            broke, self.params["max_seconds"], self.params["steady_seconds"], self.params["show_seconds"]
        )
        passed, failed = Counter(), Counter()
        while watch.outcome is None:
            self.keep_lease()
            symptoms = list(smoke.complaints(self.params["checks"], self.params["dns_servers"], 1))
            now = time.time()
            (failed if symptoms else passed)[int(now - broke)] += 1
            new = symptoms and watch.paged is None
            watch.observe(now, symptoms)
            if new:
                waiting.say(f"PAGE: {symptoms[0]}")
            if watch.outcome is None and self._state(experiment) == "stopped":
                watch.outcome = drill_watch.STOPPED
            if watch.outcome is None:
                time.sleep(self.params["every_seconds"])
        ended = time.time()
        self.waited_seconds += ended - broke
        self.held = {
            "experiment": experiment,
            "scenario": self.params["scenario"],
            "outcome": watch.outcome,
            "broke": broke,
            "paged": watch.paged,
            "recovered": watch.recovered,
            "ended": ended,
            "rounds": [[second, passed[second], failed[second]] for second in sorted({*passed, *failed})],
        }
        self.notes.append(drill_watch.told(watch))

    def _state(self, experiment):
        return self.aws.read("fis", "get_experiment", id=experiment)["experiment"]["state"]["status"]

    def _end(self, experiment):
        try:
            over = self._state(experiment) not in UNDER_WAY
        except Stop:
            over = False
        if not over:
            self.aws.change("fis", "stop_experiment", id=experiment)
        self._await_end(experiment)

    def _await_end(self, experiment):
        self.wait(
            lambda: self._state(experiment),
            lambda state: state not in UNDER_WAY,
            f"the experiment {experiment} is over",
        )

    def returned(self):
        return {"drill": self.held, "entries": [{"event": "drill", **self.held}]} if self.held else {}

    def view(self, observed):
        return {
            "template": self.params["template_id"],
            "stop_alarms": sorted(observed["alarms"]),
            "failing": list(observed["failing"]),
        }


def main():
    run(verb_module(ARGUMENTS), DrillExperiment)


if __name__ == "__main__":
    main()

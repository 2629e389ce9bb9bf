#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: smoke_test
version_added: 0.1.0
short_description: Verify that a service does what its users need
description:
  - Sends all checks side by side, asks the failing ones again until they pass or O(retry_for) is over, then runs the
    O(performance) tests one after the other and counts the ERROR lines in the logs.
  - Fails with one line that names the failing checks and what was seen.
  - Never reports a change. A check with another method than GET, HEAD or OPTIONS is left out in check mode, since it may
    change something.
  - Redirects are not followed. TLS certificates are verified; C(SSL_CERT_FILE) in the environment names other
    authorities to trust.
  - Needs no AWS credentials without O(log_groups).
options:
  performance:
    description:
      - Requests from several users at once, and what is allowed of latencies and errors. Each user keeps its connection and
        asks again as soon as it was answered, which is a load that the service must be able to bear.
      - They run once O(checks) pass; where a check fails, and in check mode, they are left out.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the test, for people.
        type: str
        required: true
      url:
        description: URL to GET, with V(http) or V(https).
        type: str
        required: true
      headers:
        description: Headers to send. Their values are hidden wherever they occur in the result.
        type: dict
      concurrency:
        description: Number of users.
        type: int
        default: 5
      duration:
        description: Seconds that they ask.
        type: int
        default: 30
      within:
        description: Seconds after which an answer counts as an error.
        type: float
        default: 5
      expect_status:
        description: Status codes of a good answer. Any other answer, and none, is an error.
        type: list
        elements: int
        default: [200]
      max_error_percent:
        description: How many requests of a hundred may be errors.
        type: float
        default: 0
      max_p50:
        description: Seconds that half of the good answers may take at most.
        type: float
      max_p95:
        description: Seconds that 95 of 100 good answers may take at most.
        type: float
      max_p99:
        description: Seconds that 99 of 100 good answers may take at most.
        type: float
  retry_for:
    description: Seconds in which failing checks are sent again. V(0) sends each once.
    type: int
    default: 30
  passes:
    description: How often each check must pass in a row, within O(retry_for).
    type: int
    default: 1
  log_groups:
    description: CloudWatch log groups whose lines with C(ERROR) or C(Exception) are counted after the checks.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the log group.
        type: str
        required: true
      region:
        description: Its region.
        type: str
        required: true
  since:
    description:
      - Start of the log lines that count, in seconds since the epoch or as ISO 8601. Default is the start of the checks, or
        where some failed at first the start of the round after the last failure.
      - CloudWatch shows a line some seconds after it was written, so give an earlier start to count more than what the
        checks themselves caused.
    type: str
  max_errors:
    description: Number of such lines that each of O(log_groups) may have.
    type: int
    default: 0
extends_documentation_fragment:
  - sre.runbooks.checks
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
"""

EXAMPLES = r"""
- name: The service works for its users
  sre.runbooks.smoke_test:
    checks:
      - name: database
        url: https://api.regami.test/health?check=db
        expect_json: {database: connected, writable: true}
      - name: login
        url: https://api.regami.test/v1/auth/login
        method: POST
        json: {email: "{{ smoke_user }}"}
        secret_json: {password: "{{ smoke_password }}"}
      - name: write
        url: https://api.regami.test/v1/rows
        method: POST
        json: {id: 900001, payload: smoke test}
        expect_status: [201]
    log_groups:
      - {name: /ecs/regami-api, region: us-west-2}
    region: us-west-2

- name: The service has recovered and bears its load
  sre.runbooks.smoke_test:
    checks:
      - name: health score
        url: https://recovery.regami.test/api/v1/health/score
        headers: {Authorization: "Bearer {{ recovery_api_token }}"}
        expect_above: {score: 80}
    performance:
      - name: response times
        url: https://api.regami.test/health
        concurrency: 5
        duration: 30
        max_p95: 0.5
        max_error_percent: 0.1
"""

RETURN = r"""
verification:
  description:
    - What each check, each performance test and each log group showed; RV(verification[].ok) is null where it was left out.
  returned: unless refused
  type: list
  elements: dict
  contains:
    name:
      description: Name of the check, of the performance test, or of the log group.
      type: str
      returned: unless refused
    ok:
      description: Whether it passed.
      type: bool
      returned: unless refused
    status:
      description: Status code of the last answer, null where there was none.
      type: int
      returned: unless refused
    seconds:
      description: Time that the last answer took.
      type: float
      returned: unless refused
    seen:
      description: What was seen, without secrets and cut to a line.
      type: str
      returned: unless refused
    requests:
      description: Number of requests of a performance test.
      type: int
      returned: for a performance test that ran
    errors:
      description: Number of those that failed.
      type: int
      returned: for a performance test that ran
    error_percent:
      description: The same of a hundred.
      type: float
      returned: for a performance test that ran
    p50:
      description: Seconds that half of the good answers took at most; null where there was none.
      type: float
      returned: for a performance test that ran
    p95:
      description: Likewise, 95 of 100.
      type: float
      returned: for a performance test that ran
    p99:
      description: Likewise, 99 of 100.
      type: float
      returned: for a performance test that ran
  sample:
    - {name: database, ok: true, status: 200, seconds: 0.012, seen: answered 200}
    - {name: log /ecs/regami-api us-west-2, ok: true, status: null, seconds: 0.05, seen: "0 ERROR lines, 0 allowed"}
before:
  description: Always empty; nothing is changed.
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty; nothing is changed.
  returned: success
  type: dict
  sample: {}
steps:
  description: Always empty; nothing is changed.
  returned: unless refused
  type: list
  elements: dict
  sample: []
undo:
  description: Always empty; nothing is changed.
  returned: unless refused
  type: list
  elements: dict
  sample: []
waited_seconds:
  description: Time until the checks passed.
  returned: unless refused
  type: float
  sample: 0.4
"""

import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import dns, performance, smoke, waiting, web
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Stop, WaitTimeout
from ansible_collections.sre.runbooks.plugins.module_utils.masking import masked
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Verb, run, verb_module

SERVICES = ("logs",)
ARGUMENTS = dict(
    smoke.CHECK_ARGUMENTS,
    performance=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            name=dict(type="str", required=True),
            url=dict(type="str", required=True),
            headers=dict(type="dict", no_log=True),
            concurrency=dict(type="int", default=5),
            duration=dict(type="int", default=30),
            within=dict(type="float", default=5),
            expect_status=dict(type="list", elements="int", default=[200]),
            max_error_percent=dict(type="float", default=0),
            max_p50=dict(type="float"),
            max_p95=dict(type="float"),
            max_p99=dict(type="float"),
        ),
    ),
    retry_for=dict(type="int", default=30),
    passes=dict(type="int", default=1, no_log=False),
    log_groups=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(name=dict(type="str", required=True), region=dict(type="str", required=True)),
    ),
    since=dict(type="str"),
    max_errors=dict(type="int", default=0),
)


# A performance test asks like a check, and only so.
PLAIN_GET = dict.fromkeys(("json", "secret_json", "body", "expect_json", "expect_above", "expect_below")) | {
    "method": "GET"
}


class SmokeTest(Verb):
    """Ask, ask again, ask as many, look into the logs, judge."""

    def __init__(self, module):
        super().__init__(module)
        self.verification = []
        self.params = dict(module.params)
        # The result shows the parameters as they were given; those of the module are what is shown.
        for name in ("checks", "performance"):
            module.params[name] = masked(module.params[name])

    def observe(self):
        since = smoke.parse_time(self.params["since"]) if self.params["since"] else None
        smoke.refuse_malformed(self.params["checks"] + self.params["performance"], self.params["dns_servers"])
        for test in self.params["performance"]:
            if test["concurrency"] < 1 or test["duration"] < 1:
                raise Stop(f"performance test {test['name']}: concurrency and duration begin at 1")
        clean_since = self._ask()
        self._measure()
        self._read_logs(clean_since if since is None else since)
        return {"verification": self.verification}

    def _ask(self):
        """Ask until all pass; returns when the first round without a failure began, in seconds since the epoch."""
        passes, checks = self.params["passes"], self.params["checks"]
        left_out = [check for check in checks if self.check_mode and check["method"] not in web.SAFE_METHODS]
        trials = [smoke.Trial(check, tuple(self.params["dns_servers"])) for check in checks if check not in left_out]
        began = time.time()

        def look():
            nonlocal began
            if any(trial.tries and trial.problem for trial in trials):
                began = time.time()
            smoke.look([trial for trial in trials if not trial.is_over(passes)])
            return trials

        started = time.monotonic()
        try:
            if trials:
                waiting.wait_until(
                    look,
                    lambda seen: all(trial.is_over(passes) for trial in seen),
                    "smoke test",
                    self.params["retry_for"],
                    tick=self.keep_lease,
                    state=self._state,
                )
        except WaitTimeout:
            pass  # the verdicts say what failed
        self.waited_seconds += time.monotonic() - started
        self.verification = [*(trial.verdict(passes) for trial in trials), *map(smoke.skipped, left_out)]
        return began

    def _measure(self):
        failing = any(entry["ok"] is False for entry in self.verification)
        for test in self.params["performance"]:
            if self.check_mode or failing:
                why = "check mode puts no load on a service" if self.check_mode else "a check failed"
                self.verification.append(performance.left_out(test, why))
                continue
            started = time.monotonic()
            tally = performance.measure(PLAIN_GET | test, self.params["dns_servers"], tick=self.keep_lease)
            self.waited_seconds += time.monotonic() - started
            self.verification.append(performance.verdict(test, tally))

    def _state(self, trials):
        failing = [trial.check["name"] for trial in trials if trial.problem]
        return f"{', '.join(failing)} failing" if failing else f"{len(trials)} passed"

    def _read_logs(self, since):
        for group in self.params["log_groups"]:
            started, allowed = time.monotonic(), self.params["max_errors"]
            try:
                ok, seen = smoke.judge_log(group, *smoke.count_errors(self.aws, group, since, allowed), allowed)
            except Stop as stop:
                ok, seen = False, str(stop)
            self.verification.append(
                {
                    "name": f"log {group['name']} {group['region']}",
                    "ok": ok,
                    "status": None,
                    "seconds": round(time.monotonic() - started, 3),
                    "seen": seen,
                }
            )

    @staticmethod
    def plan(observed, wanted):
        failing = [entry for entry in observed["verification"] if entry["ok"] is False]
        if failing:
            seen = "; ".join(f"{entry['name']} {entry['seen']}" for entry in failing)
            raise Stop(
                f"{len(failing)} of {len(observed['verification'])} checks failed: {seen}",
                verification=observed["verification"],
            )
        return Plan()

    def view(self, observed):
        return {}

    def returned(self):
        return {"verification": self.verification}


def main():
    module = verb_module(ARGUMENTS)
    if module.params["dns_servers"] and not dns.HAS_DNSPYTHON:
        module.fail_json(msg=missing_required_lib("dnspython"))
    run(module, SmokeTest)


if __name__ == "__main__":
    main()

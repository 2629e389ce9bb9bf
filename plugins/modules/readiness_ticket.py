#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: readiness_ticket
version_added: 0.8.0
short_description: Open a ticket for a service that is not ready, and end it when it is
description:
  - Takes what M(sre.runbooks.readiness_report) of this run has judged. A service that is not ready gets one issue of Jira with the reasons and
    what to do, found again by its labels, so that no second one is opened; when the reasons are others, a comment; when it is ready again,
    with a risk or without, the status that counts as done and a comment.
  - What cannot be told opens no issue and ends none.
  - The run has to have looked at all scenarios of its services. Services that it has not looked at keep their issues.
  - Makes nothing twice where an answer is lost. It stops then, and the next run goes on.
options:
  environment_name:
    description: Name of the environment, for the texts.
    type: str
    required: true
  within:
    description: Seconds for each issue.
    type: float
    default: 20
extends_documentation_fragment:
  - sre.runbooks.jira
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Asks AWS for nothing.
  - The index that Jira Cloud searches follows some seconds behind, so that two runs at the very same moment may open two.
seealso:
  - module: sre.runbooks.readiness_report
  - module: sre.runbooks.incident_notify
"""

EXAMPLES = r"""
- name: Somebody has it on the desk
  sre.runbooks.readiness_ticket:
    environment_name: prod
    jira:
      url: https://example.atlassian.net
      project: OPS
      user: incidents@example.com
      token: "{{ lookup('ansible.builtin.env', 'JIRA_TOKEN') }}"
    region: us-west-2
"""

RETURN = r"""
tickets:
  description: The key of each issue that was opened, commented or ended, by the name of the host.
  returned: success
  type: dict
  sample: {api-prod: OPS-17}
before:
  description: Always empty, as is RV(after).
  returned: unless refused
  type: dict
  sample: {}
after:
  description: Always empty.
  returned: success
  type: dict
  sample: {}
steps:
  description: What was done, or in check mode would be. It counts as no change of the service.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: open
      what: "open a ticket: api-prod in prod is not ready for db_failover"
      before: null
      after: null
undo:
  description: Always empty; what was said was said.
  returned: unless refused
  type: list
  elements: dict
  sample: []
notes:
  description: Each issue that was opened, commented or ended, a line each.
  returned: unless refused
  type: list
  elements: str
  sample: ["ticket OPS-17: api-prod in prod is not ready for db_failover"]
waited_seconds:
  description: Always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

import time

from ansible_collections.sre.runbooks.plugins.module_utils import notifiers, readiness, readiness_tickets
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop
from ansible_collections.sre.runbooks.plugins.module_utils.jira import ARGUMENTS as JIRA
from ansible_collections.sre.runbooks.plugins.module_utils.jira import Jira
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(
    environment_name=dict(type="str", required=True),
    within=dict(type="float", default=20),
    **JIRA,
)


class ReadinessTicket(Verb):
    """Look which tickets are open, and open, comment or end the rest."""

    def __init__(self, module):
        super().__init__(module)
        if not self.params["jira"]:
            module.fail_json(msg="no tickets without Jira: give notify_jira in the inventory")
        self.jira = Jira(**self.params["jira"])
        self.tickets = {}

    def observe(self):
        return {"said": readiness.of_this_run(), "tickets": self._open_ones()}

    def _open_ones(self):
        asked = f'labels = "{readiness_tickets.ALL}" AND statusCategory != Done'
        return self._call(lambda deadline: self.jira.find(asked, deadline), repeat=True)

    def _call(self, call, repeat=False):
        """`call(deadline)`, again while Jira does not serve; where its answer may be lost, only with `repeat`."""
        deadline = time.monotonic() + self.params["within"]

        def attempt():
            try:
                return call(deadline)
            except notifiers.Unavailable as error:
                if error.may_have_arrived and not repeat:
                    raise Stop(f"{error}; whether it arrived is not known, and the next run looks") from error
                raise

        try:
            return notifiers.patiently(attempt, deadline)
        except notifiers.Rejected as error:
            raise Refusal(str(error)) from error
        except notifiers.Unavailable as error:
            raise Stop(f"{error}; the next run goes on") from error

    @staticmethod
    def plan(observed, wanted):
        found = readiness_tickets.actions(wanted["environment_name"], observed["said"], observed["tickets"])
        return Plan(tuple(Step(each.do, each.what, arguments={"action": each}) for each in found))

    def open(self, action):
        title, _end, _rest = action.text.partition("\n")
        key = self._call(lambda deadline: self.jira.make(title, action.text, list(action.labels), deadline))
        self._done(action, key, title)

    def comment(self, action):
        self._call(lambda deadline: self.jira.comment(action.key, action.text, deadline))
        # What is known by its labels is not told again, so they come last.
        self._call(lambda deadline: self.jira.relabel(action.key, action.old, action.labels, deadline), repeat=True)
        self._done(action, action.key, f"other reasons for {action.host}")

    def finish(self, action):
        # Where it cannot be ended, it is not told each morning that it could be.
        self._call(lambda deadline: self.jira.finish(action.key, deadline))
        self._call(lambda deadline: self.jira.comment(action.key, action.text, deadline))
        self._done(action, action.key, f"ended, {action.host} is ready")

    def _done(self, action, key, what):
        self.tickets[action.host] = key
        self.notes.append(f"ticket {key}: {what}")

    def observe_end(self):
        return {}

    def view(self, observed):
        return {}

    def is_change(self, steps):
        return False

    def returned(self):
        return {"tickets": self.tickets}


def main():
    run(verb_module(ARGUMENTS), ReadinessTicket)


if __name__ == "__main__":
    main()

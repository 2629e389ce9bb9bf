# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A service rolled out to a revision that differs in one thing from what it runs: another endpoint, another size.

A subclass says what the revision is to be; registering it once, deploying it, waiting for that very deployment and going back are
the same for all. The desired count is never sent, since scaling owns it.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import ecs
from . import task_definition as revisions
from .aws import together
from .errors import Refusal, Stop
from .verb import Plan, Step, Verb

# Seconds that a rolling deployment of a few tasks behind a load balancer usually takes.
USUAL_ROLLOUT = 180
ROLLOUT_ARGUMENTS = dict(
    cluster=dict(type="str", required=True),
    service=dict(type="str", required=True),
    task_definition=dict(type="str"),
)
USE_INSTEAD = {
    "CODE_DEPLOY": "register the revision and start a CodeDeploy deployment with it (aws deploy create-deployment)",
    "EXTERNAL": "let the system that owns its task sets deploy the revision",
}


@dataclass(frozen=True)
class Wish:
    """What the revision is to be, as arguments of RegisterTaskDefinition, and what a person must know of it."""

    request: dict
    notes: tuple = ()


class RevisionRollout(Verb):
    """Roll a service out to a revision made from the one that it runs, or to the one that is given as `task_definition`.

    A subclass has
        VERB                        its own name, for the undo
        wish(observed, wanted)      Wish; static and pure; raises Refusal where a gate is closed
        shown(request, wanted)      what results show of a revision: never a value that may be a secret
        words(shown)                the same in a few words
        look_around(service, current)   more that `wish` needs of what is around, as entries of `observed`
    """

    VERB = ""

    def __init__(self, module):
        super().__init__(module)
        self.names = {"cluster": self.params["cluster"], "service": self.params["service"]}
        self.service = ecs.Service(self.aws, **self.names)
        self.deployment = self.arn = self.registered = None
        self.registering = False

    @staticmethod
    def wish(observed, wanted):
        raise NotImplementedError

    @staticmethod
    def shown(request, wanted):
        raise NotImplementedError

    @staticmethod
    def words(shown):
        raise NotImplementedError

    def look_around(self, service, current):
        return {}

    def observe(self):
        service = self.service.describe()
        self.arn = service["taskDefinition"]
        given = self.params["task_definition"]
        # A family alone names its newest ACTIVE revision.
        found = together(
            current=lambda: self._revision(self.arn), other=lambda: self._revision(given or revisions.family(self.arn))
        )
        around = self.look_around(service, found["current"]) if found["current"] and not given else {}
        return dict(found, service=service, **around)

    def _revision(self, name):
        answer = self.service.definition(name, include=["TAGS"])
        if answer is None:
            return None
        definition = answer["taskDefinition"]
        return {
            "arn": definition["taskDefinitionArn"],
            "active": definition.get("status", "ACTIVE") == "ACTIVE",
            "request": revisions.registerable(definition, answer.get("tags", [])),
        }

    @classmethod
    def plan(cls, observed, wanted):
        service, current = observed["service"], observed["current"]
        name, before = service["serviceName"], revisions.short(service["taskDefinition"])
        if ecs.controller(service) in USE_INSTEAD:
            raise Refusal(
                f"{name} is deployed by {ecs.controller(service)}, and ECS refuses to roll it out: "
                f"{USE_INSTEAD[ecs.controller(service)]}"
            )
        if current is None:
            raise Refusal(f"the task definition {before} of {name} is gone: give one that exists as task_definition")
        target, wish = cls._target(observed, wanted)
        after = revisions.short(target) if target else f"{wish.request['family']}:new"
        shown = cls.words(cls.shown(wish.request, wanted))
        steps = []
        if target is None:
            what = f"register a revision of {wish.request['family']} with {shown}"
            steps.append(Step("register", what, before, after, {"request": wish.request}))
        if target != service["taskDefinition"]:
            # Said without the revision's number, which is not known before it is registered.
            what = f"roll {name} out to {wanted['task_definition'] or f'a revision with {shown}'}"
            steps.append(Step("update", what, before, after, {"arn": target}))
        if steps or not ecs.is_rolled_out(service, ecs.primary(service)):
            steps.append(Step("settle", f"wait until {name} has rolled out", waits=True))
        return Plan(tuple(steps), cls._view(service, wish.request, wanted, after), wish.notes)

    @classmethod
    def _target(cls, observed, wanted):
        """(ARN of the revision to go to, None where it must be registered first; its Wish)."""
        current, other = observed["current"], observed["other"]
        given = wanted["task_definition"]
        if given:
            running = revisions.family(observed["service"]["taskDefinition"])
            if revisions.family(given) != running:
                raise Refusal(
                    f"{given} is of another family than {running}, which {wanted['service']} runs: check task_definition"
                )
            if other is None or not other["active"]:
                raise Refusal(
                    f"{given} {'does not exist' if other is None else 'was deregistered'}, so no service can go to it: "
                    f"give an ACTIVE revision, or what a new one shall have"
                )
            return other["arn"], Wish(other["request"])
        wish = cls.wish(observed, wanted)
        for each in (current, other):
            if each is not None and revisions.equal(each["request"], wish.request):
                return each["arn"], wish
        return None, wish

    def register(self, request):
        self.registering = True
        answer = self.aws.change("ecs", "register_task_definition", **request)
        self.arn = answer["taskDefinition"]["taskDefinitionArn"]

    def update(self, arn):
        self.arn = arn or self.arn
        if self.registering:  # also where its answer was lost and a second look found it
            self.registered = revisions.short(self.arn)
        answer = self.aws.change("ecs", "update_service", **self.names, taskDefinition=self.arn)
        self.deployment = ecs.primary(answer["service"])["id"]

    def settle(self):
        """Wait for the deployment that `update` started, or an earlier run did."""
        if self.deployment is None:
            service = self.service.describe()
            if service["taskDefinition"] != self.arn:
                there = revisions.short(service["taskDefinition"])
                raise Stop(f"somebody else is rolling {service['serviceName']} out to {there}")
            self.deployment = ecs.primary(service)["id"]

        what = f"{ecs.short(self.params['service'])} rolls out {revisions.short(self.arn)}"
        ecs.follow_deployment(self.wait, self.service, self.deployment, what, USUAL_ROLLOUT)

    def undo(self, before, done):
        if not any(step["do"] == "update" for step in done):
            return []
        arguments = dict(self.names, region=self.aws.region, task_definition=before["task_definition"])
        return [{"verb": f"sre.runbooks.{self.VERB}", "arguments": arguments}]

    def view(self, observed):
        request = observed["current"]["request"] if observed["current"] else {"containerDefinitions": []}
        return self._view(
            observed["service"], request, self.params, revisions.short(observed["service"]["taskDefinition"])
        )

    @classmethod
    def _view(cls, service, request, wanted, name):
        return {
            "desired": service["desiredCount"],
            "running": service["runningCount"],
            "task_definition": name,
            **cls.shown(request, wanted),
        }

    def returned(self):
        return {"task_definition_arn": self.arn, "registered": self.registered}

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A verb on one workload of a cluster: how it finds it, changes what others change too, and waits for its rollout."""

from __future__ import annotations

import time

from ansible.module_utils.basic import missing_required_lib

from . import kubernetes_api as api
from . import kubernetes_history as history
from . import kubernetes_workload as workloads
from .aws import attempt
from .errors import Overtaken, Stop
from .kubernetes_reader import WORKLOAD_ARGUMENT, Reader
from .masking import logged, snippet
from .verb import Verb, run, verb_module

# Seconds that a rollout usually takes, and how long pods that cannot be created may go on being refused.
USUAL = 60
REFUSED_PODS = 5
# The label of a pod that is kept for an investigation: the uid of its workload, which no other has.
QUARANTINE = "sre.runbooks/quarantine"


class KubernetesVerb(Verb):
    """A verb with the option `kubernetes`; AWS is asked for the lease alone, unless the verb does."""

    def __init__(self, module):
        super().__init__(module)
        self.target = self.params["kubernetes"]
        self.name, self.namespace = self.target["name"], self.target["namespace"]
        self.cluster = api.Cluster(self.target)
        self.reader = Reader(self.cluster, self.target["kind"], self.namespace, self.name)

    def back(self, verb, **arguments):
        """An undo entry that finds the workload again; credentials are the one's who plays it."""
        names = ("context", "host", "namespace", "kind", "name")
        target = {key: self.target[key] for key in names if self.target[key]}
        return [{"verb": f"sre.runbooks.{verb}", "arguments": dict(arguments, kubernetes=target)}]

    def patch(self, path, operations):
        """A JSON patch that begins with a `test` of what it was planned on; returns the object as it is then.

        Raises:
            Overtaken: the test does not hold any more.
            Invalid: the cluster does not take it.
        """
        try:
            return self.cluster.change("PATCH", path, operations, api.JSON_PATCH)
        except api.Invalid as error:
            first = operations[0]
            if _at(self.cluster.read(path), first["path"]) != first["value"]:
                raise Overtaken(f"{path.rpartition('/')[2]} was changed by somebody else since it was read") from error
            raise

    def await_rollout(self, template):
        """Wait until the workload has rolled out to `template`, as the cluster has taken it.

        Raises:
            Stop: it never will: why, with the last words of the pod that is why; or somebody else has changed it.
        """
        refused_since = None

        def look():
            seen = self.reader.look()
            now = history.current(seen["workload"], seen["revisions"])
            return dict(seen, now=now, progress=self.reader.kind.progress(seen["workload"], now))

        def done(seen):
            nonlocal refused_since
            if not history.same(seen["workload"]["spec"]["template"], template):
                raise Stop(f"{self.name} was changed by somebody else while this run waited")
            if seen["progress"].done:
                return True
            why = self._why_never(seen)
            if why:
                raise Stop(f"{self.name} does not roll out: {why}")
            failure = seen["now"] and seen["now"].failure
            refused_since = (refused_since or time.monotonic()) if failure else None
            if failure and time.monotonic() - refused_since >= REFUSED_PODS:
                raise Stop(f"{self.name} cannot create its pods: {snippet(failure, 300)}")
            return False

        self.wait(look, done, f"{self.name} rolls out", USUAL, state=lambda seen: seen["progress"].text)

    def _why_never(self, seen):
        for pod in seen["pods"]:
            trouble = workloads.trouble(pod) if seen["now"] is not None and seen["now"].owns(pod) else None
            if trouble:
                return f"{snippet(str(trouble))}{self._last_words(trouble)}"
        return seen["progress"].failure

    def _last_words(self, trouble):
        more = {"previous": "true"} if trouble.previous else {}
        path = f"{self.reader.pods(trouble.pod)}/log"
        log = attempt(lambda: self.cluster.read(path, container=trouble.container, tailLines=3, **more), Stop)
        lines = [] if isinstance(log, Stop) else [logged(line) for line in str(log).splitlines() if line.strip()]
        return f". Its log ends: {' | '.join(lines)}" if lines else ""


def _at(found, pointer):
    """What a JSON pointer without lists means in an object, None where there is nothing."""
    for step in pointer.split("/")[1:]:
        found = (found or {}).get(step)
    return found


def main_of(verb_class, arguments, **conditions):
    """main() of the module of such a verb."""
    module = verb_module(dict(arguments, kubernetes=dict(WORKLOAD_ARGUMENT, required=True)), **conditions)
    if not api.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    run(module, verb_class)

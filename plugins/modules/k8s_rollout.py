#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_rollout
version_added: 0.2.0
short_description: Undo, restart, scale, pause or watch a Kubernetes workload
description:
  - Does what C(kubectl rollout) and C(kubectl scale) do, with a plan, gates and an end. It waits until the rollout is over by the status of
    its controller, and fails as soon as a pod shows that it never will be, naming the pod, the container, the reason and
    its last log lines.
  - An undo without O(to_revision) goes to the last revision that was really available, as far as the cluster can tell. It
    goes to one that still serves, and passes over restarts of the same template and revisions that never took over.
  - A workload that this verb already took back is left as it is, so the same task again is safe. Where a template is back
    that ran before, and nothing tells whether somebody went back by hand or shipped it again, it asks for O(to_revision).
  - An edit by somebody else between the look and the change is noticed, and nothing is overwritten.
  - B(Risk:) O(action=recreate) takes the workload off the air until its pods are back.
options:
  name:
    description: Name of the workload.
    type: str
    required: true
  namespace:
    description: Its namespace.
    type: str
    required: true
  kind:
    description: Its kind. A V(DeploymentConfig) is found through the OpenShift client.
    type: str
    choices: [Deployment, StatefulSet, DaemonSet, DeploymentConfig]
    default: Deployment
  action:
    description:
      - V(undo) goes back to an earlier revision. Like C(kubectl rollout undo) it sends the template of that revision and
        its change cause; all other annotations stay. Pods of a StatefulSet that never became ready are deleted, since it
        would wait for them for ever.
      - V(restart) replaces all pods, as the rollout strategy allows.
      - V(status) waits for the rollout that is under way.
      - V(pause) and V(resume) stop and continue rollouts of a Deployment or DeploymentConfig. A paused one cannot be
        undone or restarted until it is resumed.
      - V(recreate) scales to 0, waits until no pod is left, and scales back to the count it found. The count is kept in
        an annotation meanwhile, so a run that is killed there goes on.
      - V(scale) sets the number of pods to O(replicas), together with the bounds of a HorizontalPodAutoscaler that would
        move it back. At V(0) the autoscaler is off, and its bounds stay. With O(capacity) that is for a while, and what there
        was before is kept in the annotation C(sre.runbooks/scaled), to which O(restore) goes back; nothing does so by itself.
    type: str
    choices: [undo, restart, status, pause, resume, recreate, scale]
    required: true
  to_revision:
    description: Number of the revision to go back to, for O(action=undo). RV(history) lists them.
    type: int
  replicas:
    description:
      - Number of pods, for O(action=scale). O(action=recreate) comes back with it; there the default is what it had, and
        a workload that was found scaled to 0 needs it.
    type: int
  at_least:
    description: Leave a count and a floor of the autoscaler that are already higher as they are, for O(action=scale).
    type: bool
    default: false
  bounds:
    description:
      - Set the autoscaler to exactly this, for O(action=scale), instead of a floor of O(replicas) and a ceiling that is
        not below. RV(undo) uses it to bring back the former bounds.
    type: dict
    suboptions:
      floor:
        description: Minimum number of pods.
        type: int
        required: true
      ceiling:
        description: Maximum number of pods.
        type: int
        required: true
  when_managed:
    description:
      - What to do when Argo CD, Flux or an operator manages the workload, or its autoscaler, and would put the change back,
        for O(action=undo), O(action=recreate) and O(action=scale). V(refuse) fails and says how to suspend it; V(note) goes on.
    type: str
    choices: [refuse, note]
    default: refuse
  validate_certs:
    description:
      - Whether to verify the certificate of the cluster. Default is what the kubeconfig says. The certificates of AWS,
        which is asked for the lease only, are verified in any case.
      - The environment variable E(K8S_AUTH_VERIFY_SSL) sets it, too.
    type: bool
    default: null
    aliases: [verify_ssl]
extends_documentation_fragment:
  - sre.runbooks.temporary_capacity
  - sre.runbooks.database_login
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - kubernetes.core.k8s_auth_options
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - kubernetes
  - openshift (for O(kind=DeploymentConfig))
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - The options of AWS are those of the lease and of O(db_instance); without these no AWS credentials are needed.
  - It needs the verbs get and patch on the workload and list on pods and on replicasets, controllerrevisions or
    replicationcontrollers; get on pods/log for log lines; delete on pods for a StatefulSet that is blocked; patch on
    horizontalpodautoscalers to scale beyond the bounds of one. Events and horizontalpodautoscalers are read where that is
    allowed.
seealso:
  - name: Deployments
    description: Kubernetes documentation.
    link: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

EXAMPLES = r"""
- name: Back to the last revision that was available
  sre.runbooks.k8s_rollout:
    context: shop-prod
    namespace: alchemorsel
    name: alchemorsel-api
    action: undo
    lease: "{{ lock.lease }}"

- name: Back to a revision of the list
  sre.runbooks.k8s_rollout:
    namespace: alchemorsel
    name: alchemorsel-api
    action: undo
    to_revision: 2

- name: As a last resort, to 0 and back
  sre.runbooks.k8s_rollout:
    namespace: alchemorsel
    kind: StatefulSet
    name: alchemorsel-worker
    action: recreate
    wait_timeout: 600

- name: Six pods or more, which an autoscaler does not take back
  sre.runbooks.k8s_rollout:
    namespace: alchemorsel
    name: alchemorsel-api
    action: scale
    replicas: 6
    at_least: true

- name: Half as many pods again, until they are given back
  sre.runbooks.k8s_rollout:
    namespace: alchemorsel
    name: alchemorsel-api
    action: scale
    capacity: +50%

- name: What the workload had before
  sre.runbooks.k8s_rollout:
    namespace: alchemorsel
    name: alchemorsel-api
    action: scale
    restore: true
"""

RETURN = r"""
history:
  description: The revisions as found, newest first. C(available) is null where the cluster does not tell.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {revision: 3, images: ["shop/web:bad"], cause: null, available: 0, current: true}
    - {revision: 2, images: ["shop/web:v2"], cause: null, available: 3, current: false}
before:
  description: The workload as found.
  returned: unless refused
  type: dict
  sample:
    revision: 3
    images: ["shop/web:bad"]
    replicas: 3
    available: 3
    paused: false
    rollout: "progress deadline exceeded: ReplicaSet web-f945d6bb4 has timed out progressing."
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample: {revision: 4, images: ["shop/web:v2"], replicas: 3, available: 3, paused: false, rollout: complete}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: roll_back
      what: send web back to revision 2 (shop/web:v2)
      before: revision 3 (shop/web:bad)
      after: revision 2 (shop/web:v2)
    - {do: settle, what: wait until web serves with revision 2 (shop/web:v2), before: null, after: null}
undo:
  description: The same verb the other way round, for an undo, a pause, a resume and a scale; for a restart what stays.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.k8s_rollout
      arguments: {namespace: shop, kind: Deployment, name: web, action: undo, to_revision: 3}
notes:
  description: What a person should know, for example which revisions were passed over and why.
  returned: success
  type: list
  elements: str
  sample: ["revision 3 is passed over: it never had more than 1 of 3 pods"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 8.2
"""

import contextlib
import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_history as history
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_rollout as rollout
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_workload as workloads
from ansible_collections.sre.runbooks.plugins.module_utils import room
from ansible_collections.sre.runbooks.plugins.module_utils import temporary_capacity as temporary
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Stop, WaitTimeout
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_api import objects
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_options import AUTH_ARGUMENTS
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_reader import Reader
from ansible_collections.sre.runbooks.plugins.module_utils.masking import logged, snippet
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

# Seconds that a rollout usually takes, and how long pods that cannot be created (a quota) may go on being refused: a
# rolling update that takes old ones away makes room.
USUAL = 60
REFUSED_PODS = 5
LOG_LINES = 3

# AWS is asked for the lease, and for the database where one is named.
SERVICES = ("rds", "secretsmanager")
ARGUMENTS = dict(
    AUTH_ARGUMENTS,
    **temporary.ARGUMENTS,
    **LOGIN_ARGUMENTS,
    name=dict(type="str", required=True),
    namespace=dict(type="str", required=True),
    kind=dict(type="str", choices=["Deployment", "StatefulSet", "DaemonSet", "DeploymentConfig"], default="Deployment"),
    action=dict(type="str", choices=list(rollout.ACTIONS), required=True),
    to_revision=dict(type="int"),
    replicas=dict(type="int"),
    at_least=dict(type="bool", default=False),
    bounds=dict(
        type="dict", options=dict(floor=dict(type="int", required=True), ceiling=dict(type="int", required=True))
    ),
    when_managed=dict(type="str", choices=["refuse", "note"], default="refuse"),
)


class K8sRollout(Verb):
    """Undo, restart, scale, pause or watch a workload."""

    # Of a restart.
    INSTEAD = "its pods are new ones of the same revision, so nothing is left to do"

    plan = staticmethod(rollout.plan)

    def __init__(self, module):
        super().__init__(module)
        self.name, self.namespace = self.params["name"], self.params["namespace"]
        self.cluster = api.Cluster(self.params)
        self.reader = Reader(self.cluster, self.params["kind"], self.namespace, self.name)
        self.kind, self.path = self.reader.kind, self.reader.path
        self.stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        # The template that was found, and those that this run has sent; any other one is somebody else's.
        self.templates, self.version = [], None
        self.workload, self.failed_before = None, None
        self.remembered = None  # what the workload said at first of a capacity for a while

    @staticmethod
    def connection(module):
        region, endpoint, params = Verb.connection(module)
        return region, endpoint, dict(params, verify=module.params.get("aws_ca_bundle"))

    def observe(self):
        seen = self.look()
        workload = seen["workload"]
        template = workload["spec"]["template"]
        if not self.templates:
            self.remembered = rollout.remembered(workload)
            self.templates, self.version = [template], workload["status"].get("latestVersion")
        sent = any(history.same(template, each) for each in self.templates[1:])
        known = sent or history.same(template, self.templates[0])
        more, now = together(autoscaler=self._autoscaler, failed=lambda: self._failed(seen)), time.time()
        return dict(
            seen,
            **more,
            rooms=self._rooms(workload, more["autoscaler"], now),
            sent=sent,
            overtaken_by=None if known else ", ".join(history.images(template)),
            stamp=self.stamp,
            version=self.version,
            reconcilers=workloads.reconcilers(workload),
            now=now,
        )

    def look(self):
        """{workload, revisions, pods}, as they are now."""
        seen = self.reader.look()
        self.workload = seen["workload"]
        return seen

    def _autoscaler(self):
        if self.params["action"] not in ("recreate", "scale"):
            return None
        found = attempt(lambda: self.cluster.read(self._autoscalers()), api.Denied)
        return found if isinstance(found, Stop) else workloads.autoscaler(self.kind.name, self.name, found["items"])

    def _autoscalers(self, name=None):
        return objects(self.namespace, "horizontalpodautoscalers", name, api="/apis/autoscaling/v2")

    def _rooms(self, workload, scaler, now):
        """What more pods take some of. A quota of the namespace is the cluster's to say, which it does at once."""
        wanted, size, kept = self.params, rollout.size(workload, scaler), rollout.remembered(workload)
        if not wanted["connections_each"] or temporary.growth(wanted["capacity"], size, kept, now) <= 0:
            return []
        login = Login(wanted, self.aws)
        return [room.connections(self.aws, wanted["db_instance"], login, wanted["connections_each"], size.count)]

    def _failed(self, seen):
        """{name of a revision: why} of those that fail now, or that never took over."""
        failed = {}
        if self.params["action"] == "undo" and self.kind.name == "Deployment":
            path = objects(self.namespace, "events", api="/api/v1")
            about = f"involvedObject.uid={seen['workload']['metadata']['uid']},reason=ScalingReplicaSet"
            events = attempt(lambda: self.cluster.read(path, fieldSelector=about), api.Denied)
            if not isinstance(events, Stop):
                failed = history.never_took_over(seen["workload"], seen["revisions"], events["items"])
        for pod in seen["pods"]:
            trouble = workloads.trouble(pod)
            for each in seen["revisions"] if trouble else ():
                if each.owns(pod):
                    failed[each.name] = str(trouble)
        return failed

    # The steps, named as in the plan.

    def roll_back(self, target, now):
        self._patch(rollout.undo_patch(self.workload, target, now), target.template)

    def restart(self):
        template = rollout.restarted(self.workload["spec"]["template"], self.stamp)
        self._patch(rollout.restart_patch(self.workload, self.stamp), template)

    def instantiate(self):
        """https://docs.openshift.com/container-platform/4.17/rest_api/workloads_apis/workloads-apis-index.html"""
        request = {"kind": "DeploymentRequest", "apiVersion": "apps.openshift.io/v1", "name": self.name}
        self.cluster.change("POST", f"{self.path}/instantiate", dict(request, latest=True, force=True))

    def unblock(self, pod, uid):
        # With the precondition a pod of the same name that took its place meanwhile stays.
        path = self.reader.pods(pod)
        with contextlib.suppress(api.NotFound, Overtaken):
            self.cluster.change("DELETE", path, {"preconditions": {"uid": uid}})

    def pause(self, paused):
        self._patch(rollout.pause_patch(self.workload, paused))

    def empty(self, count):
        self._patch(rollout.count_patch(self.workload, 0, kept=count))

    def fill(self, count):
        self._patch(rollout.count_patch(self.workload, count))

    def bound(self, name, present, goal):
        try:
            operations = rollout.bounds_patch(present, goal)
            self.cluster.change("PATCH", self._autoscalers(name), operations, api.JSON_PATCH)
        except api.Invalid as error:
            now = self._autoscaler()
            if now and any(now[key] != present[key] for key in present):
                raise Overtaken(f"the bounds of the autoscaler {name} were changed since they were read") from error
            raise

    def forget(self):
        self._patch(rollout.forget_patch(self.workload))

    def annotate(self, values):
        self._patch(rollout.annotate_patch(self.workload, values))

    def drain(self):
        def done(seen):
            count = seen["workload"]["spec"].get("replicas", 1)
            if count:
                raise Stop(f"{self.name} was scaled to {count} by something else while it was to drain")
            return not seen["pods"] and not seen["workload"]["status"].get("replicas")

        self.wait(self.look, done, f"{self.name} drains", USUAL, state=lambda seen: f"{len(seen['pods'])} pods left")

    def settle(self):
        last, refused_since = {}, None

        def look():
            seen = self.look()
            now = history.current(seen["workload"], seen["revisions"])
            last.update(seen, now=now, progress=self.kind.progress(seen["workload"], now))
            return last

        def done(seen):
            nonlocal refused_since
            now, progress = seen["now"], seen["progress"]
            if not history.same(seen["workload"]["spec"]["template"], self.templates[-1]):
                images = ", ".join(history.images(seen["workload"]["spec"]["template"]))
                raise Stop(f"{self.name} was changed to {images} by somebody else while this run waited")
            if progress.done:
                return True
            why = self._why_never(seen)
            if why:
                raise Stop(why)
            if now is None or not now.failure:
                refused_since = None
            elif refused_since is None:
                refused_since = time.monotonic()
            elif time.monotonic() - refused_since >= REFUSED_PODS:
                raise Stop(f"{self._who(seen)} cannot create its pods: {snippet(now.failure, 300)}")
            return False

        try:
            self.wait(look, done, f"{self.name} rolls out", USUAL, state=lambda seen: seen["progress"].text)
        except WaitTimeout as error:
            raise WaitTimeout(f"{error}{_unready(last) if last else ''}") from error

    def _why_never(self, seen):
        """Why this rollout will not end well, with the last words of the container that is why; None while it may."""
        now, progress = seen["now"], seen["progress"]
        for pod in seen["pods"]:
            trouble = workloads.trouble(pod) if now is not None and now.owns(pod) else None
            if trouble:
                return (
                    f"{self._who(seen)} does not start: pod {trouble.pod}, container {trouble.container}: "
                    f"{snippet(trouble.why)}{self._last_words(trouble)}"
                )
        # Until the controller has made progress on what this run sent, the old finding stands.
        if progress.failure and (progress.since is None or progress.since != self.failed_before):
            return f"{self._who(seen)} does not roll out: {snippet(progress.failure)}{_unready(seen)}"
        return None

    def _who(self, seen):
        serving, count = workloads.available(seen["workload"]), workloads.wanted(seen["workload"])
        what = seen["now"].shown() if seen["now"] else "its new template"
        return f"{self.name}: {what} ({serving} of {count} pods serve, of any revision)"

    def _last_words(self, trouble):
        path = self.reader.pods(trouble.pod) + "/log"
        more = {"previous": "true"} if trouble.previous else {}
        log = attempt(
            lambda: self.cluster.read(path, container=trouble.container, tailLines=LOG_LINES, **more),
            Stop,
        )
        lines = [] if isinstance(log, Stop) else [logged(line) for line in str(log).splitlines() if line.strip()]
        return f". Its log ends: {' | '.join(lines)}" if lines else ". It has no log"

    def _patch(self, operations, template=None):
        """Send a change of the workload as it was last seen; `template` is the one that it has afterwards."""
        if template is not None:
            self.templates.append(template)
        self.failed_before = self.kind.progress(self.workload, None).since
        generation = self.workload["metadata"]["generation"]
        try:
            self.workload = self.cluster.change("PATCH", self.path, operations, api.JSON_PATCH)
        except api.Invalid as error:
            # A `test` that does not hold and a template that the cluster does not take are answered alike.
            if self.cluster.read(self.path)["metadata"]["generation"] != generation:
                raise Overtaken(f"{self.name} was changed by somebody else since it was read") from error
            raise
        if template is not None:
            self.templates[-1] = self.workload["spec"]["template"]  # as the cluster took it

    def undo(self, before, done):
        where = {key: self.params[key] for key in ("context", "host", "namespace", "kind", "name") if self.params[key]}
        if self.params["action"] == "scale":
            if self.params["capacity"] or self.params["restore"]:
                back = temporary.back(before["replicas"], self.remembered, self.params)
                return [{"verb": "sre.runbooks.k8s_rollout", "arguments": dict(where, action="scale", **back)}]
            back = dict(where, action="scale", replicas=before["replicas"])
            bounds = [step["before"] for step in done if step["do"] == "bound"]
            if bounds:
                back["bounds"] = bounds[0]
            return [{"verb": "sre.runbooks.k8s_rollout", "arguments": back}]
        for step in done:
            if step["do"] == "roll_back" and before["revision"] is not None:
                back = {"action": "undo", "to_revision": before["revision"]}
            elif step["do"] == "pause":
                back = {"action": "resume" if step["after"] else "pause"}
            else:
                continue
            return [{"verb": "sre.runbooks.k8s_rollout", "arguments": dict(where, **back)}]
        return super().undo(before, done)

    def view(self, observed):
        return rollout.view(observed, self.kind)


def _unready(seen):
    """What keeps pods of the present revision from serving, for the first few."""
    now = seen["now"]
    reasons = [workloads.unready(pod) for pod in seen["pods"] if now is not None and now.owns(pod)]
    told = [snippet(each) for each in reasons if each][:3]
    return f". {'; '.join(told)}" if told else ""


def main():
    module = verb_module(
        ARGUMENTS, mutually_exclusive=[PASSWORD_SOURCES, ("replicas", "capacity")], required_by=temporary.REQUIRED_BY
    )
    if not api.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    run(module, K8sRollout)


if __name__ == "__main__":
    main()

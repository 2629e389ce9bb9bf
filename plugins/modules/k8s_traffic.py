#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_traffic
version_added: 0.1.0
short_description: Close a Kubernetes Ingress to its users, or tell an application of maintenance, and take it back
description:
  - Closes an Ingress in the way that its controller obeys. ingress-nginx is sent a server snippet where its ConfigMap says that it
    takes snippets, which it does not by default since 1.9, and else a list of source ranges with nobody on it; the AWS Load Balancer
    Controller a fixed response; every other one a Service that shows a page, with O(maintenance_service).
  - O(config_map) is for an application that shows its own page while a ConfigMap says so. The Ingress stays open then.
  - What each changed field had is kept on the object, in the annotation C(sre.runbooks/traffic), in the same patch as the change.
    V(open) puts exactly that back and removes the annotation, so that any controller opens what another one has closed. What
    somebody else has changed meanwhile is left as it is, and told.
  - "B(Risk:) V(blocked) and V(maintenance) cut the service off from its users."
options:
  namespace:
    description: The namespace of the Ingress and of the ConfigMap.
    type: str
    required: true
  ingress:
    description: Name of the Ingress.
    type: str
  config_map:
    description:
      - Name of a ConfigMap that the application reads. V(maintenance) sets O(config_map_key) of it to V(true), and makes it where it is
        not there; V(blocked) and V(open) put back what it had.
    type: str
  config_map_key:
    description: The key that tells the application.
    type: str
    default: enabled
  state:
    description:
      - V(blocked) closes the Ingress. V(maintenance) does so with a page for people, or sets O(config_map) and leaves the Ingress
        open. V(open) puts back what there was.
    type: str
    choices: [open, blocked, maintenance]
    required: true
  way:
    description:
      - How to close it. V(snippet) (ingress-nginx) answers for the whole host, V(source_range) (ingress-nginx) with 403 for this Ingress,
        V(alb_action) by a fixed response of the load balancer, V(service) by O(maintenance_service).
      - V(auto) takes what the controller obeys, and V(source_range) where O(allow_from) is given.
    type: str
    choices: [auto, snippet, source_range, alb_action, service]
    default: auto
  maintenance_service:
    description: A Service of the namespace that shows a page. It is used for V(maintenance), and where there is no other way.
    type: dict
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      port:
        description: Its port.
        type: int
        default: 80
  allow_from:
    description: Address ranges that go on being served, as the controller sees them. Only V(source_range) can do that.
    type: list
    elements: str
    default: []
  status_code:
    description: HTTP status of the answer. With V(source_range) it is always 403.
    type: int
    default: 503
  body:
    description: The answer in place of the built-in one.
    type: str
  content_type:
    description: What O(body) is; by default text for V(blocked) and HTML for V(maintenance).
    type: str
    choices: [text/plain, text/html, text/css, application/json, application/javascript]
  controller_config_map:
    description: Namespace and name of the ConfigMap of ingress-nginx, which says whether it takes snippets.
    type: str
    default: ingress-nginx/ingress-nginx-controller
  when_managed:
    description: What to do where Argo CD, Flux or an operator would put the object back.
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
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - kubernetes.core.k8s_auth_options
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - kubernetes
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - The options of AWS are those of the lease; without it no AWS credentials are needed.
  - It needs the verbs list and patch on ingresses; get, create, patch and delete on configmaps where one is named. ingressclasses,
    endpointslices and the ConfigMap of the controller are read where that is allowed; where not, no snippet is sent.
  - Connections that are upgraded (WebSocket) last until they end or the controller replaces its workers.
  - An application that reads the ConfigMap when it starts has to be restarted; a mounted one changes within a minute or so.
seealso:
  - module: sre.runbooks.alb_traffic
  - name: Annotations of ingress-nginx
    description: Documentation of the controller.
    link: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations-risk/
"""

EXAMPLES = r"""
- name: Block all traffic at the ingress
  sre.runbooks.k8s_traffic:
    namespace: alchemorsel
    ingress: alchemorsel-ingress
    state: blocked
    lease: "{{ lock.lease }}"

- name: Only the responders
  sre.runbooks.k8s_traffic:
    namespace: alchemorsel
    ingress: alchemorsel-ingress
    state: blocked
    allow_from: [203.0.113.7/32]

- name: The application shows its own page
  sre.runbooks.k8s_traffic:
    namespace: alchemorsel
    ingress: alchemorsel-ingress
    config_map: maintenance-mode
    state: maintenance

- name: Restore the traffic
  sre.runbooks.k8s_traffic:
    namespace: alchemorsel
    ingress: alchemorsel-ingress
    config_map: maintenance-mode
    state: open
"""

RETURN = r"""
before:
  description: The state as found. C(ingress) and C(config_map) are what this verb has written on them, null where nothing.
  returned: unless refused
  type: dict
  sample: {state: open, since: null, ingress: null, config_map: null}
after:
  description: The same at the end, as predicted in check mode.
  returned: success
  type: dict
  sample:
    state: blocked
    since: "2026-01-01T12:00:00Z"
    ingress: {state: blocked, since: "2026-01-01T12:00:00Z", way: source_range, status_code: 403, allow_from: []}
    config_map: null
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: patch
      what: "close alchemorsel-ingress (source_range): 403 for everybody"
      before: null
      after: {state: blocked, way: source_range, status_code: 403, allow_from: []}
undo:
  description: The same verb with the state that was found. Empty where nothing was changed.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.k8s_traffic
      arguments: {namespace: alchemorsel, ingress: alchemorsel-ingress, state: open}
status_code:
  description: What users are answered from now on, null where that is the service's own affair.
  returned: unless refused
  type: int
  sample: 503
notes:
  description: What a person should know, for example what somebody else has changed meanwhile, or that 403 is all that can be had.
  returned: success
  type: list
  elements: str
  sample: ["alchemorsel-ingress was blocked since 2026-01-01T12:00:00Z"]
waited_seconds:
  description: Time spent in waits; always 0, the controller follows within seconds.
  returned: unless refused
  type: float
  sample: 0.0
"""

import contextlib
import time

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import closed_ingress
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_api as api
from ansible_collections.sre.runbooks.plugins.module_utils import kubernetes_workload as workloads
from ansible_collections.sre.runbooks.plugins.module_utils.aws import attempt, together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Overtaken, Refusal, Stop, near
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_api import objects
from ansible_collections.sre.runbooks.plugins.module_utils.kubernetes_options import AUTH_ARGUMENTS
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Verb, run, verb_module

NETWORKING = "/apis/networking.k8s.io/v1"
CORE = "/api/v1"
APIS = {"ingresses": NETWORKING, "configmaps": CORE}
# Names that the classes of these controllers usually have.
USUAL_CLASSES = {"nginx": closed_ingress.NGINX, "alb": closed_ingress.ALB}
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"

SERVICES = ()
ARGUMENTS = dict(
    AUTH_ARGUMENTS,
    namespace=dict(type="str", required=True),
    ingress=dict(type="str"),
    config_map=dict(type="str"),
    config_map_key=dict(type="str", default="enabled", no_log=False),
    state=dict(type="str", choices=["open", "blocked", "maintenance"], required=True),
    way=dict(type="str", choices=["auto", *closed_ingress.WAYS], default="auto"),
    maintenance_service=dict(
        type="dict", options=dict(name=dict(type="str", required=True), port=dict(type="int", default=80))
    ),
    allow_from=dict(type="list", elements="str", default=[]),
    status_code=dict(type="int", default=503),
    body=dict(type="str"),
    content_type=dict(
        type="str", choices=["text/plain", "text/html", "text/css", "application/json", "application/javascript"]
    ),
    controller_config_map=dict(type="str", default="ingress-nginx/ingress-nginx-controller"),
    when_managed=dict(type="str", choices=["refuse", "note"], default="refuse"),
)


class K8sTraffic(Verb):
    """An Ingress that lets nobody through, or an application that says that it is being worked on."""

    plan = staticmethod(closed_ingress.plan)

    def __init__(self, module):
        super().__init__(module)
        self.namespace = self.params["namespace"]
        self.cluster = api.Cluster(self.params)
        self.stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    @staticmethod
    def connection(module):
        region, endpoint, params = Verb.connection(module)
        return region, endpoint, dict(params, verify=module.params.get("aws_ca_bundle"))

    def observe(self):
        seen = together(
            ingresses=self._ingresses, config_map=self._config_map, snippets=self._snippets, page=self._page
        )
        ingress = self._named(seen["ingresses"])
        hosts = _hosts(ingress)
        return {
            "ingress": ingress,
            "config_map": seen["config_map"],
            "snippets": seen["snippets"],
            "page": seen["page"],
            "controller": self._controller(ingress) if ingress else None,
            "others": [each for each in seen["ingresses"] if each is not ingress and _hosts(each) & hosts],
            "reconcilers": [
                line
                for item in (ingress, seen["config_map"])
                if item
                for line in workloads.reconcilers(dict(item, status={}))
            ],
            "stamp": self.stamp,
        }

    def _ingresses(self):
        return (
            self.cluster.read(objects(self.namespace, "ingresses", api=NETWORKING))["items"]
            if self.params["ingress"]
            else []
        )

    def _named(self, ingresses):
        name = self.params["ingress"]
        found = {each["metadata"]["name"]: each for each in ingresses}
        if name and name not in found:
            raise Refusal(
                f"there is no ingress {name} in namespace {self.namespace} ({near(name, found)}): check name, namespace and context "
                f"of this host in the inventory"
            )
        return found.get(name)

    def _config_map(self):
        if not self.params["config_map"]:
            return None
        try:
            return self.cluster.read(objects(self.namespace, "configmaps", self.params["config_map"], CORE))
        except api.NotFound:
            return None

    def _page(self):
        """How many addresses serve the Service with the page; None where it is not asked for, or cannot be seen."""
        if not self.params["maintenance_service"]:
            return None
        label = f"kubernetes.io/service-name={self.params['maintenance_service']['name']}"
        path = objects(self.namespace, "endpointslices", api="/apis/discovery.k8s.io/v1")
        found = attempt(lambda: self.cluster.read(path, labelSelector=label), api.NotFound, api.Denied)
        if isinstance(found, Stop):
            return None
        each = [endpoint for part in found["items"] for endpoint in part.get("endpoints") or []]
        return sum((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in each)

    def _snippets(self):
        """Whether the controller says that it takes snippets, both settings named; None where it cannot be read.

        A version before 1.12 knows no risk level, and one that says nothing of it is not tried: a snippet that is not taken is
        passed over without a word where the admission webhook is off.
        """
        namespace, _found, name = self.params["controller_config_map"].rpartition("/")
        found = attempt(
            lambda: self.cluster.read(objects(namespace, "configmaps", name, CORE)), api.NotFound, api.Denied
        )
        if isinstance(found, Stop):
            return None
        data = found.get("data") or {}
        return (
            data.get("allow-snippet-annotations") == "true"
            and data.get("annotations-risk-level", "").lower() == "critical"
        )

    def _controller(self, ingress):
        """The controller of its class, as the class names it; None where neither tells."""
        named = ingress["spec"].get("ingressClassName") or (ingress["metadata"].get("annotations") or {}).get(
            closed_ingress.CLASS
        )
        found = attempt(lambda: self.cluster.read(f"{NETWORKING}/ingressclasses")["items"], api.NotFound, api.Denied)
        for each in [] if isinstance(found, Stop) else found:
            usual = (each["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
            if each["metadata"]["name"] == named or (named is None and usual):
                return each["spec"].get("controller")
        return USUAL_CLASSES.get(named)

    # The steps, named as in the plan.

    def patch(self, resource, name, operations):
        path = objects(self.namespace, resource, name, APIS[resource])
        try:
            self.cluster.change("PATCH", path, operations, api.JSON_PATCH)
        except api.Invalid as error:
            # A `test` that does not hold and content that the cluster does not take are answered alike.
            if self.cluster.read(path)["metadata"]["resourceVersion"] != operations[0]["value"]:
                raise Overtaken(f"{name} was changed by somebody else since it was read") from error
            raise

    def create(self, name, body):
        try:
            self.cluster.change(
                "POST", objects(self.namespace, "configmaps", api=CORE), dict(body, apiVersion="v1", kind="ConfigMap")
            )
        except Overtaken as error:
            raise Overtaken(f"{name} was made by somebody else since it was looked for") from error

    def remove(self, name, uid):
        with contextlib.suppress(api.NotFound):
            path = objects(self.namespace, "configmaps", name, CORE)
            self.cluster.change("DELETE", path, {"preconditions": {"uid": uid}})

    # --- telling ---

    def undo(self, before, done):
        names = (
            "context",
            "host",
            "namespace",
            "ingress",
            "config_map",
            "way",
            "maintenance_service",
            "controller_config_map",
        )
        where = {key: self.params[key] for key in names if self.params[key] not in (None, "auto")}
        if where["controller_config_map"] == ARGUMENTS["controller_config_map"]["default"]:
            del where["controller_config_map"]
        closed = before["ingress"] or {}
        if closed.get("allow_from"):
            where["allow_from"] = closed["allow_from"]
        return [{"verb": "sre.runbooks.k8s_traffic", "arguments": dict(where, state=before["state"])}]

    def view(self, observed):
        return closed_ingress.view(observed)


def _hosts(ingress):
    """Hosts that it serves; `*` for all."""
    if ingress is None:
        return set()
    return {rule.get("host", "*") for rule in ingress["spec"].get("rules") or [{}]}


def main():
    module = verb_module(ARGUMENTS)
    if not api.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    run(module, K8sTraffic)


if __name__ == "__main__":
    main()

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The subresources of a DeploymentConfig: instantiate rolls out again, rollback tells how to go back.

https://docs.redhat.com/en/documentation/openshift_container_platform/4.16/html/workloads_apis/deploymentconfig-apps-openshift-io-v1
"""

from __future__ import annotations

import copy
import json

from . import errors
from .api import represent
from .controllers.deploymentconfigs import ENCODED, controllers_of, deploy, template_of, version_of
from .errors import ApiError
from .requests import Request, Target
from .resources import DEPLOYMENT_CONFIGS
from .store import Store

# What of the config a rollback takes over besides the template, by the field of the request that asks for it.
_PARTS = {
    "includeTriggers": ("triggers",),
    "includeReplicationMeta": ("replicas", "selector"),
    "includeStrategy": ("strategy",),
}


class Subresources:
    def __init__(self, store: Store) -> None:
        self._store = store

    def instantiate(self, request: Request, target: Target) -> tuple[int, dict]:
        """Raises NotFound; BadRequest while the config is paused."""
        with self._store.lock:
            config = self._config(request, target)
            if config["spec"].get("paused"):
                raise errors.bad_request("cannot deploy a paused deployment config")
            if not request.is_dry_run:
                config = deploy(self._store, config, "Manual", "manual change")
        return 201, represent(DEPLOYMENT_CONFIGS, config)

    def rollback(self, request: Request, target: Target) -> tuple[int, dict]:
        """The config as it would be; nothing is changed: the caller writes it. Raises NotFound, Invalid."""
        with self._store.lock:
            config = copy.deepcopy(self._config(request, target))
            wanted = request.object.get("spec") or {}
            source = self._source(config, wanted)
        earlier = _encoded(source)
        spec = config["spec"]
        if wanted.get("includeTemplate"):
            spec["template"] = template_of(source)
        for field, names in _PARTS.items():
            if wanted.get(field):
                spec.update({name: earlier["spec"][name] for name in names if name in earlier["spec"]})
        # Else the next image would roll it forward again at once.
        for trigger in spec.get("triggers") or []:
            if trigger["type"] == "ImageChange":
                trigger["imageChangeParams"]["automatic"] = False
        if annotations := request.object.get("updatedAnnotations"):
            config["metadata"].setdefault("annotations", {}).update(annotations)
        return 201, represent(DEPLOYMENT_CONFIGS, config)

    def _config(self, request: Request, target: Target) -> dict:
        if request.verb != "create":
            raise errors.method_not_allowed()
        return self._store.get(DEPLOYMENT_CONFIGS, target.namespace, target.name)

    def _source(self, config: dict, wanted: dict) -> dict:
        latest = config["status"].get("latestVersion", 0)
        name = (wanted.get("from") or {}).get("name")
        number = int(wanted.get("revision") or 0) or latest - 1
        for each in controllers_of(self._store, config):
            if name == each["metadata"]["name"] or (not name and version_of(each) == number):
                if version_of(each) == latest:
                    break
                return each
        sought = f'"{name}"' if name else number
        message = f"Invalid value: {sought}: no such earlier version of {config['metadata']['name']}"
        raise _refused(config, message)


def _refused(config: dict, message: str) -> ApiError:
    problem = ("spec.revision", "FieldValueInvalid", message)
    return errors.invalid(DEPLOYMENT_CONFIGS, config["metadata"]["name"], [problem])


def _encoded(controller: dict) -> dict:
    return json.loads(controller["metadata"]["annotations"][ENCODED])

#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ecs_repoint
version_added: 0.1.0
short_description: Point an ECS service at another database endpoint
description:
  - Makes a new revision of the task definition that the service runs, in which the host (and port) of the named
    environment variables is replaced, and rolls the service out to it. All else of the task definition stays as it
    is, secrets by reference, volumes, health checks and tags included.
  - The revision is made from what the service runs, not from the newest one of the family, which may never have been
    released. A newest revision that is already as wanted is used again, so a run that was killed leaves no duplicate
    behind.
  - The desired count is never sent, since scaling owns it. Where it is 0 the rollout ends at once, and the tasks that
    are started later (M(sre.runbooks.ecs_scale)) come up with the new endpoint.
  - It waits for the deployment that it started. A rollout that failed, a circuit breaker that rolled back, another
    deployment in between, and tasks that fail again and again end the wait at once, with the reasons of the stopped
    tasks.
  - B(Risk:) with a desired count above 0 all tasks of the service are replaced.
options:
  cluster:
    description: Name or ARN of the ECS cluster, in O(region).
    type: str
    required: true
  service:
    description: Name of the ECS service. ECS itself must roll it out, not CodeDeploy or an external controller.
    type: str
    required: true
  endpoint_host:
    description:
      - Host name of the database from now on. Give this or O(task_definition).
    type: str
  endpoint_port:
    description:
      - Port of the database from now on. By default each variable keeps the port that it has.
      - A bare host name without a port stays without one; name the variable that holds its port in O(variables).
    type: int
  variables:
    description:
      - Names of the environment variables that hold the address. The value of each is a URL with one host
        (C(scheme://user@host:port/path?query)), C(host:port), a bare host name, or a bare port.
      - A variable that comes from a secret is refused, since the address must then be changed in the secret.
    type: list
    elements: str
    default: [DATABASE_URL]
  made_from:
    description:
      - A variable of the task definition. Where no container has one of the O(variables), those that have this one get it, with
        this one's value and the new address. A service that reads from a replica only when it is told of one is told so.
    type: str
  container:
    description: The only container to change. By default each container that has one of the O(variables).
    type: str
  task_definition:
    description:
      - Go to this existing revision (C(family:revision) or ARN, of the family that the service runs) instead of
        making one. RV(undo) uses it to go back to exactly what was.
    type: str
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - Of environment variables only the host and port of O(variables) appear in results, no other value and no password.
  - Tags that begin with C(aws:) belong to AWS and cannot be copied to a new revision.
  - Whoever registers a revision needs C(iam:PassRole) on the task role and the execution role.
seealso:
  - module: sre.runbooks.ecs_scale
  - module: sre.runbooks.rds_promote_replica
"""

EXAMPLES = r"""
- name: The standby service writes to the promoted replica
  sre.runbooks.ecs_repoint:
    cluster: regami-cluster-secondary
    service: regami-service-secondary
    region: us-west-2
    endpoint_host: "{{ promoted.endpoint.host }}"
    endpoint_port: "{{ promoted.endpoint.port }}"
    lease: "{{ lock.lease }}"

- name: Host and port are two variables of one container
  sre.runbooks.ecs_repoint:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    container: app
    variables: [DB_HOST, DB_PORT]
    endpoint_host: regami-db-primary.cxyz.us-east-1.rds.amazonaws.com
    endpoint_port: 5432

- name: The service reads from a replica
  sre.runbooks.ecs_repoint:
    cluster: regami-cluster
    service: regami-service
    region: us-east-1
    variables: [DATABASE_READ_URL]
    made_from: DATABASE_URL
    endpoint_host: regami-db-emergency.cxyz.us-east-1.rds.amazonaws.com

- name: Back to the revision that ran before
  sre.runbooks.ecs_repoint:
    cluster: regami-cluster-secondary
    service: regami-service-secondary
    region: us-west-2
    task_definition: regami-api:3
"""

RETURN = r"""
task_definition_arn:
  description: The task definition of the service at the end. In check mode the present one.
  returned: when the service was found
  type: str
  sample: arn:aws:ecs:us-west-2:123456789012:task-definition/regami-api:4
registered:
  description: The revision that this run registered, null where it registered none.
  returned: unless refused
  type: str
  sample: regami-api:4
before:
  description: The service as found. C(endpoints) has the host and port of the variables, by container.
  returned: unless refused
  type: dict
  sample:
    desired: 0
    running: 0
    task_definition: regami-api:3
    endpoints: {app.DATABASE_URL: "regami-db-primary.cxyz.us-east-1.rds.amazonaws.com:5432"}
after:
  description: The service at the end. In check mode a revision that would be registered is called C(family:new).
  returned: success
  type: dict
  sample:
    desired: 0
    running: 0
    task_definition: regami-api:4
    endpoints: {app.DATABASE_URL: "regami-db-replica.us-west-2.rds.amazonaws.com:5432"}
steps:
  description: What was done, or would be done in check mode, in order. The step C(settle) only waits and is no change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - do: register
      what: "register a revision of regami-api with app.DATABASE_URL=regami-db-replica.us-west-2.rds.amazonaws.com:5432"
      before: "regami-api:3"
      after: "regami-api:new"
    - do: update
      what: "roll regami-service-secondary out to a revision with app.DATABASE_URL=regami-db-replica.us-west-2.rds.amazonaws.com:5432"
      before: "regami-api:3"
      after: "regami-api:new"
    - {do: settle, what: wait until regami-service-secondary has rolled out, before: null, after: null}
undo:
  description: The same verb with the former revision, which brings back exactly what ran; empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - verb: sre.runbooks.ecs_repoint
      arguments:
        cluster: regami-cluster-secondary
        service: regami-service-secondary
        region: us-west-2
        task_definition: "regami-api:3"
notes:
  description: Always empty for this verb.
  returned: success
  type: list
  elements: str
  sample: []
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 0.4
"""

from ansible_collections.sre.runbooks.plugins.module_utils import task_definition as revisions
from ansible_collections.sre.runbooks.plugins.module_utils.revision_rollout import (
    ROLLOUT_ARGUMENTS,
    RevisionRollout,
    Wish,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import run, verb_module

SERVICES = ("ecs", "dynamodb")
ARGUMENTS = dict(
    ROLLOUT_ARGUMENTS,
    endpoint_host=dict(type="str"),
    endpoint_port=dict(type="int"),
    variables=dict(type="list", elements="str", default=["DATABASE_URL"]),
    container=dict(type="str"),
    made_from=dict(type="str"),
)


class EcsRepoint(RevisionRollout):
    """Roll a service out to a revision with another database endpoint."""

    VERB = "ecs_repoint"

    @staticmethod
    def wish(observed, wanted):
        host, port = wanted["endpoint_host"], wanted["endpoint_port"]
        request = observed["current"]["request"]
        return Wish(
            revisions.repoint(request, wanted["variables"], host, port, wanted["container"], wanted["made_from"])
        )

    @staticmethod
    def shown(request, wanted):
        return {"endpoints": revisions.addresses(request, wanted["variables"], wanted["container"])}

    @staticmethod
    def words(shown):
        return ", ".join(f"{variable}={address}" for variable, address in shown["endpoints"].items())


def main():
    run(
        verb_module(
            ARGUMENTS,
            required_one_of=[("endpoint_host", "task_definition")],
            mutually_exclusive=[("endpoint_host", "task_definition"), ("endpoint_port", "task_definition")],
        ),
        EcsRepoint,
    )


if __name__ == "__main__":
    main()

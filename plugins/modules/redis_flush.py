#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_flush
version_added: 0.1.0
short_description: Remove the keys of a Redis cache, all or those of a pattern, once their number is confirmed
description:
  - Counts what would be removed and refuses until O(confirm_keys) says so many, so that nobody empties another cache than the one
    that is meant. A cache that is in use grows meanwhile; O(growth_percent) is how much of that is accepted.
  - All keys of a database go by C(FLUSHDB ASYNC). Those of a pattern are found by C(SCAN) and removed by C(UNLINK) in rounds of a
    thousand, between which the server serves others; C(KEYS) is never used. In cluster mode each primary is emptied.
  - Run again, after a kill for example, it removes what is left.
  - "B(Risk:) what was in the cache is gone, sessions and queues included where somebody keeps them there, and until it is filled again
    every request asks the database."
options:
  host:
    description: Primary endpoint of the cache, or the configuration endpoint of a cluster.
    type: str
    required: true
  port:
    description: Its port.
    type: int
    default: 6379
  database:
    description: Number of the database. A cluster has only V(0).
    type: int
    default: 0
  pattern:
    description: Only keys that match, as C(SCAN) has it, for example V(session:*). Default is every key of the database.
    type: str
  confirm_keys:
    description: How many keys there are, as the refusal without it says.
    type: int
  growth_percent:
    description: How many more keys than O(confirm_keys) there may be by now. Fewer are always accepted.
    type: int
    default: 10
  login_user:
    description: User of the cache's access control list, where it has one.
    type: str
  login_password:
    description: Password of that user, or the auth token of the cache.
    type: str
  tls:
    description: Connect by TLS, as a cache of ElastiCache with encryption in transit needs it.
    type: bool
    default: false
  ca_cert:
    description: Path of a certificate authority to trust, besides those of the system.
    type: path
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
requirements:
  - redis
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - The options of AWS are those of the lease; without it no AWS credentials are needed.
  - The cache must be reached from where this runs.
seealso:
  - module: sre.runbooks.elasticache_recover
"""

EXAMPLES = r"""
- name: Forget the rows that were cached while the data was wrong
  sre.runbooks.redis_flush:
    host: regami-cache.abc123.use1.cache.amazonaws.com
    pattern: "row:*"
    confirm_keys: 4200
    lease: "{{ lock.lease }}"

- name: Empty the whole cache
  sre.runbooks.redis_flush:
    host: regami-cache.abc123.use1.cache.amazonaws.com
    confirm_keys: 51230
"""

RETURN = r"""
keys:
  description: How many keys there were that would be removed.
  returned: unless refused
  type: int
  sample: 4200
before:
  description: Keys of each primary, as found.
  returned: unless refused
  type: dict
  sample: {keys: 4200, nodes: {"10.0.1.7:6379": 4200}}
after:
  description: The same at the end, as predicted in check mode. A cache that is in use fills again at once.
  returned: success
  type: dict
  sample: {keys: 0, nodes: {"10.0.1.7:6379": 0}}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: remove, what: "remove row:* from 10.0.1.7:6379", before: 4200, after: 0}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "remove row:* from 10.0.1.7:6379"
      instead: "the application fills the cache again"
notes:
  description: What a person should know.
  returned: success
  type: list
  elements: str
  sample: ["4200 keys were confirmed, 4103 are there"]
waited_seconds:
  description: Time spent in waits; always 0.
  returned: unless refused
  type: float
  sample: 0.0
"""

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.sre.runbooks.plugins.module_utils import redis_cache
from ansible_collections.sre.runbooks.plugins.module_utils.aws import together
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module

SERVICES = ()
ARGUMENTS = dict(
    redis_cache.LOGIN_ARGUMENTS,
    host=dict(type="str", required=True),
    port=dict(type="int", default=6379),
    database=dict(type="int", default=0),
    pattern=dict(type="str"),
    confirm_keys=dict(type="int", no_log=False),
    growth_percent=dict(type="int", default=10),
)


class RedisFlush(Verb):
    """Count, be told the number, remove."""

    INSTEAD = "the application fills the cache again"

    def observe(self):
        params = self.params
        nodes = redis_cache.primaries(params, params["host"], params["port"])
        found = together(
            **{
                _name(node): lambda node=node: redis_cache.count(params, node, params["database"], params["pattern"])
                for node in nodes
            }
        )
        return {"nodes": {node: found[_name(node)] for node in nodes}}

    @staticmethod
    def plan(observed, wanted):
        there, confirmed = sum(observed["nodes"].values()), wanted["confirm_keys"]
        what = wanted["pattern"] or f"every key of database {wanted['database']}"
        if there and confirmed is None:
            raise Refusal(
                f"{what} at {wanted['host']} is {there} keys, which cannot be brought back: say confirm_keys={there}"
            )
        if there and there > confirmed * (1 + wanted["growth_percent"] / 100):
            raise Refusal(
                f"{what} at {wanted['host']} is {there} keys, {confirmed} were confirmed (growth_percent is "
                f"{wanted['growth_percent']}): check that this is the cache that is meant, then say confirm_keys={there}"
            )
        steps = tuple(
            Step("remove", f"remove {what} from {_name(node)}", count, 0, {"node": node})
            for node, count in observed["nodes"].items()
            if count
        )
        notes = (f"{confirmed} keys were confirmed, {there} are there",) if there and there != confirmed else ()
        after = {"keys": 0, "nodes": {_name(node): 0 for node in observed["nodes"]}}
        return Plan(steps, after if steps else {}, notes, {"keys": there})

    def remove(self, node):
        redis_cache.remove(self.params, node, self.params["database"], self.params["pattern"], self.keep_lease)

    def view(self, observed):
        nodes = {_name(node): count for node, count in observed["nodes"].items()}
        return {"keys": sum(nodes.values()), "nodes": nodes}


def _name(node):
    return f"{node[0]}:{node[1]}"


def main():
    module = verb_module(ARGUMENTS)
    if not redis_cache.HAS_REDIS:
        module.fail_json(msg=missing_required_lib("redis"))
    run(module, RedisFlush)


if __name__ == "__main__":
    main()

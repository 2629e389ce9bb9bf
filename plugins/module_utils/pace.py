# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fast a run that looks at many services may ask AWS: what it took beyond the account's quota, deployments would be refused.

A recovery is not held back: it asks little, and is in a hurry. The processes of all tasks share one token bucket for each service
and region, as AWS keeps one; it lies in a file without a name that the process of the run opens before it forks.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import threading
import time

# What an account may ask of a service in a region, or of Route 53 in all of them: (at once, a second in the long run).
# https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/throttling-api-requests.html
# https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-api-throttling.html
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html (the least of its kinds of reads)
QUOTAS = {"ecs": (50, 20), "elbv2": (40, 10), "route53": (50, 10)}
GLOBAL = ("route53",)
# The share of a quota that a run takes: others ask, too.
SHARE = 0.8

_shared = None
_threads = threading.Lock()


def begin():
    """Have the processes that are forked from this one keep pace together."""
    global _shared
    _shared = tempfile.TemporaryFile()  # noqa: SIM115


def keep(service, region):
    """Wait until AWS may be asked once more, where the processes of this run keep pace."""
    if _shared is None or service not in QUOTAS:
        return
    name = service if service in GLOBAL else f"{service} {region}"
    size, refill = (SHARE * each for each in QUOTAS[service])
    # A lock of POSIX is one of the process and not of its threads, and ends with it.
    with _threads:
        fcntl.lockf(_shared, fcntl.LOCK_EX)
        try:
            buckets = json.loads(os.pread(_shared.fileno(), os.fstat(_shared.fileno()).st_size, 0) or b"{}")
            buckets[name], wait = taken(buckets.get(name), size, refill, time.monotonic())
            text = json.dumps(buckets).encode()
            os.pwrite(_shared.fileno(), text, 0)
            os.ftruncate(_shared.fileno(), len(text))
        finally:
            fcntl.lockf(_shared, fcntl.LOCK_UN)
    if wait:
        time.sleep(wait)


def taken(bucket, size, refill, now):
    """Pure: (a token bucket without one more token, the seconds until that token is there).

    Args:
        bucket: [tokens, when], below zero by what is promised already; None for one that is full.
        size: tokens that it holds at most.
        refill: tokens a second.
        now: seconds of any clock that all processes share.
    """
    tokens, then = bucket or (size, now)
    tokens = min(size, tokens + (now - then) * refill) - 1
    return [tokens, now], max(0.0, -tokens / refill)

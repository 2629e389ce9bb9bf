# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Redis or Valkey, asked through redis-py, with its errors as sentences.

Nothing here uses KEYS, which stops the server while it looks through all of them: https://redis.io/docs/latest/commands/keys/
"""

from __future__ import annotations

from contextlib import contextmanager

from . import read_only
from .errors import LostAnswer, Refusal, Stop, Unreachable

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    HAS_REDIS = True
except ImportError:
    HAS_REDIS = False

# Seconds for a connection, and for an answer.
CONNECT_SECONDS, ANSWER_SECONDS = 3, 8
# Keys that one SCAN looks at, and one round removes: the server serves others in between.
ROUND = 1000

LOGIN_ARGUMENTS = dict(
    login_user=dict(type="str"),
    login_password=dict(type="str", no_log=True),
    tls=dict(type="bool", default=False),
    ca_cert=dict(type="path"),
)


def connect(params, host, port, database=0):
    """A client that sends each command once: what is repeated is for the caller to say."""
    more = {"ssl": True, "ssl_ca_certs": params["ca_cert"]} if params["tls"] else {}
    return redis.Redis(
        host=host,
        port=port,
        db=database,
        username=params["login_user"],
        password=params["login_password"],
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
        **more,
    )


@contextmanager
def asked(where, change=False):
    """Errors of redis-py as ours. A `change` whose answer does not come may have been made.

    Raises:
        Unreachable, or LostAnswer for a change: no answer.
        Refusal: it answers, and does not take the login or the command.
    """
    if change:
        read_only.refuse(f"UNLINK to the cache {where}")
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise Refusal(
            f"the cache {where} does not accept the login: check login_user and login_password, and tls"
        ) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        lost = f"the cache {where} does not answer ({type(error).__name__}): check host, port, tls and security groups"
        raise (LostAnswer if change else Unreachable)(lost) from error
    except redis.exceptions.NoPermissionError as error:
        raise Refusal(f"this user may not do that at the cache {where}: {error}") from error
    except redis.exceptions.ReadOnlyError as error:
        raise LostAnswer(f"the cache {where} is a replica now") from error
    except redis.exceptions.RedisError as error:
        raise Stop(f"the cache {where}: {error}") from error


def ping(params, host, port):
    """ "" where it answers, else why not."""
    try:
        with asked(f"{host}:{port}"), connect(params, host, port) as client:
            client.ping()
            return ""
    except Stop as error:
        return str(error)


def primaries(params, host, port):
    """[(host, port)] of every primary: the shards of a cluster, else this one.

    Raises:
        Refusal: it is a replica, which takes no change.
    """
    where = f"{host}:{port}"
    with asked(where), connect(params, host, port) as client:
        if client.info("cluster").get("cluster_enabled"):
            # [first slot, last slot, [address, port, id] of its primary, ...]; "" stands for the one that was asked.
            shards = [each[2] for each in client.execute_command("CLUSTER", "SLOTS")]
            return sorted({((address or b"").decode() or host, number) for address, number, *_rest in shards})
        if client.info("replication")["role"] != "master":
            raise Refusal(f"{where} is a replica, which takes no change: give the primary endpoint of the cache")
    return [(host, port)]


def count(params, node, database, pattern):
    """Keys of a node: all, or those of a pattern, counted in rounds."""
    with asked(f"{node[0]}:{node[1]}"), connect(params, *node, database) as client:
        if pattern is None:
            return client.dbsize()
        return sum(1 for _key in client.scan_iter(match=pattern, count=ROUND))


def remove(params, node, database, pattern, tick):
    """Remove the keys of a node; memory is freed beside the serving. Returns how many there were, None where nobody counted."""
    with asked(f"{node[0]}:{node[1]}", change=True), connect(params, *node, database) as client:
        if pattern is None:
            client.flushdb(asynchronous=True)
            return None
        removed, cursor = 0, None
        while cursor != 0:
            tick()
            cursor, keys = client.scan(cursor or 0, match=pattern, count=ROUND)
            # One key a command: in a cluster keys of several slots are not taken together.
            with client.pipeline(transaction=False) as commands:
                for key in keys:
                    commands.unlink(key)
                removed += sum(commands.execute())
        return removed

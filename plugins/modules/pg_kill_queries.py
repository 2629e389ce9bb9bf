#!/usr/bin/python
# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_kill_queries
version_added: 0.1.0
short_description: End queries and sessions of PostgreSQL, and no others
description:
  - Cancels the statements of the sessions that the filters mean, and ends the sessions that they still mean after a grace. All
    filters that are given must hold; without any the task is refused.
  - Only sessions of clients are ended. Replication, autovacuum and other background processes, superusers, the roles of Amazon
    RDS, sessions of this collection and what is protected are left alone whatever the filters say.
  - Who is meant is decided by the server in the statement that sends the signals, by process id and start, and only sessions
    that were there at the first look are ended. Sessions that an application opens in their place are left alone.
  - Needs one connection, kept for the whole task. Where no slot is free it takes one of those reserved for members of
    C(rds_superuser) or C(pg_use_reserved_connections), and waits up to 10 seconds for one.
  - The result tells who holds the connections and who waits for whom, also where nothing is ended.
  - B(Risk:) what an ended session has not committed is lost, and an application that does not open a new one fails.
options:
  db_instance:
    description: The RDS instance, in O(region). Give this or O(login_host).
    type: str
  login_host:
    description: Host of the server, where it is not one of RDS or the API of RDS does not answer. Not that of a proxy.
    type: str
  login_port:
    description: Port of O(login_host).
    type: int
    default: 5432
  min_query_seconds:
    description: Sessions that have been running one statement for at least so many seconds.
    type: float
  min_transaction_seconds:
    description: Sessions with a transaction of at least so many seconds, idle in it or not.
    type: float
  min_idle_in_transaction_seconds:
    description: Sessions that have been idle in a transaction for at least so many seconds.
    type: float
  min_idle_seconds:
    description: Sessions that have been idle, in no transaction, for at least so many seconds.
    type: float
  states:
    description: Sessions in one of these states.
    type: list
    elements: str
    choices: [active, idle, idle in transaction, idle in transaction (aborted), fastpath function call, disabled]
  users:
    description: Sessions of one of these users.
    type: list
    elements: str
  databases:
    description: Sessions in one of these databases. Without it all databases of the server are meant.
    type: list
    elements: str
  applications:
    description: Sessions with one of these application names, in which V(*) and V(?) stand for any text and any character.
    type: list
    elements: str
  client_addresses:
    description: Sessions from one of these addresses or networks.
    type: list
    elements: str
  query_pattern:
    description:
      - Sessions whose present statement, or last one where they are idle, matches this regular expression of PostgreSQL, in
        any case.
    type: str
  only_blocking:
    description: Sessions that hold what others wait for and wait for nothing themselves, which are the heads of chains.
    type: bool
    default: false
  only_idle:
    description: Sessions that are idle and in no transaction.
    type: bool
    default: false
  protected_users:
    description: Users whose sessions are left alone.
    type: list
    elements: str
    default: []
  protected_databases:
    description: Databases whose sessions are left alone.
    type: list
    elements: str
    default: []
  protected_applications:
    description: Application names whose sessions are left alone, with V(*) and V(?) as in O(applications).
    type: list
    elements: str
    default: [pg_dump, pg_dumpall, pg_restore, pg_basebackup]
  signal:
    description:
      - V(cancel) ends statements and keeps the connections. It does nothing to a session that is idle, in a transaction or not.
      - V(terminate) ends the sessions at once.
      - V(cancel_then_terminate) cancels what runs, waits O(grace_seconds), and ends what the filters then still mean.
    type: str
    choices: [cancel, cancel_then_terminate, terminate]
    default: cancel_then_terminate
  grace_seconds:
    description: Seconds between cancelling and ending at most.
    type: float
    default: 5
  max_per_round:
    description:
      - At most so many sessions are ended at once, the ones with most others behind them first. B(Risk:) those who lost their
        sessions connect again at the same moment.
    type: int
    default: 50
  round_pause_seconds:
    description: Seconds between two rounds.
    type: float
    default: 2
  wait_timeout:
    description: Seconds that a session may take to end once it is told to.
    type: int
    default: 30
extends_documentation_fragment:
  - sre.runbooks.verb
  - sre.runbooks.database_login
  - sre.runbooks.attributes
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
author:
  - sre.runbooks contributors (@sre-runbooks)
notes:
  - The user must be granted C(pg_signal_backend), and C(pg_monitor) to see sessions of others, as the master user of RDS is.
    Without them it sees and ends the sessions of its own roles only.
  - Statements are shown without their literals and cut.
seealso:
  - name: Server signaling functions
    description: Documentation of PostgreSQL.
    link: https://www.postgresql.org/docs/16/functions-admin.html#FUNCTIONS-ADMIN-SIGNAL
"""

EXAMPLES = r"""
- name: End what has been running for more than five minutes
  sre.runbooks.pg_kill_queries:
    db_instance: regami-db-primary
    region: us-east-1
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    databases: [regami]
    min_query_seconds: 300

- name: Free what a crowd waits for
  sre.runbooks.pg_kill_queries:
    db_instance: regami-db-primary
    region: us-east-1
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    only_blocking: true
    protected_applications: [pg_dump, "alembic*"]
    signal: terminate

- name: Give connections back that an application has forgotten
  sre.runbooks.pg_kill_queries:
    db_instance: regami-db-primary
    region: us-east-1
    login_user: regami_admin
    login_password: "{{ db_admin_password }}"
    login_db: regami
    users: [regami]
    min_idle_seconds: 600
    max_per_round: 20
"""

RETURN = r"""
sessions:
  description:
    - The sessions that were meant, and what became of each, V(planned), V(cancelled), V(terminated), V(gone) before it was its
      turn, or V(alive) although it was told to end.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - pid: 4711
      user: regami
      database: regami
      application: regami-api
      client: 10.0.3.7
      state: active
      wait: null
      started: "2024-01-12T14:30:00.123456+00:00"
      query_seconds: 612
      transaction_seconds: 612
      query: "SELECT * FROM rows WHERE payload LIKE ?"
      outcome: terminated
connections:
  description:
    - Who held the connections at the beginning, by user, application and state, and how many there are. Of C(max_connections)
      some are reserved for superusers and some for entitled roles; C(free) is what others may still take.
  returned: unless refused
  type: dict
  sample:
    max_connections: 100
    reserved_for_superusers: 3
    reserved_for_entitled: 2
    used: 97
    free: 0
    groups: [{user: regami, application: regami-api, state: idle in transaction, count: 91}]
blocking_chains:
  description:
    - Who waited for whom at the beginning, the longest chain first. The head holds what all others wait for. It is null where
      it is no session of a client that can be seen; C(what) says what it is.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - head: {pid: 4711, user: regami, application: regami-api, state: idle in transaction, query: "UPDATE rows SET payload = ?"}
      what: client backend 4711
      waiting: 2
      depth: 2
      waits: [{pid: 4712, waits_for: 4711}, {pid: 4713, waits_for: 4712}]
prepared_transactions:
  description: Transactions that were prepared and neither committed nor rolled back. They hold their locks, and no session ends them.
  returned: unless refused
  type: list
  elements: dict
  sample: [{gid: "payment-?", owner: regami, database: regami, seconds: 86400}]
left:
  description: RV(connections), RV(blocking_chains) and RV(prepared_transactions) at the end.
  returned: unless refused
  type: dict
  sample:
    connections: {max_connections: 100, reserved_for_superusers: 3, reserved_for_entitled: 2, used: 6, free: 89, groups: []}
    blocking_chains: []
    prepared_transactions: []
before:
  description: How many sessions there were, how many the filters meant, and how many waited for a lock.
  returned: unless refused
  type: dict
  sample: {meant: 91, connections: 97, free: 0, waiting: 12}
after:
  description: The same at the end, as far as it can be predicted in check mode.
  returned: success
  type: dict
  sample: {meant: 0, connections: 6, free: 89, waiting: 0}
steps:
  description: What was done, or would be done in check mode, in order.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - {do: cancel, what: cancel what 3 sessions run, before: 3 run, after: cancelled}
    - {do: terminate, what: end those of 50 sessions that are still meant, before: 50 sessions, after: ended}
undo:
  description: What stays as it is, and what a person can do instead. Empty without a change.
  returned: unless refused
  type: list
  elements: dict
  sample:
    - stays: "cancel what 3 sessions run"
      instead: "whoever needs it connects and asks again"
notes:
  description: What a person should know, for example who holds what others wait for and is protected.
  returned: success
  type: list
  elements: str
  sample: ["behind autovacuum worker 812, which is left alone: 12 sessions"]
waited_seconds:
  description: Time spent in waits.
  returned: unless refused
  type: float
  sample: 5.2
"""

import time
from collections import Counter

from ansible_collections.sre.runbooks.plugins.module_utils import rds, sessions
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Refusal, Unreachable, WaitTimeout
from ansible_collections.sre.runbooks.plugins.module_utils.postgres import Database, Line
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import (
    LOGIN_ARGUMENTS,
    PASSWORD_SOURCES,
    Login,
)
from ansible_collections.sre.runbooks.plugins.module_utils.verb import Plan, Step, Verb, run, verb_module
from ansible_collections.sre.runbooks.plugins.module_utils.waiting import wait_until

# AWS is asked where the server is, for the password, and for the lease.
SERVICES = ("rds", "secretsmanager", "dynamodb")
ARGUMENTS = dict(
    db_instance=dict(type="str"),
    login_host=dict(type="str"),
    login_port=dict(type="int", default=5432),
    min_query_seconds=dict(type="float"),
    min_transaction_seconds=dict(type="float"),
    min_idle_in_transaction_seconds=dict(type="float"),
    min_idle_seconds=dict(type="float"),
    states=dict(
        type="list",
        elements="str",
        choices=[
            "active",
            "idle",
            "idle in transaction",
            "idle in transaction (aborted)",
            "fastpath function call",
            "disabled",
        ],
    ),
    users=dict(type="list", elements="str"),
    databases=dict(type="list", elements="str"),
    applications=dict(type="list", elements="str"),
    client_addresses=dict(type="list", elements="str"),
    query_pattern=dict(type="str"),
    only_blocking=dict(type="bool", default=False),
    only_idle=dict(type="bool", default=False),
    protected_users=dict(type="list", elements="str", default=[]),
    protected_databases=dict(type="list", elements="str", default=[]),
    protected_applications=dict(type="list", elements="str", default=list(sessions.BACKUPS)),
    signal=dict(type="str", choices=["cancel", "cancel_then_terminate", "terminate"], default="cancel_then_terminate"),
    grace_seconds=dict(type="float", default=5),
    max_per_round=dict(type="int", default=50),
    round_pause_seconds=dict(type="float", default=2),
    wait_timeout=dict(type="int", default=30),
    **LOGIN_ARGUMENTS,
)


class PgKillQueries(Verb):
    """End queries and sessions, and no others."""

    INSTEAD = "whoever needs it connects and asks again"

    def __init__(self, module):
        super().__init__(module)
        self.login = Login(self.params, self.aws)
        self.sessions = None
        self.first = self.last = None
        self.outcome = {}  # of each session that was told to end, or was to be told

    def observe(self):
        if self.sessions is None:
            _refuse_without_filter(self.params)
            self.sessions = sessions.Sessions(Line(self._database(), tick=self.keep_lease), self.params)
        self.last = self.sessions.look()
        self.first = self.first or self.last
        return {"seen": self.last, "since": self.first.now}

    def _database(self):
        if self.params["login_host"]:
            return Database(self.params["login_host"], self.params["login_port"], self.login, self.aws.region)
        name, region = self.params["db_instance"], self.aws.region
        instance = rds.describe(self.aws, name, region)
        if instance is None:
            raise rds.not_found(self.aws, name, region)
        if not instance["host"]:
            raise Refusal(f"{name} is {instance['status']} and has no endpoint yet")
        return rds.database(instance, self.login)

    @staticmethod
    def plan(observed, wanted):
        seen, size, signal = observed["seen"], wanted["max_per_round"], wanted["signal"]
        if size < 1:
            raise Refusal(f"max_per_round is {size}: give 1 or more")
        chosen = meant(seen, observed["since"])
        _refuse_unpermitted(seen, chosen, wanted)
        in_turn = [each for each in chosen if each.runs] if signal == "cancel" else chosen
        rounds = [in_turn[start : start + size] for start in range(0, len(in_turn), size)]
        steps = []
        for number, batch in enumerate(rounds, 1):
            if number > 1:
                steps.append(Step("pause", f"let applications connect again before round {number}", waits=True))
            steps += _round(batch, signal, f" (round {number} of {len(rounds)})" if len(rounds) > 1 else "")
        ended = 0 if signal == "cancel" else sum(signal == "terminate" or not each.runs for each in chosen)
        after = {"meant": len(chosen) - len(in_turn), "connections": seen.used - ended} if steps else {}
        return Plan(tuple(steps), after, tuple(_notes(seen, len(chosen) - len(in_turn))))

    # The steps, named as in the plan.

    def cancel(self, ids):
        self._tell(self.sessions.cancel, ids, "cancelled")
        only, grace = self.params["signal"] == "cancel", self.params["grace_seconds"]
        try:
            _left, seconds = wait_until(
                lambda: self.sessions.still_meant(ids, running=only),
                lambda left: not left,
                "what was cancelled ends",
                grace,
                tick=self.keep_lease,
                state=lambda left: f"{len(left)} to go",
            )
        except WaitTimeout as timeout:
            seconds = grace
            if only:
                self.notes.append(f"{timeout}: signal=terminate ends their sessions")
        self.waited_seconds += seconds

    def terminate(self, ids):
        told = self._tell(self.sessions.terminate, ids, "terminated")
        try:
            self.wait(
                lambda: self.sessions.alive(told),
                lambda left: not left,
                f"{len(told)} sessions end",
                state=_still_there,
            )
        except WaitTimeout:
            self.outcome.update(dict.fromkeys(self.sessions.alive(told), "alive"))
            raise

    def pause(self):
        until = time.monotonic() + self.params["round_pause_seconds"]
        while (left := until - time.monotonic()) > 0:
            self.keep_lease()
            time.sleep(min(left, 1))

    def _tell(self, send, ids, outcome):
        for each in ids:
            self.outcome.setdefault(each, "gone")
        try:
            told = send(ids)
        except Unreachable as error:
            # Some may have got it.
            self.outcome.update(dict.fromkeys(ids, outcome))
            raise LostAnswer(str(error)) from error
        self.outcome.update(dict.fromkeys(told, outcome))
        return told

    def is_change(self, steps):
        if self.check_mode:
            return bool(steps)
        return any(outcome != "gone" for outcome in self.outcome.values())

    def view(self, observed):
        seen = observed["seen"]
        return {
            "meant": len(meant(seen, observed["since"])),
            "connections": seen.used,
            "free": seen.free,
            "waiting": seen.waiting,
        }

    def returned(self):
        told = [
            dict(each.told(), outcome=self.outcome.get(each.id, "planned"))
            for each in meant(self.first, self.first.now)
        ]
        return {**sessions.diagnosis(self.first), "sessions": told, "left": sessions.diagnosis(self.last)}


def meant(seen, since):
    """The sessions to end, those first that most others wait for, then those with the longest transactions.

    Who came after `since`, the first look, took the place of one that was ended: ending it too would go on for ever.
    """
    behind = {chain.head: len(chain.waiting) for chain in sessions.found_chains(seen)}
    return sorted(
        (each for each in seen.sessions if each.chosen and each.started <= since),
        key=lambda each: (-behind.get(each.pid, 0), -(each.transaction_seconds or 0), each.started, each.pid),
    )


def _round(batch, signal, suffix):
    running, ids = [each.id for each in batch if each.runs], [each.id for each in batch]
    steps = []
    if running and signal != "terminate":
        what = f"cancel what {_count(running)} run{'s' if len(running) == 1 else ''}{suffix}"
        steps.append(Step("cancel", what, f"{len(running)} run", "cancelled", {"ids": running}))
    if signal != "cancel":
        which = (
            f"end {_count(ids)}"
            if signal == "terminate" or not running
            else f"end those of {_count(ids)} that are still meant"
        )
        steps.append(Step("terminate", f"{which}{suffix}", _count(ids), "ended", {"ids": ids}))
    return steps


def _notes(seen, idle):
    if idle:
        yield f"{idle} of the sessions run nothing that could be cancelled: signal=terminate ends them"
    left_alone = Counter(each.protection for each in seen.sessions if each.matches and each.protection)
    for protection, count in sorted(left_alone.items()):
        yield f"left alone although the filters mean {'it' if count == 1 else 'them'}: {count} ({protection})"
    if seen.hidden:
        yield f"{seen.hidden} sessions of other users are hidden from this one: grant it pg_monitor to see them"
    by_pid = {each.pid: each for each in seen.sessions}
    for chain in sessions.found_chains(seen):
        head = by_pid.get(chain.head)
        if head is None or head.protection:
            yield f"behind {sessions.what_heads(chain, head)}, which is left alone: {_count(chain.waiting)}"
    if seen.prepared:
        yield f"{len(seen.prepared)} prepared transactions hold their locks until COMMIT PREPARED or ROLLBACK PREPARED"


def _refuse_without_filter(wanted):
    """Everybody is meant by no filter at all, which is hardly ever what a person means."""
    if not any(sessions.is_given(wanted[name]) for name in sessions.FILTERS):
        raise Refusal(
            f"no filter given, which would mean every session: give one of {', '.join(sorted(sessions.FILTERS))}"
        )


def _refuse_unpermitted(seen, chosen, wanted):
    count = sum(each.matches and each.protection == "not permitted" for each in seen.sessions)
    if count and not chosen:
        user = wanted["login_user"] or "the user of login_secret"
        raise Refusal(
            f"{user} may not end the {count} sessions that are meant: GRANT pg_signal_backend TO it, or log in as another"
        )


def _still_there(ids):
    if not ids:
        return "none is left"
    return f"{len(ids)} are still there: {', '.join(str(pid) for pid, _start in ids[:5])}"


def _count(some):
    return f"{len(some)} session{'' if len(some) == 1 else 's'}"


def main():
    run(
        verb_module(
            ARGUMENTS,
            required_one_of=[("db_instance", "login_host")],
            required_by={"db_instance": ["login_db"], "login_host": ["login_db"]},
            mutually_exclusive=[
                ("db_instance", "login_host"),
                PASSWORD_SOURCES,
                # No session does both, so that nobody would ever be meant.
                ("min_query_seconds", "min_idle_in_transaction_seconds", "min_idle_seconds"),
            ],
        ),
        PgKillQueries,
    )


if __name__ == "__main__":
    main()

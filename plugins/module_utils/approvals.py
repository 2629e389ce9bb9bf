# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A playbook that was proposed, and what a person or the inventory decided on it; all of it stands in the records of runs."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import asdict, dataclass

from . import decisions, incidents, record
from .errors import Refusal, near

# Kinds of events in a timeline.
PROPOSED = "proposed"
APPROVED = "approved"
DENIED = "denied"
# Where a proposal stands; besides APPROVED and DENIED.
LOOKS = "looks"
WAITING = "waiting"

# Playbooks that change nothing as long as nobody says `remediate=true`, `steps` or `remedy`: they ask nobody.
LOOKING = frozenset(
    (
        "cache_failure",
        "db_connections",
        "high_error_rate",
        "network_diagnosis",
        "performance_degradation",
        "recovery_validation",
        "security_breach",
        "triage",
    )
)
# What a proposal is about.
WANTED = ("env", "host", "playbook", "remediate", "because")
# Who approves where the inventory does (`alert_may_run`).
INVENTORY = "the inventory"


@dataclass(frozen=True)
class Proposal:
    """A playbook to run.

    Attributes:
        id: what a person decides on.
        env, host, playbook, remediate: what is run for whom; `remediate` lets a playbook act that otherwise only looks.
        because: why it is proposed.
        state: WAITING, APPROVED, DENIED, or LOOKS, which needs no approval.
        by: who decided.
        at: when it was proposed, ISO 8601 in UTC.
        incident: that of the run which proposed it, empty where it belongs to none.
    """

    id: str
    env: str
    host: str
    playbook: str
    remediate: bool
    because: str
    state: str
    by: str = ""
    at: str = ""
    incident: str = ""

    @property
    def command(self):
        """What a person types to run it without anybody's approval."""
        what = f"ansible-playbook playbooks/{self.playbook}.yml -e env={self.env} --limit {self.host}"
        return what + " -e remediate=true" * self.remediate

    def returned(self):
        return dict(asdict(self), command=self.command)


def recent(parent, now, minutes, decided=()):
    """{ID: Proposal} of the records in the folder `parent`, of runs that began in the last twice `minutes` before `now` (epoch
    seconds): a run goes on proposing for a while after it began; and of what other controllers have `decided` in that time."""
    since, kinds = record.now(now - 60 * 2 * minutes), (PROPOSED, APPROVED, DENIED)
    runs = incidents.runs(parent, kinds, since.replace(":", "")[:13])
    late = [each for each in decided if each["event"] in kinds and each["time"] >= since]
    return standing(incidents.merged(decisions.completed(runs, late)))


def standing(events):
    """Pure: {id: Proposal} of what `events` tell, as it stands after the last of them."""
    found = {}
    for event in events:
        if event["event"] == PROPOSED:
            found[event["proposal"]] = proposed(event)
        elif event["event"] in (APPROVED, DENIED) and event["proposal"] in found:
            before = asdict(found[event["proposal"]])
            found[event["proposal"]] = Proposal(**dict(before, state=event["event"], by=event["by"]))
    return found


def proposed(event):
    """Pure: the Proposal of an event that says PROPOSED."""
    known = {key: event[key] for key in WANTED}
    return Proposal(event["proposal"], state=WAITING, at=event["time"], incident=event.get("incident", ""), **known)


def first_decision(events):
    """Pure: the first event by which a person approved or denied something, None where nobody did."""
    kinds = (APPROVED, DENIED)
    return next((event for event in events if event["event"] in kinds and event["by"] != INVENTORY), None)


def pending(events, now, minutes):
    """Pure: [Proposal] that wait for a decision, or were approved and have not begun, the first first; none that has become too old.

    Args:
        events: those of an incident by time, each with its `record`.
        now: epoch seconds.
        minutes: so long a proposal waits for a decision.
    """
    approved = {event["proposal"]: event["time"] for event in events if event["event"] == APPROVED}
    began = [(event["playbook"], event["time"]) for event in events if event["event"] == "run_started"]

    def is_pending(each):
        if each.state == APPROVED:
            return not any(name == each.playbook and at >= approved[each.id] for name, at in began)
        return each.state == WAITING

    return [each for each in standing(events).values() if is_pending(each) and not _is_over(each, now, minutes)]


def propose(known, wanted, now, minutes, allowed, incident=""):
    """Pure: (Proposal, entries for the timeline) of a playbook that somebody or something wants to run.

    The same one that still waits is not proposed twice, however many alerts lead to it. What the inventory approved once did not
    help if it is proposed again so soon, and then it is for a person.

    Args:
        known: as `standing` returns.
        wanted: {name of WANTED: value}.
        now: epoch seconds.
        minutes: so long a proposal waits for a decision.
        allowed: names of playbooks that the inventory approves.
        incident: what the run belongs to that proposes it.
    """
    what = (wanted["env"], wanted["host"], wanted["playbook"], wanted["remediate"])
    if wanted["playbook"] in LOOKING and not wanted["remediate"]:
        return Proposal("", state=LOOKS, **wanted), []
    same = [each for each in known.values() if (each.env, each.host, each.playbook, each.remediate) == what]
    waiting = [each for each in same if each.state == WAITING and not _is_over(each, now, minutes)]
    if waiting:
        return waiting[-1], []
    proposal_id = f"{wanted['playbook']}-{hashlib.sha256(f'{what} {now}'.encode()).hexdigest()[:8]}"
    named = {"proposal": proposal_id, "incident": incident}
    entries = [{"event": PROPOSED, **named, **wanted}]
    tried = any(each.by == INVENTORY and not _is_over(each, now, minutes) for each in same)
    if wanted["playbook"] in allowed and not tried:
        entries.append({"event": APPROVED, **named, "by": INVENTORY})
        return Proposal(proposal_id, state=APPROVED, by=INVENTORY, incident=incident, **wanted), entries
    return Proposal(proposal_id, state=WAITING, incident=incident, **wanted), entries


def decide(known, proposal_id, by, deny, env, now, minutes):
    """Pure: (Proposal, entries for the timeline) of a decision.

    Raises:
        Refusal: there is no such proposal, it is for another environment, was decided before, or waited too long.
    """
    found = known.get(proposal_id)
    if found is None:
        told = near(proposal_id, [each.id for each in known.values() if each.state == WAITING])
        raise Refusal(
            f"there is no proposal {proposal_id} of the last {2 * minutes:g} minutes ({told}); nothing was changed"
        )
    if found.env != env:
        raise Refusal(f"{proposal_id} is for env={found.env}, not {env}; nothing was changed")
    if found.state != WAITING:
        raise Refusal(f"{proposal_id} was {found.state} by {found.by} already; nothing was changed")
    if _is_over(found, now, minutes):
        raise Refusal(
            f"{proposal_id} was proposed at {found.at}, more than {minutes:g} minutes ago, and may no longer be right: look "
            f"again with ansible-playbook playbooks/triage.yml -e env={env}; nothing was changed"
        )
    state = DENIED if deny else APPROVED
    entry = {"event": state, "proposal": proposal_id, "by": by, "incident": found.incident}
    return Proposal(**dict(asdict(found), state=state, by=by)), [entry]


def _is_over(proposal, now, minutes):
    return now - datetime.datetime.fromisoformat(proposal.at).timestamp() > 60 * minutes

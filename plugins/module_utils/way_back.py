# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What takes a recorded run back: each change in reverse, and only where all is still as that change left it.

"Still as it left it" is asked of the verb that made the change: a verb that finds nothing to do, with the same arguments and
in check mode, finds what it has made. So a change by anybody since then is seen, and nothing is compared by a second rule.
"""

from __future__ import annotations

import itertools

try:
    import yaml
except ImportError:
    yaml = None

from . import record
from .errors import Refusal
from .record_bucket import own_name
from .verb import REFUSED

# What only an undo asks, whatever its playbook is called. Its own runs are not taken back, the same command again goes on with them.
_VERB = "sre.runbooks.way_back"

# What a run is given anew: how to reach AWS, and the lease. The database's password stands in no record.
_GIVEN_ANEW = {
    "access_key",
    "aws_ca_bundle",
    "aws_config",
    "debug_botocore_endpoint_logs",
    "endpoint_url",
    "lease",
    "profile",
    "secret_key",
    "session_token",
    "validate_certs",
    "wait_timeout",
}
# A part of masking.HIDDEN, and all of what records of earlier versions have.
_SECRET = "***"
_HIDDEN = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
LOGIN = {
    "login_user": "{{ db_admin_user | default(omit) }}",
    "login_password": "{{ db_admin_password | default(omit, true) }}",
    "login_secret": "{{ db_admin_secret | default(omit) }}",
    "login_iam": "{{ db_iam | default(omit) }}",
}
_SAID_OF_LOGIN = ("login_db", "sslmode", "ssl_root_cert")
# A cluster is named by its context or host, which the record has; who may do what there is the one who takes the run back.
CLUSTER = {
    "kubeconfig": "{{ kubernetes_kubeconfig | default(omit) }}",
    "api_key": "{{ kubernetes_api_key | default(omit) }}",
    "ca_cert": "{{ kubernetes_ca_cert | default(omit) }}",
}
# What else a verb is told anew: how to log in, and, by undo.yml, what a person accepts.
ANEW = {
    "iam_revoke": {"accept_live_sessions": "{{ live_sessions_accepted | default(omit) }}"},
    "recovery_api_rollback": {
        "token": "{{ recovery_api_token | default(omit) }}",
        "dns_servers": "{{ dns_servers | default(omit) }}",
    },
}
# What its tasks are called: by these names a killed undo goes on, and a review knows what was taken back.
_ASKS, _LEFT = ". Is it still as ", " left it"
_TAKES = ". Take back: "
_ALONE = "Left alone, since something changed it after that run: "


def call(verb, outcome):
    """What the timeline keeps of a verb that changed something; None for one that did not.

    Args:
        verb: its name, with the collection's.
        outcome: its result, as ansible has it.
    """
    if verb.endswith(".incident_lock") or not outcome.get("changed"):
        return None
    given = (outcome.get("invocation") or {}).get("module_args") or {}
    # Of a verb that failed on its way, which says nothing of what is after it; its waits tell of nothing before and after.
    done = [step["what"] for step in outcome.get("steps", []) if step.get("before") != step.get("after")]
    return {
        "verb": verb,
        "arguments": _told({name: value for name, value in given.items() if name not in _GIVEN_ANEW}),
        "what": [step["what"] for step in outcome.get("steps", [])],
        "undo": outcome.get("undo", []),
        **({} if "after" in outcome else {"half_way": done}),
    }


def _told(value):
    """`value` without what nobody said and what no log may have, also in the dictionaries and lists in it."""
    if isinstance(value, dict):
        return {name: _told(each) for name, each in value.items() if each is not None and each != _HIDDEN}
    return [_told(each) for each in value] if isinstance(value, list) else value


def newest(records, env):
    """Name of the last record of `env` that changed something, or went on with one that did, or was killed as it did, and is no undo;
    None where there is none.

    Args:
        records: `Records`.
    """
    for name in records.newest_first(env):
        # One that found all done by the run that it went on with is what ended that run.
        chain = [events for _name, events in _chain(records, name)]
        is_run = not is_undo(chain[0]) and not record.is_plan(chain[0])
        if is_run and any(_calls(each) for each in chain):
            return name
    return None


def way_back(records, wanted, env):
    """How the run `wanted` (the name of its record) is taken back.

    Args:
        records: `Records`.

    Returns a dict: record, playbook, hosts (whose changes are taken back), run_leases ({host: {name, table, region}}), calls (the newest
    first, each with host, verb, arguments, what, undo, and half_way where the verb failed), left (what the changes did that nothing
    takes back, with what to do instead). Raises Refusal.
    """
    (name, first), *earlier = _chain(records, wanted)
    start = next((event for event in first if event["event"] == "run_started"), None)
    if start is None:
        raise Refusal(f"{name} is no record of a run: say -e run=NAME with a folder of {records.folder}")
    command = f"ansible-playbook playbooks/{start['playbook']}.yml -e env={start['env']}"
    if start["env"] != env:
        raise Refusal(f"{name} is a run of env={start['env']}: say -e env={start['env']} to take it back")
    if is_undo(first):
        raise Refusal(f"{name} took a run back: type that run's own command to do it again")
    if record.is_plan(first):
        raise Refusal(f"{name} was a plan (--check), which changed nothing: nothing to take back")
    if not _has_ended(first):
        raise Refusal(
            f"{name} did not end: type its command again ({command}) until it does, then take it back; another run is taken back "
            f"with -e run=NAME"
        )
    calls = _whole(
        [each for events in (first, *(events for _name, events in earlier)) for each in reversed(_calls(events))]
    )
    cannot = [entry for each in calls for entry in each["undo"] if "cannot" in entry]
    if cannot:
        raise Refusal(f"{cannot[0]['cannot']}, so {name} is not taken back: {cannot[0]['instead']}")
    back = [each for each in calls if any("verb" in entry for entry in each["undo"])]
    left = [what for each in calls for what in _stays(each)]
    if not back:
        raise Refusal("; ".join([f"{name} has nothing to take back", *left]))
    for each in back:
        if _SECRET in str([each["arguments"], each["undo"]]):
            raise Refusal(
                f"{name} cannot be taken back: {each['verb']} was given a secret or somebody's address, which no record keeps: "
                f"take back by hand what its report says"
            )
    return {
        "record": name,
        "playbook": start["playbook"],
        "hosts": sorted({each["host"] for each in back}),
        "run_leases": {
            event["host"]: event["lease"]
            for events in (*(events for _name, events in reversed(earlier)), first)
            for event in events
            if event.get("lease")
        },
        "calls": back,
        "left": left,
    }


def _stays(call):
    """What a change did that nothing takes back, each with what to do instead where its verb knows that."""
    if not call["undo"]:
        return call["what"]
    return [f"{entry['stays']}: {entry['instead']}" for entry in call["undo"] if "stays" in entry]


def _another(number):
    """Why a change is left alone: what its verb refuses, or what it would have to do now to bring it about again."""
    would = f"still_{number}.steps | default([]) | map(attribute='what') | join('; ')"
    return f"{{{{ still_{number}.msg | default('its state is another one, it would now ' ~ ({would})) }}}}"


def tasks(back, begun):
    """A file of tasks, as text: for each change whether all is still as it left it, then what undoes it.

    Args:
        back: what `way_back` returns.
        begun: numbers of the changes that are taken back whatever the answer, see `begun`.
    """
    made = []
    for number, each in enumerate(back["calls"], 1):
        what = "; ".join(each["what"])
        here = f"inventory_hostname == {each['host']!r}"
        made.append(
            {
                "name": _question(number, back["record"]),
                each["verb"]: _reached(each["verb"], each["arguments"], each["arguments"]),
                "check_mode": True,
                "register": f"still_{number}",
                "changed_when": False,
                # A verb that refuses finds another state; one that may not look, is not answered, or fails at it, finds none.
                "failed_when": f"still_{number}.failed | default(false) and still_{number}.stopped | default('') != '{REFUSED}'",
                "when": here,
            }
        )
        as_left = "true" if number in begun else _as_left(number, each)
        # What a verb that failed on its way did, for `_as_left`.
        done = {"vars": {"done": _given(each["half_way"])}} if "half_way" in each else {}
        made += [
            {
                "name": _given(f"{number}{_TAKES}{what}"),
                entry["verb"]: dict(
                    _reached(entry["verb"], entry["arguments"], each["arguments"]),
                    lease="{{ lock.lease | default(omit, true) }}",
                ),
                "when": [here, as_left],
                "notify": "Verify the service",
                **done,
            }
            for entry in each["undo"]
            if "verb" in entry
        ]
        made.append(
            {
                "name": _given(f"{number}. {_ALONE}{what}"),
                "ansible.builtin.debug": {"msg": _another(number)},
                "when": [here, f"not ({as_left})"],
                **done,
            }
        )
    return yaml.dump(made, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def _as_left(number, call):
    """Whether the answer `still_<number>` finds all as `call` left it, as an expression: nothing is left to do, or, where it failed on
    its way, nothing of what it had done would be done again. What refuses says neither.
    """
    if "half_way" not in call:
        return f"still_{number}.already_so | default(false)"
    again = f"still_{number}.steps | default([]) | map(attribute='what') | intersect(done)"
    return f"still_{number}.already_so is defined and {again} | length == 0"


def later_undos(records, env, name):
    """[(name, events)] of the undos since the run `name` began, of whatever controller, the first one first."""
    later = itertools.takewhile(lambda each: each != name, records.newest_first(env))
    found = [records.run(each) for each in later]
    return [each for each in reversed(found) if is_undo(each[1])]


def begun(undos, back):
    """Numbers of the changes in the middle of which `undos` of them (see `later_undos`) were killed or failed, and none came through since.

    Such a change is neither as its run left it nor as it was before.
    """
    entries = {n: sum("verb" in entry for entry in each["undo"]) for n, each in enumerate(back["calls"], 1)}
    numbers = set()
    for _name, events in undos:
        asked, left = None, 0
        for event in events:
            step = event.get("step", "")
            if event["event"] == "preflight" and _ASKS in step:
                number = int(step.partition(".")[0])
                asked = number if step == _question(number, back["record"]) else None
                left = entries.get(asked, 0)
            elif asked and step.startswith(f"{asked}{_TAKES}"):
                if event["event"] == "step" and event["state"] in ("ok", "changed"):
                    left -= 1
                    numbers = numbers | {asked} if left else numbers - {asked}
                elif event["event"] == "progress":
                    numbers.add(asked)
    return numbers


def whole_undo(undos, back):
    """Name of the last of `undos` that took all of a run back; None where none did."""
    whats = {(own_name(back["record"]), "; ".join(each["what"])) for each in back["calls"]}
    return next((name for name, events in reversed(undos) if whats <= taken_back(events)), None)


def taken_back(events):
    """What a run of undo.yml has taken back, of its events: {(name of the record, as its own controller has it, what that run had
    done)}.
    """
    done, name = set(), None
    for event in events:
        step = event.get("step", "")
        if event["event"] == "preflight" and _ASKS in step:
            name = own_name(step.partition(_ASKS)[2].removesuffix(_LEFT))
        elif event["event"] == "step" and event["state"] in ("ok", "changed") and _TAKES in step:
            done.add((name, step.partition(_TAKES)[2]))
    return done


def left_alone(events):
    """What a run of undo.yml left as it found it, for its end, where nobody reads its tasks any more."""
    steps = [event["step"].partition(". ")[2] for event in events if event["event"] == "step"]
    return [each for each in steps if each.startswith(_ALONE)]


def _question(number, name):
    # Every controller asks it of the same name.
    return f"{number}{_ASKS}{own_name(name)}{_LEFT}"


def _reached(verb, arguments, recorded):
    """`arguments` for a verb, with how it reaches what it asks beside AWS, as the call with the arguments `recorded` did."""
    given, short = _given(arguments), verb.rpartition(".")[2]
    if short.startswith("k8s_"):
        given |= {"kubernetes": given["kubernetes"] | CLUSTER} if "kubernetes" in given else CLUSTER
    given |= ANEW.get(short, {})
    if any(name.startswith("login_") for name in recorded):
        given |= LOGIN | {name: _given(recorded[name]) for name in _SAID_OF_LOGIN if name in recorded}
    return given


def _chain(records, name):
    """[(name, events)] of a run, and of those that it went on with, the newest first."""
    chain = []
    while name:
        chain.append(records.run(name))
        name = next((event["resumes"] for event in chain[-1][1] if event["event"] == "run_started"), None)
    return chain


def is_undo(events):
    """Whether the events of a run are those of undo.yml."""
    return any(event.get("verb") == _VERB for event in events)


def _has_ended(events):
    return any(event["event"] == "run_ended" for event in events)


def _calls(events):
    """The changes of a run, in order, each with its host; last that in the middle of which it was killed. A plan has none."""
    if record.is_plan(events):
        return []
    made = [
        dict(each, host=event["host"])
        for event in events
        if event["event"] == "step"
        for each in event.get("calls", ())
    ]
    return made if _has_ended(events) else made + _cut_short(events)


def _cut_short(events):
    """The changes that a killed run had begun and that no step tells of, as its preflight planned them, each `cut_short`."""
    planned, said = {}, set()
    for event in events:
        at = (event.get("host"), event.get("step"))
        if event["event"] == "preflight":
            planned.setdefault(at, []).extend(event.get("calls", ()))
        elif event["event"] == "progress":
            said.add((event.get("host"), event["line"]))
        elif event["event"] == "step" and at in planned:
            planned[at] = [each for each in planned[at] if not _is_begun(each, at[0], said)]
    return [
        dict(each, host=host, cut_short=True)
        for (host, _step), calls in planned.items()
        for each in calls
        if _is_begun(each, host, said)
    ]


def _is_begun(call, host, said):
    # The first step is its own; others may wait for the same as it.
    return (host, next(iter(call["what"]), None)) in said


def _whole(calls):
    """`calls`, the newest first, in which one that was cut short is part of the same one of the run that went on with it: what undoes
    it comes after what undoes the rest."""
    found = []
    for each in calls:
        rest = next((other for other in found if each.get("cut_short") and _is_same(each, other)), None)
        if rest is None:
            found.append(dict(each))
            continue
        for key in ("what", "undo"):
            rest[key] = rest[key] + [one for one in each[key] if one not in rest[key]]
    return found


def _is_same(one, other):
    return all(one[key] == other[key] for key in ("host", "verb", "arguments"))


class _Given(str):
    """What was recorded: its braces are no template."""


def _given(value):
    """`value` with each string in it that may hold a template marked as data."""
    if isinstance(value, dict):
        return {key: _given(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_given(item) for item in value]
    return _Given(value) if isinstance(value, str) and "{" in value else value


if yaml:

    class _Dumper(yaml.SafeDumper):
        """Writes each value out, for people, where it would refer to one that stands above."""

        def ignore_aliases(self, data):
            return True

    _Dumper.add_representer(_Given, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text), style='"'))

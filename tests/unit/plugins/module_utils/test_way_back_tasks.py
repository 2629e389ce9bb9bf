# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
import yaml

from ansible_collections.sre.runbooks.plugins.module_utils import way_back
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.records import Records

ENDED = {"event": "run_ended"}
UNDO = {
    "event": "step",
    "step": "Find what the run changed",
    "host": "api",
    "state": "ok",
    "verb": "sre.runbooks.way_back",
}


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_constructor("!unsafe", lambda loader, node: ("unsafe", node.value))


def call(what, undo=True, **arguments):
    back = [{"verb": "sre.runbooks.set", "arguments": {"to": f"before {what}"}}] if undo else []
    return {"verb": "sre.runbooks.set", "arguments": arguments or {"to": what}, "what": [what], "undo": back}


def step(*calls):
    return {"event": "step", "step": "Set it", "host": "api", "calls": list(calls)}


@pytest.fixture
def written(tmp_path):
    """A function that writes the record `name` with `events` after its start, and returns all records."""

    def write(name, *events, playbook="scale", env="prod", resumes=None, check_mode=False):
        (tmp_path / name).mkdir()
        start = {"event": "run_started", "playbook": playbook, "env": env, "resumes": resumes, "check_mode": check_mode}
        lines = "".join(json.dumps(event) + "\n" for event in (start, *events))
        (tmp_path / name / "timeline.jsonl").write_text(lines)
        return Records(
            {"records": str(tmp_path), "record_bucket": None, "record_bucket_region": None}, (None, None, {})
        )

    return write


def tasks(records, name, begun=()):
    return yaml.load(way_back.tasks(way_back.way_back(records, name, "prod"), set(begun)), _Loader)


def test_the_last_change_is_taken_back_first_also_that_of_a_run_it_went_on_with(written):
    written("1-scale-prod", step(call("one"), call("two")))
    records = written("2-scale-prod", step(call("three")), ENDED, resumes="1-scale-prod")
    back = [task for task in tasks(records, "2-scale-prod") if "Take back" in task["name"]]
    assert [task["sre.runbooks.set"]["to"] for task in back] == ["before three", "before two", "before one"]
    assert all(task["notify"] == "Verify the service" for task in back)


def test_each_asks_first_whether_all_is_as_it_was_left(written):
    records = written("1-scale-prod", step(call("one")), ENDED)
    asked, back, left = tasks(records, "1-scale-prod")
    assert (asked["check_mode"], asked["sre.runbooks.set"]) == (True, {"to": "one"})
    # What cannot be seen was not changed by anybody.
    assert asked["failed_when"] == "still_1.failed | default(false) and still_1.stopped | default('') != 'refused'"
    assert back["when"][1] == f"{asked['register']}.already_so | default(false)"
    assert left["when"][1] == f"not ({back['when'][1]})"
    assert tasks(records, "1-scale-prod", begun=[1])[1]["when"][1] == "true"


ASKED = {"event": "preflight", "step": "1. Is it still as 1-scale-prod left it"}
PROGRESS = {"event": "progress", "step": "1. Take back: one", "line": "set it"}
TAKEN = {"event": "step", "step": "1. Take back: one", "state": "changed"}
FAILED = dict(TAKEN, state="failed")


def of_second(event):
    return dict(event, step="2" + event["step"][1:])


@pytest.mark.parametrize(
    ("events", "numbers"),
    [
        ([ASKED], set()),
        ([ASKED, PROGRESS], {1}),
        ([ASKED, PROGRESS, FAILED], {1}),
        # It was denied before it changed anything.
        ([ASKED, FAILED], set()),
        ([ASKED, PROGRESS, TAKEN], set()),
        ([ASKED, PROGRESS, TAKEN, of_second(ASKED), of_second(PROGRESS)], {2}),
        # One of its two ways back is through.
        ([of_second(ASKED), of_second(PROGRESS), of_second(TAKEN)], {2}),
        ([of_second(ASKED), *[of_second(PROGRESS), of_second(TAKEN)] * 2], set()),
        ([dict(ASKED, step="1. Is it still as 0-scale-prod left it"), PROGRESS], set()),
        ([PROGRESS, ASKED], set()),
        # Left alone: what is told later is of something else.
        ([ASKED, dict(PROGRESS, step="Give the lease back")], set()),
    ],
)
def test_a_change_in_the_middle_of_which_an_undo_ended_is_gone_on_with(written, events, numbers):
    two = call("two")
    two["undo"] *= 2
    written("1-scale-prod", step(two, call("one")), ENDED)
    written("2-undo-prod", UNDO, *events, playbook="undo")
    written("3-traffic-prod", step(call("three")), ENDED)
    records = written("4-undo-prod", UNDO, playbook="undo")
    back = way_back.way_back(records, "1-scale-prod", "prod")
    undos = way_back.later_undos(records, "prod", "1-scale-prod")
    assert [name for name, _events in undos] == ["2-undo-prod", "4-undo-prod"]
    assert way_back.begun(undos, back) == numbers
    # As another controller has that run.
    assert way_back.begun(undos, back | {"record": "1-scale-prod.0a1b2c3d"}) == numbers


def test_who_took_all_of_it_back_is_known(written):
    written("1-scale-prod", step(call("two"), call("one")), ENDED)
    records = written("2-undo-prod", UNDO, ASKED, TAKEN, playbook="undo")
    back = way_back.way_back(records, "1-scale-prod", "prod")
    assert way_back.whole_undo(way_back.later_undos(records, "prod", "1-scale-prod"), back) is None
    written("3-undo-prod", UNDO, ASKED, TAKEN, of_second(ASKED), dict(of_second(TAKEN), step="2. Take back: two"))
    assert way_back.whole_undo(way_back.later_undos(records, "prod", "1-scale-prod"), back) == "3-undo-prod"


def test_what_failed_on_its_way_is_as_it_was_left_where_nothing_it_did_would_be_done_again(written):
    records = written("1-scale-prod", step(dict(call("one"), half_way=["set {{ it }}"])), ENDED)
    asked, back, left = tasks(records, "1-scale-prod")
    expression = "still_1.already_so is defined and still_1.steps | default([]) | map(attribute='what') | intersect(done) | length == 0"
    assert back["when"][1] == expression and left["when"][1] == f"not ({expression})"
    assert back["vars"] == left["vars"] == {"done": [("unsafe", "set {{ it }}")]} and "vars" not in asked


def test_each_host_has_its_lease_again(written):
    leases = {name: {"name": name, "table": "locks", "region": "us-west-2"} for name in ("api", "web")}
    taken = [{"event": "step", "step": "Take", "host": host, "lease": lease} for host, lease in leases.items()]
    records = written("1-scale-prod", *taken, step(call("one")), ENDED)
    back = way_back.way_back(records, "1-scale-prod", "prod")
    assert (back["run_leases"], back["hosts"]) == (leases, ["api"])


def planned(*calls):
    return dict(step(*calls), event="preflight")


def said(line):
    return {"event": "progress", "host": "api", "line": line}


def undone(records, name):
    return [
        entry["arguments"]["to"] for each in way_back.way_back(records, name, "prod")["calls"] for entry in each["undo"]
    ]


def test_a_change_in_the_middle_of_which_a_run_was_killed_is_taken_back(written):
    """Of it no step tells: the run that went on with it has found it done."""
    written("1-scale-prod", planned(call("one"), call("two")), said("one"), step(call("one")), said("two"))
    records = written("2-scale-prod", {"event": "step", "step": "Set it", "host": "api"}, ENDED, resumes="1-scale-prod")
    assert way_back.newest(records, "prod") == "2-scale-prod"
    assert undone(records, "2-scale-prod") == ["before two", "before one"]


def test_the_part_of_the_run_that_went_on_with_it_is_taken_back_before_it(written):
    both = {"verb": "sre.runbooks.set", "arguments": {"to": "both"}, "what": ["one", "two"]}
    back = [{"verb": "sre.runbooks.set", "arguments": {"to": to}} for to in ("none", "one")]
    written("1-scale-prod", planned(dict(both, undo=back[:1])), said("one"))
    records = written("2-scale-prod", step(dict(both, what=["two"], undo=back[1:])), ENDED, resumes="1-scale-prod")
    (whole,) = way_back.way_back(records, "2-scale-prod", "prod")["calls"]
    assert (whole["what"], whole["undo"]) == (["two", "one"], [back[1], back[0]])


def test_what_a_killed_run_had_not_begun_or_had_ended_is_not_taken_back_twice(written):
    written("1-scale-prod", planned(call("one"), call("two")), said("one"), step(call("one")))
    records = written("2-scale-prod", step(call("two")), ENDED, resumes="1-scale-prod")
    assert undone(records, "2-scale-prod") == ["before two", "before one"]
    with pytest.raises(Refusal, match="did not end: type its command again"):
        way_back.way_back(records, "1-scale-prod", "prod")


def test_what_was_recorded_is_no_template(written):
    records = written("1-scale-prod", step(call("one", page="{{ lookup('pipe', 'id') }}")), ENDED)
    assert tasks(records, "1-scale-prod")[0]["sre.runbooks.set"]["page"][0] == "unsafe"


def test_the_password_comes_from_the_inventory(written):
    records = written(
        "1-scale-prod", step(call("one", to="one", login_user="admin", login_db="shop", sslmode="verify-full")), ENDED
    )
    for task in tasks(records, "1-scale-prod")[:2]:
        assert "db_admin_password" in task["sre.runbooks.set"]["login_password"]
        assert task["sre.runbooks.set"]["login_db"] == "shop" and task["sre.runbooks.set"]["sslmode"] == "verify-full"


STAYS = {"stays": "end 3 sessions", "instead": "they connect again"}


def test_what_nothing_takes_back_is_told(written):
    calls = (call("one"), call("empty it", undo=False), dict(call("end"), undo=[STAYS]))
    records = written("1-scale-prod", step(*calls), ENDED)
    left = way_back.way_back(records, "1-scale-prod", "prod")["left"]
    assert left == ["end 3 sessions: they connect again", "empty it"]
    assert "end" not in [task["name"].partition("Take back: ")[2] for task in tasks(records, "1-scale-prod")]


def test_a_cluster_is_reached_as_the_inventory_says_now(written):
    recorded = {"kubeconfig": "/gone", "context": "shop", "namespace": "shop", "name": "web"}
    flat = dict(call("one"), verb="sre.runbooks.k8s_rollout", arguments=dict(recorded, capacity="4"))
    flat["undo"] = [{"verb": "sre.runbooks.k8s_rollout", "arguments": {"namespace": "shop", "restore": True}}]
    nested = dict(call("two"), verb="sre.runbooks.k8s_isolate", arguments={"kubernetes": recorded})
    nested["undo"] = [{"verb": "sre.runbooks.k8s_isolate", "arguments": {"kubernetes": {"name": "web"}}}]
    records = written("1-scale-prod", step(flat, nested), ENDED)
    asked, back, _left, *of_flat = tasks(records, "1-scale-prod")
    for task, more in ((asked, {"context": "shop"}), (back, {})):
        given = task["sre.runbooks.k8s_isolate"]["kubernetes"]
        assert given | way_back.CLUSTER | more == given and given["name"] == "web"
    for task in of_flat[:2]:
        given = task["sre.runbooks.k8s_rollout"]
        assert given | way_back.CLUSTER == given and "kubernetes" not in given


def test_the_token_of_the_recovery_api_comes_from_the_inventory(written):
    verb = "sre.runbooks.recovery_api_rollback"
    back = dict(call("one"), verb=verb, undo=[{"verb": verb, "arguments": {"snapshot_id": "s-1"}}])
    records = written("1-scale-prod", step(back), ENDED)
    assert all("recovery_api_token" in task[verb]["token"] for task in tasks(records, "1-scale-prod")[:2])


@pytest.mark.parametrize(
    ("events", "options", "sentence"),
    [
        ([step(call("one"))], {}, "did not end: type its command again"),
        ([step(call("one")), ENDED], {"check_mode": True}, "was a plan"),
        ([ENDED], {}, "has nothing to take back"),
        ([step(call("one", undo=False)), ENDED], {}, "has nothing to take back; one"),
        ([step(dict(call("one"), undo=[STAYS])), ENDED], {}, "take back; end 3 sessions: they connect again"),
        ([step(call("one")), ENDED], {"env": "secondary"}, "say -e env=secondary"),
        ([UNDO, step(call("one")), ENDED], {}, "took a run back"),
        ([step(call("one", url="postgresql://me:***@db")), ENDED], {}, "was given a secret"),
        (
            [step(dict(call("one"), undo=[{"cannot": "it is promoted", "instead": "go on"}])), ENDED],
            {},
            "it is promoted, so 1-prod is not taken back: go on",
        ),
    ],
)
def test_no_way_back(written, events, options, sentence):
    records = written("1-prod", *events, **options)
    with pytest.raises(Refusal, match=sentence):
        way_back.way_back(records, "1-prod", "prod")


def test_the_newest_that_changed_something_is_meant(written):
    written("1-scale-prod", step(call("one")), ENDED)
    written("2-scale-prod", step(), ENDED)
    written("3-by-another-name-prod", UNDO, step(call("two")), ENDED)
    records = written("4-scale-other", step(call("three")), ENDED)
    assert way_back.newest(records, "prod") == "1-scale-prod"
    assert way_back.newest(records, "nowhere") is None


LEASED = {
    "event": "step",
    "step": "Take",
    "host": "api",
    "lease": {"name": "api", "table": "locks", "region": "us-west-2"},
}


@pytest.mark.parametrize(
    ("events", "options", "is_meant"),
    [
        ([step(call("two")), ENDED], {"check_mode": True}, False),
        # Of one that was killed as it began to, and before it did.
        ([planned(call("two")), said("two")], {}, True),
        ([planned(call("two"))], {}, False),
        # A plan goes on with nothing.
        ([step(), ENDED], {"check_mode": True, "resumes": "1-scale-prod"}, False),
        # What it went on with had done all.
        ([step(), ENDED], {"resumes": "1-scale-prod"}, True),
    ],
)
def test_which_run_an_undo_of_the_last_one_means(written, events, options, is_meant):
    written("1-scale-prod", step(call("one")), ENDED)
    records = written("2-scale-prod", *events, **options)
    assert way_back.newest(records, "prod") == ("2-scale-prod" if is_meant else "1-scale-prod")


def test_a_call_is_kept_without_what_is_given_anew():
    given = {"to": 3, "none": None, "lease": {"token": 1}, "secret_key": way_back._HIDDEN, "region": "us-east-1"}
    given["cluster"] = {"name": "web", "api_key": way_back._HIDDEN, "host": None}
    outcome = {
        "changed": True,
        "after": {},
        "invocation": {"module_args": given},
        "steps": [{"what": "set it"}],
        "undo": [],
    }
    kept = way_back.call("sre.runbooks.set", outcome)
    assert kept["arguments"] == {"to": 3, "region": "us-east-1", "cluster": {"name": "web"}} and kept["what"] == [
        "set it"
    ]
    assert "half_way" not in kept
    steps = [{"what": "set it", "before": 1, "after": 2}, {"what": "wait", "before": None, "after": None}]
    del outcome["after"]
    half = way_back.call("sre.runbooks.set", outcome | {"steps": steps})
    assert (half["half_way"], half["what"]) == (["set it"], ["set it", "wait"])
    assert way_back.call("sre.runbooks.set", {"changed": False}) is None
    assert way_back.call("sre.runbooks.incident_lock", outcome) is None

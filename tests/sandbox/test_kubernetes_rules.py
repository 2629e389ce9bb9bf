# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's rules that need no cluster: patches, selectors, managers of fields, the arithmetic of rollouts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.kubernetes import fields, names, patches, protobuf, selectors
from sandbox.kubernetes.controllers import rolling
from sandbox.kubernetes.controllers.rolling import Bounds, Group
from sandbox.kubernetes.errors import ApiError
from sandbox.kubernetes.resources import CONFIG_MAPS, DEPLOYMENTS
from sandbox.kubernetes.store import Store

TWO = [{"name": "app", "image": "a:1", "args": ["x", "y"]}, {"name": "proxy", "image": "p:1"}]


@pytest.mark.parametrize(
    ("patch", "merged"),
    [
        ({"containers": [{"name": "proxy", "image": "p:2"}]}, [TWO[0], {"name": "proxy", "image": "p:2"}]),
        ({"containers": [{"name": "app", "args": ["z"]}]}, [{**TWO[0], "args": ["z"]}, TWO[1]]),
        ({"containers": [{"name": "new", "image": "n"}]}, [*TWO, {"name": "new", "image": "n"}]),
        ({"containers": [{"name": "app", "$patch": "delete"}]}, [TWO[1]]),
        ({"containers": [{"$patch": "replace"}, {"name": "only"}]}, [{"name": "only"}]),
        (
            {"containers": [{"name": "app"}], "$setElementOrder/containers": [{"name": "proxy"}, {"name": "app"}]},
            [TWO[1], TWO[0]],
        ),
        ({"containers": [{"name": "app", "args": None}]}, [{"name": "app", "image": "a:1"}, TWO[1]]),
    ],
    ids=["by key", "plain list replaced", "added", "deleted", "replaced", "reordered", "field removed"],
)
def test_strategic_merge_patch(patch, merged):
    assert patches.strategic_merge_patch({"containers": TWO}, patch) == {"containers": merged}


def test_strategic_merge_patch_of_maps_and_sets():
    strategy = {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}
    recreate = {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}
    assert patches.strategic_merge_patch(strategy, recreate) == {"strategy": {"type": "Recreate"}}
    merged = patches.strategic_merge_patch({"finalizers": ["a", "b"]}, {"$deleteFromPrimitiveList/finalizers": ["a"]})
    assert merged == {"finalizers": ["b"]}
    assert patches.strategic_merge_patch({"finalizers": ["a"]}, {"finalizers": ["b"]}) == {"finalizers": ["a", "b"]}


def test_merge_patch_removes_with_null_and_replaces_lists():
    assert patches.merge_patch({"a": {"b": 1, "c": [1, 2]}}, {"a": {"b": None, "c": [3]}}) == {"a": {"c": [3]}}


def test_json_patch_that_does_not_fit_is_invalid():
    with pytest.raises(ApiError) as caught:
        patches.json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 2}])
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    with pytest.raises(ApiError) as caught:
        patches.json_patch({"a": 1}, {"a": 2})
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("app=web", {"web", "web-canary"}),
        ("app=web,track!=canary", {"web"}),
        ("track", {"web-canary"}),
        ("!track", {"web", "db"}),
        ("app in (web, db),track notin (canary)", {"web", "db"}),
    ],
)
def test_label_selectors(text, chosen):
    labels = {"web": {"app": "web"}, "web-canary": {"app": "web", "track": "canary"}, "db": {"app": "db"}}
    assert {name for name, each in labels.items() if selectors.labels(text)(each)} == chosen


def field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


def envelope(kind: str, raw: bytes) -> bytes:
    return b"k8s\0" + field(1, field(1, b"v1") + field(2, kind.encode())) + field(2, raw)


def test_protocol_buffers_are_read_or_refused():
    metadata = field(1, field(1, b"m") + field(3, b""))
    data = field(2, field(1, b"a") + field(2, b"1"))
    assert protobuf.decode(envelope("ConfigMap", metadata + data)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "m"},
        "data": {"a": "1"},
    }
    assert protobuf.decode(envelope("Namespace", metadata + field(3, field(1, b""))))["metadata"] == {"name": "m"}
    for unread in (envelope("Namespace", metadata + field(3, field(1, b"Active"))), envelope("Node", metadata), b"{}"):
        with pytest.raises(ApiError) as caught:
            protobuf.decode(unread)
        assert caught.value.code == 415


# ---- rolling updates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "bounds"),
    [
        (3, "25%", "25%", Bounds(1, 0)),
        (5, "25%", "25%", Bounds(2, 1)),
        (2, 1, 0, Bounds(1, 0)),
        (10, 0, "5%", Bounds(0, 1)),  # both rounded to nothing: one may be missing, or it would never move
        (1, 0, 4, Bounds(0, 1)),
    ],
)
def test_bounds(replicas, surge, unavailable, bounds):
    assert Bounds.of(replicas, surge, unavailable) == bounds


@given(st.integers(1, 12), st.integers(0, 4), st.integers(0, 4), st.data())
def test_rolling_update_keeps_its_bounds_and_comes_to_its_end(replicas, surge, unavailable, data):
    bounds = Bounds.of(replicas, surge, unavailable)
    new, old = Group(0, 0), Group(replicas, replicas)
    for _ in range(10 * replicas):
        # Any pod of the new template may take its time.
        new = Group(new.wanted, data.draw(st.integers(new.available, new.wanted)))
        if (size := rolling.grown(replicas, bounds, new, [old])) != new.wanted:
            new = Group(size, new.available)
        else:
            size = rolling.shrunk(replicas, bounds, new, [old])[0]
            old = Group(size, min(old.available, size))
        assert new.wanted + old.wanted <= replicas + bounds.surge
        assert new.available + old.available >= replicas - bounds.unavailable
        if old.wanted == 0 and new.wanted == replicas:
            return
        new = Group(new.wanted, min(new.wanted, new.available + 1))
    raise AssertionError(f"not over: {new} {old}")


def test_dead_pods_go_before_those_that_serve():
    # The way back from a build that never became ready: its pods cost no availability.
    assert rolling.shrunk(3, Bounds(1, 0), Group(3, 3), [Group(1, 0)]) == [0]
    assert rolling.shrunk(4, Bounds(0, 1), Group(0, 0), [Group(2, 0), Group(3, 3)]) == [0, 3]


def test_scaling_in_the_middle_of_a_rollout_is_spread():
    """https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#proportional-scaling"""
    assert rolling.proportional([8, 5], 5, 18, [13, 13]) == [11, 7]


# ---- managers of fields --------------------------------------------------------------------------------------------


def config_map(data: dict, entries: list | None = None) -> dict:
    return {"metadata": {"name": "m", "managedFields": entries or []}, "data": data}


def owners(item: dict) -> dict[str, set]:
    return {each.manager: {fields.as_text(path) for path in each.paths} for each in fields.entries_of(item)}


def test_who_changes_a_field_takes_it():
    made = fields.updated(CONFIG_MAPS, None, config_map({"a": "1", "b": "1"}), "one")
    changed = fields.updated(
        CONFIG_MAPS, made, config_map({"a": "2", "b": "1"}, made["metadata"]["managedFields"]), "two"
    )
    assert owners(changed) == {"one": {".data", ".data.b"}, "two": {".data.a"}}


def test_apply_takes_back_what_it_leaves_out():
    empty = config_map({})
    wanted = {"metadata": {"name": "m"}, "data": {"a": "1", "b": "1"}}
    made = fields.applied(CONFIG_MAPS, empty, wanted, fields.merge_applied(empty, wanted, "one"), "one", False)
    less = {"metadata": {"name": "m"}, "data": {"a": "1"}}
    merged = fields.merge_applied(made, less, "one")
    assert merged["data"] == {"a": "1"}
    theirs = {"metadata": {"name": "m"}, "data": {"a": "2"}}
    with pytest.raises(ApiError, match=r'conflict with "one" using v1: \.data\.a'):
        fields.applied(CONFIG_MAPS, made, theirs, fields.merge_applied(made, theirs, "two"), "two", False)
    forced = fields.applied(CONFIG_MAPS, made, theirs, fields.merge_applied(made, theirs, "two"), "two", True)
    assert ".data.a" in owners(forced)["two"]
    assert ".data.a" not in owners(forced)["one"]


def test_paths_read_as_they_were_written():
    item = {"metadata": {"name": "w"}, "spec": {"template": {"spec": {"containers": TWO}}}}
    made = fields.updated(DEPLOYMENTS, None, item, "one")
    (entry,) = fields.entries_of(made)
    assert entry.write() == made["metadata"]["managedFields"][0]
    assert '.spec.template.spec.containers[name="app"].image' in owners(made)["one"]


# ---- the store -----------------------------------------------------------------------------------------------------


def test_nothing_changes_when_nothing_differs():
    store = Store()
    made = store.create(CONFIG_MAPS, {"metadata": {"name": "m", "namespace": "n"}, "data": {"a": "1"}})
    assert store.change(CONFIG_MAPS, made, lambda it: it["data"].update(a="1")) is made
    changed = store.change(CONFIG_MAPS, made, lambda it: it["data"].update(a="2"))
    assert (made["data"], changed["data"]) == ({"a": "1"}, {"a": "2"})
    assert int(changed["metadata"]["resourceVersion"]) == int(made["metadata"]["resourceVersion"]) + 1


def test_template_hash_knows_no_order():
    assert names.template_hash({"a": 1, "b": 2}) == names.template_hash({"b": 2, "a": 1})
    assert names.template_hash({"a": 1}) != names.template_hash({"a": 2})
    assert names.template_hash({"a": 1}) != names.template_hash({"a": 1}, collisions=1)

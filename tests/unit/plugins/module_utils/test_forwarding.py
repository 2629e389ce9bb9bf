# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Actions of any shape: what a move changes is the share of two target groups, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sre.runbooks.plugins.module_utils import forwarding
from ansible_collections.sre.runbooks.plugins.module_utils.forwarding import same, share, shifted, weights

OLD, NEW = "arn:old", "arn:new"
OIDC = {"Type": "authenticate-oidc", "Order": 1, "AuthenticateOidcConfig": {"Issuer": "https://idp", "ClientId": "me"}}
COGNITO = {"Type": "authenticate-cognito", "Order": 1, "AuthenticateCognitoConfig": {"UserPoolDomain": "pool"}}


def forward(groups, sticky=None, order=None):
    """As DescribeRules gives it: one group alone is spelled twice."""
    config = {"TargetGroups": [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in groups.items()]}
    config["TargetGroupStickinessConfig"] = (
        {"Enabled": True, "DurationSeconds": sticky} if sticky else {"Enabled": False}
    )
    action = {"Type": "forward", "ForwardConfig": config}
    action |= {"TargetGroupArn": next(iter(groups))} if len(groups) == 1 else {}
    return action | ({"Order": order} if order else {})


@st.composite
def rules(draw):
    """A rule that sends something to the old group, whatever else it does; the new one may be there already."""
    others = [f"arn:{name}" for name in draw(st.lists(st.sampled_from("abc"), unique=True))]
    names = draw(st.permutations([OLD, *others, *draw(st.sampled_from([(), (NEW,)]))]))
    groups = {name: draw(st.integers(0, 999)) for name in names}
    groups[OLD] = draw(st.integers(1, 999))
    first = draw(st.sampled_from([(), (OIDC,), (COGNITO,)]))
    sticky = draw(st.none() | st.integers(1, 604800))
    return [*first, forward(groups, sticky, 2 if first else None)]


STEPS = st.lists(st.integers(1, 99), unique=True, max_size=3).map(lambda found: (*sorted(found), 100))


@given(rules(), STEPS, st.booleans())
def test_nothing_but_the_share_of_the_two_groups_changes(actions, steps, detach):
    before = weights(actions)
    for percent in steps:
        moved = shifted(actions, OLD, NEW, percent, steps, detach)
        after = weights(moved)
        assert moved[:-1] == actions[:-1]
        old_config, new_config = actions[-1]["ForwardConfig"], moved[-1]["ForwardConfig"]
        assert new_config["TargetGroupStickinessConfig"] == old_config["TargetGroupStickinessConfig"]
        assert moved[-1].get("Order") == actions[-1].get("Order") and "TargetGroupArn" not in moved[-1]
        assert [arn for arn in after if arn not in (OLD, NEW)] == [arn for arn in before if arn not in (OLD, NEW)]
        assert all(0 <= weight <= 999 for weight in after.values())
        factor = (after.get(OLD, 0) + after[NEW]) / (before[OLD] + before.get(NEW, 0))
        for arn in set(after) - {OLD, NEW}:
            assert after[arn] == before[arn] * factor or (factor < 1 and 0 <= after[arn] - before[arn] * factor < 1)
    assert share(moved, OLD, NEW) == 100
    assert (OLD in after) is not (detach or forwarding.is_sticky(actions))


@given(rules(), STEPS)
def test_move_that_was_interrupted_ends_like_one_that_was_not(actions, steps):
    straight = shifted(actions, OLD, NEW, 100, steps)
    for percent in steps:
        half_way = shifted(actions, OLD, NEW, percent, steps)
        assert shifted(half_way, OLD, NEW, percent, steps) == half_way or percent == 100
        if OLD in weights(half_way):
            assert same(shifted(half_way, OLD, NEW, 100, steps), straight)


@given(rules())
def test_attached_group_gets_no_request(actions):
    after = weights(forwarding.attached(actions, OLD, NEW))
    assert after == {NEW: 0} | weights(actions)
    assert list(after) == list(weights(actions)) or list(after).index(NEW) == list(after).index(OLD) + 1


@pytest.mark.parametrize(
    ("groups", "steps", "percent", "expected"),
    [
        ({OLD: 1}, (100,), 100, {OLD: 0, NEW: 1}),
        ({OLD: 1}, (10, 50, 100), 10, {OLD: 9, NEW: 1}),
        ({OLD: 1}, (10, 50, 100), 100, {OLD: 0, NEW: 10}),
        ({OLD: 9, NEW: 1}, (10, 50, 100), 50, {OLD: 5, NEW: 5}),
        ({OLD: 100, NEW: 0}, (10, 50, 100), 50, {OLD: 50, NEW: 50}),
        ({OLD: 2, "arn:a": 3}, (25, 100), 25, {OLD: 3, NEW: 1, "arn:a": 6}),
        # Too heavy to be multiplied: as near as whole weights come.
        ({OLD: 999, NEW: 999, "arn:a": 2}, (100,), 100, {OLD: 0, NEW: 999, "arn:a": 1}),
        ({OLD: 7, "arn:a": 999}, (10, 100), 10, {OLD: 6, NEW: 1, "arn:a": 999}),
    ],
)
def test_weights(groups, steps, percent, expected):
    after = weights(shifted([forward(groups)], OLD, NEW, percent, steps))
    assert (after, list(after)) == (expected, list(expected))


def test_share_is_that_of_the_two_groups_alone():
    assert share([forward({OLD: 3, NEW: 1, "arn:a": 6})], OLD, NEW) == 25
    assert share([forward({OLD: 0, "arn:a": 6})], OLD, NEW) is None
    assert share([{"Type": "redirect", "RedirectConfig": {}}], OLD, NEW) is None


def test_client_secret_stays_what_it_is():
    assert forwarding.sent([OIDC, forward({OLD: 1}, order=2)])[0]["AuthenticateOidcConfig"] == {
        "Issuer": "https://idp",
        "ClientId": "me",
        "UseExistingClientSecret": True,
    }
    assert "UseExistingClientSecret" not in OIDC["AuthenticateOidcConfig"]


def test_one_group_is_the_same_in_both_spellings():
    short = {"Type": "forward", "TargetGroupArn": OLD}
    assert same([short], [forward({OLD: 7}, order=1)])
    assert not same([short], [forward({OLD: 1}, sticky=60)])
    assert not same([short], [forward({OLD: 1, NEW: 0})])
    assert not same([short], [forward({OLD: 0})])
    assert not same([short], [OIDC | {"Order": 1}, short])

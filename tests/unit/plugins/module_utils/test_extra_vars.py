# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is refused of what was said with -e."""

from __future__ import annotations

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.extra_vars import (
    REFUSED_VARIABLE,
    Arguments,
    arguments,
    artifacts,
    refusal,
    unanswered,
)
from ansible_collections.sre.runbooks.plugins.module_utils.guard import refuse_strange_words

THERE = Arguments(
    "cache_failure",
    {
        "env": {"type": "str"},
        "remedy": {"type": "str", "choices": ["reboot", "flush"]},
        "confirm_keys": {"type": "int"},
        "steps": {"type": "list", "elements": "str", "choices": ["kill", "raise"]},
    },
    {"db_admin_password": {"type": "str"}, "desired_count": {"type": "int"}, "evidence_bucket": {"type": "str"}},
)


def refused(in_inventory=(), **said):
    return refusal(said, THERE, lambda: in_inventory)


@pytest.mark.parametrize(
    "said",
    [
        {"env": "prod", "remedy": "flush", "confirm_keys": "4200"},
        {"confirm_keys": 4200},
        {"steps": "kill,raise"},
        {"steps": ["kill"]},
        {"desired_count": "3", "evidence_bucket": ""},
        # Not rendered yet.
        {"confirm_keys": "{{ so_many }}"},
        # By AWX, by ansible-rulebook, for ansible, and of an earlier job of a workflow.
        {"awx_job_id": 7, "tower_job_id": 7, "ansible_eda": {}, "ansible_connection": "local", "sre_runbooks": {}},
    ],
)
def test_what_the_playbook_knows_passes(said):
    assert refused(**said) is None


def test_what_a_space_cuts_off_is_refused_and_not_told():
    # As ansible reads -e "env=prod db_admin_password=correct horse".
    said = {"env": "prod", "db_admin_password": "correct", "_raw_params": "horse"}
    assert refused(**said) == (
        'what follows a space in -e has no name, and is lost: say -e \'{"name": "two words"}\'; nothing was changed'
    )


def test_typing_error_is_named_with_what_was_meant():
    assert refused(remdy="flush") == (
        "remdy is no variable of cache_failure: did you mean remedy?; nothing was changed"
    )
    assert "did you mean desired_count?" in refused(desired_cuont=2)


def test_strange_word_is_told_what_there_is():
    assert "remedy, steps" in refused(zzz=1)


def test_variable_of_the_inventory_alone_passes():
    assert refused(in_inventory={"our_own"}, our_own=1) is None
    assert refused(in_inventory={"our_own"}, remdy="flush", our_own=1)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"confirm_keys": "many"}, "confirm_keys=many must be a whole number"),
        ({"remedy": "pray"}, "remedy=pray must be one of reboot, flush"),
        ({"steps": "kill,pray"}, "steps=kill,pray must be one of kill, raise"),
    ],
)
def test_value_of_another_type_is_refused(said, told):
    assert refused(**said) == f"{told}; nothing was changed"


def test_value_of_the_inventory_may_be_a_secret():
    assert refused(desired_count="hunter2") == "desired_count must be a whole number; nothing was changed"


def test_all_faults_are_one_line():
    assert refused(remdy="flush", confirm_keys="many").count(";") == 2


def test_question_that_nobody_answered_is_none():
    said = {"remedy": "", "confirm_keys": None, "steps": "kill", "evidence_bucket": "", "awx_x": ""}
    assert unanswered(said, THERE) == ["remedy", "confirm_keys"]


def test_spec_brings_what_it_shares_and_what_is_said_to_tasks_of_others(tmp_path):
    (tmp_path / "shared.meta.yml").write_text(
        "argument_specs: {run: {options: {env: {}}}, inventory: {options: {peer: {}}}}"
    )
    (tmp_path / "a.meta.yml").write_text("argument_specs: {a: {shared: [run], tasks_of: [b], options: {x: {}}}}")
    (tmp_path / "b.meta.yml").write_text("argument_specs: {b: {shared: [], options: {y: {}}}}")
    there = arguments(str(tmp_path / "a.yml"))
    assert (there.playbook, set(there.options), set(there.others)) == ("a", {"env", "x", "y"}, {"env", "peer"})
    assert arguments(str(tmp_path / "of_a_team.yml")) is None


def test_artifacts_are_what_the_next_job_may_be_told():
    (name,) = artifacts(severity="P1")["ansible_stats"]["data"]
    assert refused(**{name: {"severity": "P1"}}) is None


def test_guard_refuses_what_the_callback_found():
    refuse_strange_words({})
    with pytest.raises(Refusal, match="no variable"):
        refuse_strange_words({REFUSED_VARIABLE: "x is no variable of a; nothing was changed"})

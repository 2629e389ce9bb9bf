# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the record says of a task that failed."""

from __future__ import annotations

from ansible.playbook.block import Block
from ansible.playbook.play import Play

from ansible_collections.sre.runbooks.plugins.callback.incident import _is_rescued

FAIL = {"ansible.builtin.debug": {"msg": "x"}}


def test_a_task_is_rescued_where_a_block_around_it_catches_it():
    inner = {"block": [FAIL], "rescue": [FAIL], "always": [FAIL]}
    outer = Block.load({"block": [inner, FAIL], "always": [FAIL]}, play=Play())
    caught, after = outer.block
    assert [_is_rescued(part[0]) for part in (caught.block, caught.rescue, caught.always)] == [True, False, False]
    assert not _is_rescued(after) and not _is_rescued(outer.always[0])
    # What runs is a copy of what was read.
    assert _is_rescued(outer.copy().block[0].block[0])


def test_also_from_within_the_blocks_of_one_that_catches_it():
    outer = Block.load({"block": [{"block": [FAIL], "always": [FAIL]}], "rescue": [FAIL]}, play=Play())
    (inner,) = outer.block
    assert _is_rescued(inner.block[0]) and _is_rescued(inner.always[0])

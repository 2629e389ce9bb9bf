# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A typo in -e env= must not end green."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.sre.runbooks.plugins.filter.environment import environment

GROUPS = {
    "all": ["api-prod"],
    "ungrouped": [],
    "prod": ["api-prod"],
    "secondary": ["api-secondary"],
    "service_api": ["api-prod"],
}


def test_environment_is_its_own_pattern():
    assert environment("prod", GROUPS) == "prod"


@pytest.mark.parametrize("name", ["prodd", "", "all", "service_api", "ungrouped", "api-prod", "prod,secondary"])
def test_anything_else_stops_and_names_the_choices(name):
    with pytest.raises(AnsibleFilterError, match="one of prod, secondary; nothing was changed"):
        environment(name, GROUPS)


def test_typo_is_guessed():
    with pytest.raises(AnsibleFilterError, match="did you mean prod"):
        environment("prdo", GROUPS)

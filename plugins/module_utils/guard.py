# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stops a run before it does anything: a word that nobody knows, placeholders and the wrong account."""

from __future__ import annotations

from .errors import Refusal
from .extra_vars import REFUSED_VARIABLE
from .verb import Plan

# What the inventories of the collection say where a team must put its own value.
PLACEHOLDER = "CHANGEME"


def refuse_strange_words(environment):
    """Raise Refusal with what the callback has found wrong in the extra variables, and left in the process's environment."""
    if found := environment.get(REFUSED_VARIABLE):
        raise Refusal(found)


def refuse_placeholders(settings, environment):
    """Raise Refusal that names every setting still to be filled in."""
    open_ones = sorted(name for name, value in settings.items() if value in (None, "") or PLACEHOLDER in str(value))
    if open_ones:
        raise Refusal(
            f"the inventory of {environment} is not filled in: {', '.join(open_ones)}: replace {PLACEHOLDER} in "
            f"inventories/; nothing was changed"
        )


def plan(observed, wanted):
    """No steps; refuses credentials of another account (HAZARDS: every playbook, 5)."""
    if observed["account"] != wanted["account_id"]:
        raise Refusal(
            f"these credentials belong to account {observed['account']} ({observed['arn']}), but {wanted['environment_name']} "
            f"is in account {wanted['account_id']}: choose another AWS_PROFILE; nothing was changed"
        )
    return Plan(returned={"caller": {"account": observed["account"], "arn": observed["arn"]}})

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run that may only read, whatever its verbs think: readiness.yml looks at what recovers production.

Whatever opens a connection asks here before it sends what may change something, so that no verb has to be trusted.
"""

from __future__ import annotations

import os

from .errors import WouldChange

# Set by the playbook, for all that its tasks do.
VARIABLE = "SRE_RUNBOOKS_READ_ONLY"


def is_on():
    return bool(os.environ.get(VARIABLE))


def refuse(what):
    """Raises WouldChange in a run that only reads."""
    if is_on():
        raise WouldChange(f"{what} would be sent now, and this run only reads")

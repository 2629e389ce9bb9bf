# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What drills use of the collection, imported from this clone as it stands."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / ".ansible" / "collections"))
from ansible_collections.sre.runbooks.plugins.module_utils import (  # noqa: E402
    drill_watch,
    masking,
    page,
    record,
    timeline,
    trend,
)
from ansible_collections.sre.runbooks.plugins.module_utils.lease import is_dead  # noqa: E402

__all__ = ["REPOSITORY", "drill_watch", "is_dead", "masking", "page", "record", "timeline", "trend"]

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test does not see the conftest.py above this one."""

from __future__ import annotations

from hypothesis import settings

# The same examples each time, and no deadline: on a busy machine one may take long.
settings.load_profile("ci")

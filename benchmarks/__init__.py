# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the runbooks are, each against other ways to do the same on the same sandbox."""

import sys
from pathlib import Path

# What they use of the collection is that of this clone as it stands.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / ".ansible" / "collections"))

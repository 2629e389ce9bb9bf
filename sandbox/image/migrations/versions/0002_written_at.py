# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a row was written, which the audit shows."""

from __future__ import annotations

from alembic import op

revision = "8e2d4c6a1f37"
down_revision = "5b1f0c7d2a90"


def upgrade() -> None:
    op.execute("ALTER TABLE rows ADD COLUMN written_at timestamptz DEFAULT now()")


def downgrade() -> None:
    op.execute("ALTER TABLE rows DROP COLUMN written_at")

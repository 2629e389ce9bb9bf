# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users and rows."""

from __future__ import annotations

from alembic import op

revision = "5b1f0c7d2a90"
down_revision = None


def upgrade() -> None:
    op.execute("CREATE TABLE users (email text PRIMARY KEY, password_sha256 text NOT NULL)")
    op.execute("CREATE TABLE rows (id bigint PRIMARY KEY, payload text NOT NULL, written_by text)")


def downgrade() -> None:
    op.execute("DROP TABLE rows, users")

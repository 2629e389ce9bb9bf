# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations


class ModuleDocFragment:
    """How verbs log in to PostgreSQL; `postgres.LOGIN_ARGUMENTS` is the same in code."""

    DOCUMENTATION = r"""
options:
  login_user:
    description: User that may end sessions and alter the database, as the master user of RDS may.
    type: str
  login_password:
    description: Its password.
    type: str
  login_db:
    description: The database that the application writes to.
    type: str
  sslmode:
    description: How far TLS is required on connections to the databases.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
    default: require
  ssl_root_cert:
    description: File with the certificate authorities to trust for V(verify-ca) and V(verify-full).
    type: path
"""

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations


class ModuleDocFragment:
    """How verbs log in to PostgreSQL; `postgres_login.LOGIN_ARGUMENTS` is the same in code."""

    DOCUMENTATION = r"""
options:
  login_user:
    description:
      - User that may end sessions and alter the database, as the master user of RDS may. Default is the user that
        O(login_secret) names.
    type: str
  login_password:
    description:
      - Its password. Give one of this, O(login_password_file), O(login_password_variable), O(login_secret) and O(login_iam);
        without any of them libpq looks for one itself, in C(PGPASSWORD) and C(~/.pgpass) of the controller.
    type: str
  login_password_file:
    description: File on the controller that holds the password and nothing else.
    type: path
  login_password_variable:
    description: Environment variable of the controller that holds the password.
    type: str
  login_secret:
    description:
      - Name or ARN of a secret of AWS Secrets Manager that holds the password, as JSON with C(username) and C(password) as
        RDS keeps its own, or bare. It is read in the region that an ARN names, else in O(region).
    type: str
  login_iam:
    description:
      - Log in with a token of AWS IAM in place of a password. It needs TLS, and C(rds_iam) granted to the user.
    type: bool
    default: false
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

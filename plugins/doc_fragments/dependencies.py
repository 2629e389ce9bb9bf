# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later


from __future__ import annotations


class ModuleDocFragment:
    """What a service cannot do without; `module_utils/dependencies.ARGUMENTS` is the same in code."""

    DOCUMENTATION = r"""
options:
  dependencies:
    description:
      - What the service cannot do without. Each is asked from where the task runs, so a controller outside of the VPC sees as
        filtered what is open to the service; delegate the task to a host inside of it, or have the way judged by
        M(sre.runbooks.network_assess).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name, for people.
        type: str
        required: true
      kind:
        description:
          - V(postgresql) is connected to, over TLS as O(dependencies[].sslmode) wants it, and with a login asked C(SELECT 1).
          - V(redis) is asked C(PING), after C(AUTH) where there is a login.
          - V(s3) is asked C(HeadBucket) and for a list of at most one object, with the credentials of this task.
          - V(url) is sent a C(GET); a redirect is not followed.
        type: str
        choices: [postgresql, redis, s3, url]
        required: true
      host:
        description: Name or address of a V(postgresql) or V(redis).
        type: str
      port:
        description: Its port. Default is 5432 or 6379, or what RDS says.
        type: int
      db_instance:
        description: RDS instance to look up in place of O(dependencies[].host).
        type: str
      tls:
        description: Whether this V(redis) speaks TLS.
        type: bool
        default: false
      bucket:
        description: Name of the bucket of V(s3).
        type: str
      region:
        description: Region of the bucket or of the RDS instance. Default is O(region).
        type: str
      url:
        description: URL to ask, with V(http) or V(https).
        type: str
      headers:
        description: Headers to send to it. Their values are hidden wherever they occur in the result.
        type: dict
      expect_status:
        description: Status codes that are good. Default is all below 400.
        type: list
        elements: int
      within:
        description: Seconds that it may take to answer, all in all.
        type: float
        default: 5
      login_user:
        description:
          - User to log in as, to V(postgresql) or V(redis). Default is the user that O(dependencies[].login_secret) names.
        type: str
      login_password:
        description:
          - Its password. Give one of this, O(dependencies[].login_password_file), O(dependencies[].login_password_variable),
            O(dependencies[].login_secret) and O(dependencies[].login_iam).
        type: str
      login_password_file:
        description: File on the controller that holds the password and nothing else.
        type: path
      login_password_variable:
        description: Environment variable of the controller that holds the password.
        type: str
      login_secret:
        description:
          - Name or ARN of a secret of AWS Secrets Manager that holds the password, bare, or as JSON with C(username) and
            C(password).
        type: str
      login_iam:
        description: Log in to V(postgresql) with a token of AWS IAM in place of a password.
        type: bool
        default: false
      login_db:
        description: The database of V(postgresql). Default is the one of the user's name.
        type: str
      sslmode:
        description: How far TLS is required of V(postgresql).
        type: str
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
        default: require
      ssl_root_cert:
        description: File with the certificate authorities to trust. Default is those of the machine.
        type: path
requirements:
  - psycopg2 (for a login to O(dependencies[].kind=postgresql))
  - cryptography (for the dates of certificates)
"""

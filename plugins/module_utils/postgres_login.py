# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who logs in to PostgreSQL, and where the password comes from; it is never part of a message or a result."""

from __future__ import annotations

import functools
import json
import os

from .aws import code_of
from .errors import Refusal, Stop, Unreachable

LOGIN_ARGUMENTS = dict(
    login_user=dict(type="str"),
    login_password=dict(type="str", no_log=True),
    login_password_file=dict(type="path", no_log=False),
    login_password_variable=dict(type="str", no_log=False),
    login_secret=dict(type="str", no_log=False),
    login_iam=dict(type="bool", default=False),
    login_db=dict(type="str"),
    sslmode=dict(
        type="str", choices=["disable", "allow", "prefer", "require", "verify-ca", "verify-full"], default="require"
    ),
    ssl_root_cert=dict(type="path"),
)
# For `mutually_exclusive`: one source of the password.
PASSWORD_SOURCES = ("login_password", "login_password_file", "login_password_variable", "login_secret", "login_iam")
# These let a password or a token out without TLS, or might.
WITHOUT_TLS = ("disable", "allow", "prefer")


class Login:
    """A login as the LOGIN_ARGUMENTS describe it.

    Args:
        params: the module's parameters.
        aws: asked for a secret or a token only where one is wanted.
    """

    def __init__(self, params, aws):
        self._params, self._aws = params, aws
        self.db, self.sslmode, self.root_cert = params["login_db"], params["sslmode"], params["ssl_root_cert"]

    @property
    def given(self):
        """Whether there is anybody to log in as."""
        return bool(self._params["login_user"] or self._params["login_secret"])

    @property
    def user(self):
        return self._params["login_user"] or self._secret.get("username")

    def password(self, host, port, region):
        """The password for a server in `region`; None leaves it to libpq (PGPASSWORD, a .pgpass file, a trusted client)."""
        if self._params["login_iam"]:
            return self._token(host, port, region)
        if self._params["login_secret"]:
            return self._secret["password"]
        if self._params["login_password_file"]:
            return self._file
        name = self._params["login_password_variable"]
        if name and name not in os.environ:
            raise Refusal(
                f"there is no environment variable {name} on the controller: export it, or name another "
                f"login_password_variable"
            )
        return os.environ[name] if name else self._params["login_password"]

    def _token(self, host, port, region):
        """Signed here, good for 15 minutes; RDS takes it over TLS only.

        https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html
        """
        if self.sslmode in WITHOUT_TLS:
            raise Refusal(
                f"login_iam sends a token that opens the database and wants TLS, and sslmode is {self.sslmode}: "
                f"say require, verify-ca or verify-full"
            )
        client = self._aws.client("rds", region)
        return client.generate_db_auth_token(DBHostname=host, Port=port, DBUsername=self.user, Region=region)

    @functools.cached_property
    def _file(self):
        path = self._params["login_password_file"]
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Refusal(
                f"login_password_file {path} cannot be read: {getattr(error, 'strerror', None) or 'no text'}"
            ) from error

    @functools.cached_property
    def _secret(self):
        """{username, password} of a secret in the form that RDS gives its own, or of one that is the bare password.

        https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
        """
        name = self._params["login_secret"]
        if not name:
            return {}
        # An ARN says where it is: a replica of a secret is the one to name where a region may be lost.
        region = name.split(":")[3] if name.startswith("arn:") else self._aws.region
        try:
            text = self._aws.read("secretsmanager", "get_secret_value", region=region, SecretId=name).get(
                "SecretString"
            )
        except Unreachable as error:
            # A plain Stop: whoever asks a database must not take this silence for that of the database.
            raise Stop(f"the secret {name} cannot be read: {error}: name a replica of it in another region") from error
        except Exception as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            raise Refusal(f"there is no secret {name} in {region}: check login_secret") from error
        try:
            found = json.loads(text or "")
        except ValueError:
            found = text
        if not isinstance(found, dict):
            found = {"password": text}
        if not found.get("password") or not isinstance(found["password"], str):
            raise Refusal(
                f"the secret {name} in {region} holds no password: its value must be the password, or JSON with a "
                f"field `password`"
            )
        return found

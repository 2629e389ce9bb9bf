# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from ansible_collections.sre.runbooks.plugins.module_utils.aws import Aws
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal, Stop, Unreachable
from ansible_collections.sre.runbooks.plugins.module_utils.postgres_login import LOGIN_ARGUMENTS, Login

WHERE = ("db.example.com", 5432, "us-west-2")
ARN = "arn:aws:secretsmanager:us-west-2:123456789012:secret:db-AbCdEf"


class Secrets:
    """Secrets Manager with one secret; keeps in which region it was asked for which."""

    region = "us-east-1"

    def __init__(self, value):
        self.value, self.asked = value, []

    def read(self, service, operation, region, SecretId):
        assert (service, operation) == ("secretsmanager", "get_secret_value")
        self.asked.append((region, SecretId))
        if isinstance(self.value, Exception):
            raise self.value
        return {"SecretString": self.value}


def login(aws=None, **given):
    unset = {name: option.get("default") for name, option in LOGIN_ARGUMENTS.items()}
    return Login({**unset, "login_user": "admin", "login_db": "regami", **given}, aws)


def test_as_it_is_given():
    assert login(login_password="word").password(*WHERE) == "word"


def test_without_any_libpq_looks_for_it():
    assert login().password(*WHERE) is None


def test_from_a_file_without_its_last_newline(tmp_path):
    path = tmp_path / "password"
    path.write_text(" wo\nrd\n")
    assert login(login_password_file=str(path)).password(*WHERE) == " wo\nrd"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Refusal, match="cannot be read: No such file"):
        login(login_password_file=str(tmp_path / "none")).password(*WHERE)


def test_from_the_environment(monkeypatch):
    monkeypatch.setenv("OUR_PASSWORD", "word")
    assert login(login_password_variable="OUR_PASSWORD").password(*WHERE) == "word"
    monkeypatch.delenv("OUR_PASSWORD")
    with pytest.raises(Refusal, match="no environment variable OUR_PASSWORD"):
        login(login_password_variable="OUR_PASSWORD").password(*WHERE)


def test_from_a_secret_as_rds_keeps_it():
    secrets = Secrets(json.dumps({"username": "master", "password": "word"}))
    found = login(secrets, login_user=None, login_secret=ARN)
    assert (found.given, found.user, found.password(*WHERE)) == (True, "master", "word")
    assert secrets.asked == [("us-west-2", ARN)]


def test_from_a_bare_secret_of_the_region():
    secrets = Secrets("word")
    found = login(secrets, login_secret="db")
    assert (found.user, found.password(*WHERE), secrets.asked) == ("admin", "word", [("us-east-1", "db")])


@pytest.mark.parametrize("value", [json.dumps({"pass": "planted"}), json.dumps({"password": 5}), "", None])
def test_a_secret_without_a_password(value):
    with pytest.raises(Refusal, match="the secret db in us-east-1 holds no password") as refusal:
        login(Secrets(value), login_secret="db").password(*WHERE)
    assert "planted" not in str(refusal.value)


def test_a_secret_that_is_not_there():
    missing = ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetSecretValue")
    with pytest.raises(Refusal, match="there is no secret db in us-east-1"):
        login(Secrets(missing), login_secret="db").password(*WHERE)


def test_silence_of_secrets_manager_is_not_taken_for_that_of_the_database():
    with pytest.raises(Stop, match="cannot be read: no answer") as stop:
        login(Secrets(Unreachable("no answer")), login_secret="db").password(*WHERE)
    assert not isinstance(stop.value, Unreachable)


def test_a_token_of_iam_is_for_that_server_user_and_region():
    aws = Aws(("us-east-1", None, {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}))
    token = login(aws, login_iam=True).password(*WHERE)
    assert token.startswith("db.example.com:5432/?Action=connect&DBUser=admin&")
    assert "us-west-2%2Frds-db" in token


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer"])
def test_a_token_is_not_sent_without_tls(sslmode):
    with pytest.raises(Refusal, match=f"wants TLS, and sslmode is {sslmode}"):
        login(login_iam=True, sslmode=sslmode).password(*WHERE)

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which calls are repeated, and what a person is told."""

from __future__ import annotations

import http.server
import threading

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import aws as plumbing
from ansible_collections.sre.runbooks.plugins.module_utils.errors import LostAnswer, Throttled, Unreachable

try:
    from botocore.exceptions import ClientError, NoCredentialsError
except ImportError:
    pytest.skip("needs botocore", allow_module_level=True)

GOOD = (200, "<R><GetCallerIdentityResult><Account>1</Account></GetCallerIdentityResult></R>")


def error(status, code, message="x"):
    return status, f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"


@pytest.fixture
def endpoint(monkeypatch):
    """An HTTP endpoint that gives `answers` in order (None: drop the connection); yields (Aws, answers, requests seen)."""
    answers, seen = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(1)
            answer = answers.pop(0)
            if answer is None:
                self.close_connection = True
                return
            body = answer[1].encode()
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    params = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "aws_session_token": None, "verify": True}
    yield plumbing.Aws(("us-east-1", f"http://127.0.0.1:{server.server_port}", params)), answers, seen
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "first", [error(400, "Throttling"), error(400, "ThrottlingException"), error(503, "SlowDown"), None]
)
def test_read_is_repeated(endpoint, first):
    aws, answers, seen = endpoint
    answers += [first, GOOD]
    assert aws.read("sts", "get_caller_identity")["Account"] == "1"
    assert len(seen) == 2


def test_read_that_is_never_answered_is_unreachable(endpoint):
    aws, answers, seen = endpoint
    answers += [None] * 5
    with pytest.raises(Unreachable, match="us-east-1 got no answer"):
        aws.read("sts", "get_caller_identity")
    assert len(seen) == 2


def test_read_that_goes_on_being_throttled_is_not_taken_for_silence(endpoint):
    aws, answers, seen = endpoint
    answers += [error(400, "ThrottlingException")] * 9
    with pytest.raises(Throttled, match="repeat the command"):
        aws.read("sts", "get_caller_identity")
    assert len(seen) == plumbing.READ_TRIES


@pytest.mark.parametrize("answer", [None, error(500, "InternalFailure"), error(503, "ServiceUnavailable")])
def test_change_without_a_clear_answer_is_sent_once(endpoint, answer):
    aws, answers, seen = endpoint
    answers += [answer, GOOD]
    with pytest.raises(LostAnswer):
        aws.change("sts", "get_caller_identity")
    assert len(seen) == 1


@pytest.mark.parametrize("answer", [error(400, "ThrottlingException"), error(400, "PriorRequestNotComplete")])
def test_change_that_was_throttled_was_not_applied_and_is_sent_again(endpoint, answer):
    aws, answers, seen = endpoint
    answers += [answer, GOOD]
    aws.change("sts", "get_caller_identity")
    assert len(seen) == 2


def test_a_no_is_not_repeated_and_names_the_permission(endpoint):
    aws, answers, seen = endpoint
    answers += [error(403, "AccessDenied", "User: jo is not authorized")]
    with pytest.raises(ClientError) as raised:
        aws.change("sts", "get_caller_identity")
    assert len(seen) == 1
    assert plumbing.explain(raised.value).startswith("missing permission sts:GetCallerIdentity in us-east-1")


def test_missing_permission_is_spelled_as_in_a_policy():
    problem = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeDBInstances")
    assert "permission rds:DescribeDBInstances in x" in plumbing.explain(problem, "rds", "describe_db_instances", "x")
    problem = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeTargetHealth")
    assert "permission elasticloadbalancing:Desc" in plumbing.explain(problem, "elbv2", "describe_target_health", "x")


@pytest.mark.parametrize(
    ("code", "message", "called", "permission"),
    [
        ("AccessDenied", "User: jo is not authorized to perform: s3:ListBucket on", "ListObjectsV2", "s3:ListBucket"),
        ("AccessDenied", "Access Denied", "ListObjectVersions", "s3:ListBucketVersions"),
        ("403", "Forbidden", "HeadBucket", "s3:ListBucket"),
        (
            "AccessDenied",
            "User: jo is not authorized to perform: iam:PassRole on resource: r",
            "PutObject",
            "iam:PassRole",
        ),
    ],
)
def test_missing_permission_goes_by_its_own_name(code, message, called, permission):
    problem = ClientError({"Error": {"Code": code, "Message": message}}, called)
    assert plumbing.is_denied(problem)
    assert plumbing.explain(problem, "s3", "x", "eu-west-1").startswith(f"missing permission {permission} in eu-west-1")


def test_an_unknown_403_is_no_missing_permission():
    assert not plumbing.is_denied(ClientError({"Error": {"Code": "403"}}, "GetObject"))


def test_aws_is_told_which_playbook_asks(endpoint, monkeypatch):
    aws, _answers, _seen = endpoint
    assert aws.client("sts").meta.config.user_agent_extra == "sre.runbooks/module"
    monkeypatch.setenv(plumbing.PLAYBOOK_VARIABLE, "db_failover")
    asking = plumbing.Aws(("us-east-1", None, {"aws_access_key_id": "x", "aws_secret_access_key": "y"}))
    assert asking.client("sts").meta.config.user_agent_extra == "sre.runbooks/db_failover"


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "X"), "expired"),
        (ClientError({"Error": {"Code": "InvalidClientTokenId"}}, "X"), "check AWS_PROFILE"),
        (NoCredentialsError(), "export AWS_PROFILE"),
    ],
)
def test_credentials_that_do_not_work_say_what_to_do(problem, told):
    message = plumbing.explain(problem, "rds", "promote_read_replica", "us-west-2")
    assert told in message
    assert "\n" not in message


def test_reads_run_side_by_side_and_findings_are_values():
    barrier = threading.Barrier(2, timeout=5)
    assert set(plumbing.together(a=barrier.wait, b=barrier.wait).values()) == {0, 1}

    def silent():
        raise Unreachable("no answer")

    assert isinstance(plumbing.attempt(silent, Unreachable), Unreachable)


def test_what_is_only_good_to_know_is_not_waited_for():
    asking = plumbing.Aws(("us-east-1", None, {"aws_access_key_id": "x", "aws_secret_access_key": "y"}))
    asking.hurried.add("us-west-2")
    waits = {region: asking.client("sqs", region).meta.config.read_timeout for region in ("us-east-1", "us-west-2")}
    assert waits == {"us-east-1": plumbing.READ_TIMEOUT, "us-west-2": plumbing.BRIEF_TIMEOUT}
    assert asking.silent == set()

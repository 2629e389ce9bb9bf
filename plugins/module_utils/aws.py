# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Calls to AWS: what may be repeated, what may not, and errors as sentences.

botocore repeats any request after a time-out, mutations included. Its retries are therefore switched off here:
reads are repeated by this file, a mutation only when AWS says that it was not applied (throttling), and a mutation
whose answer was lost raises LostAnswer so that the caller looks before it repeats.
"""

from __future__ import annotations

import functools
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor

try:
    import botocore.session
    from botocore import exceptions as boto_errors
    from botocore.config import Config
    from botocore.loaders import Loader
except ImportError:  # AnsibleAWSModule says so in words
    pass

from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry

from . import masking, pace, read_only
from .errors import GivenUp, LostAnswer, Stop, Throttled, Unreachable
from .patience import Patience

# Codes that AWSRetry does not know by itself. https://docs.aws.amazon.com/general/latest/gr/api-retries.html
THROTTLED = (
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "PriorRequestNotComplete",
    "SlowDown",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "RequestThrottled",
    "RequestThrottledException",
    "EC2ThrottledException",
    "BandwidthLimitExceeded",
    "503",  # SlowDown of a HEAD, whose answer has no body
)
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
BAD_CREDENTIALS = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "AuthFailure",
    "InvalidAccessKeyId",
    "IncompleteSignature",
)
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "NotAuthorized", "AuthorizationError")
# What the permission of a call is called where it is not service:Operation, for an answer that does not say it itself.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
IAM_PREFIX = {"elbv2": "elasticloadbalancing", "s3control": "s3", "service-quotas": "servicequotas"}
IAM_ACTION = {
    "s3:CompleteMultipartUpload": "s3:PutObject",
    "s3:CopyObject": "s3:PutObject",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:DeleteObjects": "s3:DeleteObject",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketReplication": "s3:GetReplicationConfiguration",
    "s3:GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:HeadObject": "s3:GetObject",
    "s3:ListBuckets": "s3:ListAllMyBuckets",
    "s3:ListObjectVersions": "s3:ListBucketVersions",
    "s3:ListObjects": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:PutBucketEncryption": "s3:PutEncryptionConfiguration",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
    "s3:UploadPart": "s3:PutObject",
    "s3:UploadPartCopy": "s3:PutObject",
}
# How AWS names it. https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
_NAMED = re.compile(r"not authorized to perform: ([\w-]+:\w+)")

# Which playbook asks, for CloudTrail and for who writes policies from it; the incident callback says it.
PLAYBOOK_VARIABLE = "SRE_RUNBOOKS_PLAYBOOK"

# What the names of reads begin with, in all services that verbs ask; StartQuery of CloudWatch Logs searches.
READS = (
    "BatchGet",
    "Describe",
    "Filter",
    "Get",
    "Head",
    "List",
    "Lookup",
    "Query",
    "Scan",
    "Search",
    "Select",
    "Simulate",
    "StartQuery",
    "Test",
)

# How long one call may take, in seconds: a region that answers nothing must not cost minutes (HAZARDS: static stability).
CONNECT_TIMEOUT, READ_TIMEOUT = 3, 8
READ_TRIES = 6
# A region that was found silent is asked again only this long for the rest of the run, as is one for what is only good to know.
BRIEF_TIMEOUT = 1


@functools.cache
def _loader():
    """Service models, read once a process (and, when the parent loaded them, once a playbook run)."""
    return Loader()


@functools.cache
def _session(profile):
    """A session of botocore; it looks for credentials when a client is made, not before."""
    session = botocore.session.Session(profile=profile)
    session.register_component("data_loader", _loader())
    # The one place that every call of every client passes.
    session.register("before-call", _look_only)
    return session


def _look_only(model, context, **_more):
    """In a run that only reads: raises WouldChange for what does not, and keeps pace with the other processes of the run."""
    if not read_only.is_on():
        return
    if not model.name.startswith(READS):
        service = model.service_model.service_name
        read_only.refuse(f"{IAM_PREFIX.get(service, service)}:{model.name}")
    pace.keep(model.service_model.service_name, context["client_region"])


def preload(services):
    """Load the models of `services` before ansible forks, so that each task finds them in memory."""
    _session(None)
    for name in ("partitions", "endpoints", "sdk-default-configuration", "_retry"):
        _loader().load_data(name)
    for service in services:
        _loader().load_service_model(service, "service-2")
        _loader().load_service_model(service, "endpoint-rule-set-1")


def is_unreachable(error):
    """True where no answer came: refused, timed out, reset, or a name that does not resolve."""
    return isinstance(error, (boto_errors.ConnectionError, boto_errors.HTTPClientError))


class Aws:
    """AWS as one verb sees it.

    Args:
        connection: (region, endpoint_url, boto_params) of `get_aws_connection_info`.
        read_timeout: seconds after which a call that was accepted counts as not answered.
    """

    def __init__(self, connection, read_timeout=READ_TIMEOUT):
        self.region, self._endpoint, params = connection
        self._params = dict(params)
        self._profile = self._params.pop("profile_name", None)
        self._config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=read_timeout,
            tcp_keepalive=True,
            retries={"total_max_attempts": 1},
            max_pool_connections=25,
            user_agent_extra=f"sre.runbooks/{os.environ.get(PLAYBOOK_VARIABLE) or 'module'}",
        )
        extra = self._params.pop("aws_config", None)
        if extra is not None:
            self._config = self._config.merge(extra)
        self._clients, self._lock = {}, threading.Lock()
        self.patience = Patience.of_run()
        # Regions that do not answer, where a verb can do without them; a verb adds what it finds.
        self.silent = set(self.patience.spent)
        # Regions that this verb asks only for what it can do without: a recovery does not wait longer for that.
        self.hurried = set()
        # What was not allowed and could be done without, in words; a verb says it among its notes.
        self.missed = []

    def client(self, service, region=None, endpoint_url=None, timeout=None):
        """A botocore client, made once for each service and region; `timeout` in seconds shortens the usual ones.

        Raises:
            GivenUp: the run has waited for the region as long as it may.
        """
        region = region or self.region
        if region in self.silent or region in self.hurried:
            timeout = BRIEF_TIMEOUT
        left = self.patience.left(region)
        if left == 0:
            spent = self.patience.spent.get(region, 0.0)
            raise GivenUp(f"{region} is asked no more ({service}): it has not answered for {spent:.0f} s in all")
        if left is not None:
            # A call may wait for its connection and then for its answer, each so long.
            timeout = min(timeout or self._config.read_timeout, round(left / 2, 2))
        key = (service, region, endpoint_url or self._endpoint, timeout)
        with self._lock:
            if key not in self._clients:
                config = self._config
                if timeout:
                    config = config.merge(Config(connect_timeout=timeout, read_timeout=timeout))
                try:
                    self._clients[key] = _session(self._profile).create_client(
                        key[0], region_name=key[1], endpoint_url=key[2], config=config, **self._params
                    )
                except boto_errors.BotoCoreError as error:
                    raise Stop(explain(error, service, "client", key[1])) from error
            return self._clients[key]

    def _ask(self, region, call):
        """`call()`, its time counted; a region with a limit that does not answer is remembered as silent."""
        region = region or self.region

        def is_silence(error):
            silent = is_unreachable(error.__cause__)
            if silent:
                self.silent.add(region)
            return silent

        return self.patience.ask(region, call, is_silence)

    # By position, and named unlike any AWS argument: UpdateService, for one, takes a `service`.
    def read(self, api, operation, /, region=None, **arguments):
        """A call that changes nothing; repeated through throttling, server errors and lost answers.

        Raises:
            Unreachable: no answer after all tries; GivenUp where none is waited for any more.
            Throttled: AWS went on throttling.
            botocore ClientError: AWS said no; callers look at the code where "not found" is an answer.
        """
        client = self.client(api, region)
        return self._ask(region, lambda: self._read(client, api, operation, region, arguments))

    def _read(self, client, api, operation, region, arguments):
        @AWSRetry.jittered_backoff(retries=READ_TRIES, delay=0.3, max_delay=5, catch_extra_error_codes=list(THROTTLED))
        def attempt():
            return getattr(client, operation)(**arguments)

        for remaining in (1, 0):
            try:
                return attempt()
            except (boto_errors.ConnectTimeoutError, boto_errors.ReadTimeoutError) as error:
                # Silence already cost a full time-out; a second one would only double it.
                raise Unreachable(explain(error, api, operation, region or self.region)) from error
            except (boto_errors.ConnectionError, boto_errors.HTTPClientError) as error:
                # Of a region that is waited for only so long, the first silence is believed.
                if not remaining or self.patience.left(region or self.region) is not None:
                    raise Unreachable(explain(error, api, operation, region or self.region)) from error
            except boto_errors.ClientError as error:
                error.sre_call = (api, operation, region or self.region)
                if code_of(error) in THROTTLED:
                    raise Throttled(f"{explain(error)}: wait a minute and repeat the command") from error
                if not remaining or error.response["ResponseMetadata"].get("HTTPStatusCode", 0) < 500:
                    raise
            except boto_errors.BotoCoreError as error:
                raise Stop(explain(error, api, operation, region or self.region)) from error
        return None

    def change(self, api, operation, /, region=None, **arguments):
        """A mutation, sent once; sent again only after an answer that says it was not applied.

        Raises:
            LostAnswer: time-out, reset or a server error; look at the state before repeating.
            Stop: AWS said no, in words.
        """
        client = self.client(api, region)
        return self._ask(region, lambda: self._change(client, api, operation, region, arguments))

    def _change(self, client, api, operation, region, arguments):
        @AWSRetry.jittered_backoff(retries=6, delay=0.3, max_delay=8, catch_extra_error_codes=list(THROTTLED))
        def attempt():
            return self._sent(client, api, operation, region, arguments)

        return attempt()

    def do_without(self, error):
        """Remember a call that was denied, where there is another way or a poorer answer."""
        self.missed.append(explain(error))

    def once(self, api, operation, /, region=None, **arguments):
        """A call, read or mutation, that is sent exactly once: for who paces many of them by what they answer.

        Raises:
            Throttled: it was not carried out, and may be sent again later.
            LostAnswer: time-out, reset or a server error.
            botocore ClientError: AWS said no.
        """
        client = self.client(api, region)
        try:
            return self._ask(region, lambda: self._sent(client, api, operation, region, arguments))
        except boto_errors.ClientError as error:
            if code_of(error) in THROTTLED:
                raise Throttled(f"{explain(error)}: wait a minute and repeat the command") from error
            raise

    def _sent(self, client, api, operation, region, arguments):
        named = (api, operation, region or self.region)
        try:
            return getattr(client, operation)(**arguments)
        except boto_errors.ClientError as error:
            error.sre_call, error.sre_version = named, arguments.get("VersionId")
            status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
            if status >= 500 and code_of(error) not in THROTTLED:
                raise LostAnswer(explain(error)) from error
            raise
        except (boto_errors.ConnectionError, boto_errors.HTTPClientError) as error:
            raise LostAnswer(explain(error, *named)) from error
        except boto_errors.BotoCoreError as error:
            raise Stop(explain(error, *named)) from error


def code_of(error):
    """The AWS error code of a ClientError ("" for any other exception)."""
    return (getattr(error, "response", None) or {}).get("Error", {}).get("Code", "")


def is_denied(error):
    """True where AWS said that this caller may not do that. The answer to a HEAD has no body, so its status is the code."""
    return code_of(error) in DENIED or (code_of(error) == "403" and error.operation_name.startswith("Head"))


def is_unknown(error):
    """True where AWS does not know, or no longer accepts, who asks."""
    return code_of(error) in (*EXPIRED, *BAD_CREDENTIALS)


def together(**calls):
    """`side_by_side` of reads that have names."""
    return side_by_side(calls)


def side_by_side(calls):
    """Run independent reads at once: {any key: result} of {key: call}. The first exception is raised after all ended."""
    if len(calls) <= 1:
        return {name: call() for name, call in calls.items()}
    with ThreadPoolExecutor(max_workers=len(calls)) as pool:
        futures = {name: pool.submit(call) for name, call in calls.items()}
    return {name: future.result() for name, future in futures.items()}


def attempt(call, *errors):
    """`call()`, or the exception itself where it is one of `errors`: for reads whose failure is a finding."""
    try:
        return call()
    except errors as error:
        return error


def tried_together(looks, *errors):
    """`together` of {any key: call}, in which a read that fails is a finding: {key: result or the exception}.

    Args:
        errors: what counts as one; by default whatever AWS, a region or a database may answer. All else is raised.
    """
    errors = errors or (Stop, boto_errors.ClientError)
    return side_by_side({key: lambda look=look: attempt(look, *errors) for key, look in looks.items()})


def reason(error):
    """Why a read that was given up failed, for people: of a Stop or of a ClientError."""
    return str(error) if isinstance(error, Stop) else explain(error)


def explain(error, service=None, operation=None, region=None):
    """One line for a person: what failed, where (if it is known), and what to do next."""
    service, operation, region = getattr(error, "sre_call", (service, operation, region))
    # As IAM spells it (DescribeDBInstances): a person copies it into a policy.
    name = getattr(error, "operation_name", None) or operation.title().replace("_", "")
    action = f"{IAM_PREFIX.get(service, service)}:{name}"
    where = f" in {region}" if region else ""
    code = code_of(error)
    if code in EXPIRED:
        return (
            f"the AWS credentials have expired ({action}{where}): sign in again (aws sso login) and repeat the command"
        )
    if code in BAD_CREDENTIALS:
        return (
            f"AWS does not accept these credentials ({code} from {action}{where}): check AWS_PROFILE or the access key"
        )
    if is_denied(error):
        message = _message(error)
        named = _NAMED.search(message)
        permission = named[1] if named else IAM_ACTION.get(action, action)
        if permission == "s3:GetObject" and getattr(error, "sre_version", None):
            permission = "s3:GetObjectVersion"
        return (
            f"missing permission {permission}{where}: {message}: "
            f"add it to the role that runs this playbook, or use another profile"
        )
    if code:
        return f"{action}{where} answered {code}: {_message(error)}"
    if isinstance(error, boto_errors.NoCredentialsError):
        return "no AWS credentials found: export AWS_PROFILE (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or sign in with aws sso login"
    if isinstance(error, boto_errors.ProfileNotFound):
        return f"{error}: check AWS_PROFILE against ~/.aws/config".replace("The config profile", "the AWS profile")
    if (
        isinstance(error, boto_errors.TokenRetrievalError)
        or "SSOToken" in type(error).__name__
        or "UnauthorizedSSO" in type(error).__name__
    ):
        return "the AWS SSO session has expired: run aws sso login and repeat the command"
    if isinstance(error, boto_errors.NoRegionError):
        return "no AWS region given: set aws_region for this host in the inventory"
    if is_unreachable(error):
        return f"{action}{where} got no answer ({type(error).__name__})"
    return f"{action}{where}: {masking.kept(str(error))}"


def _message(error):
    """What AWS says, in one line; it names callers by their sessions, which may be somebody's address."""
    return masking.kept(" ".join(error.response.get("Error", {}).get("Message", "").split())) or "no message"

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a service cannot do without: does it answer, how fast, and if not, why.

A database, a Redis, a bucket, the API of somebody else: each is asked as a client of it asks, from where this runs, and
says the one thing that tells causes apart: nothing listens (the process is gone), nothing comes back (something on the way
drops it), it answers "no" (a permission), or "not now" (throttled).
"""

from __future__ import annotations

import errno
import functools
import socket
import ssl
import struct
import threading
import time
from concurrent.futures import Future
from datetime import UTC, datetime
from urllib.parse import urlsplit

try:
    from botocore import exceptions as boto_errors
except ImportError:
    pass

try:
    from cryptography import x509
except ImportError:  # ansible-core brings it; elsewhere dates of certificates are not told
    x509 = None

from . import dns, rds, web
from .aws import DENIED, THROTTLED, attempt, code_of, is_unreachable, reason, tried_together
from .errors import Refusal, Stop, Throttled, Unreachable
from .masking import masked, snippet
from .postgres import HAS_PSYCOPG2, NOT_THERE_YET, Database
from .postgres_login import LOGIN_ARGUMENTS, PASSWORD_SOURCES, Login

POSTGRESQL, REDIS, S3, URL = KINDS = ("postgresql", "redis", "s3", "url")
PORTS = {POSTGRESQL: 5432, REDIS: 6379}
DAY = 24 * 3600

ARGUMENTS = dict(
    dependencies=dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            name=dict(type="str", required=True),
            kind=dict(type="str", choices=list(KINDS), required=True),
            host=dict(type="str"),
            port=dict(type="int"),
            db_instance=dict(type="str"),
            tls=dict(type="bool", default=False),
            bucket=dict(type="str"),
            region=dict(type="str"),
            url=dict(type="str"),
            headers=dict(type="dict", no_log=True),
            expect_status=dict(type="list", elements="int"),
            within=dict(type="float", default=5),
            **LOGIN_ARGUMENTS,
        ),
        mutually_exclusive=[PASSWORD_SOURCES, ("host", "db_instance")],
        required_if=[
            ("kind", POSTGRESQL, ("host", "db_instance"), True),
            ("kind", REDIS, ("host",)),
            ("kind", S3, ("bucket",)),
            ("kind", URL, ("url",)),
        ],
    ),
)


class Down(Stop):
    """A dependency does not serve. `fault` is one word for it: RETURN of dependencies_assess lists them."""

    def __init__(self, fault, message, days=None):
        super().__init__(message)
        self.fault, self.days = fault, days


def refuse_malformed(wanted, dns_servers):
    """Stop at what cannot be asked: that is a mistake in the inventory, and no outage."""
    for server in dns_servers:
        dns.parse_server(server)
    for each in wanted:
        url = urlsplit(each["url"] or "")
        if each["kind"] == URL and (url.scheme not in ("http", "https") or not url.hostname):
            raise Refusal(f"dependency {each['name']}: {masked(each['url'])} is no URL with http or https")
        if each["kind"] == REDIS and each["login_iam"]:
            raise Refusal(f"dependency {each['name']}: login_iam is for PostgreSQL: give login_password")


def assess(aws, wanted, dns_servers=()):
    """What each dependency says, all asked at the same time.

    Args:
        aws: an `aws.Aws`; asked for buckets and instances of RDS only.
        wanted: entries as ARGUMENTS has them.
        dns_servers: who is asked for names; empty for the resolver of this machine.

    Returns:
        [{name, kind, ok, seconds, reason, fault, certificate_days}] in the order of `wanted`. `seconds` is how long the whole
        exchange took, None where there was none; `reason` and `fault` are None where all is well; `certificate_days` is how
        long the certificate that was shown lasts, None where none was. `ok` is None where it could not be asked.
    """
    started = time.monotonic()
    futures = [Future() for _each in wanted]
    for future, each in zip(futures, wanted, strict=True):
        # Daemons: the resolver of libc keeps to no time limit of ours, and must not keep the verb.
        threading.Thread(target=_settle, args=(future, aws, each, dns_servers), daemon=True).start()
    return [_told(each, future, started) for each, future in zip(wanted, futures, strict=True)]


def _settle(future, aws, each, dns_servers):
    try:
        future.set_result(_timed(aws, each, dns_servers))
    except BaseException as error:
        future.set_exception(error)


def _timed(aws, each, dns_servers):
    started = time.monotonic()
    days = _ASK[each["kind"]](aws, each, dns_servers, started + each["within"])
    return round(time.monotonic() - started, 3), days


def _told(each, future, started):
    told = {"name": each["name"], "kind": each["kind"], "ok": False, "seconds": None, "reason": None, "fault": None}
    try:
        # A little more than it has: its own words are better than ours.
        seconds, days = future.result(max(0.0, started + each["within"] + 0.5 - time.monotonic()))
    except Down as down:
        return dict(told, reason=str(down), fault=down.fault, certificate_days=down.days)
    except TimeoutError:
        return dict(told, reason=f"no answer within {each['within']:g} s", fault="silent", certificate_days=None)
    except (Stop, boto_errors.ClientError) as error:  # what it takes to ask is not there: a secret, a file, psycopg2
        return dict(told, ok=None, reason=reason(error), certificate_days=None)
    return dict(told, ok=True, seconds=seconds, certificate_days=days)


def words(found, warn_days):
    """What `assess` found as lines for people, the worst first; what could not be asked is left out."""
    for each in found:
        if each["ok"] is False:
            yield f"{each['name']} is down: {each['reason']}"
    for each in found:
        days = each["certificate_days"]
        if days is not None and days <= warn_days and each["fault"] != "certificate_expired":
            lasts = f"expires in {days:g} days" if days >= 0 else f"expired {-days:g} days ago"
            yield f"the certificate of {each['name']} {lasts}"
    for each in found:
        if each["ok"]:
            yield f"{each['name']} answers in {each['seconds']:g} s"


# ---- what all have in common -----------------------------------------------------------------------------------------


def _reach(host, port, each, dns_servers, deadline):
    """A connected socket, or Down with what the network says of the way there."""
    where = f"{host}:{port}"
    try:
        return web.connect(host, port, dns_servers, deadline)
    except socket.gaierror as error:
        raise Down("unresolved", f"the name {host} does not resolve ({error.strerror})") from error
    except Unreachable as error:
        raise Down("unresolved", f"the name {host} does not resolve: {error}") from error
    except TimeoutError as error:
        raise Down(
            "filtered",
            f"no connection to {where} within {each['within']:g} s: a security group, a network ACL or a route drops it, or "
            f"its host is down",
        ) from error
    except ConnectionRefusedError as error:
        raise Down("refused", f"{where} refuses connections: nothing listens there") from error
    except OSError as error:
        fault = "filtered" if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH) else "error"
        raise Down(fault, f"no connection to {where}: {error.strerror or type(error).__name__}") from error


def _speaking(where, each, exchange):
    """`exchange()`, where what a connection does instead of answering becomes a Down."""
    try:
        return exchange()
    except TimeoutError as error:
        raise Down(
            "silent", f"{where} takes connections and does not answer within {each['within']:g} s: it hangs"
        ) from error
    except ssl.SSLCertVerificationError:
        raise
    except ssl.SSLError as error:
        raise Down("tls", f"{where}: TLS failed: {error.reason or error}") from error
    except OSError as error:
        raise Down("closed", f"{where} closes the connection without an answer ({type(error).__name__})") from error


def _handshake(opened, where, host, each, context, deadline):
    """(TLS socket, days that the certificate lasts); Down names the date of one that has expired.

    Args:
        opened: makes a connection whose next bytes are those of TLS.
    """
    try:
        secured = _speaking(where, each, lambda: _verified(opened, context, host, deadline))
    except ssl.SSLCertVerificationError as error:
        ends = attempt(lambda: _shown(opened, host, deadline), OSError, Stop)
        days = None if ends is None or isinstance(ends, Exception) else _days(ends)
        if days is not None and ends < datetime.now(UTC):
            raise Down(
                "certificate_expired",
                f"the certificate of {where} expired on {ends:%Y-%m-%d %H:%M} UTC ({_ago(ends)} ago): have it renewed",
                days,
            ) from error
        raise Down("tls", f"the certificate of {where} is not trusted: {error.verify_message}", days) from error
    ends = _ends(secured)
    return secured, ends and _days(ends)


def _verified(opened, context, host, deadline):
    return web.secured(opened(), context, host, deadline)


def _shown(opened, host, deadline):
    """When the certificate ends that is shown to whoever comes; nothing is sent over this connection."""
    with web.secured(opened(), _trusting(), host, deadline) as sock:
        return _ends(sock)


def _ends(sock):
    shown = sock.getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).not_valid_after_utc if x509 and shown else None


def _days(ends):
    return round((ends - datetime.now(UTC)).total_seconds() / DAY, 1) + 0.0  # never -0.0


def _ago(ends):
    minutes = (datetime.now(UTC) - ends).total_seconds() / 60
    if minutes < 120:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"


def _trusted(each, check_hostname=True):
    path = each["ssl_root_cert"]
    try:
        return web.trust(path, check_hostname)
    except OSError as error:  # which ssl.SSLError is too: a file without a certificate
        raise Stop(f"ssl_root_cert {path} cannot be read: {error.strerror or 'no certificate in it'}") from error


@functools.cache
def _trusting():
    """A context that trusts anybody: for looking at a certificate, and for clients that do not look."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------

# https://www.postgresql.org/docs/16/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-SSLREQUEST
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def _postgresql(aws, each, dns_servers, deadline):
    """Does a postmaster answer, over TLS where sslmode wants it; and with a login, `SELECT 1`."""
    host, port, region = _address(aws, each)
    where, days = f"{host}:{port}", None

    def asked():
        """(connection, whether it goes on in TLS)"""
        sock = _reach(host, port, each, dns_servers, deadline)
        try:
            sock.settimeout(web.left(deadline))
            sock.sendall(SSL_REQUEST)
            answer = sock.recv(1)
        except BaseException:
            sock.close()
            raise
        if answer not in (b"S", b"N"):
            sock.close()
            said = "closes the connection" if not answer else "answers, but not as PostgreSQL does"
            raise Down("closed", f"{where} {said}")
        return sock, answer == b"S"

    sock, has_tls = _speaking(where, each, asked)
    sock.close()
    if each["sslmode"] not in ("disable", "allow", "prefer") and not has_tls:
        raise Down("tls", f"{where} has no TLS, and sslmode is {each['sslmode']}")
    if has_tls and each["sslmode"] != "disable":
        context = _context(each)
        secured, days = _handshake(lambda: asked()[0], where, host, each, context, deadline)
        secured.close()
    login = Login(each, aws)
    if login.given:
        if not HAS_PSYCOPG2:
            raise Stop("psycopg2 is missing where this runs: pip install psycopg2-binary")
        login.password(host, port, region)  # for want of which nobody is denied anything
        _select(Database(host, port, login, region=region, within=each["within"]))
    return days


def _address(aws, each):
    """(host, port, region) as the inventory has it, or as RDS says."""
    region = each["region"] or aws.region
    if each["host"]:
        return each["host"], each["port"] or PORTS[POSTGRESQL], region
    found = attempt(lambda: rds.describe(aws, each["db_instance"], region), Stop, boto_errors.ClientError)
    if isinstance(found, Exception):
        raise Stop(f"nobody can tell where {each['db_instance']} is: {reason(found)}: give host instead") from found
    if found is None:
        raise Down("missing", f"there is no RDS instance {each['db_instance']} in {region}")
    if not found["host"]:
        raise Down("missing", f"{each['db_instance']} has no endpoint: it is {found['status']}")
    return found["host"], each["port"] or found["port"], region


def _context(each):
    """What libpq does with a certificate. https://www.postgresql.org/docs/16/libpq-ssl.html#LIBPQ-SSL-PROTECTION"""
    if each["sslmode"] not in ("verify-ca", "verify-full"):
        return _trusting()
    return _trusted(each, check_hostname=each["sslmode"] == "verify-full")


def _select(database):
    try:
        with database.session() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Throttled as error:
        raise Down("exhausted", str(error)) from error
    except Unreachable as error:
        starting = any(text in str(error) for text in NOT_THERE_YET)
        raise Down("starting" if starting else "silent", str(error)) from error
    except Stop as error:
        raise Down("denied", str(error)) from error


# ---- Redis -----------------------------------------------------------------------------------------------------------

# What a Redis says that is alive and does not serve. https://redis.io/docs/latest/develop/reference/protocol-spec/
REFUSALS = {
    "NOAUTH": ("denied", "it wants a password: give login_password"),
    "WRONGPASS": ("denied", "it does not accept the login: check login_user and login_password"),
    "NOPERM": ("denied", "this user may not PING"),
    "DENIED": ("denied", "protected mode: it serves only its own machine"),
    "LOADING": ("starting", "it is still loading its data"),
    "MASTERDOWN": ("starting", "it is a replica whose primary is gone"),
    "BUSY": ("silent", "a script keeps it busy"),
}


def _redis(aws, each, dns_servers, deadline):
    """AUTH where there is a login, and PING. https://redis.io/docs/latest/commands/ping/"""
    host, port = each["host"], each["port"] or PORTS[REDIS]
    where, days, login = f"{host}:{port}", None, Login(each, aws)
    password = login.password(host, port, each["region"] or aws.region)

    def opened():
        return _reach(host, port, each, dns_servers, deadline)

    if each["tls"]:
        sock, days = _handshake(opened, where, host, each, _trusted(each), deadline)
    else:
        sock = opened()
    with sock, sock.makefile("rb") as answers:

        def said(*words):
            sock.settimeout(web.left(deadline))
            sock.sendall(resp(*words))
            line = answers.readline(4096)
            if not line:
                raise ConnectionAbortedError
            return line.decode("utf-8", "replace").strip()

        def exchange():
            if password:
                _judge_redis(where, said("AUTH", *([login.user] if login.user else []), password), "+OK")
            _judge_redis(where, said("PING"), "+PONG")

        _speaking(where, each, exchange)
    return days


def resp(*words):
    """A command as Redis reads it: an array of bulk strings."""
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _judge_redis(where, answer, good):
    if answer == good:
        return
    word, _space, rest = answer.removeprefix("-").partition(" ")
    if word == "ERR" and "max number of clients" in rest:
        raise Down("exhausted", f"{where} has no connection left ({snippet(answer)})")
    fault, meaning = REFUSALS.get(word, ("error", "it answers, but not as Redis should"))
    raise Down(fault, f"{where}: {meaning} ({snippet(answer)})")


# ---- S3 --------------------------------------------------------------------------------------------------------------


def _s3(aws, each, _dns_servers, _deadline):
    """HeadBucket, which names the region, and a list of at most one object, which names what is denied; without retries.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html
    """
    bucket, region = each["bucket"], each["region"] or aws.region
    client = aws.client("s3", region, timeout=each["within"])
    calls = {
        "head_bucket": lambda: client.head_bucket(Bucket=bucket),
        "list_objects_v2": lambda: client.list_objects_v2(Bucket=bucket, MaxKeys=1),
    }
    # HeadBucket has no body, so ListObjectsV2 is the one whose words are told.
    found = tried_together(calls, boto_errors.BotoCoreError, boto_errors.ClientError)
    for name in ("list_objects_v2", "head_bucket"):
        if isinstance(found[name], Exception):
            found[name].sre_call = ("s3", name, region)
            raise _judge_s3(bucket, region, found[name]) from found[name]
    real = found["head_bucket"].get("BucketRegion") or region
    if real != region:
        raise Down("wrong_region", f"the bucket {bucket} is in {real}, not in {region}: correct its region")


def _judge_s3(bucket, region, error):
    """The Down (or, without credentials, the Stop) that an error of S3 means."""
    code, said = code_of(error), reason(error)
    status = (getattr(error, "response", None) or {}).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if isinstance(error, boto_errors.ConnectTimeoutError):
        return Down(
            "filtered", f"no connection to S3 in {region}: an endpoint policy, a security group or a route drops it"
        )
    if isinstance(error, boto_errors.ReadTimeoutError):
        return Down("silent", said)
    if is_unreachable(error):
        return Down("refused", said)
    if code in THROTTLED or status in (429, 503):
        return Down("throttled", f"S3 throttles requests to {bucket}: {said}")
    if code in ("NoSuchBucket", "404"):
        return Down("missing", f"there is no bucket {bucket}: check its name")
    if code in (*DENIED, "403", "AllAccessDisabled"):
        # What IAM calls both calls. https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html
        why = " ".join(error.response["Error"].get("Message", "").split())
        return Down("denied", f"missing permission s3:ListBucket on {bucket} in {region}: {why or 'no reason given'}")
    if code in ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return Down("wrong_region", f"the bucket {bucket} is not in {region}: {said}")
    return Down("error", said) if code else Stop(said)


# ---- somebody else's API ---------------------------------------------------------------------------------------------


def _url(_aws, each, dns_servers, deadline):
    """A GET that is not followed elsewhere; the certificate first, since a request tells less of it."""
    url, days = urlsplit(each["url"]), None
    host, port = url.hostname, web.port_of(url)
    where = f"{host}:{port}"

    def opened():
        return _reach(host, port, each, dns_servers, deadline)

    if url.scheme == "https":
        sock, days = _handshake(opened, where, host, each, _trusted(each), deadline)
        sock.close()
    else:
        opened().close()
    message = dict.fromkeys(("json", "secret_json", "body"), None) | {
        "url": each["url"],
        "method": "GET",
        "headers": each["headers"],
        "within": max(0.1, deadline - time.monotonic()),
    }
    _judge_http(each, web.request(message, dns_servers, each["ssl_root_cert"]), days)
    return days


def _judge_http(each, seen, days):
    wanted, shown = each["expect_status"], masked(each["url"])
    if seen.status is None:
        raise Down("silent", f"{shown}: {seen.text}", days)
    if seen.status in wanted if wanted else seen.status < 400:
        return
    said = f"{shown} answers {seen.status} {snippet(seen.text, 80)}".rstrip()
    if seen.status == 429:
        raise Down("throttled", f"{said}: it throttles us", days)
    if seen.status in (401, 403):
        raise Down("denied", f"{said}: it does not accept our credentials", days)
    raise Down("error", said, days)


_ASK = {POSTGRESQL: _postgresql, REDIS: _redis, S3: _s3, URL: _url}

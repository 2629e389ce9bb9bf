# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a line of a log, a stopped task or a failed check complains of, by the words of the libraries and services themselves.

The words are those of Python (psycopg2, SQLAlchemy, redis-py, botocore, requests and urllib3, ssl, OSError), of Java and Node where
they are short, and of PostgreSQL, ECS and Linux. A line is of one kind: the first that knows a word of it.
"""

from __future__ import annotations

import re

CERTIFICATE, S3_DENIED, THROTTLED, DISK, MEMORY, POOL, REDIS, SLOW, UNREACHED, EXCEPTION = KINDS = (
    *("certificate", "s3_denied", "throttled", "disk", "memory", "pool", "redis", "slow", "unreached", "exception"),
)

_WORDS = {
    # https://docs.openssl.org/master/man3/X509_STORE_CTX_get_error/ X509_V_ERR_CERT_HAS_EXPIRED
    CERTIFICATE: (
        r"certificate[ _]has[ _]expired",
        r"certificate[ _]expired",
        r"certificate is not yet valid",
        r"CertificateExpiredException",
        r"certificate .*\bexpired\b",
    ),
    # https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; HeadObject has no body, and says 403 alone
    S3_DENIED: (
        r"(AccessDenied|AllAccessDisabled|\(403\)).*when calling the \w*(Object|Objects|ObjectsV2|Bucket|Upload|Part|Copy)\w* operation",
        r"AmazonS3Exception: (Access Denied|Forbidden)",
        r"S3.*\b(AccessDenied|Access Denied)\b",
        r"\b(AccessDenied|Access Denied)\b.*\bS3\b",
    ),
    # https://docs.aws.amazon.com/general/latest/gr/api-retries.html and status 429 of everybody else
    THROTTLED: (
        r"Throttl(ing|ed)",
        r"Rate exceeded",
        r"RequestLimitExceeded",
        r"ProvisionedThroughputExceeded",
        r"TooManyRequests",
        r"Too Many Requests",
        r"too many 429",
        r"SlowDown",
        r"\brate limit",
        r"\b(status|code|HTTP)\D{0,9}429\b",
    ),
    # https://man7.org/linux/man-pages/man3/errno.3.html ENOSPC, EDQUOT
    DISK: (
        r"no space left on device",
        r"\bENOSPC\b",
        r"disk quota exceeded",
        r"\bDiskFull\b",
        r"disk (is )?full",
        r"not enough space on the disk",
    ),
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html OutOfMemoryError
    MEMORY: (
        r"\bMemoryError\b",
        r"OutOfMemory",
        r"out of memory",
        r"OOM",
        r"cannot allocate memory",
        r"\bENOMEM\b",
        r"exit code 137",
    ),
    # https://docs.sqlalchemy.org/en/20/errors.html#error-3o7r, and what PostgreSQL, MySQL, HikariCP, node-pg, Prisma say
    POOL: (
        r"QueuePool limit",
        r"PoolTimeout",
        r"PoolError",
        r"connection pool exhausted",
        r"pool (is )?exhausted",
        r"remaining connection slots",
        r"too many (clients|connections)",
        r"Connection is not available, request timed out",
        r"timeout exceeded when trying to connect",
        r"fetching a new connection from the (connection )?pool",
        r"Cannot get a connection",
    ),
    REDIS: (r"redis", r"\bjedis", r"\blettuce\b", r":6379\b", r"\belasticache\b", r"\bvalkey\b"),
    # https://www.postgresql.org/docs/current/errcodes-appendix.html 57014, 55P03, 40P01
    SLOW: (
        r"statement timeout",
        r"QueryCanceled",
        r"lock timeout",
        r"LockNotAvailable",
        r"deadlock detected",
        r"lock wait timeout",
        r"statement execution time exceeded",
        r"query (read )?timeout",
        r"slow query",
        r"duration: \S+ ms +(statement|execute)",
    ),
    UNREACHED: (
        r"timed? ?out",
        r"timeout",
        r"\b(E?CONN)?(REFUSED|RESET|ABORTED)\b",
        r"connection (was )?(refused|reset|aborted|closed)",
        r"remote end closed connection",
        r"ConnectionError",
        r"ConnectError",
        r"\b(EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|EPIPE)\b",
        r"no route to host",
        r"network is unreachable",
        r"Broken pipe",
        r"Name or service not known",
        r"Temporary failure in name resolution",
        r"could not (connect|translate host name)",
        r"UnknownHostException",
        r"getaddrinfo",
        r"Max retries exceeded",
        r"server closed the connection",
        r"SSL connection has been closed",
        r"terminating connection",
        r"the database system is (shutting down|starting up|in recovery|not yet accepting)",
        r"OperationalError",
        r"InterfaceError",
        r"(Bad Gateway|Service Unavailable|Gateway Time-?out)",
        r"CERTIFICATE_VERIFY_FAILED",
        r"SSLError",
        r"EndpointConnectionError",
    ),
    EXCEPTION: (
        r"\b[A-Z]\w*(Error|Exception)\b",
        r"\bTraceback\b",
        r"\bpanic:",
        r"nil pointer",
        r"unhandled",
        r"cannot read propert",
        r"is not a function",
        r"segmentation fault",
    ),
}
_PATTERNS = {kind: re.compile("|".join(words), re.IGNORECASE) for kind, words in _WORDS.items()}
# A packet that is dropped on its way ends in silence; a port that nobody listens on, in a refusal.
_SILENCE = re.compile(
    r"timed? ?out|timeout|ETIMEDOUT|no route to host|(EHOST|ENET)UNREACH|network is unreachable", re.IGNORECASE
)


def kind_of(text):
    """Pure: one of KINDS, None where no word is known."""
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.search(text)), None)


def is_silence(text):
    """Pure: did something not answer at all, as behind a firewall? A pool or a query that takes too long is another matter."""
    return _SILENCE.search(text) is not None and kind_of(text) in (UNREACHED, REDIS)

# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether users of either side are met by a certificate that is valid, and stays so for a while."""

from __future__ import annotations

import contextlib
import ssl
import time

from . import dns, elbv2, web
from .aws import together
from .errors import Refusal, Unreachable
from .readiness import MOVES, NOT_READY, RISK, Found
from .restore_points import moment

CHECK, SCENARIOS = "certificates", None
# ACM renews 60 days before the end where it can; after this none is to be waited for.
# https://docs.aws.amazon.com/acm/latest/userguide/managed-renewal.html
SOON = 21 * 86400
# Seconds for one handshake.
HANDSHAKE = 5
ENCRYPTED = ("HTTPS", "TLS")


def looks(aws, wanted, now):
    """{(what, its scenarios): call}: of the load balancers of both sides, and of the hosts as users are served by them."""
    here, standby = wanted["load_balancer_arn"], wanted["standby"] or {}
    stay = tuple(each for each in wanted["scenarios"] if each not in MOVES)
    balancers = [(arn, which) for arn, which in ((here, stay), (standby.get("load_balancer_arn"), MOVES)) if arn]
    asked = {each: lambda arn=each[0]: _of_balancer(aws, arn) for each in balancers}
    return asked | {(host, stay): lambda host=host: _served(host, wanted["dns_servers"]) for host in wanted["served"]}


def _of_balancer(aws, arn):
    """[DescribeCertificate] of its listeners with TLS, each certificate once; those of IAM are not in ACM, and not asked."""
    region = elbv2.region_of(arn)
    try:
        listeners = [each for each in elbv2.ports(aws, arn, region) if each["Protocol"] in ENCRYPTED]
    except Refusal:
        return []  # whoever needs it says so
    used = together(
        **{
            each["ListenerArn"]: lambda each=each: elbv2.certificates(aws, each["ListenerArn"], region)
            for each in listeners
        }
    )
    arns = {
        each["CertificateArn"]
        for listener in listeners
        for each in [*listener.get("Certificates", []), *used[listener["ListenerArn"]]]
    }
    return [
        aws.read("acm", "describe_certificate", region=region, CertificateArn=each)["Certificate"]
        for each in sorted(arns)
        if ":acm:" in each
    ]


def _served(host, dns_servers):
    """{until: seconds since the epoch} as TLS of `host[:port]` serves it, {refused: why} where no client would take it, {} where
    it does not answer, which is no fault of a certificate."""
    url = web.urlsplit(f"https://{host}")
    deadline = time.monotonic() + HANDSHAKE
    try:
        plain = web.connect(url.hostname, web.port_of(url), dns_servers, deadline)
        with contextlib.closing(web.secured(plain, web.trust(), url.hostname, deadline)) as line:
            return {"until": ssl.cert_time_to_seconds(line.getpeercert()["notAfter"])}
    except ssl.SSLCertVerificationError as error:
        return {"refused": error.verify_message}
    except (OSError, Unreachable):
        return {}


def judge(seen, wanted, now):
    """Pure: what is over, is over soon, is not for this name, or is not taken by clients."""
    told = set()
    for (what, scenarios), found in seen.items():
        # As a host serves it says nothing new about what its load balancer has.
        if isinstance(found, dict) and scenarios in told:
            continue
        faults = _of_host(what, found, now) if isinstance(found, dict) else _of_all(what, found, wanted["record"], now)
        for level, resource, because, fix in faults:
            told.add(scenarios)
            yield Found(level, resource, because, fix, scenarios)


def _of_all(arn, certificates, record, now):
    balancer = elbv2.short_name(arn)
    for each in certificates:
        level, why = _end(each["NotAfter"].timestamp(), now) if each.get("NotAfter") else (None, None)
        if each["Status"] not in ("ISSUED", "EXPIRED"):
            level, why = NOT_READY, f"is {each['Status']}"
        if level:
            renewal = (each.get("RenewalSummary") or {}).get("RenewalStatusReason")
            because = f"the certificate of {balancer} for {each['DomainName']} {why}{': ' + renewal if renewal else ''}"
            fix = (
                "aws acm import-certificate of a new one"
                if each.get("Type") == "IMPORTED"
                else "see in ACM why it is not renewed"
            )
            yield level, each["CertificateArn"], because, fix
    names = sorted(
        {name for each in certificates for name in (each["DomainName"], *each.get("SubjectAlternativeNames", []))}
    )
    if record and names and not any(covers(name, record) for name in names):
        because = f"no certificate of {balancer} is for {record}, only for {', '.join(names)}"
        yield NOT_READY, arn, because, "add one to its listener (aws elbv2 add-listener-certificates)"


def _of_host(host, served, now):
    if "refused" in served:
        yield (
            NOT_READY,
            host,
            f"clients refuse the certificate that {host} serves: {served['refused']}",
            "serve another one",
        )
    elif "until" in served:
        level, why = _end(served["until"], now)
        if level:
            yield level, host, f"the certificate that {host} serves {why}", "renew it"


def _end(until, now):
    if until <= now:
        return NOT_READY, f"has expired on {moment(int(until))}"
    if until - now < SOON:
        return RISK, f"expires on {moment(int(until))}"
    return None, None


def covers(name, host):
    """Pure: whether a certificate's name is that of the host; `*` stands for one label, the first.

    https://www.rfc-editor.org/rfc/rfc6125#section-6.4.3
    """
    name, host = dns.plain(name), dns.plain(host)
    if name.startswith("*."):
        return host.partition(".")[2] == name[2:]
    return name == host

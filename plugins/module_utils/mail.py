# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Notices as e-mail, by SMTP. Recipients do not see each other, and their addresses stand in no record.

The same notice has the same Message-ID, by which many mail servers and readers know it again; SMTP itself does not.
https://www.rfc-editor.org/rfc/rfc5322#section-3.6.4
"""

from __future__ import annotations

import contextlib
import hashlib
import smtplib
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

from .notifiers import Rejected, Unavailable
from .timeline import seconds_of
from .web import left, trust

PORTS = {"starttls": 587, "tls": 465, "none": 25}


def letter(notice, sender):
    """The message, a reply to the first one of its incident, so that they stand together."""
    domain = _domain(sender)
    first = _message_id(f"{notice.details['incident']}/opened", domain)
    is_first = notice.moment == "opened"
    message = EmailMessage()
    message["From"] = sender
    message["To"] = "undisclosed-recipients:;"
    message["Subject"] = notice.title
    message["Date"] = format_datetime(datetime.fromtimestamp(seconds_of({"time": notice.at}), UTC))
    message["Message-ID"] = first if is_first else _message_id(notice.id, domain)
    message["Auto-Submitted"] = "auto-generated"
    if not is_first:
        message["In-Reply-To"] = message["References"] = first
    message.set_content(f"{notice.title}\n\n{notice.text}\n")
    return message


def _domain(address):
    return parseaddr(address)[1].rpartition("@")[2]


def _message_id(text, domain):
    return f"<{hashlib.sha256(text.encode()).hexdigest()[:32]}@{domain}>"


class Mail:
    """A mail server that takes mail of ours.

    Args:
        security: starttls, tls or none.
        recipients: addresses.
    """

    def __init__(self, host, sender, recipients, port=None, security="starttls", user=None, password=None):
        self._host, self._port, self._security = host, port or PORTS[security], security
        self._sender, self._recipients = sender, tuple(recipients)
        self._user, self._password = user, password

    def tell(self, notice, deadline):
        if not self._recipients:
            raise Rejected("nobody gets mail of this any more: notify_routes")
        with self._session(deadline) as server:
            refused = server.send_message(letter(notice, self._sender), self._sender, self._recipients)
        return f"{len(refused)} of {len(self._recipients)} addresses refused" if refused else ""

    def lacks(self, places, deadline):
        """It connects, secures the connection and logs in."""
        with self._session(deadline) as server:
            code, _text = server.noop()
        return [] if code == 250 else [f"the mail server answered {code} to NOOP"]

    def has(self, notice, deadline):
        return False  # SMTP tells nobody

    @contextlib.contextmanager
    def _session(self, deadline):
        """A server that was spoken to; what goes wrong inside is Rejected or Unavailable."""
        if self._user and self._security == "none":
            raise Rejected("the password would go in the clear: set notify_mail.security")
        try:
            with self._server(deadline) as server:
                yield server
        except smtplib.SMTPAuthenticationError as error:
            raise Rejected("the mail server refuses the login: check notify_mail.user and password") from error
        except smtplib.SMTPRecipientsRefused as error:
            code = max(code for code, _text in error.recipients.values())
            raise _of_code(code, "the mail server refuses all addresses") from error
        except smtplib.SMTPResponseException as error:
            raise _of_code(error.smtp_code, "the mail server refuses it") from error
        except smtplib.SMTPNotSupportedError as error:
            raise Rejected("the mail server offers no STARTTLS: set notify_mail.security") from error
        except ssl.SSLError as error:
            raise Rejected(
                f"the mail server: TLS failed: {getattr(error, 'verify_message', '') or error.reason}"
            ) from error
        except (OSError, smtplib.SMTPException) as error:
            raise Unavailable(f"no answer of the mail server ({type(error).__name__})") from error

    def _server(self, deadline):
        """Connected, secured and logged in."""
        # Without a name smtplib asks the name servers for ours, and no timeout covers that.
        named = {"local_hostname": _domain(self._sender), "timeout": left(deadline)}
        if self._security == "tls":
            server = smtplib.SMTP_SSL(self._host, self._port, context=trust(), **named)
        else:
            server = smtplib.SMTP(self._host, self._port, **named)
        try:
            if self._security == "starttls":
                server.starttls(context=trust())
            if self._user:
                server.login(self._user, self._password)
            server.sock.settimeout(left(deadline))
        except BaseException:
            server.close()
            raise
        return server


def _of_code(code, why):
    """4xx may be tried again. https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1"""
    return Unavailable(f"{why} ({code})") if code < 500 else Rejected(f"{why} ({code})")

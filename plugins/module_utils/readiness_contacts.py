# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who would hear of an incident tonight, and what answers: notifiers, the rulebook, the recovery API and the service itself.

Nothing is sent to anybody, and nothing of it stops a playbook: all of it is a risk.
"""

from __future__ import annotations

import time
from functools import partial

from . import channels, notices, smoke, web
from .aws import attempt
from .errors import Stop
from .notifiers import Rejected, TooMany, Unavailable
from .readiness import RISK, UNKNOWN, Found
from .recovery_api import RecoveryApi

CHECK, SCENARIOS = "contacts", None
# Seconds that one of them may take.
WITHIN = 10
# A target on its way out may fail once.
TRIES, PAUSE = 2, 1.0
SERVICE, RULEBOOK, RECOVERY = "smoke tests", "rulebook", "recovery API"
FIXES = {
    SERVICE: "each playbook ends red until it passes: mend the service, or smoke_tests in the inventory",
    RULEBOOK: "start it (make eda), or mend rulebook_url in the inventory",
    RECOVERY: "mend that, or recovery_api in the inventory",
}


def looks(aws, wanted, now):
    """{resource: call}; each call gives why it would not serve, as [(level, reason)]."""
    reached = notices.reached(wanted["routes"])
    there = channels.notifiers(wanted)
    asked = {name: partial(_notifier, there[name], places) for name, places in reached.items() if name in there}
    if wanted["checks"]:
        asked[SERVICE] = partial(_service, wanted["checks"], wanted["dns_servers"])
    if wanted["rulebook_url"]:
        asked[RULEBOOK] = partial(_rulebook, wanted["rulebook_url"])
    if wanted["recovery_api"] and wanted["cluster"]:
        asked[RECOVERY] = partial(_recovery, wanted)
    return asked


def _notifier(notifier, places):
    try:
        return [(RISK, why) for why in notifier.lacks(places, time.monotonic() + WITHIN)]
    except TooMany as error:
        return [(UNKNOWN, str(error))]
    except (Rejected, Unavailable) as error:
        return [(RISK, str(error))]


def _service(checks, dns_servers):
    """Those that change nothing, as the end of each playbook asks them."""
    return [(RISK, why) for why in smoke.complaints(checks, dns_servers, TRIES, PAUSE)]


def _rulebook(url):
    """Whatever it answers to a GET, it listens: it takes only what is posted, and with a token."""
    message = {"url": url, "method": "GET", "headers": None, "json": None, "secret_json": None, "body": None}
    seen = web.request({**message, "within": WITHIN})
    return [(RISK, f"nobody listens at {url}: {seen.text}")] if seen.status is None else []


def _recovery(wanted):
    known = wanted["recovery_api"]
    names = (wanted["cluster"], wanted["service"])
    api = attempt(
        lambda: RecoveryApi(known["url"], known["token"], *names, WITHIN, wanted["dns_servers"]).status(), Stop
    )
    return [(RISK, str(api))] if isinstance(api, Stop) else []


def judge(seen, wanted, now):
    """Pure: what would not arrive, and whom no route leads to."""
    for resource, reasons in seen.items():
        for level, because in reasons:
            yield Found(
                level, resource, because, FIXES.get(resource) or f"mend that, or notify_{resource} in the inventory"
            )
    routes = wanted["routes"]
    for channel in notices.reached(routes):
        if not wanted[channel]:
            because, fix = f"a route leads to {channel}, which is not set up", f"give notify_{channel} in the inventory"
            yield Found(RISK, channel, because, fix)
    for worst in wanted["severities"][:1] if routes else ():
        if not notices.reached({worst: routes.get(worst)}):
            yield Found(RISK, worst, f"nobody hears of severity {worst}", "give it a route in notify_routes")

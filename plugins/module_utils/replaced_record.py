# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The plan that leads a public name to a maintenance page, and back: pure functions on what was observed.

Route 53 keeps no tags of records, so what a name had is kept beside it, in a TXT record of the same zone that is written and
removed in the very change batch that moves the name. One plain record takes the place of all sets: whatever health checks say then,
everybody is led to the page. A set is deleted as it was read, so that Route 53 refuses the batch where somebody else was quicker.
https://docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html

What is observed is a dict:
    sets: record sets of the name, kept: the TXT record set beside it (None: not there), owners: texts of TXT records by which
        external-dns says that it owns the name, stamp: the time
"""

from __future__ import annotations

import base64
import json

from . import dns, route53
from .errors import Refusal
from .verb import Plan, Step

# https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/ResourceRecordTypes.html#TXTFormat
STRING, LONGEST = 255, 4000
# Seconds that a record without an alias is kept, while it leads to the page: users shall be back soon after.
TTL = 60
# https://kubernetes-sigs.github.io/external-dns/latest/docs/registry/txt/
OWNED = "heritage=external-dns"


def beside(record):
    """The name of the TXT record that keeps what `record` had."""
    return f"_sre-runbooks-traffic.{dns.plain(record)}"


def plan(observed, wanted):
    """One change batch, or nothing.

    Raises:
        Refusal: there is no such record, or something would put it back.
    """
    sets, label = observed["sets"], f"{wanted['record']} {wanted['type']}"
    if not sets:
        raise Refusal(
            f"there is no record {label} in zone {wanted['hosted_zone_id']}: check record, type and hosted_zone_id"
        )
    known = kept(observed["kept"])
    if wanted["state"] == "open" and known is None:
        return Plan()
    former = original(sets, known, label) if known else sets
    page = [{"Name": sets[0]["Name"], "Type": wanted["type"], **target(wanted)}] if wanted["state"] != "open" else []
    goal = page or former
    mark = None
    if wanted["state"] != "open":
        same = known and known["target"] == target(wanted)
        mark = {"since": known["since"] if same else observed["stamp"], "target": target(wanted), "sets": former}
        if goal == sets and same:
            return Plan(notes=(f"{wanted['record']} leads there since {known['since']}",))
    _refuse_owned(observed, wanted)
    before, after = _shown(sets), _shown(goal)
    what = f"lead {label} from {', '.join(before)} to {', '.join(after)} in one change batch"
    changes = [{"Action": "DELETE", "ResourceRecordSet": each} for each in sets if each not in goal]
    changes += [{"Action": "CREATE", "ResourceRecordSet": each} for each in goal if each not in sets]
    if mark:
        changes.append({"Action": "UPSERT", "ResourceRecordSet": text(wanted["record"], mark)})
    else:
        changes.append({"Action": "DELETE", "ResourceRecordSet": observed["kept"]})
    ttl = max((route53.ttl(each) or route53.ALIAS_TTL) for each in sets)
    note = f"resolvers may go on giving the old answer for {ttl} s, and some clients for longer"
    step = Step("change", what, before, after, {"changes": changes})
    return Plan((step,), {"state": wanted["state"], "leads_to": sorted(set(after))}, (note,))


def target(wanted):
    """What of a record set leads to the page.

    Raises:
        Refusal: neither an alias nor values, or both.
    """
    if bool(wanted["alias_target"]) == bool(wanted["values"]):
        raise Refusal(
            "say where the page is: alias_target (dns_name and hosted_zone_id of a load balancer or distribution) or values"
        )
    if wanted["values"]:
        return {"TTL": TTL, "ResourceRecords": [{"Value": each} for each in wanted["values"]]}
    alias = wanted["alias_target"]
    # Its health is not asked for: a page is better than no answer.
    return {
        "AliasTarget": {
            "HostedZoneId": alias["hosted_zone_id"],
            "DNSName": f"{dns.plain(alias['dns_name'])}.",
            "EvaluateTargetHealth": False,
        }
    }


def original(sets, known, label):
    """The sets of before.

    Raises:
        Refusal: the name does not lead to our page any more.
    """
    page = {"Name": sets[0]["Name"], "Type": sets[0]["Type"], **known["target"]}
    if sets != [page]:
        raise Refusal(
            f"{label} was changed by somebody else since {known['since']} and leads to {', '.join(_shown(sets))}; before that it was "
            f"{', '.join(_shown(known['sets']))}: put it right by hand, then delete the TXT record {beside(label.split()[0])}"
        )
    return known["sets"]


def text(record, mark):
    """The TXT record set that keeps it.

    Raises:
        Refusal: it has more sets than a record holds.
    """
    packed = base64.b64encode(json.dumps(mark, sort_keys=True).encode()).decode()
    strings = [packed[first : first + STRING] for first in range(0, len(packed), STRING)]
    value = " ".join(f'"{each}"' for each in strings)
    if len(value) > LONGEST:
        raise Refusal(
            f"{record} has more sets than a TXT record can keep: move it by hand, or close it at the load balancer"
        )
    return {"Name": f"{beside(record)}.", "Type": "TXT", "TTL": TTL, "ResourceRecords": [{"Value": value}]}


def kept(record):
    """{since, target, sets} of such a record, None where there is none."""
    if record is None:
        return None
    packed = record["ResourceRecords"][0]["Value"].replace('"', "").replace(" ", "")
    return json.loads(base64.b64decode(packed))


def view(observed):
    """{state, since, leads_to} as it is."""
    known = kept(observed["kept"])
    return {
        "state": "maintenance" if known else "open",
        "since": known and known["since"],
        "leads_to": sorted(set(_shown(observed["sets"]))),
    }


def _shown(sets):
    return [route53.shown(each) for each in sets]


def _refuse_owned(observed, wanted):
    owners = [each for each in observed["owners"] if OWNED in each]
    if owners and wanted["when_managed"] == "refuse":
        raise Refusal(
            f"{wanted['record']} belongs to external-dns ({owners[0].strip(chr(34))}), which puts it back: scale that to 0 and say "
            f"when_managed=note"
        )

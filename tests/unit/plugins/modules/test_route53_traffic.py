# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""route53_traffic: its plan for each state that a name and what is kept of it can be in."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal
from ansible_collections.sre.runbooks.plugins.module_utils.replaced_record import plan, view


def simple(**more):
    return {
        "Name": "api.shop.test.",
        "Type": "A",
        **(more or {"TTL": 300, "ResourceRecords": [{"Value": "192.0.2.1"}]}),
    }


def alias(identifier, failover, name):
    leads = {"HostedZoneId": "Z", "DNSName": f"{name}.", "EvaluateTargetHealth": True}
    return simple(SetIdentifier=identifier, Failover=failover, HealthCheckId=f"h-{identifier}", AliasTarget=leads)


PAIR = [alias("a", "PRIMARY", "east.elb.test"), alias("b", "SECONDARY", "west.elb.test")]
PAGE = {"alias_target": {"dns_name": "page.cdn.test", "hosted_zone_id": "Z2"}, "values": []}


class Zone:
    """Carries change batches out, each as a whole."""

    def __init__(self, *sets, owners=()):
        self.sets, self.kept, self.owners = list(copy.deepcopy(sets)), None, list(owners)

    def observed(self):
        return copy.deepcopy({"sets": self.sets, "kept": self.kept, "owners": self.owners, "stamp": "now"})

    def run(self, state="maintenance", **given):
        wanted = {"hosted_zone_id": "Z1", "record": "api.shop.test", "type": "A", "when_managed": "refuse", **PAGE}
        made = plan(self.observed(), {**wanted, "state": state, **given})
        for change in [change for step in made.steps for change in step.arguments["changes"]]:
            record = change["ResourceRecordSet"]
            if record["Type"] == "TXT":
                assert record["Name"] == "_sre-runbooks-traffic.api.shop.test."
                assert change["Action"] == "UPSERT" or record == self.kept
                self.kept = record if change["Action"] == "UPSERT" else None
            elif change["Action"] == "DELETE":
                self.sets.remove(record)
            else:
                self.sets.append(record)
        return made


@pytest.mark.parametrize("sets", [[simple()], PAIR])
@pytest.mark.parametrize("page", [PAGE, {"alias_target": None, "values": ["192.0.2.10", "192.0.2.11"]}])
def test_the_name_leads_to_the_page_and_back(sets, page):
    zone = Zone(*sets)
    zone.run(**page)
    ends = ("page.cdn.test" if page is PAGE else "192.0.2.10, 192.0.2.11",)
    assert all(each.endswith(ends) for each in view(zone.observed())["leads_to"])
    assert len(zone.sets) == 1
    again = zone.run(**page)
    assert again.steps == () and again.notes == ("api.shop.test leads there since now",)
    zone.run("open", alias_target=None)
    assert (zone.sets, zone.kept) == (list(sets), None)
    assert zone.run("open", alias_target=None).steps == ()


def test_another_page_keeps_what_there_was_at_first():
    zone = Zone(*PAIR)
    zone.run()
    zone.run(alias_target=None, values=["192.0.2.10"])
    zone.run("open")
    assert (zone.sets, zone.kept) == (PAIR, None)


def test_a_name_that_somebody_changed_meanwhile_is_left_alone():
    zone = Zone(*PAIR)
    zone.run()
    zone.sets = [simple()]
    with pytest.raises(Refusal) as refused:
        zone.run("open")
    assert "leads to 192.0.2.1; before that it was PRIMARY east.elb.test, SECONDARY west.elb.test" in str(refused.value)


@pytest.mark.parametrize(
    ("zone", "given", "says"),
    [
        (Zone(), {}, "there is no record api.shop.test A"),
        (Zone(simple()), {"alias_target": None}, "say where the page is"),
        (Zone(simple(), owners=['"heritage=external-dns,external-dns/owner=shop"']), {}, "belongs to external-dns"),
        (Zone(*(dict(PAIR[0], SetIdentifier=str(n)) for n in range(30))), {}, "more sets than a TXT record can keep"),
    ],
)
def test_refuses(zone, given, says):
    with pytest.raises(Refusal) as refused:
        zone.run(**given)
    assert says in str(refused.value)

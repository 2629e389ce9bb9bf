# Copyright: sre.runbooks contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""k8s_traffic: its plan for each state of an Ingress and a ConfigMap, and what they have afterwards."""

from __future__ import annotations

import copy
import json

import pytest

from ansible_collections.sre.runbooks.plugins.module_utils import closed_ingress
from ansible_collections.sre.runbooks.plugins.module_utils.closed_ingress import ALB, NGINX, RANGES, SNIPPET, plan, view
from ansible_collections.sre.runbooks.plugins.module_utils.errors import Refusal

FORMER = {"team": "shop", RANGES: "10.0.0.0/8", SNIPPET: "server_tokens off;"}


def ingress(annotations=None, name="front", paths=("/", "/pay"), **spec):
    backends = [
        {"path": each, "pathType": "Prefix", "backend": {"service": {"name": f"api{each[1:]}", "port": {"number": 80}}}}
        for each in paths
    ]
    metadata = {"name": name, "resourceVersion": "7", "uid": "u"}
    if annotations is not None:
        metadata["annotations"] = dict(annotations)
    return {"metadata": metadata, "spec": {"rules": [{"host": "shop.test", "http": {"paths": backends}}], **spec}}


class Namespace:
    def __init__(self, item, controller=NGINX, snippets=False, config_map=None, **more):
        self.items = {"ingresses": item, "configmaps": config_map}
        self.facts = {
            "others": [],
            "controller": controller,
            "snippets": snippets,
            "page": None,
            "reconcilers": [],
            **more,
        }

    def observed(self):
        seen = {"ingress": self.items["ingresses"], "config_map": self.items["configmaps"]}
        return copy.deepcopy({**seen, **self.facts, "stamp": "2026-01-01T12:00:00Z"})

    def run(self, state="blocked", steps=None, **given):
        """Carry out the plan, or its first steps; returns the whole plan."""
        made = plan(self.observed(), want(state, **given))
        for step in made.steps[:steps]:
            if step.do == "create":
                body = step.arguments["body"]
                self.items["configmaps"] = dict(body, metadata=dict(body["metadata"], resourceVersion="1", uid="c"))
            elif step.do == "remove":
                self.items["configmaps"] = None
            else:
                self._patch(step.arguments["resource"], step.arguments["operations"])
        return made

    def _patch(self, resource, operations):
        item = self.items[resource]
        for each in operations:
            *path, last = each["path"].strip("/").split("/")
            holder = item
            for name in path:
                holder = holder[name]
            if each["op"] == "test":
                assert holder[last] == each["value"]
            elif each["op"] == "remove":
                del holder[last]
            else:
                holder[last] = copy.deepcopy(each["value"])


def want(state="blocked", **given):
    usual = {
        "ingress": "front",
        "config_map": None,
        "config_map_key": "enabled",
        "way": "auto",
        "maintenance_service": None,
        "allow_from": [],
        "status_code": 503,
        "body": None,
        "content_type": None,
        "when_managed": "refuse",
    }
    return {**usual, "state": state, **given}


def annotation(space, name):
    return (space.items["ingresses"]["metadata"].get("annotations") or {}).get(name)


PAGE = {"maintenance_service": {"name": "sorry", "port": 8080}}


@pytest.mark.parametrize("annotations", [None, FORMER])
@pytest.mark.parametrize(
    ("controller", "snippets", "given", "way"),
    [
        (NGINX, False, {}, "source_range"),
        (NGINX, None, {}, "source_range"),
        (NGINX, True, {}, "snippet"),
        (NGINX, True, {"allow_from": ["203.0.113.7"]}, "source_range"),
        (NGINX, True, {"state": "maintenance", **PAGE}, "service"),
        (ALB, None, {}, "alb_action"),
        ("traefik.io/ingress-controller", None, PAGE, "service"),
        (None, None, PAGE, "service"),
    ],
)
def test_what_it_had_comes_back_whatever_closed_it(annotations, controller, snippets, given, way):
    default = {"service": {"name": "api", "port": {"name": "http"}}}
    space = Namespace(ingress(annotations, defaultBackend=default), controller, snippets)
    before = copy.deepcopy(space.items)
    space.run(**given)
    assert space.items != before and view(space.observed())["ingress"]["way"] == way
    assert space.run(**given).steps == ()
    space.run("open")
    assert space.items == before


def test_each_way_shuts_everybody_out():
    nginx = Namespace(ingress(FORMER), snippets=True)
    nginx.run()
    assert annotation(nginx, SNIPPET) == "return 503;" and annotation(nginx, "team") == "shop"
    nginx.run("maintenance", body='<b class="x">soon</b>', status_code=500)
    assert annotation(nginx, SNIPPET) == 'default_type text/html; return 500 "<b class=\\"x\\">soon</b>";'
    nginx.run(way="source_range")
    assert (annotation(nginx, RANGES), annotation(nginx, SNIPPET)) == ("255.255.255.255/32", FORMER[SNIPPET])
    nginx.run(allow_from=["203.0.113.7", "2001:db8::/32"])
    assert annotation(nginx, RANGES) == "203.0.113.7/32,2001:db8::/32"
    alb = Namespace(ingress(), ALB)
    alb.run()
    action = json.loads(annotation(alb, closed_ingress.ALB_ACTION))
    assert action["fixedResponseConfig"]["statusCode"] == "503"
    paths = alb.items["ingresses"]["spec"]["rules"][0]["http"]["paths"]
    wanted = {"service": {"name": closed_ingress.OURS, "port": {"name": "use-annotation"}}}
    assert [each["backend"] for each in paths] == [wanted] * 2


def test_the_snippet_of_an_older_ingress_of_the_host_would_win():
    other = ingress({SNIPPET: "server_tokens off;"}, "old")
    space = Namespace(ingress(), snippets=True, others=[other])
    made = space.run()
    assert view(space.observed())["ingress"]["way"] == "source_range"
    assert "old serve the same host, and stay open" in made.notes[-1]


def test_what_somebody_changed_meanwhile_stays():
    space = Namespace(ingress(FORMER), snippets=True)
    space.run()
    space.items["ingresses"]["metadata"]["annotations"][SNIPPET] = "# normal traffic"
    opened = space.run("open")
    assert annotation(space, SNIPPET) == "# normal traffic" and annotation(space, closed_ingress.MARK) is None
    assert "changed to '# normal traffic' by somebody else" in opened.notes[0]
    assert "it was 'server_tokens off;'" in opened.notes[0]

    led = Namespace(ingress(), controller=None)
    led.run(**PAGE)
    paths = led.items["ingresses"]["spec"]["rules"][0]["http"]["paths"]
    mine = {"service": {"name": "pay2", "port": {"number": 80}}}
    paths[1]["backend"] = mine
    led.run("open")
    after = led.items["ingresses"]["spec"]["rules"][0]["http"]["paths"]
    assert [each["backend"] for each in after] == [ingress()["spec"]["rules"][0]["http"]["paths"][0]["backend"], mine]


def test_a_path_that_was_added_to_the_page_needs_a_word():
    space = Namespace(ingress(), controller=None)
    space.run(**PAGE)
    paths = space.items["ingresses"]["spec"]["rules"][0]["http"]["paths"]
    paths.append(dict(paths[0], path="/new"))
    with pytest.raises(Refusal, match=r"shop\.test path /new Prefix of front was added while it was closed"):
        space.run("open")


@pytest.mark.parametrize("data", [None, {"enabled": "false", "text": "soon"}, {"text": "soon"}])
def test_an_application_that_shows_its_own_page(data):
    there = data and {"metadata": {"name": "maintenance-mode", "resourceVersion": "3", "uid": "c"}, "data": data}
    space = Namespace(ingress(FORMER), config_map=there)
    before = copy.deepcopy(space.items)
    space.run("maintenance", config_map="maintenance-mode")
    assert space.items["ingresses"] == before["ingresses"]
    assert space.items["configmaps"]["data"] == dict(data or {}, enabled="true")
    assert space.run("maintenance", config_map="maintenance-mode").steps == ()
    assert view(space.observed())["state"] == "maintenance"
    # Blocked after all, by a run that is killed after its first step: users are out first.
    space.run(steps=1, config_map="maintenance-mode")
    assert annotation(space, RANGES) == "255.255.255.255/32"
    space.run(config_map="maintenance-mode")
    assert space.items["configmaps"] == before["configmaps"]
    space.run("open", config_map="maintenance-mode")
    assert space.items == before


def test_a_config_map_that_others_have_set_or_filled():
    there = {"metadata": {"name": "m", "resourceVersion": "3", "uid": "c"}, "data": {"enabled": "true"}}
    space = Namespace(ingress(), config_map=there)
    assert "already, by somebody else" in space.run("maintenance", config_map="m").notes[0]
    assert "none of ours: it stays" in space.run("open", config_map="m").notes[0]
    made = Namespace(ingress())
    made.run("maintenance", config_map="m")
    made.items["configmaps"]["data"]["until"] = "15:00"
    made.run("open", config_map="m")
    assert made.items["configmaps"]["data"] == {"until": "15:00"}
    assert "annotations" not in made.items["configmaps"]["metadata"]


def test_a_second_block_changes_nothing_and_says_since_when():
    space = Namespace(ingress())
    space.run()
    again = space.run()
    assert again.steps == () and again.notes[-1] == "front is blocked since 2026-01-01T12:00:00Z"
    changed = space.run(allow_from=["203.0.113.7"])
    assert len(changed.steps) == 1


@pytest.mark.parametrize(
    ("space", "given", "says"),
    [
        (Namespace(None), {"ingress": None}, "nothing is named that could be closed"),
        (Namespace(ingress(), "traefik.io/ingress-controller"), {}, "give maintenance_service"),
        (Namespace(ingress()), {"way": "alb_action"}, "snippet or source_range"),
        (Namespace(ingress(), ALB), {"allow_from": ["203.0.113.7"]}, "can let nobody through"),
        (Namespace(ingress(), None, page=0), PAGE, "no pod serves sorry"),
        (Namespace(ingress(), snippets=True), {"state": "maintenance", "body": "$5"}, "a $ or a line break"),
        (Namespace(ingress(), reconcilers=["Argo CD (shop)"]), {}, "managed by Argo CD (shop) and would be put back"),
    ],
)
def test_refuses(space, given, says):
    with pytest.raises(Refusal) as refused:
        space.run(**given)
    assert says in str(refused.value)

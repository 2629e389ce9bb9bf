# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of an investigation, of a review, of drills and of a look at readiness as a person sees them, in a real browser without a
network, on a phone and at a desk."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ansible" / "collections"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "drills"))

from story_of_a_drill import BROKE, DAY, RESULT

from ansible_collections.sre.runbooks.plugins.module_utils.investigation import investigation
from ansible_collections.sre.runbooks.plugins.module_utils.readiness_page import readiness_page
from ansible_collections.sre.runbooks.plugins.module_utils.review import review
from ansible_collections.sre.runbooks.plugins.module_utils.review_page import review_page
from ansible_collections.sre.runbooks.tests.unit import a_look
from ansible_collections.sre.runbooks.tests.unit.story_of_a_page import FOUND, TEN
from ansible_collections.sre.runbooks.tests.unit.story_of_an_incident import EVENTS, SAID, measured
from drills import history, report

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH: make browser")
PHONE, DESK = {"width": 375, "height": 812}, {"width": 1280, "height": 900}
# What a person needs to read, at the least, on a phone.
LEGIBLE_PIXELS = 8


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # As root there is no sandbox for it, and what it opens is our own.
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    pages = {
        "investigation": investigation(FOUND, TEN),
        "review": review_page(
            review(EVENTS, measured(), SAID, TEN + 7200), "it.md", [("the record", [("report.json", "record")])]
        ),
        "drill": report.html(report.story(RESULT), RESULT),
        "drills": history.html(
            [RESULT | {"folder": f"drill{day}", "times": {"broke": BROKE + day * DAY}} for day in range(3)], BROKE
        ),
        "readiness": readiness_page("prod", a_look.SAID, a_look.ESTIMATES, a_look.NOW, ["a bucket"]),
    }
    for name, html in pages.items():
        (folder / f"{name}.html").write_text(html)
    return {name: (folder / f"{name}.html").as_uri() for name in pages}


EACH = [(name, size) for name in ("investigation", "review", "drill", "drills", "readiness") for size in (PHONE, DESK)]


@pytest.fixture(params=EACH, ids=lambda each: f"{each[0]}-{each[1]['width']}")
def opened(request: pytest.FixtureRequest, browser: Browser, addresses: dict[str, str]) -> Iterator[Page]:
    name, size = request.param
    page = browser.new_page(viewport=size)
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda sent: sent.url.startswith("file:") or page.complaints.append(sent.url))
    page.goto(addresses[name])
    yield page
    page.close()


of_an_investigation = pytest.mark.parametrize("opened", EACH[:2], indirect=True, ids=["phone", "desk"])
of_a_review = pytest.mark.parametrize("opened", EACH[2:4], indirect=True, ids=["phone", "desk"])
of_a_drill = pytest.mark.parametrize("opened", EACH[4:6], indirect=True, ids=["phone", "desk"])
of_a_look = pytest.mark.parametrize("opened", EACH[8:], indirect=True, ids=["phone", "desk"])


def test_nothing_is_asked_for_and_nothing_is_complained_of(opened: Page) -> None:
    assert opened.complaints == []


def test_nothing_is_wider_than_the_screen(opened: Page) -> None:
    # Folded examples too: they hold long lines without a space.
    opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.scrollingElement.scrollWidth") <= width
    rights = opened.evaluate("[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().right)")
    assert max(rights) <= width


@of_an_investigation
def test_the_verdict_is_on_the_first_screen(opened: Page) -> None:
    for words in ("P1", "bad deployment", "rollback_deployment.yml"):
        box = opened.get_by_text(words).first.bounding_box()
        assert box and box["y"] + box["height"] <= opened.viewport_size["height"]


@of_an_investigation
def test_charts_can_be_read(opened: Page) -> None:
    drawn = opened.locator("figure svg")
    assert drawn.count() == len(FOUND["metrics"])
    sizes = opened.evaluate("[...document.querySelectorAll('figure text')].map(e => e.getBoundingClientRect().height)")
    assert min(sizes) >= LEGIBLE_PIXELS
    boxes = [drawn.nth(number).bounding_box() for number in range(drawn.count())]
    columns = {round(box["x"]) for box in boxes}
    assert len(columns) == (1 if opened.viewport_size == PHONE else 3)
    # The axis is drawn with its times, and the deployment with its number above it.
    assert drawn.first.get_by_text("09:40").is_visible()
    assert drawn.first.get_by_text("1", exact=True).is_visible()


@of_a_review
def test_what_it_cost_is_on_the_first_screen(opened: Page) -> None:
    for words in ("P1", "resolved", "32 min", "18 min", "41.7 %"):
        box = opened.get_by_text(words, exact=True).first.bounding_box()
        assert box and box["y"] + box["height"] <= opened.viewport_size["height"]


@of_a_review
def test_all_of_the_timeline_is_drawn_on_one_axis(opened: Page) -> None:
    opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    tracks = opened.locator("svg.track")
    boxes = [tracks.nth(number).bounding_box() for number in range(tracks.count())]
    assert len({(round(box["x"]), round(box["width"])) for box in boxes}) == 1, "they begin and end one below the other"

    def drawn(name: str) -> dict:
        return opened.locator(f"svg.track[aria-label^='{name}'] rect").last.bounding_box()

    users, unnoticed, rolled_back = drawn("Users saw errors"), drawn("Not noticed yet"), drawn("rollback_deployment")
    assert round(unnoticed["x"]) == round(users["x"])
    assert users["x"] + users["width"] == pytest.approx(rolled_back["x"] + rolled_back["width"], abs=2)
    # 18 of some 33 minutes, and the axis says which.
    assert users["width"] / boxes[0]["width"] == pytest.approx(18 / 33.3, abs=0.03)
    ten = opened.locator(".scale").get_by_text("10:00").bounding_box()
    assert users["x"] < ten["x"] < users["x"] + users["width"]
    assert ten["height"] < 30


@of_a_drill
def test_how_a_drill_went_is_on_the_first_screen_and_drawn(opened: Page) -> None:
    for words in ("64 points", "Points", "147.3 s"):
        box = opened.get_by_text(words).first.bounding_box()
        assert box and box["y"] + box["height"] <= opened.viewport_size["height"]
    drawn = opened.locator("figure svg").bounding_box()
    assert drawn["width"] > 0.8 * min(opened.viewport_size["width"], 600)


@of_a_look
def test_what_would_refuse_and_what_to_do_is_on_the_first_screen(opened: Page) -> None:
    for words in ("2 not ready", "api-prod", "is 300 s behind", "wait until it has caught up", "web-prod"):
        box = opened.get_by_text(words).first.bounding_box()
        assert box and box["y"] + box["height"] <= opened.viewport_size["height"]


@of_a_look
def test_how_long_it_takes_is_drawn_beside_what_is_promised(opened: Page) -> None:
    drawn = opened.locator("figure svg")
    assert drawn.count() == 2
    for number in range(2):
        box, promised = (
            drawn.nth(number).bounding_box(),
            drawn.nth(number).get_by_text("promised 30 min").bounding_box(),
        )
        assert box["x"] <= promised["x"] and promised["x"] + promised["width"] <= box["x"] + box["width"] + 1
        # The uppermost figure of the axis is not cut off.
        axis = drawn.nth(number).locator("text", has_text=re.compile(r"^\d+ (s|min|h)$")).first.bounding_box()
        assert axis["x"] >= box["x"] - 1
    sizes = opened.evaluate("[...document.querySelectorAll('figure text')].map(e => e.getBoundingClientRect().height)")
    assert min(sizes) >= LEGIBLE_PIXELS


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["investigation", "readiness"])
def test_text_of_a_chart_has_contrast_on_white_and_on_black(
    browser: Browser, addresses: dict, scheme: str, name: str
) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(addresses[name])
    ink = page.evaluate("getComputedStyle(document.querySelector('figure text')).fill")
    ground = "rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 18, 18)"
    page.close()
    assert contrast(ink, ground) >= 4


def contrast(one: str, other: str) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(each) / 255 for each in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return sum(share * each for share, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

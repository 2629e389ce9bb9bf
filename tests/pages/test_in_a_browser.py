# Copyright: sre.runbooks contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of an investigation as a person sees it, in a real browser without a network, on a phone and at a desk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".ansible" / "collections"))

from ansible_collections.sre.runbooks.plugins.module_utils.investigation import investigation
from ansible_collections.sre.runbooks.tests.unit.story_of_a_page import FOUND, TEN

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
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pages") / "investigation.html"
    path.write_text(investigation(FOUND, TEN))
    return path.as_uri()


@pytest.fixture(params=[PHONE, DESK], ids=["phone", "desk"])
def opened(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport=request.param)
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda sent: sent.url.startswith("file:") or page.complaints.append(sent.url))
    page.goto(address)
    yield page
    page.close()


def test_nothing_is_asked_for_and_nothing_is_complained_of(opened: Page) -> None:
    assert opened.complaints == []


def test_nothing_is_wider_than_the_screen(opened: Page) -> None:
    # Folded examples too: they hold long lines without a space.
    opened.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    width = opened.viewport_size["width"]
    assert opened.evaluate("document.scrollingElement.scrollWidth") <= width
    rights = opened.evaluate("[...document.querySelectorAll('main *')].map(e => e.getBoundingClientRect().right)")
    assert max(rights) <= width


def test_the_verdict_is_on_the_first_screen(opened: Page) -> None:
    for words in ("P1", "bad deployment", "rollback_deployment.yml"):
        box = opened.get_by_text(words).first.bounding_box()
        assert box and box["y"] + box["height"] <= opened.viewport_size["height"]


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_a_chart_has_contrast_on_white_and_on_black(browser: Browser, address: str, scheme: str) -> None:
    page = browser.new_page(color_scheme=scheme)
    page.goto(address)
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

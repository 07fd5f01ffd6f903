"""report.html in a real Chromium, from disk, without network and without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from ayni.report import build
from tests.chromium import needs_chromium

pytestmark = needs_chromium
MakeRun = Callable[..., Path]
PAGES = ("overview", "version-1", "version-2", "lineage")


@pytest.fixture(scope="module")
def address(make_run: MakeRun) -> str:
    return build(make_run()).as_uri()


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Callable[..., Page]]:
    """opened(fragment, **context options); the page asks for nothing but itself and complains of nothing."""
    contexts, asked, complaints = [], [], []

    def open_page(fragment: str = "", **options: Any) -> Page:
        contexts.append(browser.new_context(java_script_enabled=False, offline=True, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("request", lambda request: asked.append(request.url.split("#")[0]))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(address + fragment)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert set(asked) == {address}
    assert complaints == []


def visible(page: Page) -> list[str]:
    return [name for name in PAGES if page.locator(f"#{name}").is_visible()]


def test_one_page_at_a_time_by_tab_by_address_and_back(opened: Callable[..., Page]) -> None:
    page = opened()
    assert visible(page) == ["overview"]
    page.get_by_role("link", name="v1", exact=True).click()
    assert visible(page) == ["version-1"]
    page.get_by_role("link", name="Lineage").click()
    assert visible(page) == ["lineage"]
    page.go_back()
    assert visible(page) == ["version-1"]
    assert visible(opened("#version-2-ppo")) == ["version-2"]  # a section's address opens its page
    assert visible(opened("#results")) == ["overview"]


def test_the_tab_of_the_page_shown_is_marked(opened: Callable[..., Page]) -> None:
    for fragment, name in (("", "Overview"), ("#version-1-data", "v1"), ("#lineage", "Lineage")):
        tabs = opened(fragment).locator(".tabs a").all()
        weights = {tab.inner_text(): tab.evaluate("e => getComputedStyle(e).fontWeight") for tab in tabs}
        assert [tab for tab, weight in weights.items() if weight == "600"] == [name]


@pytest.mark.parametrize("width", [360, 800, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out_sideways(opened: Callable[..., Page], name: str, width: int) -> None:
    page = opened(f"#{name}", viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_words_in_a_lineage_box_stay_inside_it(opened: Callable[..., Page]) -> None:
    page = opened("#lineage", viewport={"width": 1280, "height": 900})
    boxes = page.locator(".lineage .box").all()
    assert len(boxes) == 9
    for box in boxes:
        frame = box.locator("rect").bounding_box()
        for text in box.locator("text").all():
            inside = text.bounding_box()
            assert frame["x"] < inside["x"]
            assert inside["x"] + inside["width"] < frame["x"] + frame["width"]


def test_words_of_a_plot_do_not_lie_on_each_other(opened: Callable[..., Page]) -> None:
    page = opened("#version-1", viewport={"width": 1280, "height": 900})
    plots = page.locator("#version-1 figure svg").all()
    assert len(plots) == 9  # strength, kind, calibration, ratings, K, temperature, three losses
    for plot in plots:
        boxes = [text.bounding_box() for text in plot.locator("text").all()]
        for i, a in enumerate(boxes):
            for b in boxes[i + 1 :]:
                across = min(a["x"] + a["width"], b["x"] + b["width"]) - max(a["x"], b["x"])
                down = min(a["y"] + a["height"], b["y"] + b["height"]) - max(a["y"], b["y"])
                assert across <= 1 or down <= a["height"] / 3


def test_dark_and_light_differ_and_both_can_be_read(opened: Callable[..., Page]) -> None:
    paper = {}
    for scheme in ("light", "dark"):
        page = opened("#lineage", color_scheme=scheme)
        paper[scheme] = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        ink = page.locator(".lineage .name").first.evaluate("e => getComputedStyle(e).fill")
        assert contrast(paper[scheme], ink) > 7
    assert paper["light"] != paper["dark"]


def contrast(a: str, b: str) -> float:
    """WCAG's contrast ratio of two "rgb(r, g, b)"."""

    def luminance(colour: str) -> float:
        channels = [int(c) / 255 for c in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_on_paper_every_page_is_there(opened: Callable[..., Page]) -> None:
    page = opened("#version-1")
    page.emulate_media(media="print")
    assert visible(page) == list(PAGES)
    assert not page.locator(".tabs").is_visible()

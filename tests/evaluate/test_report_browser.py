"""The report in a real browser: nothing asked of the network, nothing wider than a phone, and what the script adds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page

from support import reports
from support.browser import browser
from trainserve.evaluate.report.page import page as report_page

pytestmark = pytest.mark.slow

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of 3, 12 and 200 classes, of several runs, and of one that has not begun."""
    folder = tmp_path_factory.mktemp("reports")
    several = [reports.made_up(12, name="first"), reports.made_up(12, name="second", seed=1, lr=0.02)]
    made = {"3": [reports.made_up(3)], "12": [reports.made_up(12)], "200": [reports.made_up(200)], "several": several}
    for key, found in made.items():
        (folder / f"{key}.html").write_text(report_page(found, MADE), encoding="utf-8")
    return {key: folder / f"{key}.html" for key in made}


class Seen:
    """A page, with everything that went wrong in it."""

    def __init__(self, page: Page, file: Path) -> None:
        self.page, self.wrong = page, list[str]()
        page.on("console", lambda message: self.wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("request", lambda request: self.note(request.url, file))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.goto(file.as_uri())

    def note(self, url: str, file: Path) -> None:
        if url != file.as_uri() and not url.startswith("data:image/"):
            self.wrong.append(f"request: {url}")


@pytest.fixture
def opened(chromium: Browser, files: dict[str, Path]) -> Iterator[object]:
    """`opened(key, viewport, scheme)`; at the end nothing may have gone wrong in any page."""
    seen: list[Seen] = []

    def open_(key: str, viewport: dict[str, int] = DESK, scheme: str = "light", *, script: bool = True) -> Page:
        context = chromium.new_context(
            viewport=viewport,
            color_scheme=scheme,
            java_script_enabled=script,
            has_touch=viewport is PHONE,
            offline=True,
        )  # type: ignore[arg-type]
        seen.append(Seen(context.new_page(), files[key]))
        return seen[-1].page

    yield open_
    for one in seen:
        one.page.context.close()
    assert [wrong for one in seen for wrong in one.wrong] == []


def tip(page: Page) -> str:
    """What is shown beside the pointer."""
    shown = page.locator("#tip")
    assert shown.is_visible()
    return shown.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("key", ["3", "12", "200", "several"])
def test_on_a_phone_nothing_is_wider_than_the_page(opened, key: str, scheme: str) -> None:
    page = opened(key, PHONE, scheme)
    page.evaluate("for (const folded of document.querySelectorAll('details')) folded.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    # Every picture is there: the page's own policy lets them through.
    assert page.evaluate("[...document.images].filter((image) => !image.naturalWidth).length") == 0
    assert page.evaluate("[...document.images].length") > 5
    # Text is readable: no letter of a chart is smaller than 9 px on this screen.
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg text')].map((text) => parseFloat(getComputedStyle(text).fontSize) * "
        "text.ownerSVGElement.getBoundingClientRect().width / text.ownerSVGElement.viewBox.baseVal.width)"
    )
    assert min(sizes) >= 9


def test_dark_is_dark_and_light_is_light(opened) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = opened("3", DESK, scheme)
        colours[scheme] = page.evaluate(
            "[[document.body, 'backgroundColor'], [document.body, 'color'], "
            "[document.querySelector('path.curve'), 'stroke'], "
            "[document.querySelector('path.hit'), 'fill']].map(([element, key]) => getComputedStyle(element)[key])"
        )
    assert all(one != other for one, other in zip(colours["light"], colours["dark"], strict=True)), colours


def test_names_and_counts_of_three_classes_are_whole_in_the_heat_map(opened) -> None:
    page = opened("3", PHONE)
    boxes = page.evaluate(
        """() => {
          const svg = document.querySelector("svg.matrix"), outer = svg.getBoundingClientRect();
          const frame = svg.querySelector(".frame").getBoundingClientRect();
          return [...svg.querySelectorAll("text")].map((text) => {
            const box = text.getBoundingClientRect();
            return [text.textContent, text.classList.contains("count"), box.left - outer.left, box.top - outer.top,
                    outer.right - box.right, outer.bottom - box.bottom, box.width,
                    Math.min(frame.left - box.right, frame.top - box.bottom)];
          });
        }"""
    )
    assert len(boxes) == 2 * 3 + 2 + 6  # names at both sides, of both axes, and six cells that are not zero
    for text, is_count, *margins, width, outside in boxes:
        assert min(margins) >= -0.5, text
        assert not is_count or width < 60
        assert is_count or text in {"answered", "right class"} or max(outside, 0) >= 0
    box = "document.querySelector('.scroll:has(.matrix)')"
    assert page.evaluate(f"{box}.scrollWidth === {box}.clientWidth")


def test_curves_have_their_points_and_tell_them(opened) -> None:
    page = opened("12")
    counts = page.evaluate(
        "[...document.querySelectorAll('figure.chart svg.lines')].map((svg) => "
        "[...svg.querySelectorAll('path.curve')].map((path) => path.getAttribute('d').split('L').length))"
    )
    assert counts == [[60, 6, 6], [6, 6], [60], [60]]
    chart = page.locator("svg.lines").first
    chart.focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert tip(page).startswith("epoch 1\n")
    assert "training, mean of an epoch: 2" in tip(page)
    assert "validation: 1.9" in tip(page)
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()
    scroll_to(page, chart)
    chart.hover()
    assert tip(page).startswith("epoch ")
    assert chart.locator(".ring").count() >= 1


def test_a_finger_reads_the_heat_map_of_200_classes(opened) -> None:
    page = opened("200", PHONE)
    matrix = page.locator("svg.matrix")
    scroll_to(page, matrix)
    frame = matrix.locator(".frame").bounding_box()
    assert frame is not None
    page.touchscreen.tap(frame["x"] + 2, frame["y"] + 2)
    said = tip(page)
    assert "recognised: " in said
    assert said.endswith("% of 20")
    box = page.locator("#tip").bounding_box()
    assert box is not None
    assert 0 <= box["x"] <= 390 - box["width"]


def test_arrow_keys_go_through_the_heat_map(opened) -> None:
    page = opened("3")
    page.locator("svg.matrix").focus()
    page.keyboard.press("ArrowDown")
    assert tip(page) == "species 000\nrecognised: 14, 70.0 % of 20"
    page.keyboard.press("ArrowRight")
    assert tip(page) == "species 000\ntaken for species 001: 6, 30.0 % of 20"


def scroll_to(page: Page, place: Locator) -> None:
    """Bring it into view, and wait until the page has heard that it was scrolled: that hides what is shown."""
    place.scroll_into_view_if_needed()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def column(table: Locator, number: int) -> list[str]:
    return [text.strip() for text in table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()]


def test_a_click_sorts_a_table_and_another_turns_it_round(opened) -> None:
    page = opened("12")
    table = page.locator("table.sortable").first
    recall = table.get_by_role("button", name="recall")
    recall.click()
    values = [float(text.removesuffix("%").strip()) for text in column(table, 3)]
    assert values == sorted(values, reverse=True)
    assert table.locator("th[aria-sort=descending]").inner_text().startswith("recall")
    recall.press("Enter")
    values = [float(text.removesuffix("%").strip()) for text in column(table, 3)]
    assert values == sorted(values)
    table.get_by_role("button", name="class").click()
    names = [text for text in column(table, 1) if text.startswith("species")]
    assert names == ["species 000", "species 001", "species 002", "species 003"]
    assert column(table, 1)[-1] == "كلب أسود كبير"


def test_it_can_be_read_without_a_script_and_on_paper(opened) -> None:
    page = opened("12", script=False)
    assert page.locator("path.curve").count() >= 7
    assert page.locator("svg.matrix text.count").count() > 12
    assert page.get_by_text("95 % interval").first.is_visible()
    assert not page.locator("#tip").is_visible()
    page = opened("several", scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").first.is_hidden()


def test_a_link_to_a_run_unfolds_it(opened) -> None:
    page = opened("several")
    assert not page.locator("#run-1 h3").first.is_visible()
    page.get_by_role("link", name="second").click()
    assert page.locator("#run-1 h3").first.is_visible()
    assert not page.locator("#run-0 h3").first.is_visible()


def test_the_policy_stops_what_would_be_slipped_in(chromium: Browser, files: dict[str, Path], tmp_path: Path) -> None:
    """Not only are names escaped: a script that got in all the same would not run, nor call home."""
    text = files["3"].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    inside = (
        "<script>document.title = 'owned'</script><img src='https://example.invalid/x.png' onerror='document.title=1'>"
    )
    broken.write_text(text.replace("</main>", f"{inside}</main>"), encoding="utf-8")
    page = chromium.new_page()
    try:
        asked: list[str] = []
        page.on("requestfinished", lambda request: asked.append(request.url))
        page.goto(broken.as_uri())
        assert page.title() == "Report: made-up"
        assert [url for url in asked if url.startswith("http")] == []
    finally:
        page.close()


def test_a_curve_says_nothing_where_it_has_no_point(opened) -> None:
    page = opened("12")
    page.locator("svg.lines").first.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert tip(page) == "epoch 0.5\ntraining, each step: 1.725"

"""The page at `/` in a real browser: a picture in, bars and names out; errors in words; dark, narrow, many classes.

The network behind it is a stand-in, so that the answers are known; test_engine.py has the real one.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from support import pictures
from support.browser import browser
from support.native import StandIn, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LONG = "a-class-with-a-very-long-name_" * 6 + "<b>end</b>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    models = {
        "digits": StandIn("digits", ["three", LONG, "seven", "one", "nine", "zero"]),
        "pair": StandIn("pair", ["cat", "dog"], max_upload_bytes=1024),
        "many": StandIn("many", [f"class number {index}" for index in range(1000)]),
    }
    with serving(models) as address:
        yield address


@contextmanager
def opened(chromium: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page, in a context of its own; what it complains of on the console fails the test."""
    context = chromium.new_context(**options)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    outside: list[str] = []
    page.on(
        "request",
        lambda request: outside.append(request.url) if not request.url.startswith((url, "blob:", "data:")) else None,
    )
    try:
        page.goto(url)
        expect(page.locator("#model option")).to_have_count(3)
        yield page
        assert [text for text in said if "status of 4" not in text] == []  # Chromium reports each 4xx
        assert outside == []
    finally:
        context.close()


def look(page: Page, name: str) -> None:
    """A screenshot to look at, where TRAINSERVE_SHOTS names a folder for them."""
    folder = os.environ.get("SHOTS")
    if folder:
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def upload(page: Page, data: bytes, name: str = "a picture.jpg") -> None:
    kind = "image/jpeg" if name.endswith("jpg") else "text/plain"
    page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": data})


def names(page: Page) -> list[str]:
    return page.locator("#classes li .name span:first-child").all_text_contents()


PHOTO = pictures.oriented(pictures.corners(240, 160), 6)  # stored standing, to be shown lying


def test_a_chosen_picture_gets_bars_names_and_times(chromium: Browser, url: str) -> None:
    with opened(chromium, url, viewport={"width": 1200, "height": 800}) as page:
        upload(page, PHOTO)
        expect(page.locator("#classes li")).to_have_count(5)
        assert names(page) == ["three", LONG, "seven", "one", "nine"]
        assert page.locator(".percent").all_text_contents() == ["50.8 %", "25.4 %", "12.7 %", "6.3 %", "3.2 %"]
        page.wait_for_timeout(400)  # the bars grow
        widths = [box["width"] for bar in page.locator(".bar").all() if (box := bar.bounding_box())]
        track = page.locator(".track").first.bounding_box()
        assert track is not None
        shares = [width / track["width"] for width in widths]
        assert shares == pytest.approx([0.508, 0.254, 0.127, 0.063, 0.032], abs=0.01)
        assert re.fullmatch(r"and 1 more class · server [\d.]+ ms · round trip [\d,.]+ ms", page.inner_text("#times"))
        shown = page.locator("#preview").bounding_box()
        assert shown is not None
        assert shown["width"] > shown["height"]  # upright, as EXIF says
        assert page.inner_text("#spoken") == "three, 50.8 %"
        assert page.locator("b").count() == 0  # a name is text
        look(page, "wide")


def test_a_dropped_and_a_pasted_picture(chromium: Browser, url: str) -> None:
    send = """([kind, text]) => {
        const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
        const target = document.querySelector(kind === "drop" ? "footer" : "body");
        const options = { bubbles: true, cancelable: true };
        target.dispatchEvent(kind === "drop"
            ? new DragEvent("drop", { ...options, dataTransfer: data })
            : new ClipboardEvent("paste", { ...options, clipboardData: data }));
    }"""
    for kind in ("drop", "paste"):
        with opened(chromium, url) as page:
            page.evaluate(send, [kind, base64.b64encode(PHOTO).decode()])
            expect(page.locator("#classes li")).to_have_count(5)
            assert names(page)[0] == "three"
            assert page.get_attribute("#preview", "alt") == "The picture dropped.jpg"


def test_what_is_no_picture_shows_the_reason_and_the_next_one_works(chromium: Browser, url: str) -> None:
    with opened(chromium, url) as page:
        upload(page, b"no picture at all", "notes.txt")
        expect(page.locator("#error")).to_have_text("Not a picture in a format we read")
        assert "this browser cannot show it" in page.inner_text("#no-preview")
        assert names(page) == []
        look(page, "error")
        upload(page, PHOTO)
        expect(page.locator("#classes li")).to_have_count(5)
        assert page.locator("#error").is_hidden()
        assert page.locator("#no-preview").is_hidden()


def test_the_model_can_be_chosen_and_the_picture_is_asked_again(chromium: Browser, url: str) -> None:
    with opened(chromium, url) as page:
        upload(page, PHOTO)
        expect(page.locator("#classes li")).to_have_count(5)
        page.select_option("#model", "many")
        expect(page.locator("#heading")).to_have_text("many says")
        assert names(page)[0] == "class number 0"
        assert page.inner_text("#times").startswith("and 995 more classes")
        page.select_option("#model", "pair")
        expect(page.locator("#error")).to_contain_text("is more than this model takes: 1 KiB")
        upload(page, pictures.encode(pictures.corners(), "JPEG"))
        expect(page.locator("#classes li")).to_have_count(2)
        assert names(page) == ["cat", "dog"]
        assert page.inner_text("#times").startswith("server")  # no class is left out


def test_keys_are_enough(chromium: Browser, url: str) -> None:
    with opened(chromium, url) as page:
        focused = []
        for _ in range(3):
            page.keyboard.press("Tab")
            focused.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert focused == ["model", "choose", "A"]
        page.focus("#choose")
        picture: Any = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": PHOTO}
        page.on("filechooser", lambda chooser: chooser.set_files(picture))
        page.wait_for_timeout(200)  # until the browser knows that somebody listens
        page.keyboard.press("Enter")
        expect(page.locator("#classes li")).to_have_count(5)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_cut_off_and_everything_can_be_read(chromium: Browser, url: str, scheme: Any) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True, "is_mobile": True}
    with opened(chromium, url, **options) as page:
        assert page.locator("#shoot").is_visible()
        assert page.get_attribute("#camera", "capture") == "environment"
        upload(page, PHOTO)
        expect(page.locator("#classes li")).to_have_count(5)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        for button in page.locator("button:visible, select").all():
            box = button.bounding_box()
            assert box is not None
            assert box["height"] >= 44  # a thumb
        assert contrasts(page) == []
        look(page, f"phone-{scheme}")


def contrasts(page: Page) -> list[str]:
    """Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, AA)."""
    found: list[str] = page.evaluate(
        """() => {
        const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        const rgb = (colour) => {
            canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data];
        };
        const light = (colour) => {
            const [r, g, b] = colour.map((value) => value / 255).map((c) =>
                c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
            return .2126 * r + .7152 * g + .0722 * b;
        };
        const behind = (element) => {
            for (let one = element; one; one = one.parentElement) {
                const colour = rgb(getComputedStyle(one).backgroundColor);
                if (colour[3] === 255) return colour;
            }
            return [255, 255, 255, 255];
        };
        const low = [];
        for (const element of document.querySelectorAll("main *")) {
            const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
            if (!own || !element.checkVisibility() || element.closest(".hidden")) continue;
            const pair = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
            const ratio = (pair[0] + .05) / (pair[1] + .05);
            if (ratio < 4.5) low.push(`${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
        }
        return low;
    }"""
    )
    return found


def test_a_server_that_is_gone_is_told(chromium: Browser) -> None:
    with serving({"pair": StandIn("pair", ["cat", "dog"])}) as address:
        page = chromium.new_page()
        page.goto(address)
        expect(page.locator("#model option")).to_have_count(1)
        assert page.locator("#choose-model").is_hidden()  # nothing to choose
    upload(page, PHOTO)
    expect(page.locator("#error")).to_have_text("The server cannot be reached; was it stopped?")
    assert page.locator("#again").is_visible()
    page.close()


def test_the_docs_are_one_page_without_scripts(chromium: Browser, url: str) -> None:
    page = chromium.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"{url}/docs")
    for text in (
        "POST /predict",
        "POST, PUT /predictions/{name}",
        "POST, PUT /predictions/{name}/{version}",
        "GET /ping",
        "413",
    ):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert contrasts(page) == []
    assert said == []
    look(page, "docs")
    page.close()
    assert json.loads(chromium.new_page().goto(f"{url}/openapi.json").text())["openapi"].startswith("3.")  # type: ignore[union-attr]

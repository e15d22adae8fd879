"""A real headless Chromium for the tests of pages: the machine's own, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Nothing goes out: a page that needs the network fails here.
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
ARGS += ["--disable-component-update", "--disable-sync", "--no-first-run"]


def path() -> str:
    """The browser's path. Skips only where SKIP_BROWSER=1 says so, else fails where there is none."""
    if os.environ.get("SKIP_BROWSER") == "1":
        pytest.skip("SKIP_BROWSER=1: no page was looked at in a browser")
    for name in (os.environ.get("CHROMIUM", ""), *NAMES):
        found = shutil.which(name) if name else None
        if found:
            return found
    pytest.fail("no Chromium on this machine; hint: apt-get install chromium, set CHROMIUM, or SKIP_BROWSER=1")


@contextmanager
def browser() -> Iterator[Browser]:
    """A running browser; pages get `browser.new_page(viewport=..., color_scheme=...)`."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path(), args=ARGS)
        try:
            yield running
        finally:
            running.close()

"""The system's Chromium or Chrome, driven by Playwright."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.helpers import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome")
# None of its own business, and no name is looked up: the only traffic is that of the page, on this machine.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
]
expect.set_options(timeout=PATIENCE * 1000)  # milliseconds


@pytest.fixture(scope="module")  # not longer: while it is there, asyncio thinks that this thread runs a loop
def browser() -> Iterator[Browser]:
    """One browser for all tests of a module."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        if program:
            browser = playwright.chromium.launch(executable_path=program, args=OPTIONS)
        else:  # such as on macOS, where it is not on the PATH
            browser = playwright.chromium.launch(channel="chrome", args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page with a fresh profile."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.set_default_timeout(PATIENCE * 1000)
        yield context.new_page()

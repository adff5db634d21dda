"""Headless Chromium for the tests of the page."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

ARGUMENTS: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
NAMES: Final = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The program; None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """A browser; skips the test where it, or what drives it, is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    program = chromium()
    if program is None:
        pytest.skip(f"no browser on the PATH: none of {', '.join(NAMES)}")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield found
        finally:
            found.close()


@dataclass
class Watched:
    """An open page, and what it ought not to have done.

    Attributes:
        page: the page.
        complaints: what the console says, and exceptions.
        requests: what it asked for, but for itself.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, browser: Browser, address: str, *, dark: bool, width: int, scripts: bool) -> Self:
        """Open `address` and wait until it is drawn."""
        page = browser.new_page(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        found = cls(page)
        page.on("console", lambda message: found.complaints.append(message.text))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("dialog", lambda dialog: found.complaints.append(dialog.message))
        own = address.partition("#")[0]
        page.on("request", lambda request: found.requests.append(request.url) if request.url != own else None)
        page.goto(address)
        if scripts:
            page.wait_for_selector("html[data-ready]")
        return found

    def close(self) -> None:
        """Close the page; the browser must not have complained, and nothing may have been asked for."""
        self.page.close()
        assert self.complaints == []
        assert self.requests == []

    def ids(self) -> list[str]:
        """The cells in the table, from above."""
        return self.page.locator("#table tbody a").all_inner_texts()

    def tiles(self, kind: str = "") -> Locator:
        """The tiles of the map, of one kind."""
        return self.page.locator(f"#grid .tile{kind}")

    def value(self, expression: str) -> Any:
        """What the page says to a piece of script."""
        return self.page.evaluate(expression)

    def wait_for(self, expression: str) -> None:
        """Wait until `expression` is true in the page; fail after five seconds.

        Playwright's own way has the page evaluate a string again and again, which the page's policy forbids.
        """
        deadline = time.monotonic() + 5
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            self.page.wait_for_timeout(20)

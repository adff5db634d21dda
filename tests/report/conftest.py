from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmdevice.report.html import html
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.transitions import Comparison
from report.browser import Watched, launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for one module: what drives it keeps an event loop running, and other tests start their own."""
    with launched() as found:
        yield found


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Opens the page of some results; fails afterwards where the browser complained or a request left the page."""
    opened: list[Watched] = []

    def show(
        merged: MergedResults,
        comparison: Comparison | None = None,
        *,
        fragment: str = "",
        dark: bool = False,
        width: int = 1280,
        scripts: bool = True,
    ) -> Watched:
        path = tmp_path / "page.html"
        path.write_text(html(ReportModel.of(merged, comparison)), "utf-8")
        found = Watched.at(browser, f"{path.as_uri()}{fragment}", dark=dark, width=width, scripts=scripts)
        opened.append(found)
        return found

    yield show
    for each in opened:
        each.close()

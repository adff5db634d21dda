"""How long the HTML page of 5,000 cells takes in headless Chromium: to open, and to filter.

Needs Debian's `chromium` and the package `playwright`. The
file's size is that of the whole page.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.html import html
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.vocabulary import Outcome

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from report.browser import ARGUMENTS, chromium  # tests/ is no package
from results.builder import large

CELLS = 5_000
TURNS = 5
GOAL = 1.0
"""Seconds, for opening and for each filter."""

PAINTED = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"

FILTERS = {
    "type 'qwen3 nf4'": "field('q', 'qwen3 nf4', 'input')",
    "type 'lm_head' (in findings)": "field('q', 'lm_head', 'input')",
    "a model": "field('model', 'mistral', 'change')",
    "only failed": "document.querySelector('[data-outcome=failed]').click()",
    "clear": "document.querySelector('.clear').click()",
    "show as table": "document.querySelector('[data-view=table]').click()",
    "sort by load": "document.querySelector('[data-sort=load]').click()",
}


def outcome(cell: Cell, check: str) -> Outcome:
    """About one check in 200 fails: a tenth of the cells."""
    return "failed" if zlib.crc32(f"{cell.id}{check}".encode()) % 200 == 0 else "passed"


def filter_seconds(page: Page, action: str) -> float:
    """From the action to the frame after it."""
    taken: Any = page.evaluate(
        f"""async () => {{
            const field = (name, value, kind) => {{
                const one = document.querySelector(`#filters [name=${{name}}]`);
                one.value = value;
                one.dispatchEvent(new Event(kind, {{ bubbles: true }}));
            }};
            const started = performance.now();
            {action};
            await {PAINTED};
            await {PAINTED};
            return performance.now() - started;
        }}"""
    )
    return float(taken) / 1000


def main() -> None:
    """Print the size of the page, and the medians."""
    program = chromium()
    if program is None:
        sys.exit("there is no chromium on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        results = merge_runs([large(CELLS, outcome).file(Path(folder))])
        started = time.perf_counter()
        text = html(ReportModel.of(results))
        print(
            f"{time.perf_counter() - started:6.2f} s  made, {len(results.cells):,} cells, {len(text) / 2**20:.1f} MiB"
        )
        path = Path(folder) / "page.html"
        path.write_text(text, "utf-8")
        took: dict[str, list[float]] = {"open": [], **{name: [] for name in FILTERS}}
        with (
            sync_playwright() as playwright,
            playwright.chromium.launch(executable_path=program, args=ARGUMENTS) as browser,
        ):
            for _ in range(TURNS):
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                started = time.perf_counter()
                page.goto(path.as_uri())
                page.wait_for_function("document.documentElement.dataset.ready === 'yes'")
                page.evaluate(PAINTED)
                took["open"].append(time.perf_counter() - started)
                for name, action in FILTERS.items():
                    took[name].append(filter_seconds(page, action))
                page.close()
    for name, seconds in took.items():
        median = statistics.median(seconds)
        print(f"{median:6.2f} s  {name} (slowest {max(seconds):.2f} s){'' if median < GOAL else '  TOO SLOW'}")


if __name__ == "__main__":
    main()

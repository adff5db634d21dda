"""Records that would like to be markup, opened in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from results.builder import ResultsBuilder, check

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.html import html
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.records import RecordedFinding
from pytest_llmdevice.results.run_header import Machine
from pytest_llmdevice.results.transitions import Comparison, Transition
from pytest_llmdevice.text import harmless
from report.browser import Watched

SCRIPT = "<script>document.title = 'taken'</script>"
IMAGE = "\"'><img src=x onerror=\"document.title = 'taken'\">"
ENDING = "</script><script>document.title = 'taken'</script><!--<script>"
TEMPLATE = "{{ 7 * 7 }} {% raw %} ${7 * 7} &lt;b&gt; \u2028\u2029"
ALL = f"{SCRIPT}{IMAGE}{ENDING}{TEMPLATE}"

# The ids of a matrix file cannot be like this; those of a file of results can.
CELL = Cell(f"x{ALL}", f"cpu{IMAGE}", f"float{IMAGE}", f"none{SCRIPT}", f"to{ENDING}", f"default{IMAGE}")


def finding(source: str) -> RecordedFinding:
    return RecordedFinding(where=ALL, expected=ALL, actual=ALL, hint=ALL, advice=ALL, source=source)


def made(folder: Path, source: str = "") -> MergedResults:
    bad = check(CELL, ALL, "failed", findings=(finding(source),), message=ALL, evidence={ALL: ALL}, target=ALL)
    return merge_runs(
        [
            ResultsBuilder(
                {CELL: {ALL: bad}},
                {Cell(f"y{ALL}", "cpu", "float32"): ("absent", ALL)},
                changes={CELL: {"devices": ALL}},
                machine=Machine(system=ALL, cpu=ALL),
                versions={"torch": ALL, ALL: "1"},
                target=ALL,
                matrix=ALL,
                simulated=(ALL,),
                killed=True,
            ).file(folder / "results")
        ]
    )


@pytest.fixture
def taken(shown: Callable[..., Watched], tmp_path: Path) -> Watched:
    merged = made(tmp_path)
    name = CELL.id
    transitions = (
        Transition("regression", name, ALL, ALL, ALL, ALL, ALL),
        Transition("unused", ALL, ALL, ALL, ALL, ALL),
    )
    return shown(merged, Comparison(ALL, transitions, 1, (ALL,)))


def test_nothing_in_a_record_is_executed_when_the_page_opens(taken: Watched) -> None:
    assert taken.page.title() == "Model loading matrix"
    assert taken.page.locator("img, iframe, object, embed, link, base").count() == 0
    assert taken.page.locator("script").count() == 2


def test_nothing_in_a_record_is_executed_in_the_panel_the_table_and_the_tip(taken: Watched) -> None:
    taken.tiles().first.hover()
    taken.tiles().first.click()
    assert taken.page.locator("#detail-title").text_content() == harmless(CELL.id)
    assert taken.page.locator("dialog .message p").first.text_content() == harmless(ALL)
    taken.page.keyboard.press("Escape")
    taken.page.get_by_role("button", name="Table").click()
    assert taken.page.locator("#table tbody a").first.text_content() == harmless(CELL.id)
    taken.page.get_by_label("Search", exact=True).fill(SCRIPT)
    assert taken.page.title() == "Model loading matrix"
    assert taken.page.locator("img").count() == 0


def test_hostile_texts_are_shown_as_they_are(taken: Watched) -> None:
    text = taken.page.locator("main").text_content() or ""
    assert SCRIPT in text
    assert ENDING in text
    assert "{{ 7 * 7 }}" in text


def test_a_panel_with_a_hostile_id_can_be_linked_to(taken: Watched) -> None:
    taken.tiles().first.click()
    taken.page.reload()
    assert taken.page.locator("#detail-title").text_content() == harmless(CELL.id)


@pytest.mark.parametrize(
    "address",
    [
        "javascript:document.title='taken'",
        "JavaScript:alert(1)//https://example.org",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "file:///etc/passwd",
        "//example.org",
        "https://example.org/ onmouseover=alert(1)",
    ],
)
def test_only_web_addresses_become_links(shown: Callable[..., Watched], tmp_path: Path, address: str) -> None:
    page = shown(made(tmp_path, address))
    page.tiles().first.click()
    assert page.page.locator("a[target=_blank]").count() == 0
    assert harmless(address) in (page.page.locator(".problem .source").text_content() or "")


def test_a_web_address_becomes_a_link_without_an_opener(shown: Callable[..., Watched], tmp_path: Path) -> None:
    page = shown(made(tmp_path, "https://example.org/a?b='\"><script>"[:25]))
    link = page.page.locator(".problem .source a")
    assert link.get_attribute("href") == "https://example.org/a?b='"
    assert "noopener" in (link.get_attribute("rel") or "")


def test_the_policy_forbids_a_script_that_is_put_into_the_page(shown: Callable[..., Watched], tmp_path: Path) -> None:
    page = shown(made(tmp_path))
    page.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title=1'}))"
    )
    assert page.page.title() == "Model loading matrix"
    assert any("Content Security Policy" in complaint for complaint in page.complaints)
    page.complaints.clear()


def test_a_lone_surrogate_can_be_written(tmp_path: Path) -> None:
    page = html(ReportModel.of(MergedResults((), {}, notes=("half a character: \ud800",))))
    assert r"half a character: \ud800" in page
    (tmp_path / "page.html").write_text(page, "utf-8")

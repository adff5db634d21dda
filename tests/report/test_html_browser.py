"""The page, used as a reader uses it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from results.builder import CARD, CPU_BF16, CPU_FP32, SIMULATED, ResultsBuilder, check

from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import DTYPES
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.transitions import Comparison, Transition
from report.browser import Watched

Show = Callable[..., Watched]

QWEN = Cell("qwen2", "cpu", "float32")
ABSENT = Cell("qwen2", "cpu", "bfloat16")


@pytest.fixture
def merged(tmp_path: Path) -> MergedResults:
    """Five cells: two pass, one of them simulated, one fails, one is an error, one is absent."""
    return merge_runs(
        [
            ResultsBuilder(
                {
                    CPU_FP32: {"loads": "passed", "dtypes": "passed"},
                    CPU_BF16: {"loads": "passed", "dtypes": "failed"},
                    SIMULATED: {"loads": "passed"},
                    QWEN: {
                        "loads": check(
                            QWEN, "loads", "error", failure="out-of-memory", findings=(), message="20 MiB too many"
                        )
                    },
                },
                {ABSENT: ("absent", "no such processor")},
                changes={
                    CPU_FP32: {"load_seconds": 0.5},
                    CPU_BF16: {"load_seconds": 0.25},
                    SIMULATED: {"load_seconds": 10.0},
                    QWEN: {"load_seconds": None, "tokens": ()},
                },
                simulated=("cuda",),
            ).file(tmp_path / "results")
        ]
    )


def many(folder: Path, count: int = 250) -> MergedResults:
    cells = [Cell(f"hub:some/model-{number:03}@main", "cpu", "float32") for number in range(count)]
    return merge_runs([ResultsBuilder({cell: {"loads": "passed"} for cell in cells}).file(folder / "results")])


def test_every_cell_has_a_tile_with_a_letter_and_a_label(shown: Show, merged: MergedResults) -> None:
    page = shown(merged)
    assert page.tiles().count() == 5
    labels = {tile.get_attribute("aria-label"): tile.inner_text() for tile in page.tiles().all()}
    assert labels == {
        "llama.cpu.fp32.none.to: passed": ".",
        "llama.cpu.bf16.none.to: failed": "F",
        "llama.cuda0.bf16.none.to.sim: passed (simulated)": ".~",
        "qwen2.cpu.fp32.none.to: error": "E",
        "qwen2.cpu.bf16.none.to: not run": "s",
    }


def test_a_simulated_tile_is_hatched_and_its_device_says_so(shown: Show, merged: MergedResults) -> None:
    page = shown(merged)
    style = "getComputedStyle(document.querySelector('{}')).backgroundImage"
    assert "repeating-linear-gradient" in page.value(style.format("#grid .simulated.tile"))
    assert page.value(style.format("#grid .passed:not(.simulated)")) == "none"
    assert page.page.locator("#grid thead .badge").all_inner_texts() == ["simulated"]


def test_a_cell_that_did_not_run_has_none_of_the_colour_of_one_that_passed(shown: Show, merged: MergedResults) -> None:
    page = shown(merged)
    colour = "getComputedStyle(document.querySelector('#grid .{}')).backgroundColor"
    surface = "getComputedStyle(document.getElementById('matrix')).backgroundColor"
    assert page.value(colour.format("skipped")) == page.value(surface) != page.value(colour.format("passed"))


def test_words_in_the_search_narrow_the_map_and_are_kept_in_the_address(shown: Show, merged: MergedResults) -> None:
    page = shown(merged)
    page.page.get_by_label("Search", exact=True).fill("LM_HEAD bf16")
    assert page.page.locator("#shown").inner_text() == "1 of 5 cells"
    assert page.tiles(":not(.dim)").get_attribute("aria-label") == "llama.cpu.bf16.none.to: failed"
    assert "q=LM_HEAD+bf16" in page.page.url


def test_outcomes_are_chosen_together(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment="#view=table")
    page.page.locator("[data-outcome=failed]").click()
    page.page.locator("[data-outcome=error]").click()
    assert page.ids() == [CPU_BF16.id, QWEN.id]
    assert page.page.locator("[data-outcome=error]").get_attribute("aria-pressed") == "true"
    page.page.get_by_role("button", name="Clear").click()
    assert len(page.ids()) == 5


def test_a_choice_of_an_axis_hardware_and_problem_narrows_the_table(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment="#view=table")
    page.page.get_by_label("Any model").select_option("qwen2")
    assert page.ids() == [QWEN.id, ABSENT.id]
    page.page.get_by_label("Any model").select_option("")
    page.page.get_by_label("Any hardware").select_option("simulated")
    assert page.ids() == [SIMULATED.id]
    page.page.get_by_label("Any hardware").select_option("real")
    assert page.ids() == [CPU_FP32.id, CPU_BF16.id, QWEN.id]
    page.page.get_by_label("Any problem").select_option("1. 20 MiB too many")
    assert page.ids() == [QWEN.id]


def test_a_filter_in_the_address_is_applied_when_the_page_opens(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment="#model=llama&outcome=passed&view=table&sort=-load")
    assert page.ids() == [SIMULATED.id, CPU_FP32.id]
    assert page.page.get_by_label("Any model").input_value() == "llama"


def test_nonsense_in_the_address_is_ignored(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment="#outcome=splendid&sort=nothing&cell=nobody&view=upside-down&fold=9")
    assert page.tiles().count() == 5
    assert not page.page.locator("dialog").is_visible()


def test_a_filter_that_nothing_fits_says_so(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment="#q=nothing-has-this")
    assert page.page.locator("#grid").inner_text() == "No cell fits the filter."


def test_a_heading_sorts_up_then_down_and_what_was_not_measured_comes_last(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment="#view=table")
    heading = page.page.get_by_role("button", name="Load (s)")
    heading.click()
    assert page.ids()[:3] == [CPU_BF16.id, CPU_FP32.id, SIMULATED.id]
    heading.click()
    assert page.ids() == [SIMULATED.id, CPU_FP32.id, CPU_BF16.id, QWEN.id, ABSENT.id]
    assert page.page.locator("th[aria-sort=descending]").inner_text() == "Load (s)"


def test_rows_are_made_as_one_scrolls_to_them(shown: Show, tmp_path: Path) -> None:
    page = shown(many(tmp_path), fragment="#view=table")
    assert len(page.ids()) < 250
    for _ in range(3):
        page.page.locator("#table").evaluate("table => { table.scrollTop = table.scrollHeight }")
        page.page.wait_for_timeout(100)
    page.wait_for("document.querySelectorAll('#table tbody a').length === 250")
    assert page.page.locator("#table .end").count() == 0


def test_a_click_on_a_tile_opens_the_panel_and_closing_it_restores_the_address(
    shown: Show, merged: MergedResults
) -> None:
    page = shown(merged, fragment="#model=llama")
    page.page.get_by_label("llama.cpu.bf16.none.to: failed").click()
    panel = page.page.get_by_role("dialog")
    assert panel.get_by_role("heading", level=2).inner_text() == CPU_BF16.id
    assert "cell=llama.cpu.bf16.none.to" in page.page.url
    page.page.keyboard.press("Escape")
    assert not panel.is_visible()
    page.wait_for("!location.hash.includes('cell=')")
    assert page.page.url.endswith("#model=llama")


def test_the_browsers_back_closes_the_panel(shown: Show, merged: MergedResults) -> None:
    page = shown(merged)
    page.tiles().first.click()
    page.page.go_back()
    assert not page.page.locator("dialog").is_visible()


def test_the_panel_of_an_address_shows_findings_measures_memory_and_tokens(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment=f"#cell={CPU_BF16.id}")
    panel = page.page.get_by_role("dialog")
    text = panel.inner_text()
    assert re.search(r"lm_head\.weight\s+expected\s+bfloat16\s+found\s+float32", text)
    assert "dtype-dropped the dtype was dropped on the way" in text
    assert panel.get_by_role("link", name="https://github.com/huggingface").count() == 1
    assert "23 tensors" in text
    assert "1 of 1 are faster" not in text
    assert "0 of 1 are faster" in text
    assert panel.get_by_role("img", name="before 512 MiB, after 513 MiB, peak 514 MiB").count() == 1
    assert re.search(r"prompt 2\s+4 5 6", text)
    assert "torch 2.13.0" in text


def test_checks_that_did_not_pass_come_first_in_the_panel(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment=f"#cell={CPU_BF16.id}")
    assert page.page.locator("dialog .check .name").all_inner_texts() == ["dtypes", "loads"]


def test_the_panel_of_a_cell_that_did_not_run_says_why_on_each_machine(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment=f"#cell={ABSENT.id}")
    text = page.page.get_by_role("dialog").inner_text()
    assert "absent: no such processor" in text
    assert "not run" in text
    assert "passed" not in text


def test_the_panel_of_a_simulated_cell_says_that_it_is_no_hardware(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment=f"#cell={SIMULATED.id}")
    assert "simulated, not hardware" in page.page.get_by_role("dialog").inner_text()


def test_the_panel_goes_on_to_the_next_cell_that_fits(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment=f"#outcome=failed,error&cell={CPU_BF16.id}")
    page.page.get_by_role("button", name="Next").click()
    assert page.page.locator("#detail-title").inner_text() == QWEN.id
    assert page.page.get_by_role("button", name="Next").is_disabled()


def test_the_map_is_walked_with_the_arrow_keys_and_opened_with_enter(shown: Show, merged: MergedResults) -> None:
    page = shown(merged)
    focused = "document.activeElement.getAttribute('aria-label')"
    page.tiles().first.focus()
    page.page.keyboard.press("ArrowRight")
    assert page.value(focused) == "llama.cpu.bf16.none.to: failed"
    page.page.keyboard.press("ArrowDown")
    assert page.value(focused) == "qwen2.cpu.bf16.none.to: not run"
    page.page.keyboard.press("Home")
    assert page.value(focused) == "qwen2.cpu.fp32.none.to: error"
    assert page.page.locator("#tip").inner_text().splitlines() == [QWEN.id, "error", "20 MiB too many"]
    page.page.keyboard.press("Enter")
    assert page.page.locator("#detail-title").inner_text() == QWEN.id


def test_one_tile_alone_is_reached_with_the_tabulator(shown: Show, merged: MergedResults) -> None:
    page = shown(merged)
    page.tiles().nth(1).focus()
    page.page.keyboard.press("ArrowLeft")
    assert page.tiles("[tabindex='0']").count() == 1


def test_a_scattered_matrix_is_folded_and_a_tile_opens_to_its_cells(shown: Show, tmp_path: Path) -> None:
    places = [(model, dtype) for model in ("llama", "opt") for dtype in DTYPES]
    cells = [
        Cell(model, "cpu", dtype, strategy=strategy)
        for (model, dtype), strategy in zip(places, vocabulary.strategies(), strict=False)
    ]
    broken = Cell("llama", "cpu", "float32", strategy="shared-memory")
    builder = ResultsBuilder({broken: {"loads": "failed"}, **{cell: {"loads": "passed"} for cell in cells}})
    page = shown(merge_runs([builder.file(tmp_path / "results")]))
    assert page.tiles().count() == 6
    page.page.get_by_label("2 cells: 1 failed, 1 passed").click()
    assert page.page.locator("#shown").inner_text() == "2 of 7 cells"
    assert page.tiles().count() == 2
    page.page.get_by_label("How far the matrix is folded").select_option(label="Every cell")
    page.page.get_by_role("button", name="Clear").click()
    assert page.tiles().count() == 7


def test_changes_since_the_baseline_are_listed_marked_and_filtered(shown: Show, merged: MergedResults) -> None:
    comparison = Comparison(
        "base.json",
        (
            Transition("regression", CPU_BF16.id, "dtypes", "builtin", "passed", "failed", "lm_head"),
            Transition("unused", "gone.cpu.fp32.none.to", "", "builtin", "passed", "no such cell"),
        ),
        7,
    )
    page = shown(merged, comparison, fragment="#change=any")
    assert page.tiles(".changed").get_attribute("aria-label") == (
        "llama.cpu.bf16.none.to: failed; regression since the baseline"
    )
    assert page.page.locator("#shown").inner_text() == "1 of 5 cells"
    rows = page.page.locator("#change-list tbody tr")
    assert [row.split("\t") for row in rows.all_inner_texts()] == [
        ["regression", CPU_BF16.id, "dtypes", "passed → failed", "lm_head"],
        ["unused", "gone.cpu.fp32.none.to", "", "passed → no such cell", ""],
    ]
    page.page.get_by_role("button", name="1 unused").click()
    assert rows.count() == 1
    assert (
        page.page.locator("#changes .lead").inner_text() == "Since base.json: 1 regression, 1 unused entry, 7 unchanged"
    )


def test_a_problem_leads_to_its_cells(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment="#q=opt&view=table")
    page.page.locator("[data-problem='2']").click()
    assert page.ids() == [CPU_BF16.id]
    assert page.page.get_by_label("Search", exact=True).input_value() == ""


def test_plots_leave_simulated_cells_out_and_say_so(shown: Show, merged: MergedResults) -> None:
    page = shown(merged)
    page.page.wait_for_selector("#plots svg")
    assert "1 simulated are left out" in page.page.locator("#measures-lead").inner_text()
    label = page.page.locator("#plots svg").first.get_attribute("aria-label")
    assert label == "Load in s: llama median 0.375"
    assert page.page.locator("#plots svg").first.locator("text").all_text_contents() == [
        *("0", "0.2", "0.4"),
        *("Load (s)", "llama", "0.375"),
    ]


def test_links_to_sections_keep_the_filter(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, fragment="#q=llama")
    page.page.get_by_role("link", name="Machines").click()
    assert page.page.url.endswith("#q=llama")


def test_two_targets_have_rows_and_panels_of_their_own(shown: Show, tmp_path: Path) -> None:
    builders = [
        ResultsBuilder({CARD: {"loads": "passed"}}, name="a", target="one:load"),
        ResultsBuilder({CARD: {"loads": "failed"}}, name="b", target="two:load"),
    ]
    page = shown(merge_runs([builder.file(tmp_path / "results") for builder in builders]))
    assert page.tiles().all_inner_texts() == [".", "F"]
    page.tiles().nth(1).click()
    assert "two:load" in page.page.get_by_role("dialog").inner_text()
    page.page.reload()
    assert "two:load" in page.page.get_by_role("dialog").inner_text()


def test_without_a_script_the_counts_and_problems_are_there(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, scripts=False)
    text = page.page.locator("main").inner_text()
    assert "passed (simulated)\t1" in text
    assert "not run\t1" in text
    assert "dtype-dropped" in text
    assert not page.page.locator("#filters").is_visible()


def test_results_without_cells_make_a_page(shown: Show) -> None:
    page = shown(MergedResults((), {}))
    assert page.page.locator("#headline").inner_text() == "There are no cells."


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(shown: Show, merged: MergedResults, dark: bool) -> None:
    page = shown(merged, dark=dark, fragment=f"#cell={CPU_BF16.id}")
    assert page.value(CONTRASTS) == []


def test_what_is_printed_is_light_and_has_no_controls(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, dark=True)
    page.page.emulate_media(media="print")
    assert page.value("getComputedStyle(document.body).color") == "rgb(23, 32, 43)"
    assert not page.page.locator("#filters").is_visible()
    assert page.tiles().count() == 5


def test_a_narrow_window_does_not_scroll_sideways(shown: Show, merged: MergedResults) -> None:
    page = shown(merged, width=390)
    assert page.value("document.documentElement.scrollWidth") == 390


CONTRASTS = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => rgb(colour).slice(0, 3)
    .map((part) => part / 255)
    .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (rgb(colour)[3] === 255) return colour;
    }
    return 'white';
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || ['SCRIPT', 'STYLE', 'NOSCRIPT', 'OPTION'].includes(node.tagName)) continue;
    if (node instanceof SVGElement || node.disabled) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) found.push([node.textContent.trim().slice(0, 40), node.className, contrast.toFixed(2)]);
  }
  return found;
}"""

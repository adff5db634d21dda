from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from results.builder import CARD, CPU_BF16, CPU_FP32, SIMULATED, ResultsBuilder, check

from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import DTYPES
from pytest_llmdevice.report.escaping import code, literal, prose
from pytest_llmdevice.report.markdown import MOST_ROWS, markdown
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.transitions import Comparison, Transition

if TYPE_CHECKING:
    from markdown_it.token import Token

HOSTILE = (
    "| a | b |",
    "a | b \\| c \\\\| d",
    "``` `code` ``",
    "`",
    "<script>alert(1)</script>",
    "</details></code><img src=x onerror=alert(1)>",
    "line\n\n# heading\n- list",
    "@octocat hello a@b.example",
    "[text](https://evil.example) ![image](x)",
    "https://evil.example www.evil.example javascript:alert(1)",
    "**bold** _it_ ~~gone~~ :tada: &lt;",
    "- list",
    "1. list",
    "# heading",
    "> quote",
    "===",
)


def shown(merged: MergedResults, comparison: Comparison | None = None, **values: Any) -> str:
    return markdown(ReportModel.of(merged, comparison), **values)


def tokens(text: str) -> list[Token]:
    parser = pytest.importorskip("markdown_it", reason="comes with rich 13.1 and later").MarkdownIt
    found = parser("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
    return [inner for token in found for inner in (token, *(token.children or ()))]


def hostile(folder: Path, text: str) -> MergedResults:
    finding = RecordedFinding(where=text, expected=text, actual=text, hint="h", advice=text, source=text)
    cell = Cell(f"path:{text}", "cpu", "float32")
    wrong = check(cell, text, "failed", message=text, findings=(finding,), target=text)
    hollow = check(CPU_FP32, text, "hollow", message=text, target=text)
    made = ResultsBuilder(
        {cell: {text: wrong}, CPU_FP32: {text: hollow}}, skipped={CARD: ("absent", text)}, target=text, matrix=text
    )
    return merge_runs([made.file(folder)])


def small(folder: Path) -> MergedResults:
    made = ResultsBuilder(
        {CPU_FP32: {"dtypes": "passed"}, CPU_BF16: {"dtypes": "failed"}, SIMULATED: {"dtypes": "passed"}},
        skipped={Cell("llama", "mps", "float32"): ("absent", "absent: no mps here")},
    )
    return merge_runs([made.file(folder)])


def test_the_table_says_what_passed_what_failed_and_what_was_simulated(tmp_path: Path) -> None:
    text = shown(small(tmp_path))
    assert "**4 cells: 1 failed, 1 passed, 1 not run; simulated: 1 passed**" in text
    assert "| model | `cpu`<br>`fp32` | `cpu`<br>`bf16` | `cuda:0`<br>`bf16` |\n" in text
    assert "| `llama` | `.` | **`F`** | `.~` |\n" in text
    assert "F failed; . passed; &#126; simulated, not on real hardware" in text


def test_a_problem_can_be_unfolded(tmp_path: Path) -> None:
    text = shown(small(tmp_path))
    assert "### 1 problem\n" in text
    assert "- where: `lm_head.weight`\n- expected: `bfloat16`\n- found: `float32`\n" in text
    assert "- source: <https://github.com/huggingface/transformers/issues/24774>\n" in text
    assert "- 1 cell: `llama.cpu.bf16.none.to`\n" in text


def test_what_did_not_run_and_where_it_ran_is_told(tmp_path: Path) -> None:
    text = shown(small(tmp_path))
    assert "- 1 on mps: absent: no mps here\n" in text
    assert "torch 2.13.0" in text
    assert "Linux x86_64, Some CPU" in text


def test_the_comparison_is_there(tmp_path: Path) -> None:
    change = Transition("regression", "llama.cpu.fp32.none.to", "dtypes", "builtin", "passed", "failed", "lm_head")
    text = shown(small(tmp_path), Comparison("base.json", (change,), 3))
    assert "Since base&#46;json&#58; 1 regression&#44; 3 unchanged" in text
    assert "- regression: llama.cpu.fp32.none.to dtypes: passed -&#62; failed: lm_head\n" in text


@pytest.mark.parametrize("text", HOSTILE)
def test_no_data_is_markup(tmp_path: Path, text: str) -> None:
    plain, odd = (tokens(shown(hostile(tmp_path / name, data))) for name, data in (("a", "plain"), ("b", text)))
    kinds = {"heading_open", "list_item_open", "table_open", "tr_open", "td_open", "th_open", "fence", "image"}
    for kind in kinds | {"em_open", "strong_open", "s_open", "blockquote_open", "hr", "code_block"}:
        assert count(odd, kind) == count(plain, kind), kind
    links = [token.attrs["href"] for token in odd if token.type == "link_open"]
    assert [link for link in links if link != text] == []
    html = {tag for token in odd if token.type.startswith("html") for tag in re.findall(r"<[^>]*>", token.content)}
    assert html <= {
        f"<{slash}{name}>" for name in ("details", "summary", "b", "code", "br", "sub") for slash in ("", "/")
    }


def count(found: list[Token], kind: str) -> int:
    return sum(token.type == kind for token in found)


@pytest.mark.parametrize("text", HOSTILE)
def test_data_is_read_as_it_is(text: str) -> None:
    shown = " ".join(text.split())
    for written in (code(text), literal(text), prose(text)):
        read = "".join(
            token.content for token in tokens(f"x {written}") if token.type in {"text", "code_inline", "text_special"}
        )
        assert read.removeprefix("x ").replace("\u200b", "") == shown


def test_nobody_is_mentioned() -> None:
    assert "@o" not in literal("@octocat")
    assert "@o" not in prose("@octocat")
    assert code("@octocat") == "`@octocat`"
    assert "\u200b" in code("@octo|cat")


def test_an_ordinary_sentence_is_left_as_it_is() -> None:
    sentence = "absent: no cuda:0 here (this machine has cpu, 2 cores; torch 2.13.0), kv_b_proj = 50%?"
    assert prose(sentence) == sentence


def test_a_source_that_is_no_address_is_no_link(tmp_path: Path) -> None:
    text = shown(hostile(tmp_path, "javascript:alert(1)"))
    assert "- source: `javascript:alert(1)`\n" in text


def test_what_is_too_long_for_a_summary_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_llmdevice.report.markdown.MOST_BYTES", 1000)
    text = shown(small(tmp_path))
    assert len(text.encode()) <= 1000
    assert text.startswith("## ")
    assert "parts of this report would make it too long for GitHub" in text


def test_a_summary_of_many_cells_is_short(tmp_path: Path) -> None:
    cells = [
        Cell(*values)
        for values in product(
            vocabulary.models(),
            ("cpu", "cuda:0", "cuda:1"),
            DTYPES,
            vocabulary.quantizations(),
            ("to", "auto", "balanced"),
        )
    ]
    made = ResultsBuilder(
        {cell: {"c": "failed" if number % 50 == 7 else "passed"} for number, cell in enumerate(cells)}
    )
    text = shown(merge_runs([made.file(tmp_path)]))
    assert len(text.split("\n")) < 120
    assert len(text.encode()) < 20_000


def test_a_grid_of_too_many_rows_says_how_many_more_there_are(tmp_path: Path) -> None:
    cells = [Cell(f"path:m{number}", "cpu", "float32") for number in range(MOST_ROWS + 5)]
    text = shown(
        merge_runs([ResultsBuilder({cell: {"c": "passed"} for cell in cells}).file(tmp_path)]), grid="model/device"
    )
    assert "| and 5 more rows |" in text


def test_each_target_has_a_table_with_its_name(tmp_path: Path) -> None:
    first = ResultsBuilder({CPU_FP32: {"c": "passed"}}).file(tmp_path)
    second = ResultsBuilder({CPU_FP32: {"c": "passed"}}, target="mine:loader", name="other").file(tmp_path)
    text = shown(merge_runs([first, second]))
    assert "target `builtin`" in text
    assert "target `mine:loader`" in text


def test_a_comparison_without_a_difference_is_a_line(tmp_path: Path) -> None:
    text = shown(small(tmp_path), Comparison("base.json", (), 3))
    assert "\n\nSince base.json: 3 unchanged\n\n" in text


def test_what_was_summed_up_is_counted_and_explained(tmp_path: Path) -> None:
    made = ResultsBuilder({CPU_FP32: {"c": "xfail"}, CPU_BF16: {"c": "passed"}})
    text = shown(merge_runs([made.file(tmp_path)]), grid="model/device")
    assert "| `llama` | `x1/2` |" in text
    assert "x failed as expected; . passed; x1/2: so in 1 of 2 cells" in text


def test_of_many_problems_those_of_most_cells_are_told(tmp_path: Path) -> None:
    def wrong(cell: Cell, number: int) -> Check:
        finding = RecordedFinding(where=f"weight_{chr(97 + number)}", expected="x", actual=f"y{chr(97 + number)}")
        return check(cell, "c", "failed", findings=(finding,))

    cells = [Cell(f"path:m{number}", "cpu", "float32") for number in range(25)]
    made = ResultsBuilder({cell: {"c": wrong(cell, number)} for number, cell in enumerate(cells)})
    text = shown(merge_runs([made.file(tmp_path)]))
    assert "### 25 problems, the 20 of most cells" in text
    assert "weight_t" in text
    assert "weight_u" not in text

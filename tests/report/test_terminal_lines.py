from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from results.builder import CARD, CPU_BF16, CPU_FP32, SIMULATED, ResultsBuilder, check

from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import DTYPES
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.terminal import terminal_lines
from pytest_llmdevice.report.wrapping import broken, columns
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.records import Check, RecordedFinding
from pytest_llmdevice.results.transitions import Comparison, Transition
from pytest_llmdevice.results.vocabulary import CheckOutcome

ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def shown(
    merged: MergedResults,
    comparison: Comparison | None = None,
    *,
    width: int = 80,
    colour: bool = False,
    unicode: bool = True,
    **values: Any,
) -> str:
    report = ReportModel.of(merged, comparison)
    return "\n".join(terminal_lines(report, width=width, colour=colour, unicode=unicode, **values))


def lines(merged: MergedResults, **values: Any) -> list[str]:
    return shown(merged, **values).split("\n")


def small(folder: Path, target: str = "builtin") -> MergedResults:
    made = ResultsBuilder(
        {CPU_FP32: {"dtypes": "passed"}, CPU_BF16: {"dtypes": "failed"}, SIMULATED: {"dtypes": "passed"}},
        skipped={Cell("llama", "mps", "float32"): ("absent", "absent: no mps here")},
        target=target,
    )
    return merge_runs([made.file(folder)])


def full(folder: Path, strategies: tuple[str, ...] = ("to", "auto", "disk-offload", "shared-memory")) -> MergedResults:
    cells = [
        Cell(*values)
        for values in product(
            vocabulary.models(), ("cpu", "cuda:0", "cuda:1"), DTYPES, vocabulary.quantizations(), strategies
        )
    ]
    outcomes: tuple[CheckOutcome, ...] = ("passed",) * 100 + ("failed",)
    made = ResultsBuilder({cell: {"dtypes": outcomes[number % 101]} for number, cell in enumerate(cells)})
    return merge_runs([made.file(folder)])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> MergedResults:
    return full(tmp_path_factory.mktemp("many"))


def hostile(folder: Path, text: str) -> MergedResults:
    finding = RecordedFinding(where=text, expected=text, actual=text, hint="h", advice=text, source=text)
    wrong = check(CPU_FP32, "dtypes", "failed", message=text, findings=(finding,), target=text)
    skipped = {CARD: ("absent", text)}
    return merge_runs([ResultsBuilder({CPU_FP32: {"dtypes": wrong}}, skipped=skipped, target=text).file(folder)])


def test_the_headline_counts_real_simulated_and_not_run_apart(tmp_path: Path) -> None:
    text = shown(small(tmp_path))
    assert "\n4 cells: 1 failed, 1 passed, 1 not run; simulated: 1 passed\n" in text


def test_the_target_is_named_first_and_the_built_in_one_is_said_to_prove_nothing(tmp_path: Path) -> None:
    assert shown(small(tmp_path, "mine:loader")).startswith("target mine:loader\n")
    assert shown(small(tmp_path / "builtin")).startswith("target builtin, the loader of pytest-llmdevice itself: no")


def test_a_small_grid_is_drawn_whole(tmp_path: Path) -> None:
    text = shown(small(tmp_path))
    assert "       cpu       │ cuda:0\nmodel  fp32 bf16 │ bf16\nllama  .    F    │ .~\n" in text


def test_the_legend_has_only_what_occurs(tmp_path: Path) -> None:
    text = shown(small(tmp_path))
    assert "F failed   . passed   ~ simulated, not on real hardware\n" in text
    assert "hollow" not in text


def test_what_did_not_run_is_below_the_grid_once_for_each_device(tmp_path: Path) -> None:
    cells = [Cell("llama", "cuda:0", dtype) for dtype in DTYPES]
    made = ResultsBuilder(
        {CPU_FP32: {"dtypes": "passed"}}, skipped=dict.fromkeys(cells, ("absent", "absent: no cuda:0 here"))
    )
    assert "Not run\n  3 on cuda:0: absent: no cuda:0 here" in shown(merge_runs([made.file(tmp_path)]))


def test_a_reason_that_differs_from_cell_to_cell_is_told_once(tmp_path: Path) -> None:
    cells = [Cell("llama", "cuda:0", dtype) for dtype in DTYPES]
    skipped = {cell: ("unsupported", f"unsupported: not in {cell.dtype}") for cell in cells}
    text = shown(merge_runs([ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, skipped=skipped).file(tmp_path)]))
    assert "3 on cuda:0: unsupported: not in float32 (and 2 other reasons)" in text


def test_a_test_that_skips_itself_says_why(tmp_path: Path) -> None:
    text = shown(merge_runs([ResultsBuilder({CPU_FP32: {"mine": "skipped"}}).file(tmp_path)]))
    assert "1 on cpu: by the test: not for this one" in text


def test_a_finding_is_shown_in_full(tmp_path: Path) -> None:
    text = shown(small(tmp_path))
    assert "1. failed in 1 cell: dtypes" in text
    for line in (
        "   cell     llama.cpu.bf16.none.to",
        "   where    lm_head.weight",
        "   expected bfloat16",
        "   found    float32",
        "   hint     the dtype was dropped on the way",
        "   source   https://github.com/huggingface/transformers/issues/24774",
    ):
        assert f"\n{line}" in text


def test_equal_findings_are_one_problem_and_what_concerns_most_cells_is_first(tmp_path: Path) -> None:
    rare = RecordedFinding(where="x", expected="a", actual="b")
    common = [Cell("llama", "cpu", "bfloat16", strategy=strategy) for strategy in ("to", "auto", "balanced")]
    made = ResultsBuilder(
        {CPU_FP32: {"values": check(CPU_FP32, "values", "failed", findings=(rare,))}}
        | {cell: {"dtypes": "failed"} for cell in common}
    )
    text = shown(merge_runs([made.file(tmp_path)]))
    assert text.index("1. failed in 3 cells: dtypes") < text.index("2. failed in 1 cell: values")


def test_findings_that_differ_in_numbers_only_are_one_problem(tmp_path: Path) -> None:
    def wrong(cell: Cell, layer: int) -> dict[str, Check]:
        finding = RecordedFinding(where=f"model.layers.{layer}.weight", expected="0.5", actual=f"0.{layer}1")
        return {"values": check(cell, "values", "failed", findings=(finding,))}

    made = ResultsBuilder({CPU_FP32: wrong(CPU_FP32, 1), CPU_BF16: wrong(CPU_BF16, 2)})
    assert "1 problem\n1. failed in 2 cells: values" in shown(merge_runs([made.file(tmp_path)]))


def test_other_dtypes_are_other_problems(tmp_path: Path) -> None:
    def wrong(cell: Cell, dtype: str) -> dict[str, Check]:
        finding = RecordedFinding(where="weight", expected=dtype, actual="x")
        return {"values": check(cell, "values", "failed", findings=(finding,))}

    made = ResultsBuilder({CPU_FP32: wrong(CPU_FP32, "float32"), CPU_BF16: wrong(CPU_BF16, "float16")})
    assert "\n2 problems\n" in shown(merge_runs([made.file(tmp_path)]))


def test_a_hollow_check_and_a_killed_run_are_problems(tmp_path: Path) -> None:
    hollow = check(CPU_FP32, "values", "hollow", message="no tensor was looked at", evidence={})
    made = ResultsBuilder({CPU_FP32: {"values": hollow}}, unfinished=[CPU_BF16], killed=True)
    text = shown(merge_runs([made.file(tmp_path)]))
    assert "hollow in 1 cell: values" in text
    assert "aborted in 1 cell: the cell" in text
    assert "H hollow" in text


def test_an_expected_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    known = check(CPU_FP32, "values", "xfail", message="a bug upstream")
    text = shown(merge_runs([ResultsBuilder({CPU_FP32: {"values": known}}).file(tmp_path)]))
    assert "Failed as expected\n  1 cell: a bug upstream" in text
    assert "problem" not in text


def test_what_changed_since_a_baseline_is_counted_and_the_worst_is_told(tmp_path: Path) -> None:
    changes = [
        Transition("regression", f"llama.cpu.fp32.none.s{number}", "dtypes", "builtin", "passed", "failed", "lm_head")
        for number in range(5)
    ]
    comparison = Comparison("base.json", (*changes, Transition("new", "c", "d", "builtin", "", "passed")), 7)
    text = shown(small(tmp_path), comparison, worst=2, width=100)
    assert "Since base.json: 5 regressions, 1 new, 7 unchanged" in text
    assert "  regression: llama.cpu.fp32.none.s1 dtypes: passed -> failed: lm_head" in text
    assert "s2 dtypes" not in text
    assert "and 4 more changes" in text


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120, 200])
def test_no_line_but_an_address_is_wider_than_the_terminal(many: MergedResults, width: int) -> None:
    found = lines(many, width=width, colour=False, unicode=True)
    assert [line for line in found if columns(line) > width and "https://" not in line] == []


@pytest.mark.parametrize("width", [40, 80])
def test_a_grid_that_was_asked_for_is_wrapped_and_loses_no_column(tmp_path: Path, width: int) -> None:
    text = shown(full(tmp_path, ("to",)), width=width, grid="model/device,dtype,quantization")
    rows = [line for line in text.split("\n") if line.startswith("llama ")]
    assert len(rows) > 1
    assert sum(len(re.findall(r"[.F]", row)) for row in rows) == 3 * 3 * len(vocabulary.quantizations())


def test_a_large_grid_is_folded_to_one_page(many: MergedResults) -> None:
    assert len(lines(many, width=100, colour=False, unicode=True)) < 130


def test_without_unicode_all_is_ascii(tmp_path: Path) -> None:
    text = shown(hostile(tmp_path, "größer → 模型"), unicode=False)
    assert text.isascii()
    assert r"gr\xf6\xdfer \u2192 \u6a21\u578b" in text


def test_wide_characters_are_counted_as_two_columns(tmp_path: Path) -> None:
    found = lines(hostile(tmp_path, "模型" * 60), width=40, colour=False, unicode=True)
    assert max(map(columns, found)) <= 40


def test_colour_adds_escapes_and_changes_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    merged = small(tmp_path)
    coloured = shown(merged, colour=True)
    assert "\x1b[32m.   " in coloured
    assert ESCAPE.sub("", coloured) == shown(merged)


def test_a_simulated_pass_is_not_green(tmp_path: Path) -> None:
    found = shown(small(tmp_path), colour=True)
    assert "\x1b[36m.~" in found


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb\rc", "a\u202eb", "a\x9b31mb", "a\x07b"])
def test_no_message_can_command_the_terminal(tmp_path: Path, text: str) -> None:
    found = lines(hostile(tmp_path, text), width=80, colour=False, unicode=True)
    assert all(line.isprintable() for line in found)


def test_a_long_message_is_cut_and_says_so(tmp_path: Path) -> None:
    text = shown(hostile(tmp_path, "word " * 10_000))
    assert len(text) < 10_000
    assert re.search(r"\w\.\.\.\n", text)


def test_a_word_is_broken_only_where_it_must_be() -> None:
    assert broken("disk-offload", 8) == ["disk-", "offload"]
    assert broken("llama.cpu.fp32.none.disk-offload x", 34, in_words=False) == ["llama.cpu.fp32.none.disk-offload x"]
    assert broken("abcdefgh", 3) == ["abc", "def", "gh"]


def test_results_without_a_cell_are_shown(tmp_path: Path) -> None:
    assert shown(merge_runs([ResultsBuilder({}).file(tmp_path)])).splitlines()[2] == "0 cells: none"


def test_conflicts_of_runs_are_listed(tmp_path: Path) -> None:
    first = ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="1").file(tmp_path)
    second = ResultsBuilder({CPU_FP32: {"dtypes": "failed"}}, name="2").file(tmp_path)
    text = shown(merge_runs([first, second]))
    assert (
        "Conflicts: the worse outcome counts\n  llama.cpu.fp32.none.to dtypes: failed in 2, passed in 1: one commit"
        in text
    )


def test_a_long_list_ends_with_how_many_there_are_besides(tmp_path: Path) -> None:
    cells = [Cell("llama", f"cuda:{number}", "float32") for number in range(15)]
    skipped = dict.fromkeys(cells, ("absent", "absent: no such card"))
    text = shown(merge_runs([ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, skipped=skipped).file(tmp_path)]))
    assert "12 on" not in text
    assert "  and 3 more lines" in text

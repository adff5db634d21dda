"""What all reports say is computed once: counts, letters, words and problems are the same wherever they are read."""

from __future__ import annotations

import html as escaping
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from results.builder import CARD, CPU_BF16, CPU_FP32, SIMULATED, ResultsBuilder, check

from pytest_llmdevice.cli.command import command
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.report.html import html
from pytest_llmdevice.report.markdown import markdown
from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.outcomes import LETTERS, MARKS
from pytest_llmdevice.report.terminal import terminal_lines
from pytest_llmdevice.results.gate import evaluate_gate, parse_fail_on
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.records import RecordedFinding
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.transition_rules import AFTER
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS, WORST_FIRST, CheckOutcome


def of(folder: Path, outcomes: dict[Cell, CheckOutcome], **values: Any) -> ReportModel:
    run = ResultsBuilder({cell: {"loads": outcome} for cell, outcome in outcomes.items()}, **values)
    return ReportModel.of(merge_runs([run.file(folder)]))


# The answer in a sentence


@pytest.mark.parametrize(
    ("outcomes", "state", "sentence"),
    [
        (
            {CPU_FP32: "passed", CPU_BF16: "passed", SIMULATED: "passed"},
            "good",
            "2 cells passed on real hardware, and nothing failed.",
        ),
        ({CPU_FP32: "xfail", CPU_BF16: "passed"}, "good", "1 cell passed on real hardware, and nothing failed."),
        ({SIMULATED: "passed"}, "simulated", "1 cell without a problem, none of them on real hardware."),
        ({CPU_FP32: "failed", CPU_BF16: "hollow"}, "bad", "2 of 2 cells that ran have problems."),
        ({CPU_FP32: "failed", CPU_BF16: "passed"}, "bad", "1 of 2 cells that ran has problems."),
    ],
)
def test_the_headline_is_the_answer(
    tmp_path: Path, outcomes: dict[Cell, CheckOutcome], state: str, sentence: str
) -> None:
    headline = of(tmp_path, outcomes, skipped={CARD: ("absent", "no card")}).headline
    assert (headline.state, headline.sentence) == (state, sentence)


def test_results_in_which_no_cell_ran_are_empty(tmp_path: Path) -> None:
    headline = of(tmp_path, {}, skipped={CARD: ("absent", "no card")}).headline
    assert (headline.state, headline.sentence) == ("empty", "No cell ran.")


# What did not run


def test_what_did_not_run_is_grouped_by_device_and_cause(tmp_path: Path) -> None:
    skipped = {
        CARD: ("absent", "absent: no card"),
        CPU_BF16: ("unsupported", "unsupported: too old"),
        Cell("opt", "cpu", "bfloat16"): ("unsupported", "unsupported: too old"),
        Cell("opt", "cpu", "float32"): ("unsupported", "unsupported: another reason"),
    }
    report = of(tmp_path, {CPU_FP32: "passed"}, skipped=skipped)
    assert list(map(str, report.not_run)) == [
        "1 on cuda:0: absent: no card",
        "3 on cpu: unsupported: too old (and 1 other reason)",
    ]


def test_what_was_partly_run_says_what_is_missing(tmp_path: Path) -> None:
    run = ResultsBuilder(
        {CPU_FP32: {"mode": "passed"}, CPU_BF16: {"mode": "passed", "loads": "passed"}},
        required=("loads", "mode", "tied", "mine::*"),
        changes={CPU_FP32: {"loaded": False}},
    )
    model = ReportModel.of(merge_runs([run.file(tmp_path)]))
    assert list(map(str, model.partly_run)) == [
        "1 cell: not loaded, without 3 checks (loads, tied, mine::*)",
        "1 cell: without 2 checks (tied, mine::*)",
    ]
    assert (model.headline.state, model.red) == ("partial", False)
    assert model.headline.sentence == "2 cells were partly run, none as its matrix requires."


# One model, many forms


def everything(folder: Path) -> Path:
    """A folder of results with a cell of each outcome, real and simulated, and a problem in several cells."""
    outcomes: dict[Cell, dict[str, Any]] = {}
    for number, outcome in enumerate(outcome for outcome in AFTER if outcome not in {"skipped", "aborted"}):
        for simulated in (False, True):
            cell = Cell(f"path:m{number}{simulated}", "cuda:0", "float32", simulated=simulated)
            outcomes[cell] = {"dtypes": check(cell, "dtypes", outcome, message=f"{outcome} in {number + 1} tensors")}
    rare = RecordedFinding(where="step 3", expected="5", actual="7")
    other = Cell("path:rare", "cpu", "float32")
    outcomes[other] = {"cache": check(other, "cache", "failed", findings=(rare,))}
    gone = Cell("path:gone", "cpu", "float32")
    ResultsBuilder(outcomes, skipped={Cell("path:n", "mps", "float32"): ("absent", "absent: no mps")}).write(folder)
    ResultsBuilder({}, unfinished=[gone], name="killed", killed=True).write(folder)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return everything(tmp_path / "results")


@pytest.fixture
def report(results: Path) -> ReportModel:
    return ReportModel.of(merge_runs(read(results)))


def page_text(page: str) -> str:
    """The words of a page, without its script and its data."""
    body = page.partition("<body>")[2].partition("<script")[0]
    return " ".join(escaping.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def forms(report: ReportModel, results: Path) -> dict[str, str]:
    """What each reader is shown, as text."""
    runner = CliRunner()
    return {
        "terminal": "\n".join(terminal_lines(report, width=400, colour=False, unicode=True, worst=99)),
        "show": runner.invoke(command, ["show", str(results), "--width", "400", "--worst", "99"]).output,
        "markdown": escaping.unescape(markdown(report)),
        "page": page_text(html(report)),
    }


def page_data_of(page: str) -> dict[str, Any]:
    data = page.partition('id="data">')[2].partition("</script>")[0]
    parsed: dict[str, Any] = json.loads(data)
    return parsed


def test_all_reports_have_the_same_problems_in_the_same_order(report: ReportModel, results: Path) -> None:
    titles = [problem.title for problem in report.problems]
    assert len(titles) == 5
    for name, text in forms(report, results).items():
        plain = re.sub(r"</?b>", "", text)
        assert f"{len(titles)} problems" in plain, name
        places = [plain.index(title) for title in titles]
        assert places == sorted(places), name
    data = json.loads(CliRunner().invoke(command, ["show", str(results), "--json"]).output)
    assert [problem["title"] for problem in data["problems"]] == titles
    assert page_data_of(html(report))["problems"] == [problem.name for problem in report.problems]
    gate = CliRunner().invoke(command, ["gate", str(results)]).output
    assert f"{len(titles)} problems:" in gate
    assert [line.partition(". ")[2] for line in gate.splitlines() if re.match(r"  \d+\. ", line)] == titles


def test_all_reports_have_the_same_counts(report: ReportModel, results: Path) -> None:
    assert report.counts_line == (
        "17 cells: 1 error, 2 failed, 1 aborted, 1 hollow, 1 passed unexpectedly, 1 failed as expected, 1 upstream, "
        "1 passed, 1 not run; simulated: 1 error, 1 failed, 1 hollow, 1 passed unexpectedly, 1 failed as expected, "
        "1 upstream, 1 passed"
    )
    for name, text in forms(report, results).items():
        assert report.counts_line in text, name
    data = json.loads(CliRunner().invoke(command, ["report", str(results), "--json"]).stdout)
    for side, simulated in (("real", False), ("simulated", True)):
        counts = {mark.outcome: count for mark, count in report.counts.marks if mark.simulated == simulated}
        assert data["counts"][side] == counts
    shares = re.findall(r'aria-hidden="true">([^<]+)</span><b>(\d+)</b> ([^<]+)</li>', html(report))
    assert sorted(shares) == sorted((mark.letter, str(count), mark.words) for mark, count in report.counts.marks)
    gate = evaluate_gate(None, report.results, parse_fail_on(""))
    assert gate.reasons == ("10 cells of 17: 2 error, 3 failed, 1 aborted, 2 hollow, 2 passed unexpectedly",)


def test_all_reports_have_the_same_letters_and_words(report: ReportModel, results: Path) -> None:
    marks = {mark for mark, _ in report.counts.marks}
    for name, text in forms(report, results).items():
        for outcome in {mark.outcome for mark in marks} - {"skipped"}:
            explained = rf"(?:^|[\s;>]){re.escape(LETTERS[outcome])}\s[\d ]*{OUTCOME_WORDS[outcome]}"
            assert re.search(explained, text), (name, outcome)
    assert page_data_of(html(report))["marks"] == [
        [mark.outcome, mark.simulated, mark.letter, mark.words] for mark in MARKS
    ]


def test_each_mark_has_a_letter_and_words_of_its_own() -> None:
    assert len({mark.letter for mark in MARKS}) == len({mark.words for mark in MARKS}) == 2 * len(WORST_FIRST)


def test_no_script_of_the_page_has_a_letter_or_a_word_of_an_outcome_of_its_own() -> None:
    scripts = Path(html.__code__.co_filename).parent / "templates"
    text = "\n".join(path.read_text() for path in [*scripts.glob("scripts/*.js"), *scripts.glob("*.jinja")])
    for words in ("passed unexpectedly", "failed as expected", "did not run"):
        assert words not in text

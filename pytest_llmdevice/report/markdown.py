"""Results as Markdown, for the summary of a job on GitHub or a comment: short at first, with more to unfold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from pytest_llmdevice.report.changes import described
from pytest_llmdevice.report.changes import headline as compared
from pytest_llmdevice.report.escaping import address, code, literal, prose
from pytest_llmdevice.report.folding import folded, without_attention
from pytest_llmdevice.report.grid import Grid, blank, grids, labels
from pytest_llmdevice.report.marks import WORDS, Entry
from pytest_llmdevice.report.problems import Problem, problems
from pytest_llmdevice.report.spec import DEFAULT, Spec, parse
from pytest_llmdevice.report.summary import environments, expected, headline, not_run, origin
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.transitions import Comparison
from pytest_llmdevice.results.vocabulary import BAD, Outcome
from pytest_llmdevice.text import plural

TITLE: Final = "Language models on devices"

FEW_COLUMNS: Final = 8
"""Columns of a table that GitHub shows without a bar to scroll."""

MANY_COLUMNS: Final = 16

MOST_ROWS: Final = 120
"""Of a grid that was asked for; others are folded."""

MOST_PROBLEMS: Final = 20

MOST_LINES: Final = 50
"""Of changes, of what did not run, and of the cells of a problem."""

MOST_BYTES: Final = 2**19
"""GitHub takes a summary of one MiB from each step, and nothing at all of a longer one."""


def markdown(
    merged: MergedResults, comparison: Comparison | None = None, *, title: str = TITLE, grid: str | None = None
) -> str:
    """`merged` as Markdown, `MOST_BYTES` long at most: what does not fit is left out and counted.

    Args:
        merged: the results.
        comparison: with a baseline.
        title: the heading.
        grid: what `--llm-grid` asks for.

    Raises:
        ConfigurationError: `grid` is no grid.
    """
    spec = parse(grid) if grid else DEFAULT
    parts = [f"## {prose(title)}", f"**{prose(headline(merged))}**"]
    parts += [] if comparison is None else [_changes(comparison)]
    parts += _tables(merged, spec)
    parts += _problems(merged)
    parts += _details("Failed as expected", expected(merged))
    parts += _details("Not run", [str(each) for each in not_run(merged)])
    parts += _details(
        "Contradictions, of which the worse counts",
        [f"{each.cell} {each.check}: {each.why}" for each in merged.conflicts],
    )
    parts += _details("Notes", [*merged.notes, *(comparison.notes if comparison else ())])
    parts.append("<br>\n".join(prose(line) for line in [origin(merged), *islice(environments(merged.runs), 10)]))
    return "\n\n".join(_fitting(parts)) + "\n"


def _fitting(parts: Iterable[str]) -> Iterator[str]:
    room, left = MOST_BYTES - 200, 0
    for part in parts:
        size = len(part.encode("utf-8", "backslashreplace")) + 2
        if size <= room:
            room -= size
            yield part
        else:
            left += 1
    if left:
        yield f"{plural(left, 'part')} of this report would make it too long for GitHub; the JSON report has all."


def _details(title: str, lines: Sequence[str], first: Sequence[str] = ()) -> list[str]:
    if not lines:
        return []
    shown = [f"- {prose(line)}" for line in lines[:MOST_LINES]]
    left = len(lines) - len(shown)
    shown += [f"- and {left} more"] if left else []
    return ["\n".join([f"<details><summary>{literal(title)}</summary>", "", *first, *shown, "", "</details>"])]


def _changes(comparison: Comparison) -> str:
    changes = [described(change) for change in comparison.transitions]
    return "".join(_details(compared(comparison), changes)) or prose(compared(comparison))


def _tables(merged: MergedResults, spec: Spec) -> Iterator[str]:
    drawn = [_folded(grid, spec) for grid in grids(merged, spec)]
    for grid in drawn:
        target = f"target {code(grid.target)}" if merged.targets != ("builtin",) else ""
        about = "; ".join(part for part in (target, prose(grid.title)) if part)
        if about:
            yield about
        yield "\n".join(_table(grid))
    legend = "; ".join(_legend(drawn, merged))
    if legend:
        yield f"<sub>{prose(legend)}</sub>"


def _folded(grid: Grid, spec: Spec) -> Grid:
    if spec.asked:
        return grid
    return folded(
        without_attention(grid),
        narrow=lambda made: len(made.columns) <= FEW_COLUMNS,
        bearable=lambda made: len(made.columns) <= MANY_COLUMNS,
    )


def _table(grid: Grid) -> Iterator[str]:
    heads = ["<br>".join(code(part, 80) for part in label) for label in labels(grid.columns)]
    yield _row([*grid.row_axes, *heads])
    yield _row(["---"] * len(grid.row_axes) + [":-:"] * len(heads))
    lines = list(zip(labels(list(grid.rows)), grid.rows.values(), strict=True))
    for label, entries in lines[:MOST_ROWS]:
        yield _row([*(code(part, 80) for part in label), *(_words(entries.get(column)) for column in grid.columns)])
    if len(lines) > MOST_ROWS:
        yield _row([f"and {len(lines) - MOST_ROWS} more rows", *[""] * (len(grid.row_axes) + len(heads) - 1)])


def _row(places: Sequence[str]) -> str:
    return f"| {' | '.join(places)} |"


def _words(entry: Entry | None) -> str:
    if entry is None:
        return ""
    mark = entry.worst
    words = " ".join(part for part in ("sim." * mark.simulated, _SHORT[mark.outcome], entry.counted) if part)
    return f"**{words}**" if mark.outcome in BAD else words


_SHORT: Final[dict[Outcome, str]] = {
    "error": "error",
    "failed": "fail",
    "aborted": "aborted",
    "hollow": "hollow",
    "xpass": "xpass",
    "xfail": "xfail",
    "passed": "pass",
    "skipped": "not run",
}
"""The words of pytest, short enough for a table."""


def _legend(drawn: Sequence[Grid], merged: MergedResults) -> Iterator[str]:
    entries = [entry for grid in drawn for entry in grid.entries]
    marks = {mark for entry in entries for mark, _ in entry.marks}
    outcomes = {mark.outcome for mark in marks}
    for outcome in ("xfail", "xpass"):
        if outcome in outcomes:
            yield f"{outcome}: {WORDS[outcome]}"
    if any(mark.simulated for mark in marks):
        yield "sim.: simulated, not on real hardware"
    mixed = next((entry for entry in entries if entry.mixed), None)
    if mixed is not None:
        yield f"{_words(mixed).replace('*', '')}: {mixed.marks[0][1]} of {mixed.total} cells there"
    if empty := blank(merged, drawn):
        yield f"empty: {empty}"


def _problems(merged: MergedResults) -> Iterator[str]:
    found = problems(merged)
    if not found:
        return
    more = f", the {MOST_PROBLEMS} of most cells" if len(found) > MOST_PROBLEMS else ""
    yield f"### {plural(len(found), 'problem')}{more}"
    for problem in found[:MOST_PROBLEMS]:
        yield "\n".join(_problem(problem))


def _problem(problem: Problem) -> Iterator[str]:
    checks = [literal(check, 120) for check in problem.checks]
    finding = problem.finding
    what = literal(finding.where if finding is not None else problem.message, 120)
    title = f"<b>{WORDS[problem.outcome]} in {problem.concerns}</b>: {', '.join(checks[:4])}: {what}"
    yield f"<details><summary>{title}</summary>"
    yield ""
    if finding is None:
        yield f"- {prose(problem.message)}"
    else:
        yield f"- where: {code(finding.where)}"
        yield f"- expected: {code(finding.expected)}"
        yield f"- found: {code(finding.actual)}"
        if finding.advice or finding.hint:
            yield f"- hint: {prose(finding.advice or finding.hint)}"
        if finding.source:
            yield f"- source: {address(finding.source)}"
    cells = list(problem.cells)
    left = f" and {len(cells) - MOST_LINES} more" if len(cells) > MOST_LINES else ""
    yield f"- {plural(len(cells), 'cell')}: {', '.join(code(cell, 160) for cell in cells[:MOST_LINES])}{left}"
    yield ""
    yield "</details>"

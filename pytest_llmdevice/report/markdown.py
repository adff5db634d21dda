"""Writes results as Markdown, for the summary of a job on GitHub or a comment: short, with more to unfold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from pytest_llmdevice.report.changes import changes_of, comparison_line, named_change_text
from pytest_llmdevice.report.escaping import address, code, literal, prose
from pytest_llmdevice.report.folding import folded, without_attention
from pytest_llmdevice.report.grid import Grid, blank, grids, labels
from pytest_llmdevice.report.inapplicable import TITLE as INAPPLICABLE
from pytest_llmdevice.report.model import CONFLICTS, UPSTREAM, ReportModel, conflict_text
from pytest_llmdevice.report.outcomes import MarkCounts, legend
from pytest_llmdevice.report.problems import Problem
from pytest_llmdevice.report.runs import environment_lines, origin_text, target_text
from pytest_llmdevice.report.spec import DEFAULT, Spec, parse_grid
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.transitions import Comparison
from pytest_llmdevice.results.vocabulary import OUTCOME_WORDS
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


def markdown(report: ReportModel, *, title: str = TITLE, grid: str | None = None) -> str:
    """`report` as Markdown, `MOST_BYTES` long at most: what does not fit is left out and counted.

    Args:
        report: what there is to say.
        title: the heading.
        grid: what `--llm-grid` asks for.

    Raises:
        ConfigurationError: `grid` is no grid.
    """
    spec = parse_grid(grid) if grid else DEFAULT
    results, comparison = report.results, report.comparison
    parts = [f"## {prose(title)}", prose(target_text(results)), f"**{prose(report.counts_line)}**"]
    parts += [] if comparison is None else [_changes(report, comparison)]
    parts += _tables(results, spec)
    parts += _problems(report)
    parts += _details(OUTCOME_WORDS["xfail"].capitalize(), list(map(str, report.expected_failures)))
    parts += _details(UPSTREAM, list(map(str, report.upstream)))
    parts += _details(OUTCOME_WORDS["partial"].capitalize(), list(map(str, report.partly_run)))
    parts += _details(INAPPLICABLE, list(map(str, report.inapplicable)))
    parts += _details(OUTCOME_WORDS["skipped"].capitalize(), list(map(str, report.not_run)))
    parts += _details(CONFLICTS, list(map(conflict_text, results.conflicts)))
    parts += _details("Notes", [*results.notes, *(comparison.notes if comparison else ())])
    origin = [origin_text(results), *islice(environment_lines(results.runs), 10)]
    parts.append("<br>\n".join(prose(line) for line in origin))
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


def _changes(report: ReportModel, comparison: Comparison) -> str:
    line = comparison_line(comparison)
    changes = changes_of(comparison.transitions, report.problems)
    return "".join(_details(line, list(map(named_change_text, changes)))) or prose(line)


def _tables(results: MergedResults, spec: Spec) -> Iterator[str]:
    drawn = [_folded(grid, spec) for grid in grids(results, spec)]
    for grid in drawn:
        target = f"target {code(grid.target)}" if len(results.targets) > 1 else ""
        about = "; ".join(part for part in (target, prose(grid.title)) if part)
        if about:
            yield about
        yield "\n".join(_table(grid))
    if drawn:
        parts = legend((place for grid in drawn for place in grid.entries), blank(results, drawn))
        yield f"<sub>{prose('; '.join(parts))}</sub>"


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
        yield _row([*(code(part, 80) for part in label), *(_letters(entries.get(column)) for column in grid.columns)])
    if len(lines) > MOST_ROWS:
        yield _row([f"and {len(lines) - MOST_ROWS} more rows", *[""] * (len(grid.row_axes) + len(heads) - 1)])


def _row(places: Sequence[str]) -> str:
    return f"| {' | '.join(places)} |"


def _letters(counts: MarkCounts | None) -> str:
    """What stands at one place; as code, in which a lone full stop can be seen."""
    if counts is None:
        return ""
    return f"**`{counts.letters}`**" if counts.worst.bad else f"`{counts.letters}`"


def _problems(report: ReportModel) -> Iterator[str]:
    shown = report.problems[:MOST_PROBLEMS]
    if shown:
        yield f"### {report.problems_line(len(shown))}"
    for problem in shown:
        yield "\n".join(_problem(problem, report))


def _problem(problem: Problem, report: ReportModel) -> Iterator[str]:
    finding = problem.finding
    what = literal(finding.where if finding is not None else problem.message, 120)
    more = f", and {problem.following}" if problem.follows else ""
    yield f"<details><summary><b>{problem.place}</b>: {literal(problem.found_by)}{more}: {what}</summary>"
    yield ""
    if finding is None:
        yield f"- {prose(problem.message)}"
    else:
        yield f"- where: {code(finding.where)}"
        yield f"- expected: {code(finding.expected)}"
        yield f"- found: {code(finding.actual)}"
    if (advised := problem.advised) is not None:
        yield f"- hint: {prose(advised.advice or advised.hint)}"
        if advised.source:
            yield f"- source: {address(advised.source)}"
    for follower in list(problem.follows.values())[:MOST_LINES]:
        yield f"- follows from it: {code(follower.check)}: {literal(follower.description, 160)}"
    cells = [code(report.cell_name(view), 160) for view in problem.cells]
    left = f" and {len(cells) - MOST_LINES:,} more" if len(cells) > MOST_LINES else ""
    yield f"- {plural(len(cells), 'cell')}: {', '.join(cells[:MOST_LINES])}{left}"
    yield ""
    yield "</details>"

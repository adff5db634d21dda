"""The verdict of a gate in lines for a terminal or a log: what failed first, then all else, then notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from pytest_llmdevice.results.gate import FAILING, GateResult, counted, nothing_compared
from pytest_llmdevice.results.merged_results import CellView, Conflict, MergedResults
from pytest_llmdevice.results.records import BUILTIN
from pytest_llmdevice.results.transitions import NAMES, Comparison, Name, Transition
from pytest_llmdevice.results.vocabulary import BAD
from pytest_llmdevice.text import plural

MOST_LINES: Final = 20
"""Transitions of one name that are listed; of more the rest is counted."""

_BY_DETAIL: Final = frozenset({"skipped", "unused", "not-comparable"})
"""Names whose transitions have few causes and come by the thousand: one line for each cause."""


def lines(verdict: GateResult, comparison: Comparison | None, merged: MergedResults) -> Iterator[str]:
    """What the gate has to say."""
    if verdict.good:
        yield f"gate passed{': ' + _summary(comparison) if comparison else ''}"
    else:
        yield f"gate failed: {'; '.join(verdict.reasons)}"
    yield from (f"  {line}" for line in verdict.missing)
    if comparison is None:
        yield from _bad_cells(merged)
    else:
        if nothing_compared(comparison):
            yield "nothing could be compared with the baseline: update it here, or keep one for each environment"
        yield from _transitions(comparison, verdict)
        if not verdict.good:
            yield _summary(comparison)
    yield from _conflicts(merged.conflicts)
    yield from (f"note: {note}" for note in (*(comparison.notes if comparison else ()), *merged.notes))


def _summary(comparison: Comparison) -> str:
    counts = comparison.counts
    return ", ".join(
        [f"{comparison.unchanged:,} unchanged", *(counted(name, counts) for name in NAMES if counts[name])]
    )


def _transitions(comparison: Comparison, verdict: GateResult) -> Iterator[str]:
    by_name: dict[Name, list[Transition]] = {}
    for each in comparison.transitions:
        by_name.setdefault(each.name, []).append(each)
    for found in sorted(by_name.values(), key=lambda each: not _fails(each, verdict)):
        # What is fixed, new or expected and no reason to fail needs no line for each.
        yield from _of_name(found, fails=_fails(found, verdict))


def _fails(found: Sequence[Transition], verdict: GateResult) -> bool:
    return found[0].name in verdict.failing or (FAILING in verdict.failing and any(each.failing for each in found))


def _of_name(found: Sequence[Transition], *, fails: bool) -> Iterator[str]:
    name = found[0].name
    yield f"{'FAIL ' if fails else ''}{counted(name, Counter({name: len(found)}))}:"
    # Those that make a run red would be lost in a summary of causes.
    single = [each for each in found if name not in _BY_DETAIL or each.failing]
    rest = [each for each in found if name in _BY_DETAIL and not each.failing]
    yield from (f"  {told(each)}" for each in single[:MOST_LINES])
    if len(single) > MOST_LINES:
        yield f"  ... and {len(single) - MOST_LINES:,} more"
    causes = Counter(each.detail for each in rest).most_common()
    for detail, count in causes[:MOST_LINES]:
        cells = {each.cell for each in rest if each.detail == detail}
        yield f"  {count:,} in {_few(sorted(cells))}: {detail or 'no reason given'}"
    if len(causes) > MOST_LINES:
        yield f"  ... for {len(causes) - MOST_LINES:,} more causes"


def _few(cells: Sequence[str]) -> str:
    return cells[0] if len(cells) == 1 else f"{len(cells):,} cells ({cells[0]}, ...)"


def told(transition: Transition) -> str:
    """One transition on one line: `llama.cpu.fp32.none.to dtypes: passed -> failed: lm_head.weight: ...`."""
    check = f" {transition.check}" if transition.check else ""
    detail = f": {transition.detail}" if transition.detail else ""
    return f"{of_target(transition.cell, transition.target)}{check}: {transition.before} -> {transition.after}{detail}"


def of_target(cell: str, target: str) -> str:
    """The cell, with the target unless that is the built-in one."""
    return cell if target == BUILTIN else f"{cell} of {target}"


def _bad_cells(merged: MergedResults) -> Iterator[str]:
    found = [line for view in merged.cells.values() if view.outcome in BAD for line in _bad_checks(view)]
    yield from found[:MOST_LINES]
    if len(found) > MOST_LINES:
        yield f"  ... and {len(found) - MOST_LINES:,} more"


def _bad_checks(view: CellView) -> Iterator[str]:
    name = of_target(view.id, view.target)
    bad = [sample.check for sample in view.checks.values() if sample.check.outcome in BAD]
    yield from (f"  {name} {check.check}: {check.outcome}: {' '.join(check.message.split())}" for check in bad)
    if not bad:
        yield f"  {name}: {view.outcome}"


def _conflicts(conflicts: Sequence[Conflict]) -> Iterator[str]:
    if conflicts:
        yield f"{plural(len(conflicts), 'conflict')}, the worse outcome counts:"
    yield from (f"  {conflict_line(each)}" for each in conflicts[:MOST_LINES])
    if len(conflicts) > MOST_LINES:
        yield f"  ... and {len(conflicts) - MOST_LINES:,} more"


def conflict_line(conflict: Conflict) -> str:
    """A conflict on one line, with where each outcome is from."""
    sides = dict.fromkeys(f"{each.check.outcome} in {each.run.run}" for each in conflict.samples)
    return f"{conflict.cell} {conflict.check}: {_listed(sides)}: {conflict.why}"


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)

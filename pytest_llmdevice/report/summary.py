"""A merged in a few lines: how many cells had each outcome, what did not run and why, and where it ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_llmdevice.report.marks import WORDS, Mark
from pytest_llmdevice.results.merged_results import CellView, MergedResults
from pytest_llmdevice.results.records import Run
from pytest_llmdevice.results.vocabulary import WORST_FIRST, SkipCause
from pytest_llmdevice.text import listed, plural


def headline(merged: MergedResults) -> str:
    """`"581 cells: 3 failed, 88 passed, 370 not run; simulated: 120 passed"`."""
    counts = Counter(Mark.of(view) for view in merged.cells.values())

    def of(simulated: bool) -> str:
        marks = [Mark(outcome, simulated) for outcome in WORST_FIRST]
        return ", ".join(f"{counts[mark]} {WORDS[mark.outcome]}" for mark in marks if counts[mark])

    parts = [of(False), f"simulated: {of(True)}" if of(True) else ""]
    return f"{plural(len(merged.cells), 'cell')}: {'; '.join(part for part in parts if part) or 'none'}"


_NEAREST: Final[tuple[SkipCause, ...]] = ("unusable", "unsupported", "by the test", "absent", "not requested")
"""Of the causes on several machines, the one that was closest to running says most."""


def why_not(view: CellView) -> tuple[str, str]:
    """(cause, reason) of a cell that did not run anywhere."""
    by_cause = view.reasons
    for sample in view.checks.values():
        by_cause.setdefault(str(sample.check.cause), sample.check.message)
    for cause in _NEAREST:
        if cause in by_cause:
            return cause, by_cause[cause]
    return "by the test", ""


@dataclass(frozen=True, slots=True)
class NotRun:
    """Cells of one device that did not run, for one cause; of all devices where nobody asked for them.

    Attributes:
        device: as a matrix spells it; several are listed.
        cause: the cause.
        reason: that of most of them, in a sentence that begins with the cause.
        cells: how many they are.
        reasons: how many different reasons they have.
    """

    device: str
    cause: str
    reason: str
    cells: int
    reasons: int

    def __str__(self) -> str:
        others = f" (and {plural(self.reasons - 1, 'other reason')})" if self.reasons > 1 else ""
        return f"{self.cells} on {self.device}: {self.reason}{others}"


def not_run(merged: MergedResults) -> list[NotRun]:
    """What did not run anywhere, by device and cause, in the order of the matrix."""
    found: dict[tuple[str, str], Counter[str]] = {}
    devices: dict[tuple[str, str], dict[str, None]] = {}
    for view in merged.never_ran:
        cause, reason = why_not(view)
        # What the user left out has the same reason on all devices.
        key = (reason if cause == "not requested" else view.cell.spec, cause)
        found.setdefault(key, Counter())[reason] += 1
        devices.setdefault(key, {})[view.cell.spec] = None
    lines = []
    for key, reasons in found.items():
        cause, reason = key[1], reasons.most_common(1)[0][0]
        sentence = reason if reason.startswith(cause) or not reason else f"{cause}: {reason}"
        lines.append(NotRun(listed(devices[key]), cause, sentence or cause, reasons.total(), len(reasons)))
    return lines


def expected(merged: MergedResults) -> list[str]:
    """What failed as it was expected to, and why it was: `"11 cells: transformers 5 keeps experts ..."`."""
    cells: dict[str, set[tuple[str, str]]] = {}
    for key, view in merged.cells.items():
        for sample in view.checks.values():
            if sample.check.outcome == "xfail":
                cells.setdefault(sample.check.message or "no reason is given", set()).add(key)
    return [f"{plural(len(found), 'cell')}: {reason}" for reason, found in cells.items()]


def environments(runs: Iterable[Run]) -> list[str]:
    """A line for each machine and its versions: `"Linux x86_64, Some CPU, cuda:0 H100; torch 2.13.0 (2 runs)"`."""
    counts: Counter[str] = Counter()
    for run in runs:
        machine = run.machine
        cards = [f"{device.spec} {device.name}".strip() for device in machine.devices]
        simulated_on = [f"simulated {each}" for each in run.simulated]
        system = f"{machine.system} {machine.architecture}".strip()
        where = ", ".join(part for part in (system, machine.cpu, *cards, *simulated_on) if part)
        versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
        counts["; ".join(part for part in (where, versions) if part) or "an unknown machine"] += 1
    return [line + (f" ({times} runs)" if times > 1 else "") for line, times in counts.items()]


def origin(merged: MergedResults) -> str:
    """Which runs these are: `"matrix default, 3 runs from 2026-11-25 to 2026-11-26"`."""
    matrices = listed(dict.fromkeys(run.matrix.name for run in merged.runs))
    days = sorted({run.started[:10] for run in merged.runs})
    when = f"of {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    return f"matrix {matrices}, {plural(len(merged.runs), 'run')} {when}"

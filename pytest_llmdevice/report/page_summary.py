"""What the page says in words, with or without its script: the verdict, counts, what never ran, and the machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pytest_llmdevice.report.page_data import LETTERS, commit, machine, when
from pytest_llmdevice.results.merged_results import CellView, MergedResults
from pytest_llmdevice.results.records import MachineDevice, Run
from pytest_llmdevice.results.vocabulary import BAD, WORST_FIRST, Outcome
from pytest_llmdevice.text import plural

WORDS: dict[Outcome, str] = {
    "error": "error",
    "failed": "failed",
    "aborted": "aborted",
    "hollow": "hollow",
    "xpass": "passed unexpectedly",
    "xfail": "failed as expected",
    "passed": "passed",
    "skipped": "did not run",
}
"""Outcomes as the page spells them."""

_BRIEF: dict[Outcome, str] = WORDS | {"error": "with an error"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the page.

    Attributes:
        state: `bad` where a cell is not in order, `simulated` where nothing but simulated hardware was used, `empty`
            where nothing ran, else `good`.
        sentence: the answer.
        details: what else ought to be known, a sentence each.
    """

    state: Literal["bad", "good", "simulated", "empty"]
    sentence: str
    details: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """How many cells have one outcome, on real or on simulated hardware."""

    outcome: Outcome
    word: str
    letter: str
    simulated: bool
    count: int


@dataclass
class NeverRan:
    """Cells that ran nowhere, for one cause and one reason."""

    cause: str
    reason: str
    cells: list[CellView] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MachineRow:
    """One run, as a row of the table of machines."""

    run: str
    machine: str
    system: str
    devices: tuple[str, ...]
    simulated: str
    versions: str
    commit: str
    started: str
    shard: str
    planned: int
    ran: int


def verdict(merged: MergedResults) -> Verdict:
    """The verdict on all cells."""
    views = list(merged.cells.values())
    ran = [view for view in views if view.ran]
    bad = [view for view in ran if view.outcome in BAD]
    simulated_on = [view for view in ran if view.cell.simulated]
    details = []
    if bad:
        counts = Counter(view.outcome for view in bad)
        details.append(", ".join(f"{counts[each]:,} {_BRIEF[each]}" for each in WORST_FIRST if counts[each]) + ".")
    if simulated_on:
        details.append(
            f"{plural(len(simulated_on), 'cell')} ran only simulated, which says nothing about real hardware."
        )
    if expected := sum(view.outcome == "xfail" for view in ran):
        details.append(f"{plural(expected, 'cell')} failed as expected.")
    if missing := len(views) - len(ran):
        details.append(f"{plural(missing, 'cell')} ran nowhere.")
    if not ran:
        return Verdict("empty", "No cell ran." if views else "There are no cells.", tuple(details))
    if bad:
        verb = "is" if len(bad) == 1 else "are"
        return Verdict(
            "bad", f"{len(bad):,} of {plural(len(ran), 'cell')} that ran {verb} not in order.", tuple(details)
        )
    if len(simulated_on) == len(ran):
        return Verdict(
            "simulated", f"{plural(len(ran), 'cell')} in order, none of them on real hardware.", tuple(details)
        )
    passed = sum(view.outcome == "passed" for view in ran if not view.cell.simulated)
    return Verdict("good", f"{plural(passed, 'cell')} passed on real hardware, and nothing failed.", tuple(details))


def shares(merged: MergedResults) -> list[Share]:
    """The outcomes that there are, what passed first and what did not run last."""
    counts = Counter((view.outcome, view.cell.simulated and view.ran) for view in merged.cells.values())
    order: list[Outcome] = ["passed", "xfail", *(each for each in WORST_FIRST if each in BAD), "skipped"]
    return [
        Share(outcome, WORDS[outcome], LETTERS[outcome], simulated, counts[outcome, simulated])
        for outcome in order
        for simulated in (False, True)
        if counts[outcome, simulated]
    ]


def never_ran(merged: MergedResults) -> list[NeverRan]:
    """What ran nowhere, by cause and reason, the most cells first; a cell counts at each of its causes."""
    found: dict[tuple[str, str], NeverRan] = {}
    for view in merged.never_ran:
        reasons = view.reasons.items() or [("not reached", "it was to run, and its run ended without it")]
        for cause, reason in reasons:
            found.setdefault((cause, reason), NeverRan(cause, reason)).cells.append(view)
    return sorted(found.values(), key=lambda group: -len(group.cells))


def machines(merged: MergedResults) -> list[MachineRow]:
    """One row for each run, the latest first."""
    planned: Counter[str] = Counter()
    ran: Counter[str] = Counter()
    for view in merged.cells.values():
        for run, record in view.planned:
            planned[run.run] += 1
            ran[run.run] += record.cause is None
    return [_row(run, planned[run.run], ran[run.run]) for run in reversed(merged.runs)]


def _row(run: Run, planned: int, ran: int) -> MachineRow:
    host = run.machine
    parts = (host.system, host.architecture, f"{host.cores} cores" if host.cores else "", _size(host.memory))
    return MachineRow(
        run=run.run,
        machine=machine(run),
        system=", ".join(part for part in parts if part),
        devices=tuple(_device(device) for device in host.devices if device.spec != "cpu"),
        simulated=", ".join(run.simulated),
        versions=versions(run),
        commit=commit(run),
        started=when(run.started),
        shard=run.shard,
        planned=planned,
        ran=ran,
    )


def _device(device: MachineDevice) -> str:
    return ", ".join(part for part in (device.spec, device.name, _size(device.memory), device.capability) if part)


def _size(bytes_: int) -> str:
    return f"{bytes_ / 2**30:.0f} GiB" if bytes_ else ""


def versions(run: Run) -> str:
    """The versions of `run` in one line."""
    return ", ".join(f"{name} {version}" for name, version in run.versions.items())


def facts(merged: MergedResults) -> list[tuple[str, list[str]]]:
    """The head of the page: what ran, of what, when, where, with what; each name with its different values."""
    latest = merged.runs[-1:]
    found = [
        ("matrix", _different(run.matrix.name for run in merged.runs)),
        ("target", list(merged.targets)),
        ("commit", _different(commit(run) for run in merged.runs)),
        ("ran", _period([when(run.started) for run in merged.runs])),
        ("machines", _different(machine(run) for run in merged.runs)),
        ("simulated", _different(each for run in merged.runs for each in run.simulated)),
        ("versions", [f"{name} {version}" for run in latest for name, version in run.versions.items()]),
    ]
    return [(name, values) for name, values in found if values]


def _period(dates: list[str]) -> list[str]:
    """The first and the last of `dates`, on one line where they are of one day."""
    first, last = dates[:1], dates[-1:]
    if first == last:
        return first
    day, _, moment = last[0].partition(" ")
    start = first[0].removesuffix(" UTC")
    return [f"{start} to {moment}"] if start.startswith(day) and moment else [*first, *last]


def _different(values: Iterable[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if value]

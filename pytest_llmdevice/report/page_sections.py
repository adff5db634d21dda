"""Lists what the HTML page says in words, with or without its script: the shares of outcomes, facts, and machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytest_llmdevice.report.model import ReportModel
from pytest_llmdevice.report.outcomes import Mark
from pytest_llmdevice.report.runs import TARGETS, commit_text, machine_text, time_text, versions_text
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.run_header import MachineDevice, Run
from pytest_llmdevice.results.vocabulary import BAD, WORST_FIRST, Outcome
from pytest_llmdevice.text import plural

PAGE_ORDER: Final[tuple[Outcome, ...]] = (
    "passed",
    "xfail",
    "upstream",
    "partial",
    *(outcome for outcome in WORST_FIRST if outcome in BAD),
    "skipped",
)
"""The outcomes as the page lists them: what is as it should be first, and what did not run last."""


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


def details(report: ReportModel) -> list[str]:
    """What stands below the headline, a sentence each."""
    sentences = [f"{report.counts_line}."]
    if report.simulated:
        sentences.append(
            f"{plural(report.simulated, 'cell')} ran only simulated, which says nothing about real hardware."
        )
    return sentences


def shares(report: ReportModel) -> list[tuple[Mark, int]]:
    """The marks that there are, and how many cells have each, in the order of the page."""
    return sorted(report.counts.marks, key=lambda share: (PAGE_ORDER.index(share[0].outcome), share[0].simulated))


def machines(results: MergedResults) -> list[MachineRow]:
    """One row for each run, the latest first."""
    planned: Counter[str] = Counter()
    ran: Counter[str] = Counter()
    for view in results.cells.values():
        for run, record in view.planned:
            planned[run.run] += 1
            ran[run.run] += record.cause is None
    return [_row(run, planned[run.run], ran[run.run]) for run in reversed(results.runs)]


def _row(run: Run, planned: int, ran: int) -> MachineRow:
    host = run.machine
    parts = (host.system, host.architecture, f"{host.cores} cores" if host.cores else "", _size(host.memory))
    return MachineRow(
        run=run.run,
        machine=machine_text(run),
        system=", ".join(part for part in parts if part),
        devices=tuple(_device(device) for device in host.devices if device.spec != "cpu"),
        simulated=", ".join(run.simulated),
        versions=versions_text(run),
        commit=commit_text(run),
        started=time_text(run.started),
        shard=run.shard,
        planned=planned,
        ran=ran,
    )


def _device(device: MachineDevice) -> str:
    return ", ".join(part for part in (device.spec, device.name, _size(device.memory), device.capability) if part)


def _size(bytes_: int) -> str:
    return f"{bytes_ / 2**30:.0f} GiB" if bytes_ else ""


def facts(results: MergedResults) -> list[tuple[str, list[str]]]:
    """The head of the page: what ran, of what, when, where, with what; each name with its different values."""
    runs, latest = results.runs, results.runs[-1:]
    rows = [
        ("target", [TARGETS.get(target, target) for target in results.targets]),
        ("matrix", _different(run.matrix.name for run in runs)),
        ("commit", _different(map(commit_text, runs))),
        ("ran", _period([time_text(run.started) for run in runs])),
        ("machines", _different(map(machine_text, runs))),
        ("simulated", _different(name for run in runs for name in run.simulated)),
        ("versions", [f"{name} {version}" for run in latest for name, version in run.versions.items()]),
    ]
    return [(name, values) for name, values in rows if values]


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

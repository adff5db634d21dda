"""The files of several machines in one folder, each as it is, and a summary of what they are together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.files import replace_file
from pytest_llmdevice.results.gate_text import conflict_line
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.records import Run
from pytest_llmdevice.results.shards import unlike_shards
from pytest_llmdevice.results.store import SUFFIX, RunFile, read
from pytest_llmdevice.results.vocabulary import WORST_FIRST
from pytest_llmdevice.text import plural


@dataclass(frozen=True, slots=True)
class NeverRan:
    """Cells that ran nowhere, of one device and for one cause."""

    device: str
    reason: str
    cells: tuple[str, ...]


def merge(inputs: Sequence[Path], output: Path, *, force: bool = False) -> MergedResults:
    """Copy all runs in `inputs` into the folder `output`, byte by byte, and merge them.

    A run that is found twice is copied once. Everything is read and checked before anything is written.

    Args:
        inputs: files and folders, as `read` takes them.
        output: the folder; one that is not empty may hold runs of `inputs` and nothing else.
        force: let other things be in `output`; they stay, and other runs there count.

    Raises:
        ResultsError: something is wrong with an input or with what is in `output`; nothing was written.
    """
    files = read(list(inputs))
    there = _there(output, files, force=force)
    merged = merge_runs(sorted((*files, *there), key=lambda file: (file.run.started, file.run.run)))
    for file in files:
        place = output / f"{file.run.run}{SUFFIX}"
        data = file.path.read_bytes()
        if not place.exists() or place.read_bytes() != data:
            replace_file(place, data)
    return merged


def _there(output: Path, files: Sequence[RunFile], *, force: bool) -> list[RunFile]:
    """The runs in `output` that are not among `files`; raises `ResultsError` where something there is in the way."""
    if not output.exists():
        return []
    if not output.is_dir():
        raise ResultsError(f"{output}: is a file; give a folder for the results")
    ours = {f"{file.run.run}{SUFFIX}": file for file in files}
    others = sorted(path for path in output.iterdir() if path.name not in ours)
    if others and not force:
        raise ResultsError(
            f"{output}: has {others[0].name}, which is none of the runs to merge: choose another folder, give this one "
            f"as an input too, or use --force to leave it there"
        )
    for path in output.iterdir():
        if (file := ours.get(path.name)) and not file.path.read_bytes().startswith(path.read_bytes()):
            raise ResultsError(
                f"{path}: differs from {file.path}, which is the same run: remove the one that was changed"
            )
    runs = [path for path in others if path.suffix == SUFFIX]
    return [file for file in (read(runs) if runs else ()) if f"{file.run.run}{SUFFIX}" not in ours]


def mixtures(merged: MergedResults) -> Iterator[str]:
    """What the runs do not have in common though one may expect it, a sentence each."""
    names = sorted({run.matrix.name for run in merged.runs})
    if len(names) > 1:
        yield f"the runs are of {len(names)} matrices, and all of their cells are here: {', '.join(names)}"
    yield from unlike_shards(merged.runs)
    commits = dict.fromkeys(run.commit.id[:10] for run in merged.runs if run.commit)
    if len(commits) > 1:
        yield (
            f"the runs are of {len(commits)} commits, the latest {list(commits)[-1]}: a check counts as the latest run "
            "of each machine has it"
        )
    dirty = sum(run.commit is not None and run.commit.dirty for run in merged.runs)
    if dirty:
        yield f"{dirty} of {len(merged.runs)} runs were of a tree with changes that are in no commit"


def outcomes(merged: MergedResults) -> dict[str, int]:
    """How many cells have each outcome, the worst first; those that ran nowhere are `"never ran"`."""
    counts = Counter(view.outcome for view in merged.cells.values())
    found: dict[str, int] = {each: counts[each] for each in WORST_FIRST if counts[each] and each != "skipped"}
    if counts["skipped"]:
        found["never ran"] = counts["skipped"]
    return found


def never_ran(merged: MergedResults) -> list[NeverRan]:
    """The cells that ran nowhere, by device and reason, the most first."""
    found: dict[tuple[str, str], list[str]] = {}
    for view in merged.never_ran:
        reason = "; ".join(view.reasons.values()) or "no run says why"
        found.setdefault((view.cell.spec, reason), []).append(view.id)
    groups = [NeverRan(device, reason, tuple(cells)) for (device, reason), cells in found.items()]
    return sorted(groups, key=lambda each: (-len(each.cells), each.device, each.reason))


def summary(merged: MergedResults) -> Iterator[str]:
    """What was merged, in lines."""
    yield f"{plural(len(merged.runs), 'run')}:"
    yield from (f"  {_run_line(run)}" for run in merged.runs)
    counts = ", ".join(f"{count:,} {what}" for what, count in outcomes(merged).items())
    simulated = sum(view.ran and view.cell.simulated for view in merged.cells.values())
    only = f" ({simulated:,} of them ran only simulated)" if simulated else ""
    yield f"{plural(len(merged.cells), 'cell')}: {counts}{only}"
    if groups := never_ran(merged):
        yield "never ran anywhere:"
        yield from (f"  {len(group.cells):,} on {group.device}: {group.reason}" for group in groups)
    if merged.conflicts:
        yield "conflicts, of which the worse outcome counts:"
        yield from (f"  {conflict_line(conflict)}" for conflict in merged.conflicts)
    yield from (f"note: {note}" for note in (*mixtures(merged), *merged.notes))


def _run_line(run: Run) -> str:
    devices = ", ".join(f"{device.spec} {device.name}".strip() for device in run.machine.devices)
    simulated_on = f"simulated {', '.join(run.simulated)}" if run.simulated else ""
    where = "; ".join(part for part in (run.machine.cpu, devices, simulated_on) if part)
    shard = f", shard {run.shard}" if run.shard else ""
    return f"{run.run}: {run.matrix.name}{shard}, {run.target}, on {where or 'an unknown machine'}"


def as_data(merged: MergedResults) -> dict[str, Any]:
    """The summary as data, for `--json`."""
    return {
        "runs": [
            run.model_dump(
                mode="json", by_alias=True, include={"run", "started", "matrix", "target", "commit", "shard"}
            )
            for run in merged.runs
        ],
        "cells": len(merged.cells),
        "outcomes": outcomes(merged),
        "simulated_only": [view.id for view in merged.cells.values() if view.ran and view.cell.simulated],
        "never_ran": [
            {"device": each.device, "reason": each.reason, "cells": list(each.cells)} for each in never_ran(merged)
        ],
        "conflicts": [
            {
                "cell": each.cell,
                "check": each.check,
                "why": each.why,
                "samples": [{"run": sample.run.run, "outcome": sample.check.outcome} for sample in each.samples],
            }
            for each in merged.conflicts
        ],
        "notes": [*mixtures(merged), *merged.notes],
    }

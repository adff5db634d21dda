"""Decides whether times, memory and tokens of a cell differ by more than repeated runs of it do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from pytest_llmdevice.results.baseline import CellLine
from pytest_llmdevice.results.cell_view import CellView
from pytest_llmdevice.results.environments import Environments
from pytest_llmdevice.results.records import CellDone
from pytest_llmdevice.results.transitions import Name, Transition
from pytest_llmdevice.text import plural

FEWEST_SAMPLES: Final = 3
"""Runs that a baseline must have of a cell before a time or a size of one more says anything."""

MOST_SAMPLES: Final = 10
"""Runs that are kept, the latest ones."""

NOISE_BYTES: Final = 2**20
"""A difference in memory that is none: allocators round."""

TIMES: Final = ("load_seconds", "first_token_seconds", "tokens_per_second")
"""What `slower` is about. The seconds of a whole cell are kept for planning only: they change with every new check."""

_KEPT: Final = (*TIMES, "seconds")

_WORDS: Final = {"load_seconds": "load", "first_token_seconds": "first token", "tokens_per_second": "generation"}


@dataclass(frozen=True, slots=True)
class RepeatedMeasures:
    """What repeated runs measured of a cell; see `CellLine`."""

    tokens: tuple[tuple[int, ...], ...]
    times: Mapping[str, tuple[float, ...]]
    memory: Mapping[str, tuple[int, ...]]
    repeatable: bool

    @classmethod
    def of(cls, view: CellView, environments: Environments) -> RepeatedMeasures:
        """Of the runs of `view` that had the environment and the commit of the latest one, the oldest first."""
        latest = view.run
        where = environments.of(view.cell, latest)
        alike = [
            record
            for run, record in view.done
            if run.commit == latest.commit
            and record.outcome not in {"skipped", "aborted"}
            and environments.of(view.cell, run) == where
        ][-MOST_SAMPLES:]
        tokens = [record.tokens for record in alike if record.tokens]
        return cls(
            tokens=tokens[-1] if tokens else (),
            times={name: values for name in _KEPT if (values := _times(alike, name))},
            memory=_memory(alike),
            repeatable=len(set(tokens)) <= 1,
        )


def _times(records: Sequence[CellDone], name: str) -> tuple[float, ...]:
    values = (getattr(record, name) for record in records)
    # Four digits are more than a clock of this kind is good for, and diff well.
    return tuple(float(f"{value:.4g}") for value in values if value is not None)


def _memory(records: Sequence[CellDone]) -> dict[str, tuple[int, ...]]:
    places = sorted({memory.place for record in records for memory in record.load_memory})
    return {
        place: tuple(
            # What the process held before is the doing of other cells.
            max(memory.peak - memory.before, 0)
            for record in records
            for memory in record.load_memory
            if memory.place == place
        )
        for place in places
    }


def other_tokens(line: CellLine, now: RepeatedMeasures) -> str:
    """The first token that differs, in words; empty where all are the same."""
    if not now.tokens:
        return "nothing was generated" if line.tokens else ""
    if len(line.tokens) != len(now.tokens):
        return f"{plural(len(now.tokens), 'prompt')} instead of {len(line.tokens)}" if line.tokens else ""
    for prompt, (before, after) in enumerate(zip(line.tokens, now.tokens, strict=True), start=1):
        if before != after:
            length = min(len(before), len(after))
            place = next((index for index in range(length) if before[index] != after[index]), length)
            old, new = ((str(tokens[place]) if place < len(tokens) else "its end") for tokens in (before, after))
            return f"prompt {prompt} of {len(now.tokens)}, new token {place + 1}: {old} -> {new}"
    return ""


def outside(line: CellLine, now: RepeatedMeasures, slower: float, memory: float) -> Iterator[Transition]:
    """The measures that are worse by more than the given percentages, and by more than repeated runs differ."""
    for name in TIMES:
        before, after = getattr(line, name), now.times.get(name, ())
        more_is_better = name == "tokens_per_second"
        if worse := _worse(before, after, slower, more_is_better=more_is_better):
            unit = "tokens/s" if more_is_better else "s"
            yield _transition("slower", line, _WORDS[name], [f"{value:.4g} {unit}" for value in worse], before, after)
    for place, sizes in sorted(line.memory.items()):
        worse = _worse(sizes, now.memory.get(place, ()), memory)
        if worse and worse[1] - worse[0] >= NOISE_BYTES:
            shown = [f"{value / 2**20:.1f} MiB" for value in worse]
            yield _transition("larger", line, f"load on {place}", shown, sizes, now.memory[place])


def _worse(
    before: Sequence[float], after: Sequence[float], percent: float, *, more_is_better: bool = False
) -> tuple[float, float, float] | None:
    """(median before, median after, the limit), where the latter is exceeded."""
    if len(before) < FEWEST_SAMPLES or not after:
        return None
    sign = -1 if more_is_better else 1
    usual, new = median(before), median(after)
    best, worst = sorted((sign * min(before), sign * max(before)))
    # One run in four is worse than the worst of three, by chance alone: hence once more their spread.
    limit = max(sign * usual * (1 + sign * percent / 100), worst + (worst - best))
    return (usual, new, sign * limit) if sign * new > limit else None


def _transition(
    name: Name, line: CellLine, what: str, shown: Sequence[str], before: Sequence[float], after: Sequence[float]
) -> Transition:
    usual, new, limit = shown
    change = (median(after) / median(before) - 1) * 100 if median(before) else float("inf")
    runs = plural(len(after), "run")
    detail = f"{change:+.0f} %, median of {runs}; the limit from {len(before)} runs is {limit}"
    return Transition(name, line.cell, "", line.target, f"{what} {usual}", new, detail)


def too_few(line: CellLine) -> bool:
    """Whether the baseline has measures of the cell, and too few runs to hold others against them."""
    counts = [len(getattr(line, name)) for name in TIMES] + [len(sizes) for sizes in line.memory.values()]
    return 0 < max(counts, default=0) < FEWEST_SAMPLES

"""Decides whether results are good enough, by which differences from a baseline are to fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.suggest import unknown
from pytest_llmdevice.results.compare import LARGER, SLOWER
from pytest_llmdevice.results.merged_results import MergedResults
from pytest_llmdevice.results.shards import missing_shards
from pytest_llmdevice.results.transitions import (
    DEFAULT,
    FAIL_ON_WORDS,
    FAILING,
    INCOMPLETE,
    NAMES,
    NOT_RUN,
    Comparison,
    count_text,
)
from pytest_llmdevice.results.vocabulary import BAD, OUTCOME_WORDS, WORST_FIRST
from pytest_llmdevice.text import listed, plural

_LARGEST_PERCENT: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class FailOn:
    """Which differences fail.

    Attributes:
        names: of transitions, and `failing`.
        slower, larger: percent that a time or a size may be worse.
    """

    names: frozenset[str]
    slower: float = SLOWER
    larger: float = LARGER


@dataclass(frozen=True, slots=True)
class GateResult:
    """The answer of the gate.

    Attributes:
        good: whether results are good enough.
        reasons: why not, a few words each; empty where they are.
        failing: the names of transitions that fail.
        missing: the coverage that is missing, a sentence each.
    """

    good: bool
    reasons: tuple[str, ...]
    failing: frozenset[str]
    missing: tuple[str, ...] = ()


def parse_fail_on(text: str) -> FailOn:
    """Read `"regression,vanished,slower:20%,memory:10%"`; nothing stands for `DEFAULT`.

    Raises:
        ConfigurationError: a word that is not known, one given twice, or a percentage that is none.
    """
    percents: dict[str, float] = {}
    names: set[str] = set()
    for part in (text if text.strip() else DEFAULT).split(","):
        word, colon, number = (piece.strip() for piece in part.partition(":"))
        name = "larger" if word == "memory" else word
        if name not in (*NAMES, FAILING, INCOMPLETE):
            raise ConfigurationError(f"fail-on {text!r}: {unknown('difference', word, FAIL_ON_WORDS)}")
        if name in names:
            raise ConfigurationError(f"fail-on {text!r}: {word} is given twice; leave one out")
        names.add(name)
        if colon:
            percents[name] = _percent(text, word, name, number)
    return FailOn(frozenset(names), percents.get("slower", SLOWER), percents.get("larger", LARGER))


def _percent(text: str, word: str, name: str, number: str) -> float:
    if name not in {"slower", "larger"}:
        raise ConfigurationError(f"fail-on {text!r}: {word} takes no percentage; only slower and memory do")
    try:
        percent = float(number.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 < percent <= _LARGEST_PERCENT:
        raise ConfigurationError(
            f"fail-on {text!r}: {number!r} is not a percentage above 0 and up to {_LARGEST_PERCENT:.0f}; "
            f"write {word}:20%"
        )
    return percent


def evaluate_gate(
    comparison: Comparison | None,
    merged: MergedResults,
    fail_on: FailOn,
    missing: Sequence[str] = (),
    *,
    whole: bool = True,
) -> GateResult:
    """Whether `merged` is good enough.

    With a baseline, the differences that `fail_on` names fail; what failed for the baseline already is known and does
    not. Without one, every cell fails that a run would be red for. Coverage that is missing always fails, and so does
    a baseline of which nothing ran.

    Args:
        comparison: the results held against a baseline; None where there is none.
        merged: the results.
        fail_on: which differences fail.
        missing: what `[require]` asks for and no cell has shown.
        whole: whether the results are to be all that there is: then a shard that is missing fails.
    """
    reasons = [f"coverage is missing, {plural(len(missing), 'value')}"] if missing else []
    shards = missing_shards(merged.runs)
    if whole and shards and INCOMPLETE in fail_on.names:
        reasons.append(f"incomplete, without the results of shard {listed(shards)}")
    if comparison is None:
        reasons += _red(merged)
    else:
        reasons += _differences(comparison, fail_on)
        if nothing_ran(comparison):
            reasons.append(
                f"nothing of {comparison.baseline} ran here: check the matrix, the target, the devices and the baseline"
            )
    return GateResult(not reasons, tuple(reasons), fail_on.names, tuple(missing))


def _red(merged: MergedResults) -> Iterator[str]:
    counts = Counter(view.outcome for view in merged.cells.values() if view.outcome in BAD)
    bad = [f"{counts[outcome]:,} {OUTCOME_WORDS[outcome]}" for outcome in WORST_FIRST if counts[outcome]]
    if bad:
        total = counts.total()
        yield f"{plural(total, 'cell')} of {len(merged.cells):,}: {', '.join(bad)}"
    outcomes = {view.outcome for view in merged.cells.values()}
    if not outcomes:
        yield "there is no cell"
    elif outcomes == {"skipped"}:
        yield "no cell ran at all"
    elif outcomes <= {"skipped", "partial"}:
        yield "no cell was loaded and put to all the checks that its matrix requires"


def _differences(comparison: Comparison, fail_on: FailOn) -> Iterator[str]:
    counts = comparison.counts
    yield from (count_text(name, counts[name]) for name in NAMES if name in fail_on.names and counts[name])
    if FAILING in fail_on.names:
        # What has a name that fails is counted there.
        others = Counter(
            transition.name
            for transition in comparison.transitions
            if transition.failing and transition.name not in fail_on.names
        )
        yield from (f"{count_text(name, others[name])}, failing now" for name in NAMES if others[name])


def nothing_ran(comparison: Comparison) -> bool:
    """Whether no entry of a baseline that has some was run at all."""
    ran = comparison.unchanged + sum(
        count for name, count in comparison.counts.items() if name not in NOT_RUN | {"unused", "vanished", "new"}
    )
    return ran == 0 and any(transition.name != "new" for transition in comparison.transitions)


def nothing_compared(comparison: Comparison) -> bool:
    """Whether whatever ran of the baseline ran elsewhere, so that the comparison says nothing."""
    decided = set(comparison.counts) - (NOT_RUN | {"unused", "vanished", "new", "not-comparable"})
    return not comparison.unchanged and not decided and bool(comparison.counts["not-comparable"])

"""Tells what a plain load of a cell does too, which is the library's or the architecture's, from faults of a target.

The plain load is made, and driven by the built-in generation and steps, in a process in which the target was never
imported, so that neither its `generate` nor what it patched can excuse itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.errors import first_line
from pytest_llmdevice.loading.checkpoint_files import fingerprint
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import RandomState
from pytest_llmdevice.model.doors import held_bytes
from pytest_llmdevice.monitoring.ranks import any_rank, size_here
from pytest_llmdevice.oracle.process import ask
from pytest_llmdevice.oracle.reference import compute
from pytest_llmdevice.oracle.unpacked import unpacked_in
from pytest_llmdevice.simulation.simulate import active

if TYPE_CHECKING:
    from pytest_llmdevice.checks.examination import Examination

Tokens = tuple[tuple[int, ...], ...]

SHARED: Final = "as a plain load does"
"""The evidence with the number of findings that a plain load has too."""

UNKNOWN: Final = "plain load"
"""The evidence with the reason why there was nothing to compare findings with."""

NOISE: Final = 1.5
"""An error may be so many times that of a plain load and still be the same fault."""

LARGEST: Final = 2**30
"""Bytes. A plain load of more than this is not kept for the next question about its cell."""


def judged(exam: Examination, result: Result, *, exactly: bool = False) -> Result:
    """`result` without the findings that a plain load of the cell has too, which are in `upstream` instead.

    Args:
        exam: the examination that it is a result of.
        result: of a check that a plain load may fail too.
        exactly: whether a plain load must have the very same finding, and not one of the same kind.
    """
    # Ranks load and compute together: what one has to compare, all do.
    if not any_rank(said=bool(result.findings)):
        return result
    try:
        plain = _plain(exam, result.check)
    except Exception as error:  # noqa: BLE001  # without a plain load a finding stands
        return replace(result, evidence={**result.evidence, UNKNOWN: f"none to compare with: {first_line(error)}"})
    same = (lambda finding: finding in plain) if exactly else partial(is_among, others=plain)
    shared = tuple(filter(same, result.findings))
    if not shared:
        return result
    own = tuple(finding for finding in result.findings if finding not in shared)
    return replace(
        result,
        findings=own,
        upstream=shared,
        source=_source(exam),
        evidence={**result.evidence, SHARED: len(shared)},
        details=result.details if own else "",
    )


def is_among(finding: Finding, others: Collection[Finding]) -> bool:
    """Whether one of `others` is the same fault.

    An exception is the same if it says the same, or is raised in the same place; an error of a certain size if it is
    about the same thing and the other one is not smaller by far; all else if the same was expected of the same thing.
    """
    return any(other.kind == finding.kind and _same(finding, other) for other in others)


def _same(finding: Finding, other: Finding) -> bool:
    if finding.kind == "exception" and finding.actual == other.actual:
        return True
    if finding.about != other.about:
        return False
    if finding.size is None or other.size is None:
        return finding.kind == "exception" or finding.expected == other.expected
    # An error that is no number is larger than all that are.
    return isnan(other.size) or finding.size <= NOISE * other.size


def _plain(exam: Examination, check: str) -> tuple[Finding, ...]:
    prompts = tuple(map(tuple, exam.prompts))
    if size_here() > 1:
        return _of_ranks(exam, prompts, check)
    simulation = active()
    simulated = "" if simulation is None else simulation.profile.spec
    # Of a model that was unpacked while loading, both are plain loads: of the packed files, and of the numbers in them.
    folders = (exam.checkpoint, exam.loaded_from) if unpacked_in(exam.checkpoint) else (exam.checkpoint,)
    return tuple(
        finding
        for folder in folders
        for finding in _asked(
            fingerprint(folder),
            folder,
            exam.cell,
            exam.others,
            prompts,
            exam.tolerance,
            check,
            simulated,
            random_state=exam.random_state,
        )
    )


def _of_ranks(exam: Examination, prompts: Tokens, check: str) -> tuple[Finding, ...]:
    """Of a cell that several processes load together: those are these ones, and nobody else can be asked."""
    given = (exam.checkpoint, exam.cell, tuple(exam.others), prompts, exam.tolerance, check)
    return findings_of_plain_load(*given, random_state=exam.random_state)


@lru_cache(maxsize=256)
def _asked(
    _print: tuple[object, ...],
    checkpoint: str,
    cell: Cell,
    others: tuple[Cell, ...],
    prompts: Tokens,
    tolerance: float | None,
    check: str,
    _simulated: str,
    *,
    random_state: RandomState | None,
) -> tuple[Finding, ...]:
    wanted = {"random_state": random_state}
    return ask(findings_of_plain_load, checkpoint, cell, others, prompts, tolerance, check, **wanted)


_kept: list[tuple[object, Examination]] = []
"""In the process that is asked: the plain load that the last question was about."""


def findings_of_plain_load(
    checkpoint: str,
    cell: Cell,
    others: tuple[Cell, ...],
    prompts: Tokens,
    tolerance: float | None,
    check: str,
    *,
    random_state: RandomState | None = None,
) -> tuple[Finding, ...]:
    """What `check` finds in a plain load of `cell` that the built-in generation drives.

    Args:
        checkpoint: a local folder.
        cell: what to load; by a plain move where its strategy is one of a plugin's.
        others: cells that are loaded between it and itself.
        prompts: token ids of each prompt.
        tolerance: the largest relative error of the logits, None for the one by dtype and quantization.
        check: the name of a check.
        random_state: `"kept"` if random numbers that are drawn or seeded are a finding, `"free"` if they never are.

    Raises:
        LookupError: there is no plain load of the cell.
    """
    key = (fingerprint(checkpoint), cell, others, prompts, tolerance)
    exam = next((kept for known, kept in _kept if known == key), None)
    if exam is None:
        _release()
        exam = _examination(checkpoint, cell, others, prompts, tolerance)
        size = sum(held_bytes(tensor) for tensor in exam.model.parameters())
        # Memory of a card is not kept from the cells to come; a simulation ends with its question.
        if cell.kind == "cpu" and active() is None and size <= LARGEST:
            _kept.append((key, exam))
    exam.random_state = random_state
    try:
        return exam.unjudged(check).findings
    finally:
        if not _kept:
            exam.loaded.release()


def _release() -> None:
    while _kept:
        _kept.pop()[1].loaded.release()


def _examination(
    checkpoint: str, cell: Cell, others: tuple[Cell, ...], prompts: Tokens, tolerance: float | None
) -> Examination:
    from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination

    cells = [plain_strategy(each) for each in (cell, *others)]
    target = BuiltinTarget()
    loaded = Loaded.load(target, Path(checkpoint), cells[0])
    if loaded.model is None:
        raise LookupError(loaded.returned or loaded.cause or loaded.unsupported)
    expected = compute(checkpoint, prompts, NEW_TOKENS)
    return Examination(
        target, checkpoint, cells[0], loaded, prompts, expected, tolerance=tolerance, others=tuple(cells[1:])
    )


def plain_strategy(cell: Cell) -> Cell:
    """`cell`, by a plain move where its strategy is one that only a plugin knows."""
    return cell if cell.strategy in current().of(Strategy) else replace(cell, strategy="to")


def _source(exam: Examination) -> str:
    """Whose the architecture is, in words: `"BartForCausalLM of transformers 5.23.0"`."""
    return f"{exam.expectations.architecture} of {libraries_of(exam.cell)}"


def libraries_of(cell: Cell) -> str:
    """The libraries that a plain load of `cell` takes, in words: `"transformers 5.23.0 with bitsandbytes 0.50.2"`."""
    names = filter(None, ("transformers", quantization_of(cell).library))
    return " with ".join(map(_versioned, names))


def _versioned(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return name

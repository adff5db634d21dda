"""Loads a cell and makes every check on it, without pytest; and what a loaded cell is held against."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from pytest_llmdevice.checks.examination import NEW_TOKENS, Examination, Tokens
from pytest_llmdevice.checks.refusals import refused
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tolerance import BY_DTYPE
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.errors import hint_of
from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.inference.prompts import encode, load_tokenizer, prompts_of
from pytest_llmdevice.loading.load import Leftovers, Loaded
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.ranks import ranks_of
from pytest_llmdevice.matrix.vocabulary import RandomState
from pytest_llmdevice.monitoring.ranks import size_here
from pytest_llmdevice.oracle.reference import Reference, reference
from pytest_llmdevice.oracle.unpacked import is_unpacked, unpacked_checkpoint, unpacked_in
from pytest_llmdevice.simulation.profiles import parse

if TYPE_CHECKING:
    from pytest_llmdevice.loading.target import Target


def not_loaded(loaded: Loaded) -> Result:
    """What is wrong with a cell that has no model: one result, that of the check `loads`."""
    cause = loaded.returned or loaded.cause or loaded.skipped
    hint = hint_of(loaded.exception) if loaded.exception is not None else None
    return Result("loads", (Finding("load", "a model", cause, hint, kind="no model"),), details=loaded.details)


def examine(
    target: Target,
    checkpoint: str | Path,
    cell: Cell,
    prompts: Tokens | None = None,
    *,
    beside: str = "",
    others: Sequence[Cell] = (),
    dense: Sequence[str] = (),
    random_state: RandomState | None = None,
    folder: str | Path | None = None,
) -> Generator[Result, None, None]:
    """Have `target` load `checkpoint` for `cell` and make every check, as the suite does, without pytest.

    A load that fails is one result, and the only one. For a cell that is simulated, be inside `simulate`.

    Args:
        target: the code under test.
        checkpoint: a local folder.
        cell: what to ask for.
        prompts: lists of token ids of unequal length; the suite's by default.
        beside: cards to simulate while a cpu cell is loaded once more, such as `"cuda:2"`; empty for none.
        others: cells of the same model, to be loaded between `cell` and `cell` once more.
        dense: patterns of the modules that the target leaves unquantized on purpose.
        random_state: `"kept"` if the load and the generation must neither draw nor seed random numbers, `"free"` if
            they may do both.
        folder: where reference outputs are kept for the next time.

    Raises:
        ConfigurationError: `beside` is no profile, or the strategy is one of several processes.
    """
    _refuse_alone(cell)
    profile = parse(beside) if beside else None
    # Before the load: a target may change the classes that both are made of.
    made = _expected(str(checkpoint), prompts, None if folder is None else Path(folder))
    loaded = refused(Loaded.load(target, Path(checkpoint), cell, Leftovers()), str(checkpoint))
    if loaded.model is None:
        yield not_loaded(loaded)
        return
    try:
        if isinstance(made, Exception):
            raise made
        wanted = expected_of(target, str(checkpoint), loaded, *made, folder)
        exam = Examination(
            target,
            wanted.checkpoint,
            cell,
            loaded,
            wanted.prompts,
            wanted.reference,
            wanted.tolerance,
            beside=profile,
            others=tuple(others),
            dense=tuple(dense),
            random_state=random_state,
            source=str(checkpoint),
        )
        for name in exam.checks():
            yield exam.check(name)
    finally:
        loaded.release()


class Wanted(NamedTuple):
    """What a loaded cell is held against: a checkpoint, prompts, and what the model should say to them.

    The tolerance is that of its logits, None for the one by dtype and quantization.
    """

    checkpoint: str
    prompts: Tokens
    reference: Reference
    tolerance: float | None = None


def _refuse_alone(cell: Cell) -> None:
    wanted = ranks_of(cell)
    if wanted > size_here():
        raise ConfigurationError(
            f"{cell.id}: strategy {cell.strategy} is of {wanted} processes, and this is one: run the cell with "
            "pytest --llm-matrix, which forks them"
        )


def expected_of(
    target: Target,
    checkpoint: str,
    loaded: Loaded,
    prompts: Tokens,
    known: Callable[[], Reference],
    folder: str | Path | None,
) -> Wanted:
    """What `loaded` is held against, after what its target expects and hands to the model.

    Args:
        target: the code under test.
        checkpoint: the local folder that it loaded.
        loaded: what it loaded.
        prompts: the prompts, encoded by the tokenizer alone.
        known: gives the reference of `checkpoint` and `prompts`; called only where these are the ones.
        folder: where reference outputs are kept.
    """
    wanted, kept = loaded.reference or checkpoint, None if folder is None else Path(folder)
    tolerance = None
    if loaded.model is not None and is_unpacked(loaded.model, wanted):
        wanted = unpacked_checkpoint(wanted, kept)
        # Whoever unpacks in more bits than the library does is right too.
        tolerance = max(BY_DTYPE[unpacked_in(wanted)], BY_DTYPE[loaded.cell.dtype])
    given = prompts if loaded.own is None else prompts_of(target, loaded.own.whole, prompts)
    if wanted == checkpoint and list(map(list, given)) == list(map(list, prompts)):
        return Wanted(checkpoint, prompts, known())
    return Wanted(wanted, given, reference(wanted, given, NEW_TOKENS, kept), tolerance)


def _expected(
    checkpoint: str, prompts: Tokens | None, folder: Path | None
) -> tuple[Tokens, Callable[[], Reference]] | Exception:
    """The prompts and what the model says to them; or what was raised: of a broken checkpoint, the load says more."""
    try:
        given = encode(load_tokenizer(checkpoint)) if prompts is None else prompts
    except Exception as error:  # noqa: BLE001  # raised where the load has nothing to say
        return error
    try:
        found = reference(checkpoint, given, NEW_TOKENS, folder)
    except Exception as error:  # noqa: BLE001  # raised where this is what a model is held against
        return given, partial(_raise, error)
    return given, lambda: found


def _raise(error: Exception) -> NoReturn:
    raise error

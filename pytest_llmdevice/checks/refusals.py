"""Tells a library's refusal to load a cell from a loader that fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pytest_llmdevice.checks.upstream import libraries_of, plain_strategy
from pytest_llmdevice.errors import first_line
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.stored_packed import stored_method
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.cell import REFERENCE, Cell
from pytest_llmdevice.oracle.process import OracleError, ask


def refused(loaded: Loaded, checkpoint: str) -> Loaded:
    """`loaded`, as unsupported if it failed with what a plain load of the cell fails with too.

    An attention that the class has not, a quantizer that does not take the architecture: no loader can do it with the
    versions that are installed. A checkpoint that does not load on the cpu in float32 either is broken instead, unless
    its weights are packed and the library that unpacks them is missing.

    Args:
        loaded: what a load yielded.
        checkpoint: the local folder that it was to read.
    """
    if loaded.exception is None:
        return loaded
    said = first_line(loaded.exception)
    try:
        plain = ask(ends_with, checkpoint, loaded.cell)
    except OracleError:
        return loaded
    if plain != said:
        return loaded
    return replace(
        loaded,
        exception=None,
        trace="",
        unsupported=f"{libraries_of(loaded.cell)} cannot load it, whoever asks: {said}",
    )


def ends_with(checkpoint: str, cell: Cell) -> str:
    """What a plain load of `cell` raises, in a line; empty where it raises nothing, or all loads of the model do."""
    target = BuiltinTarget()
    refusal = Loaded.load(target, Path(checkpoint), plain_strategy(cell))
    said = "" if refusal.exception is None else first_line(refusal.exception)
    missing = isinstance(refusal.exception, ImportError) and bool(stored_method(checkpoint))
    refusal.release()
    if not said or missing:
        return said
    whole = Loaded.load(target, Path(checkpoint), replace(REFERENCE, model=cell.model))
    loads = whole.model is not None
    whole.release()
    return said if loads else ""

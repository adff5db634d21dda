"""Says how far the logits of a cell may be from those of the float32 cell, by dtype and quantization."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.cell import Cell

BY_DTYPE: Final = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.08}
"""Errors measured over the zoo on a CPU: float16 at most 0.004, bfloat16 0.027."""


def generation_tolerance(cell: Cell) -> float:
    """The same, for a cell against itself: a padded batch with a cache against each sequence alone and whole.

    Weights that are packed are packed in both; what remains is the dtype's rounding, and for int8 that outliers
    are looked for in the whole batch.
    """
    return BY_DTYPE[cell.dtype] + quantization_of(cell).batch_error


def tolerance(cell: Cell) -> float:
    """The largest relative error of a cell's logits that is still numeric noise.

    The relative error is ||logits - reference|| / ||reference - mean||, the norms over all positions and the
    vocabulary, the mean over the vocabulary at each position: 0 for equal logits, about 1.4 for unrelated ones.
    """
    return BY_DTYPE[cell.dtype] + quantization_of(cell).logits_error

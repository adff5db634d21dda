"""How far the logits of a cell may be from those of the float32 cell, by dtype and quantization."""

from __future__ import annotations

from typing import Final

from pytest_llmdevice.matrix.cell import Cell

BY_DTYPE: Final = {"float32": 1e-3, "float16": 0.06, "bfloat16": 0.4}

BY_QUANTIZATION: Final = {"none": 0.0, "int8": 0.6, "nf4": 1.0, "nf4-double": 1.0, "fp4": 1.2}


def tolerance(cell: Cell) -> float:
    """The largest relative error of any position that is still numeric noise.

    The relative error of a position is ||logits - reference|| / ||reference - its mean||, both norms over
    the vocabulary: 0 for equal logits, about 1.4 for unrelated ones.
    """
    return BY_DTYPE[cell.dtype] + BY_QUANTIZATION[cell.quantization]

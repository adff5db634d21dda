"""Chooses the attention implementation of a cell whose matrix leaves the choice to the loader."""

from __future__ import annotations

from importlib.util import find_spec

from pytest_llmdevice.matrix.cell import Cell


def implementation(cell: Cell) -> str:
    """The `attn_implementation` for `from_pretrained`.

    What the matrix names wins. Otherwise InfoLens' rule by device: `eager` wherever there is no CUDA; on
    CUDA `flash_attention_2` if flash-attn is installed and the dtype is a half (it has no float32 kernels),
    else `eager`. Not `sdpa`: its kernels differ between devices, and `eager` is the same arithmetic on all.
    """
    if cell.attention != "default":
        return cell.attention
    if cell.kind == "cuda" and not cell.simulated and cell.dtype != "float32" and find_spec("flash_attn"):
        return "flash_attention_2"
    return "eager"

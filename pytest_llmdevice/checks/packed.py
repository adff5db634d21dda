"""Checks what bitsandbytes keeps with a packed weight: scales and tables, their devices and dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints import quantization as hints
from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name

if TYPE_CHECKING:
    import torch

BLOCKSIZES: Final = frozenset({64, 128})
"""Values that share a scale. Source: `Params4bit` of bitsandbytes; 128 where a wave of the card has 64 lanes."""


def packed_problems(name: str, module: Any, cell: Cell) -> Iterator[Finding]:
    """What is wrong with the packed layer `module`, called `name`."""
    if quantization_of(cell).settings.get("load_in_8bit"):
        yield from _eight(name, module)
    else:
        yield from _four(name, module, cell)


def _eight(name: str, module: Any) -> Iterator[Finding]:
    state = getattr(module, "state", None)
    if getattr(state, "has_fp16_weights", False):
        yield Finding(name, "int8 weights kept", "has_fp16_weights: weights are kept in half", hints.KEPT_HALF)
    # Packed weights and scales are with the weight until the first forward pass, then with the layer's state.
    held = {
        "weight.CB": getattr(module.weight, "CB", None),
        "weight.SCB": getattr(module.weight, "SCB", None),
        "state.CB": getattr(state, "CB", None),
        "state.SCB": getattr(state, "SCB", None),
    }
    if not module.weight.is_meta and held["weight.SCB"] is None and held["state.SCB"] is None:
        yield Finding(f"{name}.weight.SCB", "the scales of the packed weight", "none", hints.DROPPED)
    for key, tensor in held.items():
        dtype = "float32" if key.endswith("SCB") else "int8"
        yield from _beside(f"{name}.{key}", tensor, module.weight, dtype)


def _four(name: str, module: Any, cell: Cell) -> Iterator[Finding]:
    compute = dtype_name(getattr(module, "compute_dtype", None))
    if compute != cell.dtype:
        yield Finding(name, f"compute dtype {cell.dtype}", compute, hints.COMPUTE)
    state = getattr(module.weight, "quant_state", None)
    if state is None:
        yield Finding(name, "a quantization state beside the weight", "none", hints.DROPPED)
        return
    settings = quantization_of(cell).settings
    if state.quant_type != settings["bnb_4bit_quant_type"]:
        yield Finding(name, cell.quantization, str(state.quant_type), hints.DROPPED)
    # On processors with AVX512-BF16 the first forward pass repacks a weight and resolves its double quantization.
    nested = bool(getattr(state, "original_nested", state.nested))
    if nested != settings["bnb_4bit_use_double_quant"]:
        wanted = "single quantization" if nested else "double quantization"
        yield Finding(name, wanted, f"nested={nested}", hints.DROPPED)
    if state.blocksize not in BLOCKSIZES:
        yield Finding(name, "blocks of 64 values", f"blocks of {state.blocksize}", hints.BLOCKSIZE)
    where = f"{name}.weight.quant_state"
    repacked = hasattr(state, "original_nested")
    # A scale of a double quantization is a byte itself; what the repacked layout holds is the kernel's own.
    scales = "" if repacked else "uint8" if state.nested else "float32"
    yield from _beside(f"{where}.absmax", state.absmax, module.weight, scales)
    yield from _beside(f"{where}.code", state.code, module.weight, "float32")
    yield from _beside(f"{where}.offset", state.offset, module.weight, "float32")
    second = getattr(state, "state2", None)
    if second is not None:
        yield from _beside(f"{where}.state2.absmax", second.absmax, module.weight, "float32")
        yield from _beside(f"{where}.state2.code", second.code, module.weight, "float32")


def _beside(where: str, tensor: torch.Tensor | None, weight: torch.Tensor, dtype: str) -> Iterator[Finding]:
    """What is wrong with `tensor`, which belongs to `weight`; an offloaded weight's are brought along with it."""
    if tensor is None or weight.is_meta:
        return
    if tensor.device != weight.device:
        yield Finding(where, f"{weight.device}, as its weight", str(tensor.device), hints.STATE_DEVICE)
    found = dtype_name(tensor.dtype)
    if dtype and found != dtype:
        yield Finding(where, dtype, found, hints.STATE_DTYPE)

"""Looks at what bitsandbytes keeps with a packed weight: scales and tables, their devices and dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.matrix.axes import Problem, Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import dtype_name

if TYPE_CHECKING:
    import torch

BLOCKSIZES: Final = frozenset({64, 128})
"""Values that share a scale. Source: `Params4bit` of bitsandbytes; 128 where a wave of the card has 64 lanes."""


def eight_bit_problems(name: str, module: Any, _: Cell) -> Iterator[Problem]:
    """What is wrong with the packed 8-bit layer `module`, called `name`."""
    state = getattr(module, "state", None)
    if getattr(state, "has_fp16_weights", False):
        yield Problem(name, "int8 weights kept", "has_fp16_weights: weights are kept in half", "int8-kept-in-half")
    # Packed weights and scales are with the weight until the first forward pass, then with the layer's state.
    held = {
        "weight.CB": getattr(module.weight, "CB", None),
        "weight.SCB": getattr(module.weight, "SCB", None),
        "state.CB": getattr(state, "CB", None),
        "state.SCB": getattr(state, "SCB", None),
    }
    if not module.weight.is_meta and held["weight.SCB"] is None and held["state.SCB"] is None:
        yield Problem(f"{name}.weight.SCB", "the scales of the packed weight", "none", "quantization-dropped")
    for key, tensor in held.items():
        dtype = "float32" if key.endswith("SCB") else "int8"
        yield from _beside(f"{name}.{key}", tensor, module.weight, dtype)


def four_bit_problems(name: str, module: Any, cell: Cell) -> Iterator[Problem]:
    """What is wrong with the packed 4-bit layer `module`, called `name`."""
    compute = dtype_name(getattr(module, "compute_dtype", None))
    if compute != cell.dtype:
        yield Problem(name, f"compute dtype {cell.dtype}", compute, "compute-dtype")
    state = getattr(module.weight, "quant_state", None)
    if state is None:
        yield Problem(name, "a quantization state beside the weight", "none", "quantization-dropped")
        return
    settings = current().of(Quantization)[cell.quantization].settings
    if state.quant_type != settings["bnb_4bit_quant_type"]:
        yield Problem(name, cell.quantization, str(state.quant_type), "quantization-dropped")
    # On processors with AVX512-BF16 the first forward pass repacks a weight and resolves its double quantization.
    nested = bool(getattr(state, "original_nested", state.nested))
    if nested != settings["bnb_4bit_use_double_quant"]:
        wanted = "single quantization" if nested else "double quantization"
        yield Problem(name, wanted, f"nested={nested}", "quantization-dropped")
    if state.blocksize not in BLOCKSIZES:
        yield Problem(name, "blocks of 64 values", f"blocks of {state.blocksize}", "odd-blocksize")
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


def _beside(where: str, tensor: torch.Tensor | None, weight: torch.Tensor, dtype: str) -> Iterator[Problem]:
    """What is wrong with `tensor`, which belongs to `weight`; an offloaded weight's are brought along with it."""
    if tensor is None or weight.is_meta:
        return
    if tensor.device != weight.device:
        yield Problem(where, f"{weight.device}, as its weight", str(tensor.device), "state-elsewhere")
    found = dtype_name(tensor.dtype)
    if dtype and found != dtype:
        yield Problem(where, dtype, found, "state-cast")


EMBEDDINGS: Final = ("Embedding4bit", "Embedding8bit", "EmbeddingFP4", "EmbeddingNF4")
"""The classes of packed embeddings in `bitsandbytes.nn`."""


def configured(said: Mapping[str, Any], cell: Cell) -> Iterator[Problem]:
    """What a `BitsAndBytesConfig` says otherwise than the cell; nothing of another library's configuration."""
    eight = bool(said.get("load_in_8bit", said.get("_load_in_8bit")))
    four = bool(said.get("load_in_4bit", said.get("_load_in_4bit")))
    if not (eight or four):
        return
    kind = "int8" if eight else str(said.get("bnb_4bit_quant_type", "fp4"))
    kind += "-double" if four and said.get("bnb_4bit_use_double_quant") else ""
    if kind != cell.quantization:
        yield Problem("config.quantization_config", f"quantization {cell.quantization}", kind)
    compute = dtype_name(said.get("bnb_4bit_compute_dtype") or cell.dtype)
    if four and compute != cell.dtype:
        yield Problem("config.quantization_config", f"compute dtype {cell.dtype}", compute)

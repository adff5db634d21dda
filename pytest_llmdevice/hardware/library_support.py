"""Says what installed libraries cannot do, whatever the hardware: the rules of a cell's strategy, quantization, model
family and attention, each with its source.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pytest_llmdevice.matrix.axes import Machine, Quantization, Rule, Strategy
from pytest_llmdevice.matrix.cards import LACKS
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.model_names import parts_of
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.text import listed

HALF_DTYPES: Final = frozenset({"bfloat16", "float16"})


def unsupported(cell: Cell, machine: Machine) -> str | None:
    """The first rule's reason why no installed library can run `cell`, or None."""
    return next((reason for rule in rules_for(cell) if (reason := rule.reason(cell, machine))), None)


def rules_for(cell: Cell) -> Iterator[Rule]:
    """The rules that may speak of `cell`, in the order in which they are asked."""
    registry = current()
    for entry in (
        registry.of(Strategy).get(cell.strategy),
        registry.of(Quantization).get(cell.quantization),
        registry.get("family", parts_of(cell.model).base),
    ):
        yield from entry.rules if entry is not None else ()
    yield FOR_QUANTIZATION
    yield FOR_CARDS
    yield FLASH_ATTENTION


def _for_quantization(cell: Cell, _: Machine) -> str | None:
    entry = current().of(Quantization).get(cell.quantization)
    if entry is None:
        return None
    if entry.dtypes and cell.dtype not in entry.dtypes:
        return f"{entry.name} computes in {listed(entry.dtypes)}, and not in {cell.dtype}"
    if entry.kinds and cell.kind not in entry.kinds:
        return f"{entry.name} is for {listed(entry.kinds)}, and not for {cell.kind}"
    return None


FOR_QUANTIZATION: Final = Rule(
    "dtypes-and-kinds-of-a-quantization", "`dtypes` and `kinds` of the entry, as it was registered", _for_quantization
)


def _for_cards(cell: Cell, machine: Machine) -> str | None:
    entry = current().of(Quantization).get(cell.quantization)
    if entry is None or not entry.needs or not cell.simulated:
        return None
    card = machine.find_simulated(cell.device, cell.kind)
    for need in entry.needs if card is not None else ():
        if need in card.lacks:
            capability = f", compute capability {card.capability}" if cell.kind == "cuda" else ""
            return f"{entry.name} needs {need}, and of {cell.spec} ({card.name}{capability}) is known: {LACKS[need]}"
    return None


FOR_CARDS: Final = Rule("what-a-card-lacks", "`needs` of the entry, and the profile of the simulated card", _for_cards)


def _flash_attention(cell: Cell, machine: Machine) -> str | None:
    if cell.attention != "flash_attention_2":
        return None
    if cell.simulated or cell.kind not in ("cuda", "rocm"):
        device = "a simulated device" if cell.simulated else cell.kind
        return f"flash_attention_2 has kernels for cuda and rocm only, not for {device}"
    if cell.dtype not in HALF_DTYPES:
        return f"flash_attention_2 computes in bfloat16 and float16 only, not in {cell.dtype}"
    if "flash_attn" not in machine.versions:
        return "flash_attention_2 needs the package flash_attn, which is not installed"
    card = machine.find(cell.device, "cuda")
    if card and card.capability and version_key(card.capability) < (8, 0):
        return f"flash_attention_2 needs compute capability 8.0, {cell.device} has {card.capability}"
    return None


FLASH_ATTENTION: Final = Rule(
    "flash-attention",
    "transformers.modeling_utils._flash_attn_import_error (5.23); flash_attn's README: fp16 and bf16, "
    "Ampere or newer, ROCm",
    _flash_attention,
)


def version_key(text: str) -> tuple[int, ...]:
    """`"9.0"` -> `(9, 0)`.

    Raises:
        ValueError: the text is not numbers joined by dots.
    """
    return tuple(int(part) for part in text.split("."))

"""Checks that each module computes as that of a plain load does, given the same: below what logits can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.noise import Inspection
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.divergence import unravel_index
from pytest_llmdevice.diagnosis.hints.values import COMPUTED_OTHERWISE
from pytest_llmdevice.errors import first_line, of_target
from pytest_llmdevice.loading.adapters import is_adapter
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.names import TensorNames
from pytest_llmdevice.model.wrappers import configuration_of, is_of_transformers
from pytest_llmdevice.oracle.module_calls import called, kind_of, module_calls, tensors_of

if TYPE_CHECKING:
    import torch

SHARE: Final = 0.02
"""Of the elements in 16 bits, that may differ: sums in another order turn a few roundings in ten thousand."""

FLOAT32: Final = 5e-6
"""The largest relative error in float32: a few roundings."""

PRODUCTS: Final = {"float32": FLOAT32, "float16": 2e-3, "bfloat16": 1.6e-2}
"""The same of products and attention, whose kernels sum in other orders. Between eager and PyTorch's own attention, at
most 2.5e-7, 6.5e-4 and 4.8e-3 were measured over the families of the zoo."""

_PLAIN: Final = frozenset({"eager", "sdpa"})
"""The implementations of attention that run on the CPU."""

TOKENS: Final = 8
"""Of the prompt that is read."""


@dataclass(frozen=True, slots=True)
class Apart:
    """A module that says otherwise than that of a plain load, given the same.

    Attributes:
        name: its name in the model under test.
        known: its name in the architecture.
        kind: the name of its class.
        expected: what the plain load's says where the two differ most, in words.
        actual: what it says there.
    """

    name: str
    known: str
    kind: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return (
            f"first differs at {self.name} ({self.kind}), given the same: expected {self.expected}, found {self.actual}"
        )


def module_findings(model: Any, checkpoint: str, cell: Cell, prompt: Sequence[int]) -> Inspection:
    """What `first_apart` finds, as a finding."""
    try:
        apart, evidence = first_apart(model, checkpoint, cell, prompt)
    except Exception as error:  # noqa: BLE001  # without a plain load there is nothing to compare with
        return [], {"modules by themselves": f"none to compare with: {first_line(error)}"}
    if apart is None:
        return [], evidence
    expected = f"{apart.expected}, as that of a plain load given the same"
    return [Finding(apart.name, expected, apart.actual, COMPUTED_OTHERWISE)], {}


def first_apart(
    model: Any, checkpoint: str, cell: Cell, prompt: Sequence[int]
) -> tuple[Apart | None, dict[str, int | float | str]]:
    """Give each module in the layers of `model`, and around them, what a plain load's was given, and compare.

    Only on the cpu, where both have the same kernels, and of dense models of transformers. A module of another class
    than the plain load's, or with other tensors, is left out and counted: whoever replaces one has reasons, and other
    values are for other checks.

    Args:
        model: the model under test.
        checkpoint: the local folder of what it should be.
        cell: what was asked for.
        prompt: token ids.

    Raises:
        Exception: what a plain load raises.
    """
    if cell.kind != "cpu" or cell.simulated or cell.quantization != "none" or is_adapter(checkpoint):
        return None, {}
    if not is_of_transformers(model):
        return None, {}
    attention = getattr(configuration_of(model), "_attn_implementation", None)
    calls = module_calls(checkpoint, cell.dtype, prompt[:TOKENS], attention if attention in _PLAIN else "eager")
    names = {known: name for name, known in TensorNames(model).modules.items() if known is not None}
    modules = dict(model.named_modules())
    compared, left = 0, 0
    for known, call in calls.items():
        module = modules.get(names.get(known, ""))
        if module is None or kind_of(module) != call.kind or tensors_of(module) != call.tensors:
            left += 1
            continue
        try:
            outputs = called(module, call)
        except of_target():
            # It is used otherwise than the plain load's.
            left += 1
            continue
        compared += 1
        for wanted, actual in zip(call.outputs, outputs, strict=False):
            difference = _difference(wanted, actual, exact=call.exact)
            if difference is not None:
                return Apart(names[known], known, type(module).__name__, *difference), {}
    evidence: dict[str, int | float | str] = {"modules by themselves": compared}
    return None, evidence | ({"modules without a pair": left} if left else {})


def _difference(wanted: torch.Tensor, actual: torch.Tensor, *, exact: bool) -> tuple[str, str] | None:
    """What was expected and what is there, in words; None where roundings explain it."""
    actual = actual.cpu()
    if wanted.shape != actual.shape or not wanted.numel():
        # A form of its own, as a table with a row for each position that there is.
        return None
    if wanted.dtype != actual.dtype and exact:
        return str(wanted.dtype).removeprefix("torch."), str(actual.dtype).removeprefix("torch.")
    off = (actual.double() - wanted.double()).abs().masked_fill(actual == wanted, 0.0).nan_to_num(float("inf"))
    share = float((off > 0).double().mean())
    norm = float(wanted.double().norm())
    error = float(off.norm()) / norm if norm else (float("inf") if share else 0.0)
    if exact and wanted.element_size() == 2:
        small = share <= SHARE
    else:
        # Between its parts a layer may keep more bits than a plain load's, or fewer: what counts is what comes of it.
        small = error <= max(PRODUCTS.get(dtype_name(each.dtype), FLOAT32) for each in (wanted, actual))
    if small:
        return None
    place = int(off.argmax())
    index = unravel_index(place, actual.shape)
    value, found = float(wanted.flatten()[place]), float(actual.flatten()[place])
    return f"{value:.6g} at {index}", f"{found:.6g} ({share:.0%} of the elements differ, relative error {error:.2g})"

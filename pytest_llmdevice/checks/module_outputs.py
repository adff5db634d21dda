"""Checks that each small module computes as that of a plain load does, given the same: below what logits can tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.noise import Inspection
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.divergence import unravel_index
from pytest_llmdevice.diagnosis.hints.values import COMPUTED_OTHERWISE
from pytest_llmdevice.errors import first_line, of_target
from pytest_llmdevice.loading.adapters import is_adapter
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.names import TensorNames
from pytest_llmdevice.model.wrappers import is_of_transformers
from pytest_llmdevice.oracle.module_calls import called, kind_of, module_calls, tensors_of

if TYPE_CHECKING:
    import torch

SHARE: Final = 0.02
"""Of the elements in 16 bits, that may differ: sums in another order turn a few roundings in ten thousand."""

FLOAT32: Final = 5e-6
"""The largest relative error in float32: a few roundings."""

TOKENS: Final = 8
"""Of the prompt that is read."""


def module_findings(model: Any, checkpoint: str, cell: Cell, prompt: Sequence[int]) -> Inspection:
    """Give each small module of `model` what that of a plain load was given, and compare what they say.

    Only on the cpu, where both have the same kernels, and of dense models of transformers. A module of another class
    than the plain load's, or with other tensors, is left out and counted: whoever replaces one has reasons, and other
    values are for other checks.

    Args:
        model: the model under test.
        checkpoint: the local folder of what it should be.
        cell: what was asked for.
        prompt: token ids.
    """
    if cell.kind != "cpu" or cell.simulated or cell.quantization != "none" or is_adapter(checkpoint):
        return [], {}
    if not is_of_transformers(model):
        return [], {}
    try:
        calls = module_calls(checkpoint, cell.dtype, prompt[:TOKENS])
    except Exception as error:  # noqa: BLE001  # without a plain load there is nothing to compare with
        return [], {"modules by themselves": f"none to compare with: {first_line(error)}"}
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
            difference = _difference(wanted, actual)
            if difference is not None:
                expected = f"{difference[0]}, as that of a plain load given the same"
                return [Finding(names[known], expected, difference[1], COMPUTED_OTHERWISE, "answer")], {}
    evidence: dict[str, int | float | str] = {"modules by themselves": compared}
    return [], evidence | ({"modules without a pair": left} if left else {})


def _difference(wanted: torch.Tensor, actual: torch.Tensor) -> tuple[str, str] | None:
    """What was expected and what is there, in words; None where roundings explain it."""
    actual = actual.cpu()
    if wanted.shape != actual.shape or not wanted.numel():
        # A form of its own, as a table with a row for each position that there is.
        return None
    if wanted.dtype != actual.dtype:
        return str(wanted.dtype).removeprefix("torch."), str(actual.dtype).removeprefix("torch.")
    off = (actual.double() - wanted.double()).abs().masked_fill(actual == wanted, 0.0).nan_to_num(float("inf"))
    share = float((off > 0).double().mean())
    norm = float(wanted.double().norm())
    error = float(off.norm()) / norm if norm else (float("inf") if share else 0.0)
    small = error <= FLOAT32 if wanted.element_size() > 2 else share <= SHARE
    if small:
        return None
    place = int(off.argmax())
    index = unravel_index(place, actual.shape)
    value, found = float(wanted.flatten()[place]), float(actual.flatten()[place])
    return f"{value:.6g} at {index}", f"{found:.6g} ({share:.0%} of the elements differ, relative error {error:.2g})"

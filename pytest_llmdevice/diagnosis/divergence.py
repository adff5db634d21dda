"""Finds the first module, in the order of execution, whose output differs between two models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.monitoring.trace import tensors_in

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class ModuleOutput:
    """An output tensor of a module: its original dtype and device, and its values in float32 on the CPU."""

    dtype: str
    device: str
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first module whose output differs from the reference's.

    Attributes:
        module: its name in the model under test.
        kind: the name of its class.
        expected: the reference's output, in words.
        actual: the model's output, in words.
        error: the relative error of its output; inf for an output that is not finite or has another shape or dtype.
    """

    module: str
    kind: str
    expected: str
    actual: str
    error: float

    def __str__(self) -> str:
        where = f"{self.module or 'the model'} ({self.kind})"
        return f"first differs at {where}: expected {self.expected}, found {self.actual}"


def outputs_of(model: nn.Module, run: Callable[[Any], object]) -> Mapping[str, tuple[ModuleOutput, ...]]:
    """The outputs of each module of `model` in one forward pass, `run(model)`; see `recorded_outputs`."""
    with recorded_outputs(model) as outputs:
        run(model)
    return outputs


def first_difference(
    model: nn.Module,
    expected: Mapping[str, tuple[ModuleOutput, ...]],
    run: Callable[[Any], object],
    tolerance: float,
    rename: Callable[[str], str] = str,
) -> Divergence | None:
    """The first module of `model` whose output differs from that of the module of the same name in a reference.

    Modules are compared in the order in which those of the reference finish, so that a module comes before the one that
    contains it.

    Args:
        model: the model under test.
        expected: the outputs of a correct model, on any device, in the same pass; see `outputs_of`.
        run: makes one forward pass.
        tolerance: the largest relative error, ||actual - expected|| / ||expected||, that counts as equal.
        rename: maps a module name of `model` to the name in the reference.
    """
    # If it raises, the outputs before the exception are compared.
    with suppress(Exception), recorded_outputs(model) as actual:
        run(model)
    names = {rename(name): name for name in actual}
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    for known, outputs in expected.items():
        name = names.get(known)
        if name is None:
            continue
        for number, (wanted, output) in enumerate(zip(outputs, actual[name], strict=False)):
            difference = _difference(wanted, output, tolerance)
            if difference is not None:
                what = f"output {number}: " if len(outputs) > 1 else ""
                return Divergence(name, kinds[name], what + difference[0], difference[1], difference[2])
    return None


@contextmanager
def recorded_outputs(model: nn.Module) -> Iterator[Mapping[str, tuple[ModuleOutput, ...]]]:
    """Record the outputs of the first call of every module inside the context, by name, in the order of completion."""
    outputs: dict[str, tuple[ModuleOutput, ...]] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_: nn.Module, __: Any, output: Any) -> None:
            if name not in outputs:
                outputs[name] = tuple(
                    _output_of(tensor) for _, tensor in tensors_in(output, "") if tensor.is_floating_point()
                )

        return record

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _output_of(tensor: torch.Tensor) -> ModuleOutput:
    import torch

    values = tensor.detach()
    return ModuleOutput(
        dtype_name(tensor.dtype),
        str(tensor.device),
        torch.empty(values.shape) if values.is_meta else values.float().cpu().clone(),
    )


def _difference(wanted: ModuleOutput, actual: ModuleOutput, tolerance: float) -> tuple[str, str, float] | None:
    """The expected and the actual output, in words, and the error; None if they agree."""
    if wanted.values.shape != actual.values.shape:
        return str(tuple(wanted.values.shape)), str(tuple(actual.values.shape)), float("inf")
    if wanted.dtype != actual.dtype:
        return wanted.dtype, actual.dtype, float("inf")
    if not wanted.values.numel():
        return None
    off = (actual.values - wanted.values).abs()
    # Both may be the same infinity, as in a mask, and inf - inf is nan.
    off = off.masked_fill(actual.values == wanted.values, 0.0)
    norm = float(wanted.values[wanted.values.isfinite()].norm())
    error = float(off.norm()) / norm if norm else (float("inf") if bool(off.any()) else 0.0)
    # In this form a nan, which compares false with everything, counts as a difference.
    if error <= tolerance:
        return None
    place = int(off.nan_to_num(float("inf")).argmax())
    index = unravel_index(place, actual.values.shape)
    expected_value, actual_value = float(wanted.values.flatten()[place]), float(actual.values.flatten()[place])
    return f"{expected_value:.4g} at {index}", f"{actual_value:.4g} (relative error of the whole {error:.3g})", error


def unravel_index(place: int, shape: torch.Size) -> list[int]:
    """The index in each dimension of `shape` of the flat index `place`."""
    index: list[int] = []
    for size in reversed(shape):
        index.insert(0, place % size)
        place //= size
    return index

"""Where two models that should say the same part ways: the first module, in the order of execution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.monitoring.trace import tensors_in
from pytest_llmdevice.text import dtype_name

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Seen:
    """One output of one module: its dtype and device as the model had them, its values in float32 on the cpu."""

    dtype: str
    device: str
    values: torch.Tensor


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first module whose output is another than the reference's.

    Attributes:
        module: its name in the model under test.
        kind: its class.
        expected: what the reference has there.
        actual: what the model has.
        error: the relative error of its output; inf where it is not a number, or of another shape or dtype.
    """

    module: str
    kind: str
    expected: str
    actual: str
    error: float

    def __str__(self) -> str:
        where = f"{self.module or 'the model'} ({self.kind})"
        return f"first differs at {where}: expected {self.expected}, found {self.actual}"


def first_divergence(
    model: nn.Module,
    reference: nn.Module,
    run: Callable[[Any], object],
    tolerance: float,
    rename: Callable[[str], str] = str,
) -> Divergence | None:
    """The first module of `model` whose output differs from that of the module of the same name in `reference`.

    Both are run once with `run(model)`. Modules are compared in the order in which those of the reference finish, so
    that a part comes before the whole that it is in.

    Args:
        model: the model under test.
        reference: what it should be like, on any device.
        run: one forward pass, of whatever inputs.
        tolerance: the largest relative error, ||actual - expected|| / ||expected||, that is no difference.
        rename: the name in `reference` of a module of `model`.
    """
    with recorded(reference) as expected:
        run(reference)
    # Where it raises, what was seen before is what matters here.
    with suppress(Exception), recorded(model) as found:
        run(model)
    names = {rename(name): name for name in found}
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    for known, outputs in expected.items():
        name = names.get(known)
        if name is None:
            continue
        for number, (wanted, seen) in enumerate(zip(outputs, found[name], strict=False)):
            difference = _difference(wanted, seen, tolerance)
            if difference is not None:
                what = f"output {number}: " if len(outputs) > 1 else ""
                return Divergence(name, kinds[name], what + difference[0], difference[1], difference[2])
    return None


@contextmanager
def recorded(model: nn.Module) -> Iterator[Mapping[str, tuple[Seen, ...]]]:
    """What every module of `model` puts out the first time it is called, by name, in the order of completion."""
    seen: dict[str, tuple[Seen, ...]] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if name not in seen:
                seen[name] = tuple(_seen(tensor) for _, tensor in tensors_in(output, "") if tensor.is_floating_point())

        return note

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _seen(tensor: torch.Tensor) -> Seen:
    import torch

    values = tensor.detach()
    return Seen(
        dtype_name(tensor.dtype),
        str(tensor.device),
        torch.empty(values.shape) if values.is_meta else values.float().cpu().clone(),
    )


def _difference(wanted: Seen, seen: Seen, tolerance: float) -> tuple[str, str, float] | None:
    """What was expected and found, in words, and the error; None where the two agree."""
    if wanted.values.shape != seen.values.shape:
        return str(tuple(wanted.values.shape)), str(tuple(seen.values.shape)), float("inf")
    if wanted.dtype != seen.dtype:
        return wanted.dtype, seen.dtype, float("inf")
    if not wanted.values.numel():
        return None
    off = (seen.values - wanted.values).abs()
    # Both may be the same infinity, whose difference is no number: a mask's.
    off = off.masked_fill(seen.values == wanted.values, 0.0)
    norm = float(wanted.values[wanted.values.isfinite()].norm())
    error = float(off.norm()) / norm if norm else (float("inf") if bool(off.any()) else 0.0)
    # Written so that a nan, which compares false to everything, is a difference.
    if error <= tolerance:
        return None
    place = int(off.nan_to_num(float("inf")).argmax())
    index = unravel(place, seen.values.shape)
    one, other = float(wanted.values.flatten()[place]), float(seen.values.flatten()[place])
    return f"{one:.4g} at {index}", f"{other:.4g} (relative error of the whole {error:.3g})", error


def unravel(place: int, shape: torch.Size) -> list[int]:
    """The index, along each dimension of `shape`, of the entry number `place`."""
    index: list[int] = []
    for size in reversed(shape):
        index.insert(0, place % size)
        place //= size
    return index

"""Defines `Trace`, the record of the tensors that a target passes to its model while it generates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

MOST_VALUES: Final = 2**16
"""Up to this number of elements, the values of ids, positions and masks are kept."""


@dataclass(frozen=True, slots=True)
class TracedTensor:
    """The description of a tensor that was passed to a module.

    Attributes:
        device: its device.
        dtype: its dtype.
        shape: its shape.
        values: a copy on the CPU, if it is a small tensor of integers or booleans or a mask; else None.
    """

    device: torch.device
    dtype: torch.dtype
    shape: tuple[int, ...]
    values: torch.Tensor | None = None

    @property
    def integers(self) -> bool:
        """Whether it holds integers or booleans."""
        return not (self.dtype.is_floating_point or self.dtype.is_complex)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a module that takes the prompt: the model, a submodule that contains the embedding, or the embedding.

    Attributes:
        function: `"generate"` or `"forward"`.
        module: the module's name; empty for the model.
        outer: whether the target made the call itself; the first calls inside such a call are recorded too.
        tensors: the tensors in its arguments, by parameter name; those inside a list or a dictionary are named by
            their path: `past[0]`.
        past: the number of positions in the cache among the arguments; None if unknown.
        within: the number of the target's own call in which this call happened, counted from 1.
    """

    function: str
    module: str
    outer: bool
    tensors: Mapping[str, TracedTensor]
    past: int | None
    within: int


@dataclass(slots=True)
class ModuleTrace:
    """The inputs and outputs of a module's first call, and the number of its calls.

    Attributes:
        inputs: the tensors in the arguments of the first call, by name.
        outputs: the tensors in its result, by name.
        finished: whether `outputs` is set.
        calls: how often the module was called.
    """

    inputs: Mapping[str, TracedTensor]
    outputs: Mapping[str, TracedTensor] = field(default_factory=dict)
    finished: bool = False
    calls: int = 0


@dataclass
class Trace:
    """The record of the tensors between a target and its model while the target generated.

    Attributes:
        calls: the calls of modules that take the prompt.
        modules: module name -> the inputs and outputs of its first call, in the order of first calls.
        caches: (layer, "keys", "values" or the name of a state, device, dtype) of each tensor in a cache that was
            passed to a call.
        exact_halves: (layer, the same name, dtype) of each float32 tensor in a cache whose values a 16-bit dtype
            holds exactly, which suggests that they were rounded to it.
        offloaded: whether such a cache is one that keeps layers on another device until they are needed.
        autocast: (type of device, dtype) -> the first module that ran under autocast with it.
        warnings: the texts of warnings, each once.
        compiled: whether a part of the model ran compiled, which hides its calls.
        embedding_device: the device on which the input embedding computed before the first call; None without one.
        training: the names of the modules that ran in training mode.
        first_pass: the `time.perf_counter` at the end of the first forward pass that returned logits (on a card, when
            it was queued); None without one.
    """

    calls: list[Call] = field(default_factory=list)
    modules: dict[str, ModuleTrace] = field(default_factory=dict)
    caches: dict[tuple[int, str, torch.device, torch.dtype], None] = field(default_factory=dict)
    exact_halves: dict[tuple[int, str, torch.dtype], None] = field(default_factory=dict)
    offloaded: bool = False
    autocast: dict[tuple[str, torch.dtype], str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    compiled: bool = False
    embedding_device: torch.device | None = None
    training: dict[str, None] = field(default_factory=dict)
    first_pass: float | None = None

    @property
    def outer(self) -> list[Call]:
        """The calls that the target made itself."""
        return [call for call in self.calls if call.outer]


def describe(tensor: torch.Tensor, *, mask: bool = False, values: bool = False) -> TracedTensor:
    """Describe `tensor`.

    Args:
        tensor: the tensor.
        mask: whether it is a mask, whose values are kept also if they are floating-point.
        values: whether to keep values, of a small tensor of integers or booleans or a mask.
    """
    kept = None
    if values and tensor.numel() <= MOST_VALUES and not tensor.is_meta:
        numbers = tensor.is_floating_point() or tensor.is_complex()
        if not numbers or mask:
            kept = tensor.detach().to("cpu", copy=True)
    return TracedTensor(tensor.device, tensor.dtype, tuple(tensor.shape), kept)


def tensors_in(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in `value` with its name, also inside lists, tuples and mappings, but not inside cache objects."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from tensors_in(inner, f"{name}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        for number, inner in enumerate(value):
            yield from tensors_in(inner, f"{name}[{number}]")

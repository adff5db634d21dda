"""What was seen of the tensors that a target hands to its model, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

KEPT_VALUES: Final = 2**16
"""Elements up to which the values of ids, positions and masks are kept."""


@dataclass(frozen=True, slots=True)
class TracedTensor:
    """One tensor that passed.

    Attributes:
        device: where it was.
        dtype: its dtype.
        shape: its shape.
        values: a copy of its own on the cpu of a small tensor of integers, booleans, or of a mask; None of others.
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
    """One call of a module that takes the prompt: the model, a part that has the embedding in it, or the embedding.

    Attributes:
        function: `"generate"` or `"forward"`.
        module: the module's name; empty for the model.
        outer: whether the target made it; the first ones that `generate` or the model itself make are noted too.
        tensors: what was handed over, by the name of the parameter; what is inside a list or a dictionary is named
            as it is reached: `past[0]`.
        past: how many positions the cache that came along holds, None where there is no telling.
        within: how many calls the target had made before, this one included.
    """

    function: str
    module: str
    outer: bool
    tensors: Mapping[str, TracedTensor]
    past: int | None
    within: int


@dataclass(slots=True)
class Passage:
    """What a module got and gave when it was called for the first time, and how often it was called."""

    inputs: Mapping[str, TracedTensor]
    outputs: Mapping[str, TracedTensor] = field(default_factory=dict)
    finished: bool = False
    calls: int = 0


@dataclass
class Trace:
    """What passed between a target and its model while the target generated.

    Attributes:
        calls: calls of what takes the prompt.
        modules: what each module got and gave, by its name, in the order of first calls.
        caches: (layer, "keys" or "values", device, dtype) of what a cache held when it came along with a call.
        coarse: (layer, "keys" or "values", dtype) of float32 tensors in a cache that a half holds exactly.
        offloaded: whether such a cache keeps its layers elsewhere, on purpose, until they are needed.
        autocast: the first module that ran under it, by (type of device, dtype).
        warnings: what libraries warned of, each once.
        compiled: whether a part of the model ran compiled, unobserved.
        home: where the input embedding computed before the first call; None where there is no embedding.
        training: the modules that ran in training mode, by name.
        first_pass: when (`time.perf_counter`) the first forward pass that gives logits was over; on a card, handed to
            it. None when there was none.
    """

    calls: list[Call] = field(default_factory=list)
    modules: dict[str, Passage] = field(default_factory=dict)
    caches: dict[tuple[int, str, torch.device, torch.dtype], None] = field(default_factory=dict)
    coarse: dict[tuple[int, str, torch.dtype], None] = field(default_factory=dict)
    offloaded: bool = False
    autocast: dict[tuple[str, torch.dtype], str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    compiled: bool = False
    home: torch.device | None = None
    training: dict[str, None] = field(default_factory=dict)
    first_pass: float | None = None

    @property
    def outer(self) -> list[Call]:
        """The calls that the target made itself."""
        return [call for call in self.calls if call.outer]


def seen(tensor: torch.Tensor, *, mask: bool = False, values: bool = False) -> TracedTensor:
    """`tensor`, with its values where they are asked for, few, and those of ids, positions or a mask."""
    kept = None
    if values and tensor.numel() <= KEPT_VALUES and not tensor.is_meta:
        numbers = tensor.is_floating_point() or tensor.is_complex()
        if not numbers or mask:
            kept = tensor.detach().to("cpu", copy=True)
    return TracedTensor(tensor.device, tensor.dtype, tuple(tensor.shape), kept)


def leaves(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in `value`, through lists, tuples and mappings, with its name. A cache is no such thing."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}[{key!r}]")
    elif isinstance(value, (tuple, list)):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{name}[{number}]")

"""Says how a packed weight was packed, and how it would be if its library were asked as a quantization asks it.

Nothing here knows a setting by name: a layer of the same width is packed by the library itself, and what its tensor
says of itself is what the one of the model has to say: groups, bits, zero points, what is done with activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.matrix.axes import Problem, Quantization
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.doors import decides, dtype_of, parts_of
from pytest_llmdevice.model.packing import weight_of

if TYPE_CHECKING:
    import torch
    from torch import nn

ELSEWHERE: Final = frozenset({"dtype", "size", "stride", "shape", "kernel_preference", "mm_config"})
"""What a packed tensor says that is no setting: its size and dtype, and which kernels compute with it."""

ROWS: Final = 256
"""Rows of a layer that is packed to see how: no setting depends on how many there are."""


def setting_problems(name: str, module: nn.Module, key: str, entry: Quantization, dtype: str) -> Iterator[Problem]:
    """What the packed weight `key` of `module`, called `name`, says otherwise than `entry` packs it.

    Args:
        name: of the module.
        module: a layer, or what keeps a stack of experts.
        key: the weight's name in it.
        entry: the quantization that it is to have.
        dtype: the dtype of what is computed with it, without `torch.`.
    """
    weight = weight_of(module, key)
    found = said_by(module, weight)
    columns = getattr(module, "in_features", None) if weight is None else weight.shape[-1]
    if not found or columns is None:
        return
    own = dtype
    if weight is not None and decides(weight) and dtype_of(weight).is_floating_point:
        own = dtype_name(dtype_of(weight))
    if own != dtype:
        yield Problem(f"{name}.{key}", f"a packed weight that computes in {dtype}", own, "quantization-dropped")
    rows = int(getattr(module, "out_features", ROWS) if weight is None else weight.shape[-2])
    wanted = _asked(entry.pack, int(columns), min(rows, ROWS), own)
    for setting, value in wanted.items():
        if setting not in ELSEWHERE and found.get(setting, value) != value:
            actual = f"{setting} {found[setting]}"
            yield Problem(f"{name}.{key}", f"{setting} {value}", actual, "quantization-dropped")


def said_by(module: nn.Module, weight: torch.Tensor | None) -> dict[str, str]:
    """What a packed layer says of how it was packed, by the names that its library has for it."""
    found: dict[str, Any] = {}
    own = getattr(module, "meta", None)
    if isinstance(own, Mapping):
        found |= {str(key): value for key, value in own.items() if value is None or isinstance(value, (int, str))}
    activations = getattr(module, "activation_qtype", found)
    if activations is not found:
        found["activation_qtype"] = getattr(activations, "name", "none")
    if weight is not None:
        found |= _of_tensor(weight)
    return {key: _in_words(key, value) for key, value in found.items()}


def _of_tensor(weight: Any) -> dict[str, Any]:
    try:
        said = weight.__tensor_flatten__()[1]
    except Exception:  # noqa: BLE001  # it is no such tensor, or refuses
        return {}
    found = dict(said) if isinstance(said, Mapping) else {}
    for name, part in parts_of(weight).items():
        if name.endswith("zero_point") and not part.is_meta:
            found[name] = "not zero" if bool((part != 0).any()) else "zero"
    return found


def _in_words(key: str, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        # Of a stack of experts the first dimension is that of the stack.
        value = tuple(value)[-2:] if key == "block_size" else tuple(value)
    return dtype_name(value)


@lru_cache(maxsize=256)
def _asked(pack: Callable[[Any, Any, str], object], columns: int, rows: int, dtype: str) -> Mapping[str, str]:
    """What a layer of that width says that `pack` has packed; nothing where it packs none."""
    import torch
    from torch import nn

    with torch.device("meta"):
        layer = nn.Linear(columns, rows, bias=False)
    numbers = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0), device="cpu")
    layer.weight = nn.Parameter(numbers.to(getattr(torch, dtype)), requires_grad=False)
    model = nn.Sequential(layer)
    try:
        pack(model, torch.device("cpu"), dtype)
    except Exception:  # noqa: BLE001  # what cannot be packed alone says nothing of how it should be
        return {}
    return said_by(model[0], weight_of(model[0], "weight"))

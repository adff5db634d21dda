"""Defines `Cell`, one point of the matrix, as plain hashable data with one shell-safe id."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.matrix.vocabulary import MODEL_PREFIXES, SHORT_DTYPES, indexed, kinds

if TYPE_CHECKING:
    import torch

AXES: Final = ("model", "device", "dtype", "quantization", "strategy", "attention")

FIELDS: Final = (*AXES, "kind", "simulated")
"""Names of the fields of a cell, in their order."""

AXIS_KEYS: Final = {
    "models": "model",
    "devices": "device",
    "dtypes": "dtype",
    "quantization": "quantization",
    "strategies": "strategy",
    "attention": "attention",
}
"""Key of an axis in a matrix file or a marker -> attribute of a cell."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_UNSAFE_BUT_TRAITS = re.compile(r"[^A-Za-z0-9_~+-]+")


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination to load and check. Plain strings and a bool, so it crosses processes and sorts.

    Attributes:
        model: a zoo family or an architecture (`"llama"`), with its traits (`"llama~right"`), `"path:DIR"`,
            `"hub:org/name@revision"` or `"hub-config:org/name@revision"`.
        device: PyTorch's spelling, always with the index where there can be several: `"cpu"`,
            `"cuda:1"`, `"mps"`. A ROCm card is `"cuda:N"` here, as it is for PyTorch.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`.
        quantization: `"none"` or one of those in the registry, such as `"int8"` or `"nf4"`.
        strategy: how weights reach the device, one of those in the registry.
        attention: an attention implementation of transformers, or `"default"`.
        kind: a kind of device, such as `"cpu"`, `"cuda"` or `"rocm"`. Says which hardware `cuda:N` means;
            taken from `device` when empty.
        simulated: whether the device is a simulated one. A simulated pass is not a hardware pass.
    """

    model: str
    device: str
    dtype: str
    quantization: str = "none"
    strategy: str = "to"
    attention: str = "default"
    kind: str = ""
    simulated: bool = False
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.kind:
            object.__setattr__(self, "kind", self.device.partition(":")[0])
        # Kept, because pytest hashes a parameter's value nine times while it orders the tests.
        object.__setattr__(self, "_hash", hash(tuple(self.values().values())))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Cell], tuple[str | bool, ...]]:
        # Made anew in the other process: hashes of strings differ between processes.
        return Cell, tuple(self.values().values())

    def values(self) -> dict[str, str | bool]:
        """The value of each field by its name, in their order: `Cell(**cell.values()) == cell`."""
        return {name: getattr(self, name) for name in FIELDS}

    @property
    def id(self) -> str:
        """The axes joined by dots: `llama.cuda0.bf16.nf4.auto`; `.sim` ends a simulated one."""
        parts = [
            _model_slug(self.model),
            self.spec.replace(":", ""),
            SHORT_DTYPES.get(self.dtype, self.dtype),
            self.quantization,
            self.strategy,
        ]
        if self.attention != "default":
            parts.append(self.attention)
        if self.simulated:
            parts.append("sim")
        return ".".join(parts)

    @property
    def index(self) -> int:
        """The device's index; 0 where the spelling has none."""
        return int(self.device.partition(":")[2] or 0)

    @property
    def spec(self) -> str:
        """The device as a matrix spells it: like `device`, but `rocm:0` for a ROCm card."""
        return spelled(self.kind, self.device)

    @property
    def torch_device(self) -> torch.device:
        """`device` as a `torch.device`. Imports torch."""
        import torch

        return torch.device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as a `torch.dtype`. Imports torch."""
        import torch

        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype

    def __str__(self) -> str:
        return self.id


def spelled(kind: str, device: str) -> str:
    """A device as a matrix spells it: `"rocm:1"` for the device `cuda:1` of the kind `rocm`, `"mps"` for `mps`.

    Records of other machines may speak of kinds that no plugin here knows; those are spelled as PyTorch does it.
    """
    _, colon, index = device.partition(":")
    numbered = indexed(kind) if kind in kinds() else bool(colon)
    return f"{kind}:{int(index or 0)}" if numbered else kind


REFERENCE: Final = Cell("llama", "cpu", "float32")
"""The cell that tests run on when no matrix was asked for."""


def _model_slug(model: str) -> str:
    if model.startswith(MODEL_PREFIXES):
        # Dots and slashes would break the id apart and the shell's `-k`; the readable part stays.
        unsafe = _UNSAFE_BUT_TRAITS if model.startswith("hub-config:") else _UNSAFE
        return unsafe.sub("-", model).strip("-")
    return model

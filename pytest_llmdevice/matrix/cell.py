"""A cell: one point of the matrix, as plain hashable data with one shell-safe id."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pytest_llmdevice.matrix.vocabulary import INDEXED_KINDS, MODEL_PREFIXES, SHORT_DTYPES

if TYPE_CHECKING:
    import torch

AXES: Final = ("model", "device", "dtype", "quantization", "strategy", "attention")

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


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination to load and check. Plain strings and a bool, so it crosses processes and sorts.

    Attributes:
        model: a zoo family (`"llama"`), `"path:DIR"` or `"hub:org/name@revision"`.
        device: PyTorch's spelling, always with the index where there can be several: `"cpu"`,
            `"cuda:1"`, `"mps"`. A ROCm card is `"cuda:N"` here, as it is for PyTorch.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`.
        quantization: `"none"`, `"int8"`, `"nf4"`, `"nf4-double"` or `"fp4"`.
        strategy: how weights reach the device, one of `vocabulary.STRATEGIES`.
        attention: an attention implementation of transformers, or `"default"`.
        kind: `"cpu"`, `"cuda"`, `"rocm"`, `"mps"` or `"xpu"`. Says which hardware `cuda:N` means;
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
        object.__setattr__(self, "_hash", hash(self._values()))

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Cell], tuple[str | bool, ...]]:
        # Made anew in the other process: hashes of strings differ between processes.
        return Cell, self._values()

    def _values(self) -> tuple[str | bool, ...]:
        return (
            self.model,
            self.device,
            self.dtype,
            self.quantization,
            self.strategy,
            self.attention,
            self.kind,
            self.simulated,
        )

    @property
    def id(self) -> str:
        """The axes joined by dots: `llama.cuda0.bf16.nf4.auto`; `.sim` ends a simulated one."""
        parts = [
            _model_slug(self.model),
            f"{self.kind}{self.index}" if self.kind in INDEXED_KINDS else self.kind,
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
        return f"{self.kind}:{self.index}" if self.kind in INDEXED_KINDS else self.kind

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


REFERENCE: Final = Cell("llama", "cpu", "float32")
"""The cell that tests run on when no matrix was asked for."""


def _model_slug(model: str) -> str:
    if model.startswith(MODEL_PREFIXES):
        # Dots and slashes would break the id apart and the shell's `-k`; the readable part stays.
        return _UNSAFE.sub("-", model).strip("-")
    return model

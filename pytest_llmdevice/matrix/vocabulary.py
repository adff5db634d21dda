"""Lists the names that an axis can take, from the registry in force, and how each is written in a cell's id."""

from __future__ import annotations

from typing import Final, Literal

from pytest_llmdevice.matrix.registry import current

DENSE: Final = "none"
"""The quantization of a cell whose weights are not quantized."""

MODEL_PREFIXES: Final = ("path:", "hub:", "hub-config:")
"""A model is a family or an architecture, or `path:DIR`, or `hub:org/name@revision`, or the same as `hub-config:`."""

DTYPES: Final = ("float32", "bfloat16", "float16")

ATTENTIONS: Final = ("default", "eager", "sdpa", "flash_attention_2", "flex_attention")
"""`default` leaves the choice to the loader (see `pytest_llmdevice.loading.attention`)."""

RandomState = Literal["kept", "free"]
"""What a matrix says of global random numbers: nothing may draw or seed them, or anything may."""

SHORT_DTYPES: Final = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""How a dtype is written in a cell's id."""


def models() -> tuple[str, ...]:
    """The families of the zoo, in their order."""
    return current().names("family")


def kinds() -> tuple[str, ...]:
    """The kinds of device, the cpu first. A ROCm card is a kind of its own although PyTorch calls it `cuda`."""
    return current().names("device kind")


def indexed(kind: str) -> bool:
    """Whether a machine can hold several devices of `kind`, which are then written with an index."""
    entry = current().get("device kind", kind)
    return entry is not None and bool(entry.indexed)


def indexed_kinds() -> tuple[str, ...]:
    """The kinds of which a machine can hold several devices."""
    return tuple(kind for kind in kinds() if indexed(kind))


def torch_type(kind: str) -> str:
    """PyTorch's type of a device of `kind`: `"cuda"` for a ROCm card."""
    entry = current().get("device kind", kind)
    return kind if entry is None else str(entry.torch_type)


def quantizations() -> tuple[str, ...]:
    """The quantizations, `"none"` first."""
    return current().names("quantization")


def strategies() -> tuple[str, ...]:
    """The strategies, in their order."""
    return current().names("strategy")


def checks() -> tuple[str, ...]:
    """The checks of the suite, in the order in which they run; `[[expect]]` refers to them by name."""
    return current().names("check")


def dtype_name(dtype: object) -> str:
    """A dtype as a matrix spells it: `"bfloat16"` for `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")

"""What functions that PyTorch composes say of a result that is handed over on another device than their operands.

Asked of PyTorch 2.13's CUDA build (tests/simulation/ground_truth/executed). Operations with a kernel of their own
compare their result with the others, see `rules`; most composed ones say what `otherwise` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import torch

_SAME: Final = "{name}: Expected result and input tensors to be on the same device, but got result on "
_LINALG: Final = _SAME + "{result} and input on {values}"
_TURNED: Final = _SAME + "{values} and input on {result}"
_FOUND: Final = "expected device {values} but found {result}"
_ITERATOR: Final = (
    "Expected all tensors to be on the same device, but found at least two devices, {values} and {result}!"
)

TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "cholesky_solve": (_LINALG, "cholesky_solve"),
    "linalg_cond": (_LINALG, "linalg.cond"),
    "linalg_matrix_power": (_LINALG, "matrix_power"),
    "linalg_matrix_rank": (_LINALG, "torch.linalg.matrix_rank"),
    "linalg_pinv": (_LINALG, "linalg.pinv"),
    "linalg_tensorsolve": (_LINALG, "tensorsolve"),
    "linalg_norm": (_TURNED, "linalg.norm"),
    "linalg_matrix_norm": (_TURNED, "linalg.matrix_norm"),
    "linalg_vecdot": (_TURNED, "linalg.vecdot"),
    "diff": (_FOUND, ""),
    "logcumsumexp": (_FOUND, ""),
    "special_ndtr": (_ITERATOR, ""),
    "quantile": ("quantile() out tensor must be on the same device as the input tensor", ""),
    "nanquantile": ("quantile() out tensor must be on the same device as the input tensor", ""),
}
"""Function -> what it says, and the name that it gives itself."""


def first_check(name: str, values: torch.device, result: torch.device) -> RuntimeError | None:
    """The error of a function that compares its result before it computes; None of one that does not.

    Args:
        name: the function's name.
        values: the device of its first operand.
        result: that of the tensor in `out=`.
    """
    if values == result or name not in TEXTS:
        return None
    text, called = TEXTS[name]
    return RuntimeError(text.format(name=called, values=values, result=result))


def otherwise(values: torch.device, result: torch.device) -> RuntimeError:
    """What the others say, afterwards."""
    return RuntimeError(f"Expected out tensor to have device {values}, but got {result} instead")

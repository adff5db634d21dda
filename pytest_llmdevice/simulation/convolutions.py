"""The device rule of convolutions, whose check depends on the backend that PyTorch chooses for the operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from pytest_llmdevice.simulation.refusals import missing_operation
from pytest_llmdevice.simulation.rules import CPU, Operand, type_name, wrapper_error, wrapper_rule

MANY_NUMBERS: Final = 20480
"""So many numbers of an input make oneDNN worth its while (aten/src/ATen/native/Convolution.cpp: use_mkldnn)."""


def convolution_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """Compare the operands as the backend does that PyTorch chooses: Convolution.cpp, `_select_conv_backend`.

    Raises:
        RuntimeError: PyTorch's.
        NotImplementedError: PyTorch's, in part: it goes on with a list of backends that depends on its build.
    """
    values, weight = tensors[0], tensors[1]
    by_position = dict(zip(_ARGUMENTS, args, strict=False))
    transposed, groups = bool(by_position.get("transposed")), int(by_position.get("groups", 1))
    dilated = any(step != 1 for step in by_position.get("dilation", ()))
    spatial = values.tensor.dim() - 2
    if values.device == CPU and not _onednn(values.tensor, weight.tensor, by_position):
        method = _own_kernel(spatial, transposed=transposed, dilated=dilated)
        if method is None:
            raise missing_operation("slow_conv3d_forward")
        return wrapper_rule(method, tensors)
    depthwise = (
        values.device != CPU
        and not transposed
        and groups > 1
        and values.tensor.shape[1] == groups
        and spatial in (1, 2)
    )
    if depthwise and values.tensor.dtype not in (torch.float16, torch.bfloat16):
        return wrapper_rule(torch.ops.aten._conv_depthwise2d.default, tensors)
    for operand in tensors[1:]:
        own, other = type_name(values.tensor, values.device), type_name(operand.tensor, operand.device)
        if own != other:
            ending = ""
            if values.device == CPU:
                ending = f" or input should be a MKLDNN tensor and {operand.name} is a dense tensor"
            raise RuntimeError(f"Input type ({own}) and {operand.name} type ({other}) should be the same{ending}")
    if weight.device != values.device:
        method = torch.ops.aten.cudnn_convolution_transpose if transposed else torch.ops.aten.cudnn_convolution
        raise wrapper_error(method.default, weight, values.device)
    return values.device


_ARGUMENTS: Final = (
    "input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups",
)  # fmt: skip


def _onednn(values: torch.Tensor, weight: torch.Tensor, given: dict[str, Any]) -> bool:
    """Whether the CPU leaves the convolution to oneDNN."""
    if values.dtype in (torch.bfloat16, torch.float16):
        onednn: Any = torch.ops.mkldnn
        half = values.dtype == torch.float16
        return bool(onednn._is_mkldnn_fp16_supported() if half else onednn._is_mkldnn_bf16_supported())
    if values.dtype != torch.float32:
        return False
    stride, dilation = given.get("stride", ()), given.get("dilation", ())
    if given.get("transposed") and any(
        more >= step for more, step in zip(given.get("output_padding", ()), stride, strict=False)
    ):
        return False
    moves = any(step != 1 for step in (*stride, *dilation)) or values.shape[0] >= _LARGE_BATCH
    # One spatial dimension is taken for two, the first of size 1.
    window = (1, *weight.shape[2:]) if weight.dim() == 3 else tuple(weight.shape[2:])
    if not (moves or window[-1] != 1 or window[-2] != 1 or torch.get_num_threads() > 1):
        return False
    if given.get("groups", 1) > 1 or (window[-1] > _WIDE and window[-2] > _WIDE) or values.shape[0] > 1:
        return True
    numbers = 1
    for size in values.shape[:4]:
        numbers *= size
    return numbers > MANY_NUMBERS


_LARGE_BATCH: Final = 16
_WIDE: Final = 3


def _own_kernel(spatial: int, *, transposed: bool, dilated: bool) -> Any:
    """PyTorch's own kernel, whose wrapper compares the devices; None for the one that only the CPU has."""
    aten = torch.ops.aten
    if transposed:
        return aten.slow_conv_transpose3d.default if spatial == 3 else aten.slow_conv_transpose2d.default
    if dilated:
        return aten.slow_conv_dilated3d.default if spatial == 3 else aten.slow_conv_dilated2d.default
    return None if spatial == 3 else aten._slow_conv2d_forward.default

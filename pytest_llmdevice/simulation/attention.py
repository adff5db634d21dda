"""Attention on simulated cards, which have more backends for it than the CPU."""

from __future__ import annotations

from typing import Any, Final

import torch

from pytest_llmdevice.simulation.functions import FunctionMode
from pytest_llmdevice.simulation.rules import Operand, attended_apart, wrapper_rule

_ATTENDED: Final = ("query", "key", "value", "attn_mask")


def scaled_dot_product_attention(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`scaled_dot_product_attention`: it draws random numbers only with dropout, and a card has more backends.

    Raises:
        RuntimeError: PyTorch's, for tensors that are on different devices.
    """
    given: dict[str, Any] = dict(zip(_ATTENDED, args, strict=False))
    given.update((key, kwargs[key]) for key in _ATTENDED if key in kwargs)
    _refuse_apart(mode, *(given.get(name) for name in _ATTENDED[:3]))
    if _takes_masks(mode, **given):
        _refuse_mask_elsewhere(mode, **given)
    elif isinstance(given.get("attn_mask"), torch.Tensor) and given["attn_mask"].is_meta:
        # A kernel of the CPU's would take it.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return mode.compute(func, args, kwargs)
    has_cpu_backend = torch._C._get_math_sdp_enabled() or torch._C._get_flash_sdp_enabled()
    if not has_cpu_backend and mode.common_card(args, kwargs) is not None:
        # The backends that the user chose with `sdpa_kernel` have no kernel on the CPU.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return mode.compute(func, args, kwargs)
    dropout = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
    return mode.draw(func, args, kwargs) if dropout else mode.compute(func, args, kwargs)


def _refuse_apart(mode: FunctionMode, *tensors: Any) -> None:
    """What is attended to is compared before a backend is chosen: dtypes first, then devices."""
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        return
    query, key, value = (mode.device_of(tensor) for tensor in tensors)
    if len({tensor.dtype for tensor in tensors}) == 1 and not query == key == value:
        raise attended_apart(query, key, value)


def _takes_masks(mode: FunctionMode, query: Any, key: Any, value: Any, attn_mask: Any = None) -> bool:
    """Whether PyTorch chooses the kernel of NVIDIA's and AMD's cards that takes a mask, and there is one."""
    tensors = (query, key, value)
    if not isinstance(attn_mask, torch.Tensor) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        return False
    card = mode.common_card(tensors)
    if card is None or card.type != "cuda" or not torch._C._get_mem_efficient_sdp_enabled():
        return False
    # It reads rows in pieces of 16 bytes; other shapes are left to operations.
    return all(tensor.dim() == 4 and tensor.shape[-1] * tensor.element_size() % 16 == 0 for tensor in tensors)


def _refuse_mask_elsewhere(mode: FunctionMode, query: Any, key: Any, value: Any, attn_mask: Any) -> None:
    """Refuse a mask as that kernel does."""
    named = zip(_ATTENDED, (query, key, value), strict=False)
    operands = [Operand(name, tensor, mode.device_of(tensor)) for name, tensor in named]
    operands.append(Operand("attn_bias", attn_mask, mode.device_of(attn_mask)))
    wrapper_rule(torch.ops.aten._scaled_dot_product_efficient_attention.default, operands)

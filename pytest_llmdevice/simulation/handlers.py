"""Which functions are not run as they are, and what is done in their stead."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation import answers, backward, transfers
from pytest_llmdevice.simulation.functions import Functions
from pytest_llmdevice.simulation.names import named
from pytest_llmdevice.simulation.rules import Operand, wrapper


def attention(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Attention draws random numbers only where it is told to drop some, and has more backends on a card."""
    runs_here = torch._C._get_math_sdp_enabled() or torch._C._get_flash_sdp_enabled()
    if not runs_here and mode.card(args, kwargs) is not None:
        # Those that were chosen, with `sdpa_kernel`, have no kernel on the CPU.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return mode.compute(func, args, kwargs)
    dropout = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
    return mode.draw(func, args, kwargs) if dropout else mode.compute(func, args, kwargs)


def drop(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.nn.functional.dropout` and its like draw only while a model is trained."""
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    # Otherwise what comes back is the tensor itself, or a view of it.
    return mode.draw(func, args, kwargs) if training else func(*args, **kwargs)


def resize(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.resize_` and its like: in place, and more of the card's memory."""
    tensor = args[0]
    size, stride = tensor.size(), tensor.stride()
    result = mode.run(func, args, kwargs)
    try:
        mode.tags.resized(tensor)
    except RuntimeError:
        mode.run(torch.Tensor.as_strided_, (tensor, size, stride), {})
        raise
    return result


def ctc_loss(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Its lengths are read on the CPU, wherever they are; as tensors they would be operands."""
    lengths = (value.tolist() if isinstance(value, torch.Tensor) else value for value in args[2:4])
    return mode.compute(func, (*args[:2], *lengths, *args[4:]), kwargs)


def block_diagonal(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.block_diag`, which compares devices before anything else."""
    for index, tensor in enumerate(args):
        if mode.place_of(tensor) != mode.place_of(args[0]):
            raise RuntimeError(
                f"torch.block_diag: input tensors must all be on the same device. Input 0 is on device "
                f"{mode.place_of(args[0])} and input {index} is on device {mode.place_of(tensor)}"
            )
    return mode.compute(func, args, kwargs)


def mesh(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.meshgrid`, which compares devices as well."""
    tensors = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    if len({mode.place_of(tensor) for tensor in tensors}) > 1:
        raise RuntimeError("torch.meshgrid: expected all tensors to have the same device")
    return mode.compute(func, args, kwargs)


def pack_padded(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A packed sequence: its values are on the card, its batch sizes always on the CPU."""
    card = mode.tags.of(args[0])
    lengths = mode.tags.of(args[1])
    if lengths is not None:
        name = torch.Tensor.type(args[1]).removeprefix("torch.").removesuffix("Tensor")
        raise RuntimeError(
            f"'lengths' argument should be a 1D CPU int64 tensor, but got {args[1].dim()}D {lengths} {name} tensor"
        )
    values, sizes = mode.run(func, args, kwargs)
    return (values if card is None else mode.tags.put(values, card)), sizes


def convolution(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A convolution compares the types of its operands before it computes anything."""
    given, weight, bias = (
        args[position] if len(args) > position else kwargs.get(name)
        for position, name in enumerate(("input", "weight", "bias"))
    )
    assert given is not None
    assert weight is not None
    odd_bias = bias is not None and bias.dtype != given.dtype
    if given.dtype != weight.dtype and not odd_bias:
        here = mode.card((given, weight))
        if here is not None:
            types = (torch.Tensor.type(value).replace("torch.", f"torch.{here.type}.") for value in (given, weight))
            raise RuntimeError("Input type ({}) and weight type ({}) should be the same".format(*types))
    return mode.compute(func, args, kwargs)


def rms_norm(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One kernel on a card, where the CPU has several and none of them would speak of the weight."""
    given, weight = args[0], args[2] if len(args) > 2 else kwargs.get("weight")
    if isinstance(weight, torch.Tensor) and weight.dtype == given.dtype:
        operands = [
            Operand(name, value, mode.place_of(value)) for name, value in (("input", given), ("weight", weight))
        ]
        wrapper(torch.ops.aten._fused_rms_norm.default, operands)
    return mode.compute(func, args, kwargs)


def pad_packed(mode: Functions, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The way back: the lengths stay on the CPU."""
    card = mode.tags.of(args[0])
    values, lengths = mode.run(func, args, kwargs)
    return (values if card is None else mode.tags.put(values, card)), lengths


def handlers() -> dict[Any, Any]:
    """Function -> what to do in its stead: `(mode, function, args, kwargs) -> result`."""
    base: Any = torch._C.TensorBase
    tensor = torch.Tensor
    table = {
        tensor.to: transfers.to,
        tensor.cuda: transfers.cuda,
        tensor.xpu: transfers.cuda,
        tensor.cpu: transfers.cpu,
        tensor.type_as: transfers.as_type,
        tensor.type: transfers.type_name,
        vars(base)["grad"].__set__: answers.set_gradient,
        tensor.get_device: answers.get_device,
        torch.get_device: answers.get_device,
        torch.device: answers.new_device,
        torch._C._nn._parse_to: answers.parse_to,
        torch.as_tensor: transfers.as_tensor,
        torch.asarray: transfers.as_tensor,
        torch.tensor: transfers.new_tensor,
        tensor.new_tensor: transfers.new_tensor_beside,
        torch.block_diag: block_diagonal,
        torch.meshgrid: mesh,
        torch.ctc_loss: ctc_loss,
        tensor.numpy: answers.numpy,
        tensor.__array__: answers.numpy,
        tensor.__repr__: answers.represent,
        tensor.pin_memory: transfers.pin_memory,
        tensor.is_pinned: answers.is_pinned,
        tensor.is_shared: answers.is_shared,
        tensor.share_memory_: answers.share_memory,
        tensor.record_stream: answers.record_stream,
        tensor.backward: backward.unwatched,
        torch.autograd.grad: backward.unwatched,
        **dict.fromkeys(named(["resize_", "resize_as_"]), resize),
        torch._VF._pack_padded_sequence: pack_padded,
        torch._VF._pad_packed_sequence: pad_packed,
        tensor.__format__: answers.format_,
        tensor.__dlpack__: answers.share_memory_outside,
        vars(tensor)["__cuda_array_interface__"].__get__: answers.share_memory_outside,
        torch.nn.functional.scaled_dot_product_attention: attention,
    }
    dropouts = ("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d")
    table.update(dict.fromkeys(named(dropouts, (torch.nn.functional,)), drop))
    for name in ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"):
        table.update(dict.fromkeys(named([name]), convolution))
    table.update(dict.fromkeys(named(["rms_norm"]), rms_norm))
    for kind in ("cuda", "cpu", "mps", "xpu"):
        table[getattr(base, f"is_{kind}").__get__] = answers.is_on(kind)
    return table

"""Lists the torch functions that a simulation replaces by handlers, and defines the handlers of some operations."""

from __future__ import annotations

from typing import Any

import torch

from pytest_llmdevice.simulation import backward, queries, refusals, transfers
from pytest_llmdevice.simulation.attention import scaled_dot_product_attention
from pytest_llmdevice.simulation.composites import composite_handlers
from pytest_llmdevice.simulation.function_names import functions_named
from pytest_llmdevice.simulation.functions import FunctionMode
from pytest_llmdevice.simulation.norms import norm_handlers
from pytest_llmdevice.simulation.process_groups import functional_handlers
from pytest_llmdevice.simulation.recurrent import recurrent_handlers
from pytest_llmdevice.simulation.rules import Operand, scalar_name, type_name, wrapper_rule
from pytest_llmdevice.simulation.scalars import scalar_handlers


def dropout(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.nn.functional.dropout` and its variants: they draw random numbers only in training mode."""
    training = kwargs.get("training", args[2] if len(args) > 2 else True)
    # Otherwise the result is the tensor itself or a view of it, and has its device already.
    return mode.draw(func, args, kwargs) if training else func(*args, **kwargs)


def tensor_resize(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`Tensor.resize_` and `resize_as_`: they change how much of the card's memory the tensor holds.

    Raises:
        torch.OutOfMemoryError: the card is full; the tensor keeps its size.
    """
    tensor = args[0]
    size, stride = tensor.size(), tensor.stride()
    result = mode.run(func, args, kwargs)
    try:
        mode.tags.resized(tensor)
    except RuntimeError:
        mode.run(torch.Tensor.as_strided_, (tensor, size, stride), {})
        raise
    return result


def ctc_loss(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`ctc_loss`: it moves its targets, and reads its lengths on the CPU, from whatever device they are on."""
    if len(args) < len(_ALIGNED):
        return mode.compute(func, args, kwargs)
    values, targets = args[:2]
    lengths = (value.tolist() if isinstance(value, torch.Tensor) else value for value in args[2:4])
    card = mode.tags.of(values)
    if mode.tags.of(targets) != card:
        targets = mode.run(torch.Tensor.clone, (targets,), {})
        targets = targets if card is None else mode.tags.put(targets, card)
    return mode.compute(func, (values, targets, *lengths, *args[4:]), kwargs)


_ALIGNED = ("log_probs", "targets", "input_lengths", "target_lengths")


def block_diag(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.block_diag`: it compares devices before anything else, unless one of them is `meta`, whose kernel does.

    Raises:
        RuntimeError: PyTorch's, for tensors on different devices.
    """
    without_numbers = any(mode.device_of(tensor).type == "meta" for tensor in args)
    for index, tensor in enumerate(args if not without_numbers else ()):
        if mode.device_of(tensor) != mode.device_of(args[0]):
            raise RuntimeError(
                f"torch.block_diag: input tensors must all be on the same device. Input 0 is on device "
                f"{mode.device_of(args[0])} and input {index} is on device {mode.device_of(tensor)}"
            )
    return mode.compute(func, args, kwargs)


def meshgrid(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.meshgrid`: it compares devices before anything else.

    Raises:
        RuntimeError: PyTorch's, for tensors on different devices.
    """
    tensors = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    if len({mode.device_of(tensor) for tensor in tensors}) > 1:
        raise RuntimeError("torch.meshgrid: expected all tensors to have the same device")
    return mode.compute(func, args, kwargs)


def take_along_dim(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.take_along_dim`: it compares devices before it calls an operation, in words of its own.

    Raises:
        RuntimeError: PyTorch's, for indices on another device than the tensor.
    """
    tensor, indices = (
        args[position] if len(args) > position else kwargs.get(name)
        for position, name in enumerate(("input", "indices"))
    )
    if tensor is None:
        return mode.compute(func, args, kwargs)
    others = [each for each in (indices, kwargs.get("out")) if isinstance(each, torch.Tensor)]
    for each in others:
        device, other = mode.device_of(tensor), mode.device_of(each)
        if device != other:
            raise RuntimeError(
                f"Expected tensor to have {device} Device, but got tensor with {other} Device (while checking "
                "arguments for torch.take_along_dim():)"
            )
    return mode.compute(func, args, kwargs)


def pack_padded_sequence(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`pack_padded_sequence`: the values of the result are on the card, its batch sizes always on the CPU.

    Raises:
        RuntimeError: PyTorch's, for lengths that are on a card.
    """
    card = mode.tags.of(args[0])
    lengths = mode.tags.of(args[1])
    if lengths is not None:
        name = scalar_name(args[1].dtype)
        raise RuntimeError(
            f"'lengths' argument should be a 1D CPU int64 tensor, but got {args[1].dim()}D {lengths} {name} tensor"
        )
    values, sizes = mode.run(func, args, kwargs)
    return (values if card is None else mode.tags.put(values, card)), sizes


def convolution(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`conv1d` and its variants: they compare the dtypes of their operands before they compute anything.

    Raises:
        RuntimeError: PyTorch's, for an input and a weight of different dtypes.
    """
    values, weight, bias = (
        args[position] if len(args) > position else kwargs.get(name)
        for position, name in enumerate(("input", "weight", "bias"))
    )
    assert values is not None
    assert weight is not None
    card = mode.common_card([values, weight, *(() if bias is None else (bias,))])
    # Of one and two dimensions, the bias is compared before, on whatever device.
    bias_first = func.__name__ in ("conv1d", "conv2d") and bias is not None and bias.dtype != values.dtype
    if card is not None and not bias_first:
        groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
        if card.type == "cuda" and _is_depthwise(func, values, groups):
            refusals.refuse_numbers("conv_depthwise2d_forward_cuda", values.dtype)
            refusals.refuse_other_dtype(values.dtype, weight.dtype)
        _refuse_dtypes(card, values, {"weight": weight, "bias": bias})
    return mode.compute(func, args, kwargs)


def _refuse_dtypes(card: torch.device, values: torch.Tensor, parameters: dict[str, Any]) -> None:
    for name, parameter in parameters.items():
        if parameter is not None and parameter.dtype != values.dtype:
            own, other = type_name(values, card), type_name(parameter, card)
            raise RuntimeError(f"Input type ({own}) and {name} type ({other}) should be the same")


def _is_depthwise(func: Any, values: torch.Tensor, groups: Any) -> bool:
    spatial = {"conv1d": 1, "conv2d": 2}.get(func.__name__)
    channels = values.shape[-1 - spatial] if spatial and values.dim() > spatial else 1
    return channels > 1 and channels == groups


def rms_norm(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`rms_norm`: a card has one kernel for it, the CPU several, and only the card's error names the weight.

    Raises:
        RuntimeError: PyTorch's, for an input and a weight on different devices.
    """
    values, weight = args[0], args[2] if len(args) > 2 else kwargs.get("weight")
    card = mode.common_card(args, kwargs)
    if isinstance(weight, torch.Tensor) and weight.dtype != values.dtype and card is not None and card.type == "cuda":
        refusals.refuse_numbers("rms_norm", values.dtype)
    if isinstance(weight, torch.Tensor) and weight.dtype == values.dtype:
        operands = [
            Operand(name, value, mode.device_of(value)) for name, value in (("input", values), ("weight", weight))
        ]
        wrapper_rule(torch.ops.aten._fused_rms_norm.default, operands)
    return mode.compute(func, args, kwargs)


def pad_packed_sequence(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`pad_packed_sequence`: the lengths in the result stay on the CPU."""
    card = mode.tags.of(args[0])
    values, lengths = mode.run(func, args, kwargs)
    return (values if card is None else mode.tags.put(values, card)), lengths


def scaled_mm(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch._scaled_mm`: products in float8, which older cards have no kernel for.

    Raises:
        RuntimeError: PyTorch's, on an NVIDIA or AMD card that lacks it.
    """
    card = mode.common_card(args, kwargs)
    if card is not None and card.type == "cuda" and "float8" in mode.machine.cards[card.index].lacking:
        raise RuntimeError(
            "torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9, or ROCm MI300+"
        )
    return mode.compute(func, args, kwargs)


def handler_table() -> dict[Any, Any]:
    """Torch function -> its handler `(mode, function, args, kwargs) -> result`."""
    base: Any = torch._C.TensorBase
    tensor = torch.Tensor
    table = {
        tensor.to: transfers.tensor_to,
        tensor.cuda: transfers.tensor_cuda,
        tensor.xpu: transfers.tensor_cuda,
        tensor.cpu: transfers.tensor_cpu,
        tensor.type_as: transfers.tensor_type_as,
        tensor.type: transfers.tensor_type,
        vars(base)["grad"].__set__: queries.tensor_set_grad,
        tensor.get_device: queries.tensor_get_device,
        torch.get_device: queries.tensor_get_device,
        torch.device: queries.torch_device,
        torch._C._nn._parse_to: queries.module_parse_to,
        torch.as_tensor: transfers.torch_as_tensor,
        torch.asarray: transfers.torch_as_tensor,
        torch.tensor: transfers.torch_tensor,
        tensor.new_tensor: transfers.tensor_new_tensor,
        torch.block_diag: block_diag,
        torch.meshgrid: meshgrid,
        **dict.fromkeys((torch.ctc_loss, torch.nn.functional.ctc_loss), ctc_loss),
        torch._scaled_mm: scaled_mm,
        tensor.numpy: queries.tensor_numpy,
        tensor.__array__: queries.tensor_numpy,
        tensor.__repr__: queries.tensor_repr,
        tensor.pin_memory: transfers.tensor_pin_memory,
        tensor.is_pinned: queries.tensor_is_pinned,
        tensor.is_shared: queries.tensor_is_shared,
        tensor.share_memory_: queries.tensor_share_memory,
        tensor.record_stream: queries.tensor_record_stream,
        tensor.backward: backward.backward_pass,
        torch.autograd.grad: backward.backward_pass,
        **dict.fromkeys(functions_named(["resize_", "resize_as_"]), tensor_resize),
        torch._VF._pack_padded_sequence: pack_padded_sequence,
        torch._VF._pad_packed_sequence: pad_packed_sequence,
        tensor.__format__: queries.tensor_format,
        tensor.__dlpack__: queries.refuse_export,
        vars(tensor)["__cuda_array_interface__"].__get__: queries.refuse_export,
        torch.nn.functional.scaled_dot_product_attention: scaled_dot_product_attention,
    }
    dropouts = ("dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d")
    table.update(dict.fromkeys(functions_named(dropouts, (torch.nn.functional,)), dropout))
    for name in ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"):
        table.update(dict.fromkeys(functions_named([name]), convolution))
    table.update(dict.fromkeys(functions_named(["rms_norm"]), rms_norm))
    table.update(dict.fromkeys(functions_named(["take_along_dim"]), take_along_dim))
    table.update(composite_handlers())
    table.update(functional_handlers())
    table.update(norm_handlers())
    table.update(recurrent_handlers())
    table.update(scalar_handlers())
    for kind in ("cuda", "cpu", "mps", "xpu"):
        table[getattr(base, f"is_{kind}").__get__] = queries.is_device_type(kind)
    return table

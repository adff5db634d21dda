"""The device rules of single operations, which check their operands in code of their own.

From PyTorch 2.13: TensorAdvancedIndexing.cpp, Convolution.cpp, transformers/sdp_utils_cpp.h, PointwiseOps.cpp,
ReduceAllOps.cpp, Blas.cpp; all as its CUDA build answers (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pytest_llmdevice.simulation.convolutions import convolution_rule
from pytest_llmdevice.simulation.refusals import missing_operation
from pytest_llmdevice.simulation.rules import (
    CPU,
    Operand,
    Rule,
    attended_apart,
    iterator_rule,
    two_devices,
    wrapper_error,
    wrapper_rule,
)


def _first_operand_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """The result is on the first operand's device; the others may be on any."""
    return tensors[0].device


def _index_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = tensors[0].device
    for operand in tensors[1:]:
        if operand.device not in (CPU, device):
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor ({device})"
            )
    return device


def _index_put_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = tensors[0].device
    accumulate = len(args) > 3 and args[3]
    for operand in tensors:
        if operand.name == "values" and operand.device != device and operand.tensor.dim():
            if accumulate and device != CPU:
                raise RuntimeError(f"expected device {device} but got device {operand.device} for value tensor")
            common = device if device != CPU else operand.device
            other = operand.device if device != CPU else device
            raise two_devices(common, other)
    return device


def _masked_fill_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device, mask = tensors[0].device, tensors[1]
    by_tensor = func._schema.overload_name == "Tensor"
    if device == CPU and by_tensor and any(operand.device != CPU for operand in tensors[1:]):
        raise RuntimeError("masked_fill_: Expected inputs to be on same device")
    if mask.device != device:
        raise RuntimeError(
            f"expected self and mask to be on the same device, but got mask on {mask.device} and self on {device}"
        )
    return device


def _where_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = next((operand.device for operand in tensors if operand.device != CPU), CPU)
    for operand in tensors:
        # Tensors without dimensions are moved from any device.
        if operand.device != device and (operand.tensor.dim() or operand.written):
            raise two_devices(device, operand.device)
    return device


def _attention_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    devices = {operand.name: operand.device for operand in tensors}
    query, key, value = devices["query"], devices["key"], devices["value"]
    if not query == key == value:
        raise attended_apart(query, key, value)
    if query == CPU and devices.get("attn_mask", CPU) != CPU and "flash" in func._schema.name:
        # The backend is chosen by the query, the kernel by all of them.
        raise missing_operation("_scaled_dot_product_flash_attention_for_cpu")
    if devices.get("attn_mask", query) != query:
        raise two_devices(query, devices["attn_mask"])
    return wrapper_rule(func, tensors)


def _mv_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    if tensors[0].written:
        result, matrix, vector = tensors[:3]
        # It adds to a tensor of its own, made like the vector.
        operands = [result, Operand("self", vector.tensor, vector.device), _named("mat", matrix), _named("vec", vector)]
        return wrapper_rule(torch.ops.aten.addmv.out, operands)
    matrix, vector = tensors[0], tensors[1]
    if matrix.device != vector.device:
        raise wrapper_error(torch.ops.aten.addmv_.default, _named("mat", matrix), vector.device)
    return vector.device


def _named(name: str, operand: Operand) -> Operand:
    return Operand(name, operand.tensor, operand.device)


def _dot_rule(name: str) -> Rule:
    def rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
        if not tensors[0].written:
            return wrapper_rule(func, tensors)
        result, left, right = (operand.device for operand in tensors[:3])
        if not result == left == right:
            raise RuntimeError(
                f"{name}: Expected the output and input tensors to be on the same device, but got the output tensor on "
                f"{result}, the 'input' tensor on {left}, and the 'other' tensor on {right}"
            )
        return left

    return rule


def _without_numbers(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """TensorIterator's rule of an operation that takes no number of the CPU for a tensor."""
    return iterator_rule(func, tensors, scalars=0)


def _addcmul_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    device = iterator_rule(func, tensors)
    for operand in tensors if device.type == "cuda" else ():
        if operand.name == "tensor2" or not operand.is_cpu_scalar:
            continue
        more = (
            " However, CPU Scalar support for tensor2 is supported, please swap your tensor1 and tensor2 terms."
            if operand.name == "tensor1"
            else ""
        )
        raise RuntimeError(
            f"CPU Scalar support for {operand.name} argument is not supported when calling addcmul on CUDA "
            f"tensors.{more}"
        )
    return device


def _number_second_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """TensorIterator's rule of an operation that makes its result like its first operand, which must be no number."""
    first, device = tensors[0], iterator_rule(func, tensors)
    if first.device != device and not first.written:
        raise two_devices(device, first.device)
    return device


def _clamp_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """A wrapper checks the operands unless a result is given: then TensorIterator does."""
    return iterator_rule(func, tensors) if tensors[0].is_out else wrapper_rule(func, tensors)


def _reversed_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """TensorIterator's rule of an operation that hands its operands on in the other order."""
    outputs = [operand for operand in tensors if operand.is_out]
    inputs = [operand for operand in tensors if not operand.is_out]
    return iterator_rule(func, [*outputs, *reversed(inputs)])


def _lerp_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """The weight may be a number of the CPU."""
    device = iterator_rule(func, tensors)
    _asserted(func, [operand for operand in tensors if operand.name != "weight" or operand.device == device], args)
    return device


def _asserted(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """TensorIterator's rule of an operation whose kernel does not expect the number that TensorIterator lets pass."""
    device = iterator_rule(func, tensors)
    inputs = [operand for operand in tensors if not operand.is_out]
    for position, operand in enumerate(inputs, start=1):
        if device.type == "cuda" and operand.device == CPU:
            raise RuntimeError(
                'iter.device(arg).is_cuda() INTERNAL ASSERT FAILED at "/__w/pytorch/pytorch/aten/src/ATen/native/cuda/'
                f'Loops.cuh":118, please report a bug to PyTorch. argument {position}: expected a CUDA device but '
                "found cpu"
            )
    return device


def _index_fill_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """The value is read from wherever it is; an index of no dimension is no number."""
    return iterator_rule(func, [operand for operand in tensors if operand.name != "value"], scalars=0)


def _all_of_it_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """`max` and `min` of all numbers, into a given result."""
    if func._schema.overload_name == "unary_out" and tensors[0].device != tensors[1].device:
        raise RuntimeError(
            "Expected self.device() == out.device() to be true, but got false.  (Could this error message be "
            "improved?  If so, please report an enhancement request to PyTorch.)"
        )
    return iterator_rule(func, tensors)


def _cumulative_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    result, values = tensors[0], tensors[-1]
    if result.device == values.device or not result.is_out:
        return iterator_rule(func, tensors)
    if values.device == CPU:
        raise RuntimeError("CUDAGuardImpl initialized with non-CUDA DeviceType: cpu")
    raise RuntimeError(f"Expected out tensor to have device {values.device}, but got {result.device} instead")


def _mse_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    """TensorIterator's rule, after which the reduction finds the number that it let pass."""
    device = iterator_rule(func, tensors)
    for operand in tensors:
        if operand.device != tensors[0].device:
            raise two_devices(tensors[0].device, operand.device)
    return device


def _segment_reduce_rule(func: Any, tensors: Sequence[Operand], args: tuple[Any, ...]) -> torch.device:
    data = tensors[0]
    for operand in tensors[1:]:
        if operand.name in ("lengths", "offsets") and operand.device != data.device:
            raise RuntimeError(
                f"Expected data.get_device() == {operand.name}_value.get_device() to be true, but got false.  (Could "
                "this error message be improved?  If so, please report an enhancement request to PyTorch.)"
            )
    return data.device


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("copy_", "_copy_from", "set_", "fill_", "_to_copy", "new_zeros", "new_empty"), _first_operand_rule
    ),
    **dict.fromkeys(("resize_as_", "expand_as", "view_as", "zeros_like", "is_same_size"), _first_operand_rule),
    # The probabilities are moved.
    "bernoulli_": _first_operand_rule,
    # They copy the first operand, and then the second into a part of that copy.
    **dict.fromkeys(("slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter"), _first_operand_rule),
    **dict.fromkeys(("index", "_unsafe_index"), _index_rule),
    **dict.fromkeys(("index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"), _index_put_rule),
    **dict.fromkeys(("masked_fill", "masked_fill_"), _masked_fill_rule),
    "where": _where_rule,
    "_scaled_dot_product_attention_math": _attention_rule,
    "_scaled_dot_product_flash_attention_for_cpu": _attention_rule,
    "_scaled_dot_product_fused_attention_overrideable": _attention_rule,
    **dict.fromkeys(
        ("convolution", "_convolution", "mkldnn_convolution", "convolution_overrideable"), convolution_rule
    ),
    "segment_reduce": _segment_reduce_rule,
    "mv": _mv_rule,
    "dot": _dot_rule("dot"),
    "vdot": _dot_rule("vdot"),
    **dict.fromkeys(("addcdiv", "addcdiv_", "binary_cross_entropy", "binomial"), _without_numbers),
    "rsub": _reversed_rule,
    "mse_loss": _mse_rule,
    "smooth_l1_loss": _asserted,
    **dict.fromkeys(("lerp", "lerp_"), _lerp_rule),
    **dict.fromkeys(("index_fill", "index_fill_"), _index_fill_rule),
    **dict.fromkeys(("addcmul", "addcmul_"), _addcmul_rule),
    **dict.fromkeys(("logical_and", "logical_or", "logical_xor"), _number_second_rule),
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max"), _clamp_rule),
    **dict.fromkeys(("max", "min"), _all_of_it_rule),
    **dict.fromkeys(("cumsum", "cumprod", "renorm", "logsumexp", "mean"), _cumulative_rule),
}

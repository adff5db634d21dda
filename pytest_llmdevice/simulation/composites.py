"""Handlers of functions that PyTorch composes of operations, and that compare devices or dtypes before the first.

The texts and conditions are those of PyTorch 2.13's CUDA build (tests/simulation/ground_truth/executed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from pytest_llmdevice.simulation import out_checks, refusals
from pytest_llmdevice.simulation.function_names import functions_named
from pytest_llmdevice.simulation.rules import CPU, Operand, wrapper_rule

if TYPE_CHECKING:
    from pytest_llmdevice.simulation.functions import FunctionMode

Arguments = Mapping[str, Any]
Handler = Callable[["FunctionMode", Any, tuple[Any, ...], dict[str, Any]], Any]


def checked(check: Callable[[FunctionMode, Arguments], None], *names: str) -> Handler:
    """A handler that makes `check` of the arguments, by the names that their positions have, and computes."""

    def handler(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        check(mode, {**dict(zip(names, args, strict=False)), **kwargs})
        run = mode.multiply if func.__name__ in refusals.INTEGER_PRODUCTS else mode.compute
        return run(func, args, kwargs)

    return handler


def _tensor_split(mode: FunctionMode, given: Arguments) -> None:
    where = given.get("tensor_indices_or_sections", given.get("indices_or_sections"))
    if isinstance(where, torch.Tensor) and (device := mode.device_of(where)) != CPU:
        raise RuntimeError(f"tensor_split expected tensor_indices_or_sections to be on cpu, but it's on {device}")


def _cartesian_prod(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = args[0] if len(args) == 1 and isinstance(args[0], (list, tuple)) else args
    if len({mode.device_of(tensor) for tensor in tensors}) > 1:
        raise RuntimeError("meshgrid expects all tensors to have the same device")
    return mode.compute(func, args, kwargs)


def _cholesky_solve(mode: FunctionMode, given: Arguments) -> None:
    right, factor = (mode.device_of(given[name]) for name in ("input", "input2"))
    out = given.get("out")
    # A result elsewhere is found first, see `out_checks`.
    if right != factor and (out is None or mode.device_of(out) == right):
        raise RuntimeError(
            f"Expected b and A to be on the same device, but found b on {right} and A on {factor} instead."
        )


def _inner(mode: FunctionMode, given: Arguments) -> None:
    first, *others = (mode.device_of(given[name]).type for name in ("input", "other", "out") if name in given)
    for kind in others:
        if kind != first:
            raise RuntimeError(
                f"Expected tensor to have {first} DeviceType, but got tensor with {kind} DeviceType (while checking "
                "arguments for inner())"
            )
    # It is the product of the last dimensions.
    _tensordot(mode, {"a": given["input"], "b": given["other"], "out": given.get("out")})


def _multi_dot(mode: FunctionMode, given: Arguments) -> None:
    devices = [mode.device_of(tensor) for tensor in given["tensors"]]
    if torch.is_autocast_enabled(mode.machine.device_type) and CPU in devices and set(devices) != {CPU}:
        # Those on cards get another dtype than those on the CPU, and dtypes are compared first.
        return
    for number, device in enumerate(devices):
        if device != devices[0]:
            raise RuntimeError(
                f"multi_dot(): all tensors must be on the same device but tensor 0 is on {devices[0]} and tensor "
                f"{number} on {device}"
            )
    out = given.get("out")
    if out is not None and mode.device_of(out) != devices[0]:
        raise RuntimeError(
            f"multi_dot(): expected out tensor to be on device {devices[0]} but got {mode.device_of(out)}"
        )
    if devices[0].type == "cuda":
        refusals.refuse_product("mm", list(given["tensors"]))


def _tensordot(mode: FunctionMode, given: Arguments) -> None:
    out = given.get("out")
    if out is None:
        return
    result, left, right = (mode.device_of(tensor) for tensor in (out, given["a"], given["b"]))
    if left == right != result:
        raise RuntimeError(
            f"tensordot: Expected the output and input tensors to be on the same device, but got the output tensor on "
            f"{result}, input tensor a on {left}, and input tensor b on {right}"
        )


def _nuclear_norm(mode: FunctionMode, given: Arguments) -> None:
    out = given.get("out")
    if out is None or given.get("p") != "nuc":
        return
    refusal = out_checks.first_check("linalg_matrix_norm", mode.device_of(given["input"]), mode.device_of(out))
    if refusal is not None:
        raise refusal


def _grid_sampler(mode: FunctionMode, given: Arguments) -> None:
    """A card leaves what cuDNN can do to it, whose wrapper has another name (aten/src/ATen/native/GridSampler.cpp)."""
    values = given["input"]
    by_cudnn = (
        (given.get("mode"), given.get("padding_mode"), given.get("align_corners")) in _BY_CUDNN
        and values.dim() == 4
        and values.shape[1] <= _LARGEST_GRID
        and values.dtype in (torch.float16, torch.float32, torch.float64)
        and torch.backends.cudnn.enabled
    )
    devices = [mode.device_of(given[name]) for name in ("input", "grid")]
    if by_cudnn and all(device.type == "cuda" for device in devices):
        named = zip(("self", "grid"), (values, given["grid"]), devices, strict=True)
        wrapper_rule(torch.ops.aten.cudnn_grid_sampler.default, [Operand(*each) for each in named])


_BY_CUDNN: Final = (("bilinear", "zeros", True), (0, 0, True))
_LARGEST_GRID: Final = 1024
"""The most channels that cuDNN samples."""


def _embedding_bag(mode: FunctionMode, given: Arguments) -> None:
    weight = given["weight"]
    card = mode.common_card([value for value in given.values() if isinstance(value, torch.Tensor)])
    if card is not None and card.type == "cuda":
        refusals.refuse_numbers("embedding_bag_cuda", weight.dtype)


def _linear_cross_entropy(mode: FunctionMode, given: Arguments) -> None:
    factors = [given["input"], given["linear_weight"]]
    card = mode.common_card([value for value in given.values() if isinstance(value, torch.Tensor)])
    if card is not None and card.type == "cuda":
        refusals.refuse_product("linear", factors)


def _scatter_reduce(mode: FunctionMode, given: Arguments) -> None:
    values = given["input"]
    if values.dtype is torch.bool and given.get("reduce") in ("prod", "amin", "amax"):
        card = mode.common_card([value for value in given.values() if isinstance(value, torch.Tensor)])
        if card is not None and card.type == "cuda":
            refusals.refuse_numbers("cuda_scatter_gather_base_kernel_func", values.dtype)


def _narrow_copy(mode: FunctionMode, given: Arguments) -> None:
    out = given.get("out")
    if out is not None and mode.machine.device_type == "cuda" and mode.common_device([given["input"], out]) != CPU:
        raise refusals.missing_operation("narrow_copy.out")


def _dtype_refused(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function whose kernel CUDA lacks for some dtypes."""
    first = args[0] if args else kwargs.get("input")
    card = mode.common_card(args, kwargs)
    dtypes = {value.dtype for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)}
    # Of several dtypes the kernel gets the one that they are promoted to.
    if card is not None and card.type == "cuda" and isinstance(first, torch.Tensor) and len(dtypes) == 1:
        refusals.refuse_dtype(func.__name__, first, kwargs.get("mode", args[3] if len(args) > 3 else None))
    return mode.compute(func, args, kwargs)


def _no_kernel(name: Callable[[tuple[Any, ...]], str]) -> Handler:
    """A function that CUDA has no kernel for."""

    def handler(mode: FunctionMode, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        device = mode.common_device(args, kwargs)
        if mode.machine.device_type == "cuda" and device is not None and device != CPU:
            raise refusals.missing_operation(name(args))
        return mode.compute(func, args, kwargs)

    return handler


def _itself(name: str, _: tuple[Any, ...]) -> str:
    return name


def _histogram(args: tuple[Any, ...]) -> str:
    return (
        "histogram.bins_tensor" if any(isinstance(value, torch.Tensor) for value in args[1:2]) else "histogram.bin_ct"
    )


def _histogramdd(args: tuple[Any, ...]) -> str:
    by_tensors = len(args) > 1 and any(isinstance(value, torch.Tensor) for value in args[1])
    return "_histogramdd_from_bin_tensors" if by_tensors else "_histogramdd_bin_edges"


def composite_handlers() -> dict[Any, Handler]:
    """Torch function -> its handler `(mode, function, args, kwargs) -> result`."""
    by_name = {
        "tensor_split": checked(_tensor_split, "input", "tensor_indices_or_sections"),
        "cartesian_prod": _cartesian_prod,
        "cholesky_solve": checked(_cholesky_solve, "input", "input2"),
        "inner": checked(_inner, "input", "other"),
        "linalg_multi_dot": checked(_multi_dot, "tensors"),
        "tensordot": checked(_tensordot, "a", "b"),
        "narrow_copy": checked(_narrow_copy, "input"),
        "norm": checked(_nuclear_norm, "input", "p"),
        **dict.fromkeys(
            ("grid_sampler", "grid_sample"),
            checked(_grid_sampler, "input", "grid", "mode", "padding_mode", "align_corners"),
        ),
        "linear_cross_entropy": checked(_linear_cross_entropy, "input", "linear_weight"),
        **dict.fromkeys(
            ("scatter_reduce", "scatter_reduce_"), checked(_scatter_reduce, "input", "dim", "index", "src", "reduce")
        ),
        "histogram": _no_kernel(_histogram),
        "histogramdd": _no_kernel(_histogramdd),
        **{name: _no_kernel(partial(_itself, name)) for name in refusals.MISSING_OPERATIONS},
        **dict.fromkeys((*refusals.REFUSED, "interpolate"), _dtype_refused),
    }
    table: dict[Any, Handler] = {}
    for name, handler in by_name.items():
        table.update(dict.fromkeys(functions_named([name]), handler))
    linalg: Any = vars(torch._C)["_linalg"]
    table.update(dict.fromkeys(functions_named(["linalg_multi_dot"], (linalg,)), by_name["linalg_multi_dot"]))
    table[torch.embedding_bag] = checked(_embedding_bag, "weight")
    table[torch.nn.functional.embedding_bag] = checked(_embedding_bag, "input", "weight")
    return table

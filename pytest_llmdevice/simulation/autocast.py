"""Applies automatic mixed precision to calls on simulated cards as PyTorch does on real ones, by the card's rules."""

from __future__ import annotations

import enum
from typing import Any, Final

import torch
from torch.utils import _device

from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.tags import unintercepted


class Policy(enum.Enum):
    """What autocast does with an operation, after `aten/src/ATen/autocast_mode.h`."""

    LOWER = enum.auto()
    """Runs it in autocast's dtype."""
    FULL = enum.auto()
    """Runs it in float32."""
    FULL_RESULT = enum.auto()
    """Makes its result float32, unless the call names a dtype."""
    WIDEST = enum.auto()
    """Runs it in the widest dtype of its arguments."""
    REFUSED = enum.auto()
    """Raises."""
    NONE = enum.auto()
    """Runs it unchanged."""


_NAMES: Final = {
    Policy.LOWER: """
        _convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution prelu
        addmm addmv addr matmul __matmul__ __rmatmul__ einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul
        linalg_multi_dot linalg_matmul lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell scaled_dot_product_attention
        lstm gru rnn_tanh rnn_relu multi_head_attention_forward""",
    Policy.FULL: """
        acos arccos asin arcsin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan pow __pow__
        __rpow__ float_power softplus layer_norm native_layer_norm rms_norm group_norm frobenius_norm nuclear_norm
        cosine_similarity poisson_nll_loss cosine_embedding_loss nll_loss nll_loss_nd nll_loss2d hinge_embedding_loss
        kl_div l1_loss smooth_l1_loss huber_loss mse_loss margin_ranking_loss multilabel_margin_loss soft_margin_loss
        triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits cross_entropy cross_entropy_loss dist
        pdist cdist pairwise_distance renorm logsumexp norm linalg_norm upsample_nearest1d upsample_nearest2d
        upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
        upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa upsample_trilinear3d upsample_bicubic2d
        _upsample_bicubic2d_aa interpolate upsample __rdiv__ __rtruediv__ normalize softmin gumbel_softmax
        local_response_norm lp_pool1d lp_pool2d lp_pool3d gaussian_nll_loss triplet_margin_with_distance_loss""",
    Policy.FULL_RESULT: """
        prod softmax log_softmax cumprod cumsum linalg_vector_norm linalg_matrix_norm sum""",
    Policy.WIDEST: """
        addcdiv addcmul atan2 arctan2 bilinear cross dot vdot inner grid_sampler grid_sample index_put
        tensordot scatter_add""",
    Policy.REFUSED: "binary_cross_entropy",
}
# PyTorch's lists hold operations; `cross_entropy`, `norm`, `lstm` and `interpolate` consist of several of them, and
# are intercepted as one call.
_CUDA: Final = {name: policy for policy, names in _NAMES.items() for name in names.split()}
_MPS: Final = {
    name: policy
    for name, policy in _CUDA.items()
    if "upsample" not in name and policy is not Policy.REFUSED and name not in {"rms_norm", "vdot", "linalg_vecdot"}
} | {"batch_norm": Policy.FULL}

_REFUSAL: Final = """\
torch.nn.functional.binary_cross_entropy and torch.nn.BCELoss are unsafe to autocast.
Many models use a sigmoid layer right before the binary cross entropy layer.
In this case, combine the two layers using torch.nn.functional.binary_cross_entropy_with_logits
or torch.nn.BCEWithLogitsLoss.  binary_cross_entropy_with_logits and BCEWithLogits are
safe to autocast."""

_policies: dict[tuple[str, Any], Policy] = {}


def install(machine: Machine, patches: Patches) -> None:
    """Send calls through the code that applies autocast as soon as autocast is turned on."""
    real = torch.set_autocast_enabled
    enabled = torch._C._is_any_autocast_enabled() or torch.is_autocast_enabled(machine.device_type)
    machine.needs_full_path = machine.needs_full_path or enabled

    def set_autocast_enabled(*args: Any, **kwargs: Any) -> None:
        machine.needs_full_path = True
        real(*args, **kwargs)

    patches.set(torch, "set_autocast_enabled", set_autocast_enabled)


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device_type: str) -> Any:
    """Call a torch function on tensors of a card under autocast's rules for that card's type, not those for the CPU.

    Args:
        func: a function of `torch`, `torch.Tensor` or `torch.nn.functional`, as a `TorchFunctionMode` gets it.
        args: its positional arguments; every tensor among them counts as one of the card.
        kwargs: its keyword arguments.
        device_type: PyTorch's name of the card's type.

    Raises:
        RuntimeError: the function is unsafe to autocast.
    """
    if not torch.is_autocast_enabled("cpu"):
        return _run(func, args, kwargs, device_type)
    torch.set_autocast_enabled("cpu", False)
    try:
        return _run(func, args, kwargs, device_type)
    finally:
        torch.set_autocast_enabled("cpu", True)


def policy_of(func: Any, device_type: str) -> Policy:
    """What autocast for cards of that type does with a torch function."""
    key = (device_type, func)
    try:
        return _policies[key]
    except KeyError:
        policy = _policies[key] = _find(func, device_type)
        return policy
    except TypeError:  # a callable without a hash
        return Policy.NONE


def _find(func: Any, device_type: str) -> Policy:
    name = getattr(func, "__name__", "")
    known = _MPS if device_type == "mps" else _CUDA
    policy = known.get(name) or known.get(name.removeprefix("special_"))
    return Policy.NONE if policy is None else policy


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device_type: str) -> Any:
    if not torch.is_autocast_enabled(device_type) or kwargs.get("out") is not None:
        return _call(func, args, kwargs)
    policy = policy_of(func, device_type)
    if policy is Policy.NONE:
        return _call(func, args, kwargs)
    if policy is Policy.REFUSED:
        raise RuntimeError(_REFUSAL)
    if policy is Policy.FULL_RESULT:
        if kwargs.get("dtype") is None and not any(isinstance(value, torch.dtype) for value in args):
            args, kwargs = _first_in_full(args, kwargs)
        return _call(func, args, kwargs)
    if policy is Policy.WIDEST:
        dtype = _widest((args, tuple(kwargs.values())), torch.get_autocast_dtype(device_type))
    else:
        dtype = torch.float32 if policy is Policy.FULL else torch.get_autocast_dtype(device_type)
    return _call(func, cast(args, dtype), {name: cast(value, dtype) for name, value in kwargs.items()})


def _call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # A default device is a mode of its own, and would apply to the tensors that the function creates.
    if _device.CURRENT_DEVICE is None:
        return func(*args, **kwargs)
    with unintercepted():
        return func(*args, **kwargs)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """`value` with every tensor in it that autocast may convert in `dtype`; lists and tuples keep their types."""
    if isinstance(value, torch.Tensor):
        return torch.Tensor.to(value, dtype) if _eligible(value) and value.dtype is not dtype else value
    if type(value) in (tuple, list):
        return type(value)([cast(part, dtype) for part in value])
    return value


def _eligible(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype is not torch.float64


def _first_in_full(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (cast(args[0], torch.float32), *args[1:]), kwargs
    if "input" in kwargs:
        return args, {**kwargs, "input": cast(kwargs["input"], torch.float32)}
    return args, kwargs


def _widest(value: Any, dtype: torch.dtype) -> torch.dtype:
    if isinstance(value, torch.Tensor) and _eligible(value):
        return torch.promote_types(dtype, value.dtype)
    if isinstance(value, (tuple, list)):
        for part in value:
            dtype = _widest(part, dtype)
    return dtype

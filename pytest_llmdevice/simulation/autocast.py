"""Applies automatic mixed precision to calls on simulated cards as PyTorch does on real ones, by the card's rules."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.utils import _device

from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.patches import Patches
from pytest_llmdevice.simulation.tags import Tags, unintercepted


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
        lstm gru rnn_tanh rnn_relu multi_head_attention_forward cov corrcoef""",
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
        local_response_norm lp_pool1d lp_pool2d lp_pool3d gaussian_nll_loss triplet_margin_with_distance_loss
        linear_cross_entropy multilabel_soft_margin_loss square ldexp""",
    Policy.FULL_RESULT: """
        prod softmax log_softmax cumprod cumsum linalg_vector_norm linalg_matrix_norm sum sum_to_size trace trapz
        trapezoid cumulative_trapezoid""",
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


@dataclass(frozen=True, slots=True)
class Where:
    """The tensors of a call that autocast for cards looks at.

    Attributes:
        has: whether a tensor is one.
        converted: one of them in another dtype, in the same place.
    """

    has: Callable[[torch.Tensor], bool]
    converted: Callable[[torch.Tensor, torch.dtype], torch.Tensor]


_everywhere = Where(lambda _: True, torch.Tensor.to)
"""Every tensor is on the card."""


def on_cards(tags: Tags) -> Where:
    """The tensors that `tags` says are on cards, among others."""

    def in_place(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        card, result = tags.of(tensor), torch.Tensor.to(tensor, dtype)
        return result if card is None else tags.put(result, card)

    return Where(lambda tensor: tags.of(tensor) is not None, in_place)


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
    if torch.is_autocast_enabled(device_type):
        args, kwargs = converted(func, args, kwargs, device_type, _everywhere)
    return _call(func, args, kwargs)


def converted(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device_type: str, where: Where
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call as autocast for cards of that type converts them.

    Args:
        func: as for `run`.
        args: its positional arguments.
        kwargs: its keyword arguments.
        device_type: PyTorch's name of the card's type.
        where: on which of its tensors autocast has an effect.

    Raises:
        RuntimeError: the function is unsafe to autocast, or its operands cannot be combined.
    """
    policy = policy_of(func, device_type)
    if policy is Policy.NONE or kwargs.get("out") is not None:
        return args, kwargs
    if policy is Policy.REFUSED:
        raise RuntimeError(_REFUSAL)
    if policy is Policy.FULL_RESULT:
        if kwargs.get("dtype") is None and not any(isinstance(value, torch.dtype) for value in args):
            return _first_in_full(args, kwargs, where)
        return args, kwargs
    dtype = torch.get_autocast_dtype(device_type)
    if policy is Policy.FULL:
        dtype = torch.float32
    elif policy is Policy.WIDEST:
        # An operand that may be left out does not count.
        operands = args[:3] if func.__name__ == "bilinear" else (*args, *kwargs.values())
        dtype = _widest(operands, dtype, dtype, where)
    return cast(args, dtype, where), {name: cast(value, dtype, where) for name, value in kwargs.items()}


def _call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    # A default device is a mode of its own, and would apply to the tensors that the function creates.
    if _device.CURRENT_DEVICE is None:
        return func(*args, **kwargs)
    with unintercepted():
        return func(*args, **kwargs)


def cast(value: Any, dtype: torch.dtype, where: Where) -> Any:
    """`value` with every tensor in it that autocast may convert in `dtype`; lists and tuples keep their types."""
    if isinstance(value, torch.Tensor):
        return where.converted(value, dtype) if value.dtype is not dtype and _eligible(value, where) else value
    if type(value) in (tuple, list):
        return type(value)([cast(part, dtype, where) for part in value])
    return value


def _eligible(tensor: torch.Tensor, where: Where) -> bool:
    return tensor.is_floating_point() and tensor.dtype is not torch.float64 and where.has(tensor)


def _first_in_full(
    args: tuple[Any, ...], kwargs: dict[str, Any], where: Where
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (cast(args[0], torch.float32, where), *args[1:]), kwargs
    if "input" in kwargs:
        return args, {**kwargs, "input": cast(kwargs["input"], torch.float32, where)}
    return args, kwargs


def _widest(value: Any, dtype: torch.dtype, lower: torch.dtype, where: Where) -> torch.dtype:
    """The dtype of `prioritize` in `aten/src/ATen/autocast_mode.h`: float32 before autocast's own, `lower`."""
    if isinstance(value, torch.Tensor) and _eligible(value, where):
        if torch.float32 in (dtype, value.dtype):
            return torch.float32
        if value.dtype is not lower:
            raise RuntimeError("Unexpected floating ScalarType in at::autocast::prioritize")
    if isinstance(value, (tuple, list)):
        for part in value:
            dtype = _widest(part, dtype, lower, where)
    return dtype

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pytest_llmdevice.simulation import autocast
from pytest_llmdevice.simulation.autocast import Policy, policy_of
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.simulate import simulate

Drive = Callable[[str], Machine]

HALF, BF16, FLOAT, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


class OnCard(TorchFunctionMode):
    """Takes every tensor for one of the card, as a simulation does for those that are."""

    def __init__(self, device_type: str = "cuda") -> None:
        super().__init__()
        self._device_type = device_type

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return autocast.run(func, args, kwargs or {}, self._device_type)


@pytest.fixture
def on_card(drive: Drive) -> Iterator[None]:
    drive("cuda")
    with OnCard():
        yield


def square(dtype: torch.dtype = FLOAT) -> Tensor:
    return torch.linspace(0.1, 0.9, 16, dtype=FLOAT).reshape(4, 4).to(dtype)


LABELS = torch.tensor([0, 1, 2, 3])
IMAGE = torch.rand(1, 2, 6, 6)

LOWER: dict[str, Callable[[Tensor], Tensor]] = {
    "matmul operator": lambda x: x @ x,
    "reflected operator": lambda x: x.__rmatmul__(x),
    "method": lambda x: x.matmul(x),
    "mm": lambda x: torch.mm(x, x),
    "bmm": lambda x: torch.bmm(x[None], x[None]),
    "mv": lambda x: torch.mv(x, x[0]),
    "addmm": lambda x: torch.addmm(x, x, x),
    "baddbmm": lambda x: torch.baddbmm(x[None], x[None], x[None]),
    "einsum": lambda x: torch.einsum("ij,jk->ik", x, x),
    "einsum of a list": lambda x: torch.einsum("ij,jk->ik", [x, x]),
    "multi_dot": lambda x: torch.linalg.multi_dot([x, x, x]),
    "linalg": lambda x: torch.linalg.matmul(x, x),
    "linear": lambda x: F.linear(x, x, bias=x[0]),
    "module": torch.nn.Linear(4, 4),
    "heads": lambda x: torch.nn.MultiheadAttention(4, 1)(x, x, x)[0],
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    "conv2d": lambda _: F.conv2d(IMAGE, torch.ones(1, 2, 2, 2)),
    "conv_transpose2d": lambda _: F.conv_transpose2d(IMAGE, torch.ones(2, 1, 2, 2)),
    "conv1d module": torch.nn.Conv1d(4, 1, 1),
    "prelu": lambda x: F.prelu(x, torch.ones(1)),
    "lstm": lambda x: torch.nn.LSTM(4, 3)(x)[0],
    "gru": lambda x: torch.nn.GRU(4, 3)(x)[0],
    "gru cell": torch.nn.GRUCell(4, 3),
}
FULL: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "method of logarithm": lambda x: x.log(),
    "special": torch.special.expm1,
    "pow": lambda x: x.pow(2),
    "pow operator": lambda x: x**2,
    "reflected pow": lambda x: 2**x,
    "reflected division": lambda x: 1 / x,
    "rsqrt": torch.rsqrt,
    "softmax": lambda x: torch.softmax(x, -1),
    "functional softmax": lambda x: F.softmax(x, dim=-1),
    "by keyword": lambda x: torch.softmax(input=x, dim=-1),
    "softmax module": torch.nn.Softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "special softmax": lambda x: torch.special.softmax(x, -1),
    "sum": lambda x: x.sum(),
    "sum of a dimension": lambda x: torch.sum(x, dim=1),
    "prod": lambda x: x.prod(),
    "cumsum": lambda x: x.cumsum(0),
    "norm": lambda x: x.norm(),
    "torch norm": lambda x: torch.norm(x, dim=1),
    "linalg norm": torch.linalg.norm,
    "vector norm": torch.linalg.vector_norm,
    "normalize": F.normalize,
    "layer_norm": lambda x: F.layer_norm(x, (4,)),
    "layer_norm module": torch.nn.LayerNorm(4),
    "rms_norm": lambda x: F.rms_norm(x, (4,)),
    "group_norm": lambda x: F.group_norm(x, 2),
    "cosine": lambda x: F.cosine_similarity(x, x),
    "distance": lambda x: torch.cdist(x, x),
    "pairwise": lambda x: F.pairwise_distance(x, x),
    "cross_entropy": lambda x: F.cross_entropy(x, LABELS),
    "cross_entropy module": lambda x: torch.nn.CrossEntropyLoss()(x, LABELS),
    "nll": lambda x: F.nll_loss(x, LABELS),
    "mse": lambda x: F.mse_loss(x, x),
    "logits": lambda x: F.binary_cross_entropy_with_logits(x, x),
    "kl": lambda x: F.kl_div(x, x, reduction="sum"),
    "softplus": F.softplus,
    "logsumexp": lambda x: x.logsumexp(0),
    "interpolate": lambda x: F.interpolate(x[None, None], scale_factor=2.0, mode="bilinear"),
}
AS_IT_IS: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + x,
    "multiply": lambda x: x * 2,
    "relu": F.relu,
    "gelu": F.gelu,
    "mean": lambda x: x.mean(),
    "cat": lambda x: torch.cat([x, x]),
    "transpose": lambda x: x.t(),
    "dropout": lambda x: F.dropout(x, 0.5),
    "embedding": lambda x: F.embedding(LABELS, x),
    "max_pool": lambda x: F.max_pool1d(x, 2),
    "in place": lambda x: x.clone().exp_(),
    "in place product": lambda x: x.clone().addmm_(x, x),
    "dtype that is asked for": lambda x: torch.sum(x, dtype=x.dtype),
    "dtype in the call": lambda x: torch.softmax(x, -1, x.dtype),
    "out": lambda x: torch.mm(x, x, out=torch.empty(4, 4, dtype=x.dtype)),
}


@pytest.mark.usefixtures("on_card")
@pytest.mark.parametrize("dtype", [HALF, BF16], ids=str)
@pytest.mark.parametrize("name", LOWER)
def test_products_are_in_the_lower_precision(name: str, dtype: torch.dtype) -> None:
    with torch.autocast("cuda", dtype=dtype):
        assert LOWER[name](square()).dtype is dtype


@pytest.mark.usefixtures("on_card")
@pytest.mark.parametrize("name", FULL)
def test_sums_and_exponentials_are_in_full_precision(name: str) -> None:
    with torch.autocast("cuda", dtype=BF16):
        assert FULL[name](square(BF16)).dtype is FLOAT


@pytest.mark.usefixtures("on_card")
@pytest.mark.parametrize("dtype", [HALF, FLOAT, DOUBLE], ids=str)
@pytest.mark.parametrize("name", AS_IT_IS)
def test_the_rest_runs_as_it_is(name: str, dtype: torch.dtype) -> None:
    with torch.autocast("cuda", dtype=BF16):
        assert AS_IT_IS[name](square(dtype)).dtype is dtype


@pytest.mark.usefixtures("on_card")
@pytest.mark.parametrize("name", [*LOWER, *FULL])
def test_without_autocast_nothing_changes(name: str) -> None:
    call = LOWER.get(name) or FULL[name]

    assert call(square()).dtype is FLOAT
    with torch.autocast("cuda"), torch.autocast("cuda", enabled=False):
        assert call(square()).dtype is FLOAT


@pytest.mark.usefixtures("on_card")
def test_double_precision_is_never_touched() -> None:
    with torch.autocast("cuda"):
        assert (square(DOUBLE) @ square(DOUBLE)).dtype is DOUBLE
        assert square(DOUBLE).exp().dtype is DOUBLE
        assert torch.tensor([1, 2]).sum().dtype is torch.int64


@pytest.mark.usefixtures("on_card")
def test_mixed_arguments_are_promoted_to_the_widest() -> None:
    with torch.autocast("cuda", dtype=BF16):
        low, full = square(BF16), square()
        assert torch.addcmul(full, low, low).dtype is FLOAT
        assert torch.addcmul(low, low, low).dtype is BF16
        assert torch.dot(low[0], full[0]).dtype is FLOAT
        assert torch.tensordot(low, full, dims=1).dtype is FLOAT
        assert torch.atan2(low, full).dtype is FLOAT


@pytest.mark.usefixtures("on_card")
def test_what_is_unsafe_is_refused() -> None:
    x = square()

    F.binary_cross_entropy(x, x)
    with torch.autocast("cuda"), pytest.raises(RuntimeError, match=re.escape("are unsafe to autocast.")):
        torch.nn.BCELoss()(x, x)


@pytest.mark.usefixtures("on_card")
def test_values_are_those_of_the_lower_precision_and_gradients_of_the_parameters() -> None:
    layer = torch.nn.Linear(4, 4)
    x = square()

    with torch.autocast("cuda", dtype=BF16):
        result = layer(x)
        loss = result.sum()
    loss.backward()

    assert torch.equal(result, F.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()))
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype is layer.weight.dtype is FLOAT


def test_the_cpus_autocast_is_not_the_cards(drive: Drive) -> None:
    drive("cuda")
    x = square()

    with torch.autocast("cpu", dtype=BF16):
        with OnCard():
            assert (x @ x).dtype is FLOAT
            with torch.autocast("cuda", dtype=HALF):
                assert (x @ x).dtype is HALF
            with pytest.raises(RuntimeError):
                torch.mm(x, torch.ones(3, 3))
        assert torch.is_autocast_enabled("cpu")
        assert (x @ x).dtype is BF16


def test_the_cards_autocast_is_not_the_cpus(drive: Drive) -> None:
    drive("cuda")
    x = square()

    with torch.autocast("cuda", dtype=BF16):
        assert (x @ x).dtype is FLOAT


def test_a_default_device_does_not_reach_into_a_function(drive: Drive) -> None:
    drive("cuda")
    torch.set_default_device("meta")
    try:
        with torch.autocast("cuda", dtype=BF16):
            made = autocast.run(lambda: torch.ones(1), (), {}, "cuda")
    finally:
        torch.set_default_device(None)

    assert made.device.type == "cpu"


@pytest.mark.parametrize("spec", ["cuda", "cuda-t4", "rocm", "xpu", "mps"])
def test_entering_it_warns_of_nothing(drive: Drive, spec: str) -> None:
    kind = drive(spec).device_type

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for dtype in (None, HALF, BF16):
            with torch.autocast(kind, dtype=dtype):
                assert torch.is_autocast_enabled(kind)
                assert torch.get_autocast_dtype(kind) is (dtype or HALF)
            assert not torch.is_autocast_enabled(kind)
        scaler = torch.amp.GradScaler(kind)
    assert scaler.is_enabled()


def test_apples_list_is_its_own(drive: Drive) -> None:
    drive("mps")

    assert policy_of(F.binary_cross_entropy, "mps") is Policy.NONE
    assert policy_of(torch.batch_norm, "mps") is Policy.FULL
    assert policy_of(torch.batch_norm, "cuda") is Policy.NONE
    with OnCard("mps"), torch.autocast("mps", dtype=HALF):
        assert (square() @ square()).dtype is HALF


def test_what_is_no_function_of_torch_runs_as_it_is(drive: Drive) -> None:
    drive("cuda")

    class Unhashable:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, value: int) -> int:
            return value + 1

    with torch.autocast("cuda"):
        assert autocast.run(Unhashable(), (1,), {}, "cuda") == 2
    assert policy_of(print, "cuda") is Policy.NONE


def test_every_name_in_the_lists_is_one_of_pytorchs() -> None:
    methods = {f"linalg_{name}" for name in dir(torch.linalg)} | set(dir(Tensor)) | set(dir(F)) | set(dir(torch))

    assert [name for name in autocast._CUDA if name not in methods and not hasattr(torch.ops.aten, name)] == []


def test_of_operands_on_several_devices_those_on_cards_are_converted() -> None:
    with simulate("cuda"), torch.autocast("cuda", dtype=HALF):
        here, there = torch.ones(2, 2), torch.ones(2, 2, device="cuda:0")
        with pytest.raises(RuntimeError, match=r"torch\.cuda\.HalfTensor.*torch\.FloatTensor.* should be the same"):
            F.conv1d(there[None], here[None])
        with pytest.raises(RuntimeError, match="are unsafe to autocast"):
            F.binary_cross_entropy(there, here)

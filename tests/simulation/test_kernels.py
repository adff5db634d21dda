"""Dtypes that only cards compute are computed, and those that only the CPU computes are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from packaging.version import Version
from torch.nn import functional

from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.simulation.kernels import WIDER
from pytest_llmdevice.simulation.refusals import INTEGER_PRODUCTS, MISSING_OPERATIONS, REFUSED

TORCH: Any = torch
F: Any = functional


def given(*shape: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.ones(shape).to(dtype).to(device)


def labels(device: str, *values: Any) -> torch.Tensor:
    return torch.tensor(values, device=device)


CALLS: dict[str, Callable[[torch.dtype, str], Any]] = {
    "abs": lambda dtype, on: torch.abs(given(2, dtype=dtype, device=on)),
    "trace": lambda dtype, on: torch.trace(given(2, 2, dtype=dtype, device=on)),
    "histc": lambda dtype, on: torch.histc(given(4, dtype=dtype, device=on), bins=4, min=0, max=3),
    "avg_pool3d": lambda dtype, on: F.avg_pool3d(given(1, 1, 2, 2, 2, dtype=dtype, device=on), 2),
    "lp_pool3d": lambda dtype, on: F.lp_pool3d(given(1, 1, 2, 2, 2, dtype=dtype, device=on), 2, 2),
    "multi_margin_loss": lambda dtype, on: F.multi_margin_loss(given(2, 3, dtype=dtype, device=on), labels(on, 0, 1)),
    "multilabel_margin_loss": lambda dtype, on: F.multilabel_margin_loss(
        given(1, 3, dtype=dtype, device=on), labels(on, [0, 1, -1])
    ),
    "rrelu": lambda dtype, on: F.rrelu(given(2, 3, dtype=dtype, device=on), training=True),
    "interpolate": lambda dtype, on: F.interpolate(
        given(1, 1, 4, 4, dtype=dtype, device=on), scale_factor=0.5, mode="bilinear", antialias=True
    ),
    "median": lambda dtype, on: torch.median(given(3, dtype=dtype, device=on)),
    "nanmedian": lambda dtype, on: torch.nanmedian(given(3, dtype=dtype, device=on)),
    "polygamma": lambda dtype, on: torch.polygamma(1, given(2, dtype=dtype, device=on)),
    "round": lambda dtype, on: torch.round(given(2, dtype=dtype, device=on), decimals=1),
    "softsign": lambda dtype, on: F.softsign(given(2, dtype=dtype, device=on)),
    "gather": lambda dtype, on: given(2, 2, dtype=dtype, device=on).gather(1, labels(on, [0], [1])),
    "scatter": lambda dtype, on: given(2, 2, dtype=dtype, device=on).scatter(
        1, labels(on, [0], [1]), given(2, 1, dtype=dtype, device=on)
    ),
    "take_along_dim": lambda dtype, on: TORCH.take_along_dim(
        given(2, 2, dtype=dtype, device=on), labels(on, [0], [1]), 1
    ),
    "flip": lambda dtype, on: torch.flip(given(2, dtype=dtype, device=on), (0,)),
    "pixel_shuffle": lambda dtype, on: F.pixel_shuffle(given(1, 4, 2, 2, dtype=dtype, device=on), 2),
    "pixel_unshuffle": lambda dtype, on: F.pixel_unshuffle(given(1, 1, 4, 4, dtype=dtype, device=on), 2),
    "channel_shuffle": lambda dtype, on: F.channel_shuffle(given(1, 4, 2, 2, dtype=dtype, device=on), 2),
    "binomial": lambda dtype, on: torch.binomial(given(2, dtype=dtype, device=on), given(2, dtype=dtype, device=on)),
}


def unpool(name: str) -> Callable[[torch.dtype, str], Any]:
    shape = [1] * (2 + int(name[-2]))
    function = getattr(F, name)
    return lambda dtype, on: function(given(*shape, dtype=dtype, device=on), torch.zeros(shape).long().to(on), 2)


def transform(name: str) -> Callable[[torch.dtype, str], Any]:
    shape = (4, 4) if name[-1] in "2n" else (4,)
    function = getattr(torch.fft, name.removeprefix("fft_"))
    return lambda dtype, on: function(given(*shape, dtype=dtype, device=on))


CALLS.update({name: transform(name) for name in WIDER if name.startswith("fft_")})
CALLS.update({name: unpool(name) for name in WIDER if name.startswith("max_unpool")})
ENTRIES = [
    pytest.param(name, dtype, id=f"{name}-{str(dtype).removeprefix('torch.')}")
    for name, table in WIDER.items()
    for dtype in table
]
KEPT = {("trace", torch.bool): torch.int64, ("softsign", torch.bool): torch.float32} | {
    (f"fft_{name}{rank}", torch.float16): torch.complex32
    for name in ("fft", "ifft", "rfft", "ihfft")
    for rank in ("", "2", "n")
}
"""What a card returns where it is not the dtype that it was given."""


@pytest.fixture
def _card() -> Iterator[None]:
    with simulate("cuda:2"):
        yield


@pytest.mark.parametrize(("name", "dtype"), ENTRIES)
def test_no_entry_is_superfluous(name: str, dtype: torch.dtype) -> None:
    with pytest.raises((RuntimeError, NotImplementedError)):
        CALLS[name](dtype, "cpu")


@pytest.mark.parametrize(("name", "dtype"), ENTRIES)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental:UserWarning")
def test_what_only_cards_compute_is_computed(name: str, dtype: torch.dtype, _card: None) -> None:  # noqa: PT019
    result = CALLS[name](dtype, "cuda:1")
    wide = CALLS[name](WIDER[name][dtype], "cpu")

    assert result.device == torch.device("cuda:1")
    assert result.dtype is KEPT.get((name, dtype), dtype)
    assert result.shape == wide.shape
    if name != "rrelu":
        torch.testing.assert_close(result.cpu().to(wide.dtype), wide, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["abs", "avg_pool3d", "histc"])
def test_on_the_cpu_it_is_not_computed_inside_either(name: str, _card: None) -> None:  # noqa: PT019
    with pytest.raises(NotImplementedError, match="not implemented for"):
        CALLS[name](next(iter(WIDER[name])), "cpu")


PRODUCTS: dict[str, Callable[..., Any]] = {
    "mm": lambda a, b, _c, **kwargs: torch.mm(a, b, **kwargs),
    "addmm": lambda a, b, c, **kwargs: torch.addmm(c, a, b, **kwargs),
    "bmm": lambda a, b, _c, **kwargs: torch.bmm(a[None], b[None], **kwargs),
    "baddbmm": lambda a, b, c, **kwargs: torch.baddbmm(c[None], a[None], b[None], **kwargs),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_product_of_halves_is_given_in_float32_on_cards_alone(
    product: Callable[..., Any],
    dtype: torch.dtype,
    _card: None,  # noqa: PT019
) -> None:
    factors = [torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in range(3)]
    result = product(*(factor.to("cuda:1") for factor in factors), out_dtype=torch.float32)
    assert (result.device, result.dtype) == (torch.device("cuda:1"), torch.float32)
    torch.testing.assert_close(result.cpu(), product(*(factor.float() for factor in factors)))
    with pytest.raises(NotImplementedError, match="from the 'CPU' backend"):
        product(*factors, out_dtype=torch.float32)


def test_a_product_of_other_dtypes_is_refused(_card: None) -> None:  # noqa: PT019
    one, half = (torch.ones(2, 2, dtype=dtype, device="cuda:0") for dtype in (torch.float32, torch.float16))
    with pytest.raises(RuntimeError, match=r"^input dtypes must be the same$"):
        torch.mm(one, half, out_dtype=torch.float32)
    with pytest.raises(RuntimeError, match=r"^out_dtype must be the same as input dtype or fp32 for fp16/bf16 inputs$"):
        torch.mm(one, one, out_dtype=torch.float16)
    assert torch.mm(half, half, out_dtype=torch.float16).dtype is torch.float16


def test_a_widened_kernel_has_a_gradient(_card: None) -> None:  # noqa: PT019
    tensor = torch.ones(1, 1, 2, 2, 2, dtype=torch.float16, device="cuda:1", requires_grad=True)

    F.avg_pool3d(tensor, 2).sum().backward()

    assert tensor.grad is not None
    assert (tensor.grad.dtype, tensor.grad.device) == (torch.float16, torch.device("cuda:1"))
    assert tensor.grad.flatten().tolist() == [0.125] * 8


def test_other_errors_stay_what_they_are(_card: None) -> None:  # noqa: PT019
    with pytest.raises(RuntimeError, match=r"4D or 5D|expected input"):
        F.avg_pool3d(torch.ones(2, dtype=torch.float16, device="cuda:1"), 2)
    with pytest.raises(NotImplementedError, match="not implemented for 'Half'"):
        torch.linalg.cholesky(torch.eye(2, dtype=torch.float16, device="cuda:1"))


def test_types_in_texts_are_those_of_the_card(_card: None) -> None:  # noqa: PT019
    index = torch.ones(2, device="cuda:1")
    with pytest.raises(RuntimeError, match=r"but got torch\.cuda\.FloatTensor instead"):
        F.embedding(index, index[None])
    with pytest.raises(
        RuntimeError, match="expected mat1 and mat2 to have the same dtype, but got: float != c10::Half"
    ):
        index[None] @ index[:, None].half()


def products() -> dict[str, Callable[..., Any]]:
    flat: Callable[[Any], Any] = lambda it: it[0]  # noqa: E731
    deep: Callable[[Any], Any] = lambda it: it[None]  # noqa: E731
    return {
        "matmul": lambda it: torch.matmul(it, it),
        "__matmul__": lambda it: it @ it,
        "__rmatmul__": lambda it: torch.Tensor.__rmatmul__(it, it),
        "linear": lambda it: F.linear(it, it),
        "mm": lambda it: torch.mm(it, it),
        "bmm": lambda it: torch.bmm(deep(it), deep(it)),
        "mv": lambda it: torch.mv(it, flat(it)),
        "dot": lambda it: torch.dot(flat(it), flat(it)),
        "vdot": lambda it: torch.vdot(flat(it), flat(it)),
        "inner": lambda it: torch.inner(flat(it), flat(it)),
        "addmm": lambda it: torch.addmm(it, it, it),
        "addmm_": lambda it: it.addmm_(it, it),
        "addmv": lambda it: torch.addmv(flat(it), it, flat(it)),
        "baddbmm": lambda it: torch.baddbmm(deep(it), deep(it), deep(it)),
        "baddbmm_": lambda it: deep(it).baddbmm_(deep(it), deep(it)),
        "addbmm": lambda it: torch.addbmm(it, deep(it), deep(it)),
        "chain_matmul": lambda it: TORCH.chain_matmul(it, it),
        "einsum": lambda it: TORCH.einsum("ij,jk->ik", it, it),
        "tensordot": lambda it: TORCH.tensordot(it, it, 1),
        "bilinear": lambda it: torch.bilinear(it, it, torch.stack([it, it]), None),
    }


KERNELS = {
    "dot": "dot",
    "vdot": "dot",
    "inner": "dot",
    "mv": "addmv_impl_cuda",
    "addmv": "addmv_impl_cuda",
    **dict.fromkeys(("bmm", "baddbmm", "baddbmm_", "bilinear", "einsum"), "baddbmm_cuda"),
}


@pytest.mark.parametrize("name", INTEGER_PRODUCTS)
@pytest.mark.filterwarnings("ignore:torch.chain_matmul is deprecated:UserWarning")
def test_a_product_of_integers_is_refused_on_cards_alone(name: str, _card: None) -> None:  # noqa: PT019
    multiply = products()[name]
    kernel = KERNELS.get(name, "addmm_cuda")

    for dtype, scalar in ((torch.int64, "Long"), (torch.int32, "Int"), (torch.uint8, "Byte"), (torch.bool, "Bool")):
        with pytest.raises(NotImplementedError, match=f"^\"{kernel}\" not implemented for '{scalar}'$"):
            multiply(torch.ones(2, 2, dtype=dtype, device="cuda:1"))
    multiply(torch.ones(2, 2, dtype=torch.int64))
    assert multiply(torch.ones(2, 2, device="cuda:1")).device == torch.device("cuda:1")


def test_a_product_of_integers_by_name_is_refused(_card: None, subtests: Any) -> None:  # noqa: PT019
    it = torch.ones(2, 2, dtype=torch.int64, device="cuda:1")
    for name, multiply in {
        "mm": lambda: torch.mm(input=it, mat2=it),
        "linear": lambda: F.linear(input=it, weight=it),
        "matmul": lambda: torch.matmul(it, other=it),
        "einsum": lambda: TORCH.einsum("ij,jk->ik", it, it),
        "tensordot": lambda: TORCH.tensordot(it, it, 1),
    }.items():
        with subtests.test(name), pytest.raises(NotImplementedError, match="_cuda\" not implemented for 'Long'"):
            multiply()  # type: ignore[no-untyped-call]


@pytest.mark.xfail(strict=True, reason="the other names of the product are not looked at")
def test_a_product_of_integers_by_another_name_is_refused(_card: None) -> None:  # noqa: PT019
    it = torch.ones(2, 2, dtype=torch.int64, device="cuda:1")
    with pytest.raises(NotImplementedError, match="\"addmm_cuda\" not implemented for 'Long'"):
        torch.linalg.matmul(it, it)


POOLED: dict[str, Callable[[Any], Any]] = {
    "abs": torch.abs,
    "absolute": torch.absolute,
    "isfinite": torch.isfinite,
    "isinf": torch.isinf,
    "outer": lambda it: TORCH.outer(it.flatten(), it.flatten()),
    "ger": lambda it: TORCH.ger(it.flatten(), it.flatten()),
    "kron": lambda it: TORCH.kron(it, it),
    "angle": torch.angle,
    "igamma": lambda it: torch.igamma(it, it),
    "igammac": lambda it: torch.igammac(it, it),
    "histc": lambda it: torch.histc(it.flatten(), bins=2, min=0, max=1),
    "avg_pool1d": lambda it: torch.avg_pool1d(it[0, 0], 2),
    "avg_pool2d": lambda it: F.avg_pool2d(it[0], 2),
    "avg_pool3d": lambda it: F.avg_pool3d(it, 2),
    "local_response_norm": lambda it: F.local_response_norm(it[0, 0], 2),
    "max_pool2d": lambda it: F.max_pool2d(it[0], 2),
    "max_pool3d": lambda it: F.max_pool3d(it, 2),
    "max_pool1d_with_indices": lambda it: F.max_pool1d(it[0, 0], 2, return_indices=True),
    "max_pool2d_with_indices": lambda it: F.max_pool2d(it[0], 2, return_indices=True),
    "max_pool3d_with_indices": lambda it: F.max_pool3d(it, 2, return_indices=True),
    "upsample_bilinear": lambda it: F.interpolate(it[0], scale_factor=2, mode="bilinear"),
}


@pytest.mark.parametrize(
    ("name", "dtype", "kernel"),
    [
        pytest.param(name, dtype, kernel, id=f"{name}-{str(dtype).removeprefix('torch.')}")
        for name, table in REFUSED.items()
        for dtype, kernel in table.items()
    ],
)
def test_a_dtype_that_only_the_cpu_computes_is_refused_on_cards(
    name: str,
    dtype: torch.dtype,
    kernel: str,
    _card: None,  # noqa: PT019
) -> None:
    call = POOLED[name]
    call(given(1, 2, 4, 4, 4, dtype=dtype, device="cpu"))
    with pytest.raises(NotImplementedError, match=f'^"{kernel}" not implemented for'):
        call(given(1, 2, 4, 4, 4, dtype=dtype, device="cuda:1"))
    assert call(given(1, 2, 4, 4, 4, dtype=torch.float32, device="cuda:1")) is not None


def test_a_histogram_of_halves_is_refused_in_words_of_its_own(_card: None) -> None:  # noqa: PT019
    with pytest.raises(RuntimeError, match=r"^HalfTensor is not supported$"):
        torch.histc(torch.ones(2, dtype=torch.float16, device="cuda:0"), min=0, max=1)


def test_what_has_no_kernel_for_a_card_is_refused_there(_card: None) -> None:  # noqa: PT019
    with pytest.raises(NotImplementedError, match=r"^Could not run 'aten::histogram\.bin_ct' with arguments from the"):
        torch.histogram(torch.ones(3, device="cuda:1"), 2)
    assert len(torch.histogram(torch.ones(3), 2)) == 2
    assert all(hasattr(torch, name) or hasattr(torch.ops.aten, name) for name in MISSING_OPERATIONS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_norm_with_parameters_in_another_dtype_is_refused_on_cards_alone(
    dtype: torch.dtype,
    _card: None,  # noqa: PT019
) -> None:
    norm = torch.nn.LayerNorm(4)
    norm(torch.ones(2, 4, dtype=dtype))
    norm.to("cuda:0")
    name = "Half" if dtype == torch.float16 else "BFloat16"
    with pytest.raises(RuntimeError, match=f"^expected scalar type {name} but found Float$"):
        norm(torch.ones(2, 4, dtype=dtype, device="cuda:0"))
    with torch.autocast("cuda", dtype=dtype):
        assert norm(torch.ones(2, 4, dtype=dtype, device="cuda:0")).dtype == torch.float32
    assert norm.to(dtype)(torch.ones(2, 4, dtype=dtype, device="cuda:0")).dtype == dtype


def test_where_the_factors_are_comes_before_what_they_are(_card: None) -> None:  # noqa: PT019
    it = torch.ones(2, 2, dtype=torch.int64, device="cuda:1")
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        it @ it.cpu()


def test_a_product_in_a_dtype_that_the_call_names_is_computed_on_cards_alone(_card: None) -> None:  # noqa: PT019
    left, right = (torch.randn(shape, dtype=torch.float16) for shape in ((3, 70), (70, 2)))
    product = torch.mm(left.to("cuda:1"), right.to("cuda:1"), out_dtype=torch.float32)
    assert (product.device, product.dtype) == (torch.device("cuda:1"), torch.float32)
    # It is not rounded to 16 bits on the way.
    torch.testing.assert_close(product.cpu(), left.float() @ right.float())
    with pytest.raises(NotImplementedError, match=r"Could not run 'aten::mm\.dtype' with arguments from the 'CPU'"):
        torch.mm(left, right, out_dtype=torch.float32)


def test_targets_and_lengths_may_be_anywhere(_card: None) -> None:  # noqa: PT019
    values = torch.randn(5, 2, 4).log_softmax(-1)
    targets, lengths, own = labels("cpu", [1, 2], [3, 1]), labels("cpu", 5, 5), labels("cpu", 2, 2)
    expected = F.ctc_loss(values, targets, lengths, own)
    for device in ("cpu", "cuda:0", "cuda:1"):
        there = [each.to(device) for each in (targets, lengths, own)]
        loss = F.ctc_loss(values.to("cuda:0"), *there)
        assert loss.device == torch.device("cuda:0")
        assert loss.item() == expected.item()


@pytest.mark.parametrize("cell", [torch.nn.LSTMCell, torch.nn.GRUCell])
def test_a_cell_whose_state_is_elsewhere_is_refused_by_the_product_that_meets_it(
    cell: Any,
    _card: None,  # noqa: PT019
) -> None:
    module: Any = cell(3, 4).to("cuda:0")
    values = torch.ones(2, 3, device="cuda:0")
    state = torch.ones(2, 4, device="cuda:1")
    with pytest.raises(RuntimeError, match=r"got mat2 is on cuda:0, different .* cuda:1 .*wrapper_CUDA_mm\)"):
        module(values, (state, state) if cell is torch.nn.LSTMCell else state)
    assert module(values) is not None


@pytest.mark.parametrize("size", [2, 64])
def test_batches_of_different_dtypes_are_refused_alike_whatever_their_size(size: int, _card: None) -> None:  # noqa: PT019
    left = torch.ones(2, size, size, dtype=torch.float16, device="cuda:0")
    right = left.float()
    products: tuple[Callable[[Any, Any], Any], ...] = (
        torch.bmm,
        torch.matmul,
        lambda a, b: TORCH.einsum("bij,bjk->bik", a, b),
    )
    for product in products:
        with pytest.raises(RuntimeError, match=r"^expected scalar type Half but found Float$"):
            product(left, right)
        with pytest.raises(RuntimeError, match=r"^expected scalar type Float but found Half$"):
            product(right, left)


@pytest.mark.skipif(Version(torch.__version__).release < (2, 13), reason="older cards have another kernel for it")
def test_columns_with_rows_are_multiplied_whatever_their_dtypes(_card: None) -> None:  # noqa: PT019
    frequencies, positions = torch.tensor([1.0, 0.5, 0.25]), torch.arange(5)
    expected = frequencies[:, None] * positions
    for left, right in ((frequencies, positions), (frequencies.bfloat16(), positions.float()), (positions, positions)):
        columns, rows = left.to("cuda:0")[None, :, None], right.to("cuda:0")[None, None]
        for product in (torch.bmm(columns, rows), torch.matmul(columns, rows), columns @ rows):
            assert (product.device, product.dtype) == (torch.device("cuda:0"), left.dtype)
            wanted = expected if left.is_floating_point() else positions[:, None] * positions
            assert torch.equal(product.cpu()[0].float(), wanted.float())
    outer = TORCH.einsum("i,j->ij", positions.to("cuda:0"), frequencies.to("cuda:0"))
    assert torch.equal(outer.cpu(), expected.T)


def test_a_number_that_a_dtype_cannot_hold_is_refused_in_a_single_element_too(_card: None) -> None:  # noqa: PT019
    fills: tuple[Callable[[], Any], ...] = (
        lambda: torch.full((1,), -1e9, dtype=torch.float16, device="cuda:0"),
        lambda: torch.zeros((), dtype=torch.float16, device="cuda:0").fill_(-1e9),
        lambda: torch.nn.init.constant_(torch.zeros(1, dtype=torch.float16, device="cuda:0"), -1e9),
        lambda: torch.where(labels("cuda:0", True), torch.zeros(1, dtype=torch.float16, device="cuda:0"), -1e9),
    )
    for fill in fills:
        with pytest.raises(RuntimeError, match=r"^value cannot be converted to type c10::Half without overflow$"):
            fill()
    assert torch.full((1,), -1e9, dtype=torch.float16).item() == float("-inf")
    assert torch.full((1,), float("-inf"), dtype=torch.float16, device="cuda:0").item() == float("-inf")


def test_bounds_of_16_bit_numbers_may_be_any_of_float32(_card: None) -> None:  # noqa: PT019
    values = torch.tensor([-1.0, 2.0], dtype=torch.float16, device="cuda:0")
    clamped = values.clamp(min=-1e9, max=1.0)
    assert (clamped.dtype, clamped.device, clamped.tolist()) == (torch.float16, torch.device("cuda:0"), [-1.0, 1.0])
    with pytest.raises(RuntimeError, match=r"^value cannot be converted to type float without overflow$"):
        values.clamp(max=1e39)

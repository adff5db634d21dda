"""Functions on a simulated card: values, dtypes, shapes and aliases are the CPU's, and all results are on the card."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it

from pytest_llmdevice.simulation import simulate

Case = Callable[[Any], Any]

CARD = "cuda:1"


def _words(text: str) -> list[str]:
    return text.split()


# Where PyTorch leaves no choice: functions of one tensor between 0 and 1, and of two.
UNARY = _words("""
    abs acos angle asin asinh atan atanh ceil cos cosh deg2rad digamma erf erfc erfinv exp exp2 expm1 floor frac
    isfinite isinf isnan lgamma log log10 log1p log2 logical_not logit nan_to_num neg positive rad2deg reciprocal relu
    round rsqrt sgn sigmoid sign signbit sin sinc sinh sqrt square tan tanh trunc
    sum mean prod std var amax amin argmax argmin max min median norm all any count_nonzero flatten ravel clone detach
    ones_like zeros_like t adjoint diag trace tril triu fliplr flipud rot90 nonzero unique
""")
ALONG = ["logsumexp", "cumsum", "cumprod", "logcumsumexp", "softmax", "log_softmax"]
BINARY = _words("""
    add sub mul div true_divide floor_divide fmod remainder pow atan2 copysign hypot maximum minimum fmax fmin logaddexp
    logaddexp2 nextafter xlogy heaviside eq ne lt le gt ge isclose logical_and logical_or logical_xor dist allclose
""")
LAYERS = _words("""
    celu elu gelu glu hardshrink hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish relu6 selu silu softplus
    softshrink softsign tanhshrink
""")
IN_PLACE = _words("""
    abs_ add_ ceil_ clamp_ copy_ cos_ cumsum_ div_ eq_ erf_ exp_ fill_ floor_ fmod_ lerp_ log_ lt_ masked_fill_ mul_
    neg_ pow_ reciprocal_ relu_ remainder_ round_ rsqrt_ sigmoid_ sin_ sqrt_ sub_ t_ tanh_ transpose_ tril_ triu_
    squeeze_ unsqueeze_ zero_
""")
WITHOUT_OUT = ["isclose", "dist", "allclose"]
ARGUMENTS: dict[str, Case] = dict.fromkeys(IN_PLACE, lambda _: ()) | {
    "add_": lambda o: (o.y,),
    "clamp_": lambda _: (0.2, 0.7),
    "copy_": lambda o: (o.y,),
    "cumsum_": lambda _: (1,),
    "div_": lambda o: (o.y,),
    "eq_": lambda o: (o.y,),
    "fill_": lambda _: (2.0,),
    "fmod_": lambda o: (o.y,),
    "lerp_": lambda o: (o.y, 0.5),
    "lt_": lambda _: (0.5,),
    "masked_fill_": lambda o: (o.mask, 2.0),
    "mul_": lambda o: (o.y,),
    "pow_": lambda _: (2,),
    "remainder_": lambda o: (o.y,),
    "sub_": lambda o: (o.y,),
    "transpose_": lambda _: (0, 1),
    "unsqueeze_": lambda _: (0,),
}

CASES: dict[str, Case] = {
    # products
    "mm": lambda o: torch.mm(o.x, o.y.t()),
    "matmul": lambda o: o.x @ o.square,
    "matmul-vector": lambda o: o.x @ o.vector,
    "bmm": lambda o: torch.bmm(o.batch, o.batch.transpose(1, 2)),
    "addmm": lambda o: torch.addmm(o.vector, o.x, o.square, beta=0.5),
    "baddbmm": lambda o: torch.baddbmm(o.batch, o.batch[:, :, :3], o.batch),
    "mv": lambda o: torch.mv(o.x, o.vector),
    "dot": lambda o: torch.dot(o.vector, o.vector),
    "outer": lambda o: torch.outer(o.vector, o.vector),
    "einsum": lambda o: torch.einsum("ij,kj->ik", o.x, o.y),
    "tensordot": lambda o: torch.tensordot(o.x, o.square, dims=1),
    "kron": lambda o: torch.kron(o.x, o.y),
    "cdist": lambda o: torch.cdist(o.x, o.y),
    "linear": lambda o: F.linear(o.x, o.square, o.vector),
    "bilinear": lambda o: F.bilinear(o.x, o.y, o.image[0]),
    # pointwise with more than two operands, or a number
    "addcmul": lambda o: torch.addcmul(o.x, o.y, o.y, value=0.5),
    "addcdiv": lambda o: torch.addcdiv(o.x, o.y, o.y),
    "lerp": lambda o: torch.lerp(o.x, o.y, 0.3),
    "clamp": lambda o: torch.clamp(o.x, 0.2, 0.7),
    "clamp-tensor": lambda o: torch.clamp(o.x, min=o.y),
    "where": lambda o: torch.where(o.mask, o.x, o.y),
    "where-number": lambda o: torch.where(o.mask, o.x, 0.0),
    "number-minus": lambda o: 1 - o.x,
    "number-over": lambda o: 1 / o.x,
    "power-of-number": lambda o: 2**o.x,
    "invert": lambda o: ~o.mask,
    "and": lambda o: o.mask & ~o.mask,
    "shift": lambda o: o.index << 1,
    "cpu-number": lambda o: o.x * torch.tensor(2.0),
    "gcd": lambda o: torch.gcd(o.index, o.index),
    "bitwise_xor": lambda o: torch.bitwise_xor(o.index, 1),
    "polygamma": lambda o: torch.polygamma(1, o.x),
    "i0": lambda o: torch.special.i0(o.x),
    "entr": lambda o: torch.special.entr(o.x),
    # reductions along a dimension, with several results
    "sum-dim": lambda o: o.x.sum(1, keepdim=True),
    "max-dim": lambda o: torch.max(o.x, dim=1),
    "aminmax": lambda o: torch.aminmax(o.x),
    "var_mean": lambda o: torch.var_mean(o.x, dim=1),
    "mode": lambda o: torch.mode(o.x),
    "kthvalue": lambda o: torch.kthvalue(o.x, 2),
    "topk": lambda o: torch.topk(o.x, 2),
    "sort": lambda o: torch.sort(o.x, stable=True),
    "argsort": lambda o: torch.argsort(o.x),
    "cummax": lambda o: torch.cummax(o.x, 1),
    "quantile": lambda o: torch.quantile(o.x, 0.5),
    "nansum": lambda o: torch.nansum(o.x),
    "nanmean": lambda o: torch.nanmean(o.x),
    "histc": lambda o: torch.histc(o.x, 4),
    "bincount": lambda o: torch.bincount(o.index),
    "unique-counts": lambda o: torch.unique(o.index, return_inverse=True, return_counts=True),
    "unique_consecutive": lambda o: torch.unique_consecutive(o.index),
    "searchsorted": lambda o: torch.searchsorted(o.vector.sort().values, o.x),
    "bucketize": lambda o: torch.bucketize(o.x, o.vector.sort().values),
    "isin": lambda o: torch.isin(o.index, o.index[:2]),
    "cov": lambda o: torch.cov(o.x),
    "corrcoef": lambda o: torch.corrcoef(o.x),
    "diff": lambda o: torch.diff(o.x),
    "trapezoid": lambda o: torch.trapezoid(o.x),
    "cumulative_trapezoid": lambda o: torch.cumulative_trapezoid(o.x),
    "renorm": lambda o: torch.renorm(o.x, 2, 0, 0.5),
    # views
    "view": lambda o: o.x.view(4, 3),
    "reshape": lambda o: o.x.reshape(2, 6),
    "reshape-copy": lambda o: o.x.t().reshape(12),
    "permute": lambda o: o.batch.permute(2, 0, 1),
    "transpose": lambda o: o.x.transpose(0, 1),
    "slice": lambda o: o.x[1:, ::2],
    "select": lambda o: o.x[1],
    "ellipsis": lambda o: o.batch[..., None, 0],
    "chunk": lambda o: o.x.chunk(2, dim=1),
    "split": lambda o: o.x.split([1, 3], dim=1),
    "unbind": lambda o: o.x.unbind(0),
    "tensor_split": lambda o: torch.tensor_split(o.x, 2, dim=1),
    "expand": lambda o: o.vector.expand(3, 4),
    "broadcast_to": lambda o: torch.broadcast_to(o.vector, (3, 4)),
    "broadcast_tensors": lambda o: torch.broadcast_tensors(o.x, o.vector),  # type: ignore[no-untyped-call]
    "meshgrid": lambda o: torch.meshgrid(o.vector, o.index.float(), indexing="ij"),
    "unfold-view": lambda o: o.x.unfold(1, 2, 1),
    "diagonal": lambda o: o.square.diagonal(),
    "movedim": lambda o: o.batch.movedim(0, 2),
    "unflatten": lambda o: o.x.unflatten(1, (2, 2)),
    "as_strided": lambda o: o.x.as_strided((2, 2), (1, 2)),
    "real": lambda o: torch.view_as_complex(o.x.view(3, 2, 2)).real,
    "view-dtype": lambda o: o.x.view(torch.int32),
    "contiguous": lambda o: o.x.t().contiguous(),
    "squeeze": lambda o: o.x[None].squeeze(0),
    "data": lambda o: o.x.data,
    # indexing
    "index": lambda o: o.x[o.index],
    "index-mask": lambda o: o.x[o.mask],
    "index-list": lambda o: o.x[[0, 2]],
    "index-cpu": lambda o: o.x[torch.tensor([0, 2])],
    "index_select": lambda o: torch.index_select(o.x, 0, o.index),
    "gather": lambda o: torch.gather(o.x, 0, o.index[None]),
    "take": lambda o: torch.take(o.x, o.index),
    "take_along_dim": lambda o: torch.take_along_dim(o.x, o.index[None], 0),
    "masked_select": lambda o: torch.masked_select(o.x, o.mask),
    "masked_fill": lambda o: o.x.masked_fill(o.mask, -1.0),
    "masked_scatter": lambda o: o.x.masked_scatter(o.mask, o.y),
    "scatter": lambda o: o.x.scatter(0, o.index[None], 1.0),
    "scatter_add": lambda o: o.x.scatter_add(0, o.index[None], o.y),
    "scatter_reduce": lambda o: o.x.scatter_reduce(0, o.index[None], o.y, "amax"),
    "index_add": lambda o: o.x.index_add(0, o.index, o.square),
    "index_copy": lambda o: o.x.index_copy(0, o.index[:2], o.y[:2]),
    "index_fill": lambda o: o.x.index_fill(0, o.index, 1.0),
    "index_put": lambda o: o.x.index_put((o.index,), o.square),
    "select_scatter": lambda o: torch.select_scatter(o.x, o.vector, 0, 1),
    "slice_scatter": lambda o: torch.slice_scatter(o.x, o.y[:1], 0, 1, 2),
    "put": lambda o: torch.put(o.x, o.index, o.vector),
    "nonzero-tuple": lambda o: torch.nonzero(o.mask, as_tuple=True),
    "argwhere": lambda o: torch.argwhere(o.mask),
    # joining and rearranging
    "cat": lambda o: torch.cat([o.x, o.y]),
    "stack": lambda o: torch.stack([o.x, o.y], 1),
    "hstack": lambda o: torch.hstack((o.x, o.y)),
    "column_stack": lambda o: torch.column_stack([o.vector, o.vector]),
    "block_diag": lambda o: torch.block_diag(o.x, o.y),  # type: ignore[no-untyped-call]
    "cartesian_prod": lambda o: torch.cartesian_prod(o.vector, o.vector),
    "combinations": lambda o: torch.combinations(o.vector),
    "repeat": lambda o: o.x.repeat(2, 1),
    "tile": lambda o: torch.tile(o.x, (2,)),
    "repeat_interleave": lambda o: o.x.repeat_interleave(2, dim=0),
    "repeat_interleave-tensor": lambda o: o.x.repeat_interleave(o.index[:3], dim=0),
    "roll": lambda o: torch.roll(o.x, 1, 0),
    "flip": lambda o: o.x.flip(0),
    "pad": lambda o: F.pad(o.x, (1, 1)),
    "pad-reflect": lambda o: F.pad(o.x, (1, 1), mode="reflect"),
    "one_hot": lambda o: F.one_hot(o.index),
    "vander": lambda o: torch.vander(o.vector),
    "new_zeros": lambda o: o.x.new_zeros(2),
    "new_tensor": lambda o: o.x.new_tensor([1.0]),
    "new_full": lambda o: o.x.new_full((2,), 3.0),
    "full_like": lambda o: torch.full_like(o.x, 2.0),
    "to-dtype": lambda o: o.x.to(torch.float16),
    "half": lambda o: o.x.half(),
    "long": lambda o: o.x.long(),
    "type_as": lambda o: o.index.type_as(o.x),
    "to-other": lambda o: o.index.to(o.x),
    # linear algebra
    "det": lambda o: torch.linalg.det(o.positive),
    "inv": lambda o: torch.linalg.inv(o.positive),
    "cholesky": lambda o: torch.linalg.cholesky(o.positive),
    "solve": lambda o: torch.linalg.solve(o.positive, o.vector),
    "qr": lambda o: torch.linalg.qr(o.positive),
    "svdvals": lambda o: torch.linalg.svdvals(o.x),
    "eigvalsh": lambda o: torch.linalg.eigvalsh(o.positive),
    "slogdet": lambda o: torch.linalg.slogdet(o.positive),
    "pinv": lambda o: torch.linalg.pinv(o.positive),
    "matrix_exp": lambda o: torch.linalg.matrix_exp(o.square),
    "matrix_power": lambda o: torch.linalg.matrix_power(o.square, 2),
    "matrix_norm": lambda o: torch.linalg.matrix_norm(o.x),
    "vector_norm": lambda o: torch.linalg.vector_norm(o.x, dim=1),
    "cross": lambda o: torch.linalg.cross(o.x[:, :3], o.y[:, :3]),
    "multi_dot": lambda o: torch.linalg.multi_dot([o.x, o.square, o.square]),
    "triangular": lambda o: torch.linalg.solve_triangular(o.positive.tril(), o.square, upper=False),
    "rfft": lambda o: torch.fft.irfft(torch.fft.rfft(o.x)),
    "fftn": lambda o: torch.fft.fftn(o.x).abs(),
    "stft": lambda o: torch.stft(o.x.flatten(), 8, window=torch.ones(8, device=o.x.device), return_complex=True).abs(),
    # layers
    "softmax": lambda o: F.softmax(o.x, dim=-1),
    "layer_norm": lambda o: F.layer_norm(o.x, (4,), o.vector, o.vector),
    "group_norm": lambda o: F.group_norm(o.image, 2),
    "batch_norm": lambda o: F.batch_norm(o.image, None, None, training=True),
    "instance_norm": lambda o: F.instance_norm(o.image),
    "rms_norm": lambda o: F.rms_norm(o.x, (4,), o.vector),
    "local_response_norm": lambda o: F.local_response_norm(o.image, 2),
    "normalize": lambda o: F.normalize(o.x),
    "embedding": lambda o: F.embedding(o.index, o.x),
    "embedding_bag": lambda o: F.embedding_bag(o.index[None], o.x),
    "conv1d": lambda o: F.conv1d(o.batch, o.batch[:, :, :2]),
    "conv2d": lambda o: F.conv2d(o.image, o.kernel, o.vector[:2]),
    "conv_transpose2d": lambda o: F.conv_transpose2d(o.image, o.kernel),
    "unfold": lambda o: F.unfold(o.image, 2),
    "fold": lambda o: F.fold(F.unfold(o.image, 2), (4, 4), 2),
    "max_pool2d": lambda o: F.max_pool2d(o.image, 2),
    "max_pool2d-indices": lambda o: F.max_pool2d(o.image, 2, return_indices=True),
    "avg_pool2d": lambda o: F.avg_pool2d(o.image, 2),
    "adaptive_max_pool1d": lambda o: F.adaptive_max_pool1d(o.x, 2),
    "adaptive_avg_pool2d": lambda o: F.adaptive_avg_pool2d(o.image, 1),
    "lp_pool1d": lambda o: F.lp_pool1d(o.x, 2, 2),
    "interpolate": lambda o: F.interpolate(o.image, scale_factor=2, mode="bilinear"),
    "pixel_shuffle": lambda o: F.pixel_shuffle(o.image.repeat(1, 2, 1, 1), 2),
    "channel_shuffle": lambda o: F.channel_shuffle(o.image, 2),
    "grid_sample": lambda o: F.grid_sample(o.image, o.image.movedim(1, 3), align_corners=False),
    "attention": lambda o: F.scaled_dot_product_attention(o.image, o.image, o.image),
    "attention-causal": lambda o: F.scaled_dot_product_attention(o.image, o.image, o.image, is_causal=True),
    "attention-mask": lambda o: F.scaled_dot_product_attention(o.image, o.image, o.image, o.positive > -1),
    "prelu": lambda o: F.prelu(o.x - 0.5, o.vector[:1]),
    "cosine_similarity": lambda o: F.cosine_similarity(o.x, o.y),
    "pairwise_distance": lambda o: F.pairwise_distance(o.x, o.y),
    "cross_entropy": lambda o: F.cross_entropy(o.x, o.index[:3]),
    "nll_loss": lambda o: F.nll_loss(F.log_softmax(o.x, 1), o.index[:3], o.vector),
    "mse_loss": lambda o: F.mse_loss(o.x, o.y),
    "l1_loss": lambda o: F.l1_loss(o.x, o.y),
    "huber_loss": lambda o: F.huber_loss(o.x, o.y),
    "smooth_l1_loss": lambda o: F.smooth_l1_loss(o.x, o.y),
    "kl_div": lambda o: F.kl_div(o.x.log(), o.y, reduction="batchmean"),
    "binary_cross_entropy": lambda o: F.binary_cross_entropy(o.x, o.y),
    "bce-with-logits": lambda o: F.binary_cross_entropy_with_logits(o.x, o.y),
    "poisson_nll_loss": lambda o: F.poisson_nll_loss(o.x, o.y, full=True),
    "gaussian_nll_loss": lambda o: F.gaussian_nll_loss(o.x, o.y, o.y),
    "triplet_margin_loss": lambda o: F.triplet_margin_loss(o.x, o.y, o.x + 1),
    "multilabel_margin_loss": lambda o: F.multilabel_margin_loss(o.x, o.index.expand(3, 4)),
    "ctc_loss": lambda o: F.ctc_loss(
        F.log_softmax(o.batch, -1), o.index[:3, None] + 1, torch.tensor([2, 2, 2]), torch.tensor([1, 1, 1])
    ),
    "lstm_cell": lambda o: torch.lstm_cell(
        o.x, (o.y[:, :1], o.y[:, :1]), o.square, o.square[:, :1], o.vector, o.vector
    ),
    "foreach": lambda o: torch._foreach_add([o.x, o.y], 1.0),
    "sparse": lambda o: torch.sparse.mm(o.square.to_sparse(), o.square),
    "to_dense": lambda o: o.x.to_sparse().to_dense(),
    "checkpoint": lambda o: torch.utils.checkpoint.checkpoint(F.softplus, o.x, use_reentrant=False),
    "vmap": lambda o: torch.vmap(torch.sin)(o.x),
    "packed": lambda o: torch.nn.utils.rnn.pack_padded_sequence(o.x.t()[..., None], torch.tensor([4, 3, 2])).data,
}


def along(name: str, *arguments: Any) -> Case:
    return lambda o: getattr(torch, name)(o.x, *arguments)


def of_both(name: str) -> Case:
    return lambda o: getattr(torch, name)(o.x, o.y)


def layer(name: str) -> Case:
    return lambda o: getattr(F, name)(o.x - 0.5)


CASES |= {name: along(name) for name in UNARY}
CASES |= {f"{name}-along": along(name, 0) for name in ALONG}
CASES |= {name: of_both(name) for name in BINARY}
CASES |= {name: layer(name) for name in LAYERS}

# PyTorch reads a tensor as a number here: without `device=` the result is on the CPU.
FACTORIES: dict[str, Case] = {
    "arange": lambda o: torch.arange(o.index.max()),
    "arange-end": lambda o: torch.arange(0, end=o.index.max()),
    "zeros": lambda o: torch.zeros(o.index[1], 2),
    "full": lambda o: torch.full((2,), o.x[0, 0]),
    "linspace": lambda o: torch.linspace(o.x.min(), o.x.max(), 3),
    "eye": lambda o: torch.eye(o.index[1]),
    "scalar_tensor": lambda o: torch.scalar_tensor(o.x[0, 0]),
    "tensor-of-list": lambda o: torch.tensor([o.x[0, 0], o.x[0, 1]]),
    "hann_window": lambda o: torch.hann_window(o.index[1]),
}

NO_DERIVATIVE = {"unique", "floor_divide", "heaviside"}
DEFECTS: dict[str, str] = {}
"""Case -> what the simulation does wrong there."""


def operands(device: str, *, grad: bool = False) -> Any:
    generator = torch.Generator().manual_seed(5)

    def between(*shape: int) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * 0.9 + 0.05).to(device)

    square = between(4, 4)
    return SimpleNamespace(
        x=between(3, 4).requires_grad_(grad),
        y=between(3, 4),
        square=square,
        positive=square @ square.t() + torch.eye(4, device=device),
        vector=between(4),
        batch=between(3, 3, 4),
        image=between(2, 2, 4, 4),
        kernel=between(2, 2, 2, 2),
        index=torch.tensor([0, 2, 1, 2], device=device),
        mask=between(3, 4) > 0.5,
    )


def tensors(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (tuple, list)):
        return [tensor for part in result for tensor in tensors(part)]
    return []


def gradient(case: Case, device: str) -> torch.Tensor | None:
    """That of `x`; None where nothing depends on it that has one."""
    o = operands(device, grad=True)
    results = [result for result in tensors(case(o)) if result.requires_grad]
    if not results:
        return None
    found: torch.Tensor
    (found,) = torch.autograd.grad([result.abs().sum() for result in results], o.x)
    return found


def places(result: Any) -> set[str]:
    return {str(tensor.device) for tensor in tensors(result)}


def aliases(result: Any, o: Any) -> list[list[str]]:
    """For each result, the operands whose memory it shares."""
    return [
        [name for name, value in vars(o).items() if value.untyped_storage().data_ptr() == start]
        for start in (tensor.untyped_storage().data_ptr() for tensor in tensors(result))
    ]


def assert_same(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if not tensors(expected):
        assert found == expected
    assert len(tensors(found)) == len(tensors(expected))
    for one, other in zip(tensors(found), tensors(expected), strict=True):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        torch.testing.assert_close(one.cpu(), other, equal_nan=True)


def params(cases: Iterable[str]) -> list[Any]:
    return [
        pytest.param(name, marks=pytest.mark.xfail(reason=DEFECTS[name], strict=True) if name in DEFECTS else [])
        for name in cases
    ]


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """One for all: in here the CPU computes what it computes outside."""
    with simulate("cuda:2"):
        yield


@pytest.mark.parametrize("name", params(CASES))
def test_a_function_gives_on_the_card_what_it_gives_on_the_cpu(name: str) -> None:
    here, there = operands("cpu"), operands(CARD)
    expected = CASES[name](here)

    found = CASES[name](there)

    assert places(found) <= {CARD}
    assert places(expected) <= {"cpu"}
    assert aliases(found, there) == aliases(expected, here)
    assert_same(found, expected)


@pytest.mark.parametrize("name", params(name for name in CASES if name not in NO_DERIVATIVE))
def test_a_gradient_is_beside_its_tensor(name: str) -> None:
    expected = gradient(CASES[name], "cpu")

    found = gradient(CASES[name], CARD)

    assert places(found) <= {CARD}
    assert_same(found, expected)


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_it_stays_where_it_is(name: str) -> None:
    here, there = operands("cpu"), operands(CARD)
    expected = getattr(here.x, name)(*ARGUMENTS[name](here))

    found = getattr(there.x, name)(*ARGUMENTS[name](there))

    assert found is there.x
    assert places(found) == {CARD}
    assert_same(found, expected)


@pytest.mark.parametrize("name", [name for name in BINARY if name not in WITHOUT_OUT])
def test_a_result_is_written_where_the_caller_wants_it(name: str) -> None:
    there = operands(CARD)
    expected = getattr(torch, name)(there.x, there.y)
    out = torch.empty(0, dtype=expected.dtype, device=CARD)

    assert getattr(torch, name)(there.x, there.y, out=out) is out
    assert places(out) == {CARD}
    assert_same(out.cpu(), expected.cpu())
    with pytest.raises(RuntimeError, match="same device"):
        getattr(torch, name)(there.x, there.y, out=torch.empty(3, 4, dtype=expected.dtype))


@pytest.mark.parametrize("other", ["cpu", "cuda:0"])
@pytest.mark.parametrize("name", BINARY)
def test_operands_in_two_places_are_refused(name: str, other: str) -> None:
    here, there = operands(CARD), operands(other)

    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        getattr(torch, name)(here.x, there.y)
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        getattr(torch, name)(there.x, here.y)


@pytest.mark.parametrize("name", params(FACTORIES))
def test_a_number_read_from_a_card_leads_nothing_there(name: str) -> None:
    found = FACTORIES[name](operands(CARD))

    assert places(found) == {"cpu"}
    assert_same(found, FACTORIES[name](operands("cpu")))


@pytest.mark.parametrize("name", ["rand_like", "randn_like", "bernoulli", "dropout", "multinomial", "poisson"])
def test_random_numbers_come_from_the_card(name: str) -> None:
    there = operands(CARD)

    def draw() -> Any:
        torch.manual_seed(3)
        if name == "dropout":
            return F.dropout(there.x)
        return torch.multinomial(there.x, 2) if name == "multinomial" else getattr(torch, name)(there.x)

    assert places(draw()) == {CARD}
    assert torch.equal(draw(), draw())


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout", "dropout1d", "dropout2d"])
def test_nothing_is_dropped_where_a_model_is_not_trained(name: str) -> None:
    tensor = torch.ones(2, 3, 4, 4, device=CARD)[0 if name == "dropout1d" else slice(None)]
    before = torch.get_rng_state(), torch.cuda.get_rng_state(CARD)

    kept = getattr(F, name)(tensor, 0.5, training=False)

    assert places(kept) == {CARD}
    assert kept.data_ptr() == tensor.data_ptr()
    assert_same(kept, tensor.cpu())
    assert all(map(torch.equal, before, (torch.get_rng_state(), torch.cuda.get_rng_state(CARD))))

"""Code that spans devices: gradients, transforms, optimizers and operations of one's own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pytest_llmdevice.simulation import simulate

TORCH: Any = torch
CUDA0, CUDA1, CPU = torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cpu")
TWO = "Expected all tensors to be on the same device"


@pytest.fixture(autouse=True)
def _cards() -> Iterator[None]:
    with simulate("cuda:2"):
        yield


@pytest.fixture
def here() -> torch.Tensor:
    return torch.arange(1.0, 4.0, device="cuda:1")


@pytest.fixture
def there() -> torch.Tensor:
    return torch.ones(3, device="cuda:0")


class Split(nn.Module):
    """A model on two cards."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3).to("cuda:0")
        self.second = nn.Linear(3, 1).to("cuda:1")

    def forward(self, given: torch.Tensor) -> Any:
        return self.second(self.first(given.to("cuda:0")).relu().to("cuda:1"))


def test_a_gradient_goes_back_the_way_the_tensor_came() -> None:
    given = torch.ones(3, requires_grad=True)
    first = given.to("cuda:0")
    second = (first * 2).to("cuda:1")
    for tensor in (first, second):
        tensor.retain_grad()

    (second * torch.arange(3.0, device="cuda:1")).cpu().sum().backward()  # type: ignore[no-untyped-call]

    assert given.grad is not None
    assert first.grad is not None
    assert second.grad is not None
    assert (given.grad.device, first.grad.device, second.grad.device) == (CPU, CUDA0, CUDA1)
    assert given.grad.tolist() == first.grad.tolist() == [0.0, 2.0, 4.0]


def test_hooks_see_where_gradients_are(here: torch.Tensor) -> None:
    seen: list[torch.device] = []
    layer: Any = nn.Linear(3, 1).cuda(1)
    layer.weight.register_hook(lambda gradient: seen.append(gradient.device))
    layer.weight.register_post_accumulate_grad_hook(lambda it: seen.append(it.grad.device))
    layer.register_full_backward_hook(lambda _, __, out: seen.append(out[0].device))

    layer(here.requires_grad_()).sum().backward()

    assert seen == [CUDA1] * 3


class Across(torch.autograd.Function):
    """A function with operands on two cards."""

    @staticmethod
    def forward(ctx: Any, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(first, second)
        return first.to(second.device) * second

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        first, second = ctx.saved_tensors
        zero = torch.zeros(3, device=gradient.device)
        return (gradient * second + zero).to(first.device), gradient * first.to(gradient.device)


def test_a_function_of_ones_own_spans_cards(here: torch.Tensor, there: torch.Tensor) -> None:
    here.requires_grad_()
    there.requires_grad_()

    result: Any = Across.apply(here, there)  # type: ignore[no-untyped-call]
    result.sum().backward()

    assert here.grad is not None
    assert there.grad is not None
    assert (result.device, here.grad.device, there.grad.device) == (CUDA0, CUDA1, CUDA0)
    assert (here.grad.tolist(), there.grad.tolist()) == ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])


class Lost(torch.autograd.Function):
    """It forgets where the gradient belongs."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
        return given * 1

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:  # noqa: ARG004
        return gradient.cpu()


@pytest.mark.xfail(strict=True, reason="the engine sees the CPU only, and takes a gradient from anywhere")
def test_a_gradient_on_the_wrong_device_is_refused(here: torch.Tensor) -> None:
    here.requires_grad_()
    with pytest.raises(RuntimeError, match=r"invalid gradient at index 0 - expected device cuda:1 but got cpu"):
        Lost.apply(here).sum().backward()  # type: ignore[no-untyped-call]


def test_a_gradient_given_on_the_wrong_device_is_refused(here: torch.Tensor) -> None:
    with pytest.raises(RuntimeError, match=r"invalid gradient at index 0 - expected device cuda:1 but got cpu"):
        (here.requires_grad_() * 2).backward(torch.ones(3))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_spans_cards(reentrant: bool) -> None:
    model, given = Split(), torch.ones(2, 3, device="cuda:0", requires_grad=True)
    plain = model(given).sum()
    expected = torch.autograd.grad(plain, given)[0]

    result: Any = checkpoint(model, given, use_reentrant=reentrant)
    result.sum().backward()

    assert result.device == CUDA1
    assert given.grad is not None
    assert model.second.weight.grad is not None
    assert (given.grad.device, model.second.weight.grad.device) == (CUDA0, CUDA1)
    assert torch.equal(given.grad, expected)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda it: torch.optim.SGD(it, lr=0.1, momentum=0.9),
    "SGD foreach": lambda it: torch.optim.SGD(it, lr=0.1, foreach=True),
    "Adam": lambda it: torch.optim.Adam(it, amsgrad=True),
    "AdamW": torch.optim.AdamW,
    "AdamW foreach": lambda it: torch.optim.AdamW(it, foreach=True),
    "AdamW loop": lambda it: torch.optim.AdamW(it, foreach=False),
    "AdamW fused": lambda it: torch.optim.AdamW(it, fused=True),
    "Adafactor": torch.optim.Adafactor,
    "Adagrad": torch.optim.Adagrad,
    "RMSprop": torch.optim.RMSprop,
    "NAdam": torch.optim.NAdam,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_steps_on_two_cards_as_on_one(name: str) -> None:
    torch.manual_seed(0)
    split = Split()
    plain = nn.Sequential(copy.deepcopy(split.first).cpu(), nn.ReLU(), copy.deepcopy(split.second).cpu())

    for model in (split, plain):
        optimizer = OPTIMIZERS[name](model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        if model is split:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    assert key in {"step", "mu_product"} or value is None or value.device == parameter.device

    assert [(ours.device) for ours in split.parameters()] == [CUDA0, CUDA0, CUDA1, CUDA1]
    for ours, theirs in zip(split.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.detach().cpu(), theirs.detach())


def test_lists_of_tensors_pair_by_pair(here: torch.Tensor, there: torch.Tensor) -> None:
    added = torch._foreach_add([here, there], [here, there])
    copied = TORCH._foreach_copy_([here.clone(), there.clone()], [there, here])

    assert [tensor.device for tensor in added] == [CUDA1, CUDA0]
    assert [tensor.device for tensor in torch._foreach_mul([here, there], 2.0)] == [CUDA1, CUDA0]
    assert [tensor.device for tensor in torch._foreach_norm([here, there])] == [CUDA1, CUDA0]
    assert copied is None or [(it.device, it.tolist()) for it in copied] == [(CUDA1, [1, 1, 1]), (CUDA0, [1, 2, 3])]
    with pytest.raises(RuntimeError, match=TWO):
        torch._foreach_add([here, there], [there, here])


TRANSFORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "vmap": lambda it: torch.func.vmap(lambda row: row * 2)(it[None])[0],
    "vmap twice": lambda it: torch.func.vmap(torch.func.vmap(lambda one: one * 2))(it[None])[0],
    "vmap in pieces": torch.func.vmap(lambda one: one * 2, chunk_size=1),
    "grad": torch.func.grad(lambda it: (it * it).sum()),
    "vjp": lambda it: torch.func.vjp(lambda one: one * 2, it)[1](torch.ones_like(it))[0] * it,
    "jvp": lambda it: torch.func.jvp(lambda one: one * 2, (it,), (it,))[1],
    "jacrev": lambda it: torch.func.jacrev(lambda one: one * one)(it).diagonal(),
    "jacfwd": lambda it: torch.func.jacfwd(lambda one: one * one)(it).diagonal(),
    "hessian": lambda it: torch.func.hessian(lambda one: (one**3).sum() / 3)(it).diagonal(),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_stay_on_the_card(name: str, here: torch.Tensor) -> None:
    result = TRANSFORMS[name](here)

    assert result.device == CUDA1
    assert result.tolist() == [2.0, 4.0, 6.0]


def test_transforms_see_the_card_inside(here: torch.Tensor) -> None:
    seen: list[torch.device] = []

    def look(row: torch.Tensor) -> torch.Tensor:
        seen.append(row.device)
        return row + torch.ones(3, device=row.device)

    assert torch.func.vmap(look)(here[None]).device == CUDA1
    assert seen == [CUDA1]
    with pytest.raises(RuntimeError, match=TWO):
        torch.func.vmap(lambda row: row + torch.ones(3))(here[None])
    with pytest.raises(RuntimeError, match=TWO):
        torch.func.grad(lambda it: it @ torch.ones(3))(here)


def test_an_ensemble_of_models(here: torch.Tensor) -> None:
    models = [nn.Linear(3, 2).cuda(1) for _ in range(2)]
    state, buffers = torch.func.stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")

    def call(parameters: Any, kept: Any, given: torch.Tensor) -> Any:
        return torch.func.functional_call(base, (parameters, kept), (given,))

    result = torch.func.vmap(call, in_dims=(0, 0, None))(state, buffers, here)

    assert (result.device, result.shape) == (CUDA1, (2, 2))
    assert torch.allclose(result[1], models[1](here))


@torch.library.custom_op("llmdevice_mixed::add_ones", mutates_args=())
def add_ones(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return first + second + torch.ones(3, device=first.device)


@torch.library.custom_op("llmdevice_mixed::home", mutates_args=())
def home(given: torch.Tensor) -> torch.Tensor:
    return given.cpu()


@torch.library.custom_op("llmdevice_mixed::add_into", mutates_args=("first",))
def add_into(first: torch.Tensor, second: torch.Tensor) -> None:
    first.add_(second)


def test_an_operation_of_ones_own(here: torch.Tensor, there: torch.Tensor) -> None:
    operation: Any = torch.ops.llmdevice_mixed.add_ones

    assert add_ones(here, here).device == operation(here, here).device == CUDA1
    assert add_ones(torch.ones(3), torch.ones(3)).device == CPU
    for other in (there, torch.ones(3)):
        with pytest.raises(RuntimeError, match="cuda:1 and"):
            add_ones(here, other)
    add_into(here, here.clone())
    assert here.tolist() == [2.0, 4.0, 6.0]
    with pytest.raises(RuntimeError, match="cuda:1 and cpu"):
        add_into(here, torch.ones(3))


@pytest.mark.xfail(strict=True, reason="the body of a custom operation runs without the interception")
def test_an_operation_of_ones_own_may_move_what_it_is_given(here: torch.Tensor) -> None:
    assert home(here).device == CPU


def scripted(function: Any) -> Any:
    return torch.jit.script(function)


class Doubled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.layer(given) + torch.ones(3, device=given.device)  # type: ignore[no-any-return]


def add(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return one + other * 2


def make(given: torch.Tensor) -> torch.Tensor:
    return given + torch.ones(3, device=given.device)


def test_a_scripted_function_works_on_one_card(here: torch.Tensor) -> None:
    function = scripted(add)

    assert [function(here, here).device, function(here.cpu(), here.cpu()).device] == [CUDA1, CPU]


def test_a_scripted_function_makes_tensors_beside_its_operands(here: torch.Tensor) -> None:
    assert scripted(make)(here).device == CUDA1


def test_a_scripted_function_refuses_two_devices(here: torch.Tensor, there: torch.Tensor) -> None:
    for other in (there, torch.ones(3)):
        with pytest.raises(RuntimeError, match=TWO):
            scripted(add)(here, other)


MODULES: dict[str, Callable[[torch.Tensor], Any]] = {
    "scripted on the card": lambda _: scripted(Doubled().cuda(1)),
    "scripted and moved": lambda _: scripted(Doubled()).cuda(1),
    "traced": lambda given: TORCH.jit.trace(Doubled().cuda(1), given),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_scripted_and_traced_modules(name: str, here: torch.Tensor, there: torch.Tensor) -> None:
    module = MODULES[name](here)

    assert module(here).device == CUDA1
    with pytest.raises(RuntimeError):
        module(there)


def test_sparse_tensors(here: torch.Tensor, there: torch.Tensor) -> None:
    sparse = torch.eye(3, device="cuda:1").to_sparse()

    found = [sparse, sparse.indices(), sparse.values(), sparse @ here, sparse.to_dense(), sparse + sparse]
    assert [tensor.device for tensor in found] == [CUDA1] * len(found)
    moved = sparse.to("cuda:0")
    assert [moved.device, moved.values().device, moved.indices().device, sparse.cpu().device] == [CUDA0] * 3 + [CPU]
    with pytest.raises(RuntimeError, match=TWO):
        sparse @ there


def test_complex_tensors(here: torch.Tensor) -> None:
    number = torch.complex(here, here)

    found = [
        number,
        number.real,
        number.imag,
        number.conj(),
        number.abs(),
        torch.view_as_real(number),
        number.conj() + 1,
    ]
    assert [tensor.device for tensor in found] == [CUDA1] * len(found)
    for other in (torch.ones(3), torch.ones(3, dtype=torch.complex64)):
        with pytest.raises(RuntimeError, match=TWO):
            number * other


def test_empty_tensors_are_somewhere_too(here: torch.Tensor) -> None:
    empty = torch.empty(0, device="cuda:1")

    assert [empty.sum().device, torch.cat([empty, here]).device, empty.cuda(0).device] == [CUDA1, CUDA1, CUDA0]
    for other in (torch.empty(0), torch.empty(0, device="cuda:0")):
        with pytest.raises(RuntimeError, match=TWO):
            empty + other


class Derived(torch.Tensor):
    """It keeps its class."""


class Intercepting(torch.Tensor):
    """It is asked before the function runs."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("kind", [Derived, Intercepting])
def test_classes_derived_from_tensors(kind: Any, here: torch.Tensor) -> None:
    tensor = here.as_subclass(kind)

    assert (type(tensor * 2), (tensor * 2).device) == (kind, CUDA1)
    assert (type(tensor.to("cuda:0")), tensor.to("cuda:0").device) == (kind, CUDA0)
    with pytest.raises(RuntimeError, match=TWO):
        tensor + torch.ones(3)


def test_sequences_are_packed_with_lengths_on_the_cpu() -> None:
    given = torch.ones(2, 2, 3, device="cuda:1")
    packed = nn.utils.rnn.pack_padded_sequence(given, torch.tensor([2, 1]), batch_first=True)

    assert (packed.data.device, packed.batch_sizes.device) == (CUDA1, CPU)
    padded, lengths = nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    assert (padded.device, lengths.device) == (CUDA1, CPU)
    with pytest.raises(
        RuntimeError, match="'lengths' argument should be a 1D CPU int64 tensor, but got 1D cuda:1 Long"
    ):
        nn.utils.rnn.pack_padded_sequence(given, torch.tensor([2, 1], device="cuda:1"))


def test_functions_that_look_themselves(here: torch.Tensor, there: torch.Tensor) -> None:
    assert nn.utils.rnn.pad_sequence([here, torch.ones(1)]).device == CUDA1
    with pytest.raises(RuntimeError, match="expected all tensors to have the same device"):
        torch.meshgrid(here, torch.ones(2), indexing="ij")
    with pytest.raises(RuntimeError, match="Input 0 is on device cuda:1 and input 1 is on device cuda:0"):
        TORCH.block_diag(here, there)
    with pytest.raises(AssertionError, match="'device' do not match: cuda:1 != cpu"):
        torch.testing.assert_close(here, here.cpu())


def test_data_is_loaded_into_pinned_memory() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    loader: Any = DataLoader(TensorDataset(torch.arange(4.0)), batch_size=2, pin_memory=True)

    batches = [batch for (batch,) in loader]
    assert [(batch.device, batch.is_pinned()) for batch in batches] == [(CPU, True)] * 2
    assert torch.cat(batches).cuda(1).tolist() == [0.0, 1.0, 2.0, 3.0]
    on_card: Any = DataLoader(TensorDataset(torch.ones(2, device="cuda:1")), batch_size=2)
    assert next(iter(on_card))[0].device == CUDA1


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_say_nothing_and_work(kind: Any) -> None:
    layer = kind(3, 2, bidirectional=True).cuda(1)

    result, *_ = layer(torch.ones(1, 4, 3, device="cuda:1"))
    result.sum().backward()

    assert result.device == layer.weight_ih_l0.grad.device == CUDA1

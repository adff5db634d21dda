"""Which device a tensor, a module or a factory ends up on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.utils._device
from torch import nn

from pytest_llmdevice.simulation import simulate

TENSOR: Any = torch.Tensor
MODULE: Any = nn.Module
CUDA0, CUDA1, CPU, META = torch.device("cuda:0"), torch.device("cuda:1"), torch.device("cpu"), torch.device("meta")


@pytest.fixture(autouse=True)
def _cards(request: pytest.FixtureRequest) -> Iterator[None]:
    with simulate(getattr(request, "param", "cuda:2")):
        yield


on_mps = pytest.mark.parametrize("_cards", ["mps"], indirect=True)


FACTORIES: dict[str, tuple[Any, ...]] = {
    "empty": (2,),
    "zeros": (2,),
    "ones": (2,),
    "full": ((2,), 1.0),
    "arange": (3,),
    "linspace": (0, 1, 3),
    "logspace": (0, 1, 3),
    "eye": (2,),
    "rand": (2,),
    "randn": (2,),
    "randint": (3, (2,)),
    "randperm": (3,),
    "normal": (0.0, 1.0, (2,)),
    "tensor": ([1.0],),
    "as_tensor": ([1.0],),
    "asarray": ([1.0],),
    "scalar_tensor": (1.0,),
    "empty_strided": ((2,), (1,)),
    "empty_permuted": ((2, 3), (0, 1)),
    "tril_indices": (2, 2),
    "triu_indices": (2, 2),
    "hann_window": (4,),
    "hamming_window": (4,),
    "bartlett_window": (4,),
    "blackman_window": (4,),
    "kaiser_window": (4,),
}


@pytest.mark.parametrize("name", FACTORIES)
def test_a_factory_makes_a_tensor_where_it_is_told(name: str) -> None:
    args = FACTORIES[name]
    factory = getattr(torch, name)
    makes: list[tuple[Callable[[], Any], torch.device]] = [
        (lambda: factory(*args), CPU),
        (lambda: factory(*args, device="cuda:1"), CUDA1),
        (lambda: factory(*args, device=torch.device("cuda", 1)), CUDA1),
        (lambda: factory(*args, device=1), CUDA1),
        (lambda: factory(*args, device="cuda"), CUDA0),
        (lambda: factory(*args, device="cpu"), CPU),
        (lambda: factory(*args, device="meta"), META),
        (lambda: factory(*args, device=None), CPU),
    ]

    assert [make().device for make, _ in makes] == [device for _, device in makes]
    with torch.cuda.device(1):
        assert factory(*args, device="cuda").device == CUDA1
        assert factory(*args).device == CPU
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        factory(*args, device="cuda:2")


# `torch.normal` is not among the functions that a default device reaches.
@pytest.mark.parametrize("name", [name for name in FACTORIES if name != "normal"])
def test_a_factory_makes_a_tensor_on_the_default_device(name: str) -> None:
    args = FACTORIES[name]
    factory = getattr(torch, name)
    # It may have been made while transformers loaded a model, with a replacement of `torch.linspace` in it.
    torch.utils._device._device_constructors.cache_clear()

    for spec in ("cuda:1", torch.device("cuda:1"), 1):
        with torch.device(spec):
            found = [factory(*args), factory(*args, device="cpu"), factory(*args, device="cuda:0")]
            assert [tensor.device for tensor in found] == [CUDA1, CPU, CUDA0]
    torch.set_default_device("cuda:1")
    try:
        assert factory(*args).device == CUDA1
    finally:
        torch.set_default_device(None)
    assert factory(*args).device == CPU


def test_contexts_of_devices_nest() -> None:
    def places() -> tuple[torch.device, torch.device, torch.device]:
        return torch.ones(1).device, nn.Linear(1, 1).weight.device, torch.get_default_device()

    with torch.device("cuda:1"):
        with torch.device("cpu"):
            assert places() == (CPU, CPU, CPU)
        with torch.device("meta"):
            assert places() == (META, META, META)
        with torch.device("cuda:0"):
            assert places() == (CUDA0, CUDA0, CUDA0)
        assert places() == (CUDA1, CUDA1, CUDA1)
        with pytest.raises(KeyError), torch.device("cuda:0"):
            raise KeyError
        assert places() == (CUDA1, CUDA1, CUDA1)
    assert places() == (CPU, CPU, CPU)


def test_a_context_without_an_index_follows_the_current_card() -> None:
    with torch.device("cuda"):
        assert torch.ones(1).device == torch.get_default_device() == CUDA0
        with torch.cuda.device(1):
            assert torch.ones(1).device == torch.get_default_device() == CUDA1


def test_a_context_is_for_what_is_made_and_not_for_what_is_there() -> None:
    tensor = torch.ones(3)

    with torch.device("cuda:1"):
        kept = [
            tensor + 1,
            torch.zeros_like(tensor),
            tensor.new_ones(1),
            torch.cat([tensor]),
            tensor.clone(),
            tensor * 2,
        ]
        kept += [torch.from_numpy(tensor.numpy()), tensor[tensor > 0], torch.tril(tensor[None])]
        assert {made.device for made in kept} == {CPU}
        assert {torch.tensor(tensor.tolist()).device, torch.as_tensor(tensor).device} == {CUDA1}
        layers = [nn.LSTM(1, 1), nn.Embedding(1, 1), nn.BatchNorm1d(1), nn.MultiheadAttention(1, 1), nn.Conv1d(1, 1, 1)]
        assert {value.device for layer in layers for value in layer.state_dict().values()} == {CUDA1}
        with pytest.raises(RuntimeError, match="cuda:1 and cpu"):
            tensor + torch.ones(3)


def test_a_number_is_a_card() -> None:
    device: Any = torch.device

    assert device(1) == CUDA1
    assert torch.ones(1).to(1).device == torch.ones(1).cuda(1).device == CUDA1
    assert isinstance(device(1), torch.device)
    for wrong in (2, -1):
        with pytest.raises(RuntimeError):
            device(wrong)
    with pytest.raises((RuntimeError, TypeError)):
        device(True)
    # A device that is not there has a name, but nothing can be on it.
    assert str(device("cuda:5")) == "cuda:5"
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.ones(1).to("cuda:5")


MOVES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.device]] = {
    "cuda()": (lambda it: it.cuda(), CUDA0),
    "cuda(1)": (lambda it: it.cuda(1), CUDA1),
    "cuda('cuda:1')": (lambda it: it.cuda("cuda:1"), CUDA1),
    "cuda(device=)": (lambda it: it.cuda(device=torch.device("cuda:1"), non_blocking=True), CUDA1),
    "to(str)": (lambda it: it.to("cuda:1"), CUDA1),
    "to(device, dtype)": (lambda it: it.to("cuda:1", torch.float64), CUDA1),
    "to(device=, dtype=)": (lambda it: it.to(device="cuda:1", dtype=torch.float64), CUDA1),
    "to(dtype)": (lambda it: it.to(torch.float64), CPU),
    "to(device, dtype, non_blocking, copy)": (lambda it: it.to("cuda:1", torch.float32, True, True), CUDA1),
    "to(other)": (lambda it: it.to(torch.ones(1, device="cuda:1")), CUDA1),
    "to(tensor=)": (lambda it: TENSOR.to(it, tensor=torch.ones(1, device="cuda:1")), CUDA1),
    "to(cpu)": (lambda it: it.cuda().to("cpu"), CPU),
    "cpu()": (lambda it: it.cuda().cpu(), CPU),
    "card to card": (lambda it: it.cuda(0).to("cuda:1"), CUDA1),
    "meta": (lambda it: it.cuda(1).to("meta"), META),
    "type(str)": (lambda it: it.type("torch.cuda.HalfTensor"), CUDA0),
    "type(dtype)": (lambda it: it.cuda(1).type(torch.float16), CUDA1),
    "type_as": (lambda it: it.type_as(torch.ones(1, device="cuda:1")), CUDA1),
    "half": (lambda it: it.cuda(1).half(), CUDA1),
    "channels": (lambda it: it.view(1, 1, 1, 3).to("cuda:1", memory_format=torch.channels_last), CUDA1),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_tensor_moves(name: str) -> None:
    move, device = MOVES[name]
    tensor = torch.arange(3.0)

    moved = move(tensor)

    assert moved.device == device
    assert tensor.device == CPU
    assert moved.is_cuda is (device.type == "cuda")
    assert moved.get_device() == (device.index if device.type == "cuda" else -1)
    if device is not META:
        assert moved.flatten().tolist() == [0.0, 1.0, 2.0]


def test_a_tensor_that_is_there_is_not_copied() -> None:
    tensor = torch.ones(2, device="cuda:0")

    same = [
        tensor.cuda(),
        tensor.to("cuda"),
        tensor.to("cuda:0"),
        tensor.to(0),
        tensor.to(tensor),
        tensor.to(torch.float32),
        tensor.to(dtype=torch.float32),
        tensor.to(device=CUDA0),
        tensor.to("cuda:0", non_blocking=True),
        tensor.to(0, non_blocking=True),
    ]

    assert all(other is tensor for other in same)
    assert tensor.to(1, non_blocking=True).device == CUDA1
    assert tensor.to(torch.float16, non_blocking=True).device == CUDA0
    assert tensor.to("cuda:0", copy=True).data_ptr() != tensor.data_ptr()
    with torch.cuda.device(1):
        assert tensor.cuda().device == CUDA1


def test_a_copy_on_another_device_shares_nothing() -> None:
    tensor = torch.zeros(2)
    card = tensor.cuda(0)
    other, back = card.cuda(1), card.cpu()

    card += 1

    assert (tensor.tolist(), card.tolist(), other.tolist(), back.tolist()) == ([0, 0], [1, 1], [0, 0], [0, 0])


@pytest.mark.parametrize("device", ["xpu", "mps", "xla"])
def test_a_device_that_nobody_simulates_is_refused(device: str) -> None:
    for tensor in (torch.ones(1), torch.ones(1, device="cuda:1")):
        with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
            tensor.to(device)


def test_there_is_nothing_to_copy_out_of_meta() -> None:
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor; no data!"):
        torch.ones(1, device="meta").to("cuda:1")
    with pytest.raises(NotImplementedError, match="to_empty"):
        nn.Linear(1, 1, device="meta").to("cuda:1")
    layer = nn.Linear(2, 2, device="meta").to_empty(device="cuda:1")
    assert (layer.weight.device, layer.weight.shape) == (CUDA1, (2, 2))
    assert layer.to_empty(device="cpu").weight.device == CPU


MODULE_MOVES: dict[str, tuple[Callable[[nn.Module], nn.Module], torch.device]] = {
    "cuda()": (lambda it: it.cuda(), CUDA0),
    "cuda(1)": (lambda it: it.cuda(1), CUDA1),
    "to(str)": (lambda it: it.to("cuda:1"), CUDA1),
    "to(int)": (lambda it: it.to(1), CUDA1),
    "to(device=int)": (lambda it: it.to(device=1), CUDA1),
    "to(device, dtype)": (lambda it: it.to("cuda:1", torch.float16), CUDA1),
    "to(tensor)": (lambda it: it.to(torch.ones(1, device="cuda:1")), CUDA1),
    "to(dtype)": (lambda it: it.cuda(1).to(torch.float16), CUDA1),
    "half()": (lambda it: it.cuda(1).half(), CUDA1),
    "double()": (lambda it: it.cuda(1).double(), CUDA1),
    "cpu()": (lambda it: it.cuda(1).cpu(), CPU),
    "to(meta)": (lambda it: it.cuda(1).to("meta"), META),
    "_apply": (lambda it: MODULE._apply(it, lambda tensor: tensor.cuda(1)), CUDA1),
}


@pytest.mark.parametrize("name", MODULE_MOVES)
@pytest.mark.parametrize("swap", [False, True])
def test_a_module_moves_with_all_it_has(name: str, swap: bool) -> None:
    move, device = MODULE_MOVES[name]
    layer = nn.BatchNorm1d(2)
    layer(torch.ones(2, 2)).sum().backward()
    weight = layer.weight
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        assert move(layer) is layer
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)

    assert {key: value.device for key, value in layer.state_dict().items()} == dict.fromkeys(layer.state_dict(), device)
    assert isinstance(layer.weight, nn.Parameter)
    if device != META:
        assert layer.weight is weight
        assert weight.grad is not None
        assert weight.grad.device == device
        assert weight.tolist() == [1.0, 1.0]


def test_a_lazy_module_is_made_where_its_input_is() -> None:
    layer = nn.LazyLinear(2).cuda(1)
    assert layer(torch.ones(1, 3, device="cuda:1")).device == CUDA1
    assert layer.weight.device == CUDA1


@pytest.mark.parametrize("source", ["cpu", "cuda:0", "cuda:1"])
@pytest.mark.parametrize("target", ["cpu", "cuda:1", "meta"])
@pytest.mark.parametrize("assign", [True, False])
def test_a_state_is_copied_or_assigned(source: str, target: str, assign: bool) -> None:
    given, taken = nn.Linear(2, 2, device=source), nn.Linear(2, 2, device=target)
    if target == "meta" and not assign:
        with pytest.warns(UserWarning, match="copying from a non-meta parameter"):
            taken.load_state_dict(given.state_dict())
        assert taken.weight.device == META
        return

    taken.load_state_dict(given.state_dict(), assign=assign)

    assert str(taken.weight.device) == (source if assign else target)
    assert taken.weight.tolist() == given.weight.tolist()
    assert (taken.weight.data_ptr() == given.weight.data_ptr()) is assign
    assert taken.weight.requires_grad


def test_utilities_of_modules_keep_their_place() -> None:
    layer = nn.Linear(3, 2).cuda(1)
    vector = nn.utils.parameters_to_vector(layer.parameters())
    nn.utils.vector_to_parameters(vector * 2, layer.parameters())
    given = torch.ones(1, 3, device="cuda:1")

    assert (vector.device, layer.weight.device) == (CUDA1, CUDA1)
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        assert wrap(nn.Linear(3, 2)).cuda(1)(given).device == CUDA1
    with pytest.raises(TypeError, match="Found two parameters on different devices"):
        nn.utils.parameters_to_vector([layer.weight, nn.Parameter(torch.ones(1, device="cuda:0"))])


def test_a_gradient_has_to_be_beside_its_tensor() -> None:
    tensor = torch.ones(2, device="cuda:1", requires_grad=True)

    tensor.grad = torch.ones(2, device="cuda:1")
    with pytest.raises(RuntimeError, match="gradient with device type 'cpu' to a tensor with device type 'cuda'"):
        tensor.grad = torch.ones(2)
    # PyTorch prints the number of a card as a character, and the text ends at the first 0.
    with pytest.raises(RuntimeError, match=r"gradient located on device with index '$"):
        tensor.grad = torch.ones(2, device="cuda:0")
    assert tensor.grad.device == CUDA1


def test_pinned_memory_is_on_the_cpu() -> None:
    pinned = torch.ones(2).pin_memory()

    assert (pinned.device, pinned.is_pinned(), torch.ones(2).is_pinned()) == (CPU, True, False)
    assert pinned.pin_memory() is pinned
    assert torch.empty(2, pin_memory=True).is_pinned()
    assert not pinned.cuda().is_pinned()
    with pytest.raises(RuntimeError, match=r"cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"):
        torch.ones(1, device="cuda").pin_memory()
    with pytest.raises(RuntimeError, match="Only dense CPU tensors can be pinned"):
        torch.ones(1, device="cuda", pin_memory=True)


@on_mps
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(1, dtype=torch.float64, device="mps"),
        lambda: torch.ones(1, dtype=torch.float64).to("mps"),
        lambda: torch.ones(1, device="mps").double(),
        lambda: torch.ones(1, device="mps").to(torch.float64),
        lambda: torch.ones(1, device="mps").new_zeros(1, dtype=torch.float64),
        lambda: nn.Linear(1, 1).double().to("mps"),
        lambda: torch.tensor(1.0, dtype=torch.float64, device="mps"),
    ],
    ids=["ones", "to", "double", "to dtype", "new_zeros", "module", "tensor"],
)
def test_mps_has_no_float64(make: Callable[[], Any]) -> None:
    message = r"Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
    with pytest.raises(TypeError, match=message):
        make()


@on_mps
def test_mps_has_the_dtypes_that_models_use() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool):
        assert torch.ones(1, dtype=dtype, device="mps").to("cpu").dtype is dtype
    assert (torch.ones(1, device="mps") * torch.tensor(2.0, dtype=torch.float64)).dtype is torch.float32

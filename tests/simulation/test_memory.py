"""The bytes that tensors hold on a card, to the byte, and the error when there are no more."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pytest_llmdevice.simulation import simulate

MIB = 2**20
# Much of it has no types.
CUDA: Any = torch.cuda
STORAGE: Any = torch.UntypedStorage


@pytest.fixture(autouse=True)
def _cards() -> Iterator[None]:
    with simulate("cuda:2,memory=64MiB"):
        yield


def held(index: int = 0) -> int:
    found: int = CUDA.memory_allocated(index)
    return found


def blob(mebibytes: int, device: str = "cuda:0") -> torch.Tensor:
    return torch.empty(mebibytes * MIB, dtype=torch.uint8, device=device)


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 512), (128, 512), (129, 1024), (256, 1024), (257, 1536)])
def test_bytes_are_rounded_to_512_on_one_card(count: int, size: int) -> None:
    tensor = torch.empty(count, device="cuda:1")

    assert (held(0), held(1)) == (0, size)
    del tensor
    assert (held(0), held(1)) == (0, 0)


@pytest.mark.parametrize(
    ("dtype", "size"), [(torch.uint8, 1024), (torch.float16, 2048), (torch.float64, 8192), (torch.complex64, 8192)]
)
def test_bytes_are_those_of_the_dtype(dtype: torch.dtype, size: int) -> None:
    tensor = torch.zeros(1024, dtype=dtype, device="cuda")
    assert held() == size == tensor.nbytes


def test_the_last_that_shares_a_storage_gives_it_back() -> None:
    tensor = torch.ones(1024, device="cuda")
    view, storage = tensor[1:].view(3, 341), tensor.untyped_storage()
    detached = view.detach()

    assert held() == 4096
    del tensor, view
    assert held() == 4096
    del detached
    assert held() == 4096
    del storage
    assert held() == 0


def test_what_makes_no_memory_counts_none() -> None:
    tensor = torch.ones(4, 256, device="cuda")

    kept = [
        tensor.t(),
        tensor[0],
        tensor.data,
        tensor.contiguous(),
        tensor.float(),
        tensor.to("cuda:0"),
        tensor.cuda(0),
    ]
    kept += [tensor.add_(1), tensor.mul_(2), tensor.zero_(), torch.nn.Parameter(tensor), tensor.as_strided((1,), (1,))]
    tensor += 1
    tensor[0] = 3
    other = torch.ones(1)
    other.data = tensor

    assert held() == 4096
    assert len(kept) == 12


def test_what_makes_memory_counts_it_where_it_is() -> None:
    tensor = torch.ones(1024, device="cuda:0")

    kept = [tensor + 1, tensor.clone(), tensor.half(), tensor.to("cuda:1"), tensor.cpu(), tensor.to("meta")]

    assert (held(0), held(1)) == (4096 * 3 + 2048, 4096)
    del kept[0]
    assert held(0) == 4096 * 2 + 2048


def test_a_gradient_is_counted_and_given_back() -> None:
    weight = torch.ones(1024, device="cuda", requires_grad=True)
    (weight * 2).sum().backward()  # type: ignore[no-untyped-call]

    assert held() == 8192
    weight.grad = None
    assert held() == 4096


GROWN: dict[str, Callable[[torch.Tensor], Any]] = {
    "resize_": lambda tensor: tensor.resize_(1024),
    "resize_as_": lambda tensor: tensor.resize_as_(torch.empty(1024)),
    "torch.resize_as_": lambda tensor: torch.resize_as_(tensor, torch.empty(1024)),
    "storage": lambda tensor: tensor.untyped_storage().resize_(4096),
    "out": lambda tensor: torch.add(torch.ones(1024, device="cuda:1"), 1, out=tensor),
    "outs": lambda tensor: torch.sort(
        torch.ones(1024, device="cuda:1"), out=(tensor, torch.empty(1024, dtype=torch.int64, device="cuda:1"))
    ),
}


@pytest.mark.parametrize("name", GROWN)
def test_what_grows_in_place_is_counted(name: str) -> None:
    tensor = torch.empty(0, device="cuda:1")
    assert held(1) == 0

    GROWN[name](tensor)
    gc.collect()

    assert held(1) == 4096
    assert tensor.device == torch.device("cuda:1")
    del tensor
    assert held(1) == 0


def test_what_shrinks_keeps_its_memory() -> None:
    tensor = torch.empty(1024, device="cuda")
    tensor.resize_(1)
    assert held() == 4096


TOO_MUCH: dict[str, Callable[[torch.Tensor], Any]] = {
    "empty": lambda _: blob(30),
    "zeros": lambda _: torch.zeros(30, MIB, dtype=torch.uint8, device="cuda"),
    "add": lambda tensor: tensor + 1,
    "cuda": lambda _: torch.empty(30 * MIB, dtype=torch.uint8).cuda(),
    "to": lambda _: torch.empty(30 * MIB, dtype=torch.uint8).to("cuda:0"),
    "clone": lambda tensor: tensor.clone(),
    "stack": lambda tensor: torch.stack([tensor[: 15 * MIB], tensor[: 15 * MIB]]),
    "resize_": lambda _: torch.empty(0, dtype=torch.uint8, device="cuda").resize_(30 * MIB),
    "out": lambda tensor: torch.add(tensor, 1, out=torch.empty(0, dtype=torch.uint8, device="cuda")),
    "storage": lambda _: STORAGE(30 * MIB, device="cuda"),
    "storage.resize_": lambda _: STORAGE(0, device="cuda").resize_(30 * MIB),
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_a_full_card_says_so_and_holds_what_it_held(name: str) -> None:
    tensor = blob(40)
    before = held()
    assert before == 40 * MIB

    with pytest.raises(torch.OutOfMemoryError) as caught:
        TOO_MUCH[name](tensor)

    assert str(caught.value).startswith("CUDA out of memory. Tried to allocate 30.00 MiB. GPU 0 has a total ") or (
        name in {"add", "clone", "out"} and "Tried to allocate 40.00 MiB" in str(caught.value)
    )
    assert "capacity of 64.00 MiB of which 24.00 MiB is free" in str(caught.value)
    assert str(caught.value).endswith("(simulated card)")
    # As long as the error is looked at, too.
    assert held() == before
    assert CUDA.memory_stats()["num_ooms"] == 1
    assert CUDA.max_memory_allocated() == before
    assert blob(20).device == torch.device("cuda:0")


def test_a_smaller_try_succeeds_while_the_error_is_handled() -> None:
    try:
        blob(65)
    except torch.OutOfMemoryError:
        tensor = blob(60)
    assert tensor.numel() == 60 * MIB


def test_a_card_is_full_to_the_byte() -> None:
    first, second = blob(63), torch.empty(MIB - 512, dtype=torch.uint8, device="cuda")
    third = torch.empty(512, dtype=torch.uint8, device="cuda")

    assert held() == 64 * MIB == first.numel() + second.numel() + third.numel()
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate 1 bytes"):
        torch.empty(1, dtype=torch.uint8, device="cuda")
    assert blob(64, "cuda:1").device.index == 1


def test_a_failed_resize_leaves_a_tensor_as_it_was() -> None:
    storage: Any = STORAGE(30 * MIB, device="cuda:1")
    with pytest.raises(torch.OutOfMemoryError):
        storage.resize_(70 * MIB)
    assert (storage.nbytes(), held(1)) == (30 * MIB, 30 * MIB)


def test_a_module_that_does_not_fit_stays_where_it_was() -> None:
    layer = torch.nn.Linear(4096, 8192, bias=False)

    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 128\.00 MiB"):
        layer.cuda()

    assert layer.weight.device.type == "cpu"
    assert held() == 0


def test_the_peak_is_the_most_that_was_held() -> None:
    first, second = blob(10), blob(20)
    del second
    third = blob(5)

    assert (held(), CUDA.max_memory_allocated(), CUDA.max_memory_allocated(1)) == (15 * MIB, 30 * MIB, 0)
    CUDA.reset_peak_memory_stats()
    assert CUDA.max_memory_allocated() == 15 * MIB
    del first, third
    assert (held(), CUDA.max_memory_allocated()) == (0, 15 * MIB)


def test_free_memory_is_what_is_neither_held_nor_cached() -> None:
    tensor = blob(10)
    assert CUDA.mem_get_info(0) == (54 * MIB, 64 * MIB)
    assert CUDA.mem_get_info(1) == (64 * MIB, 64 * MIB)
    del tensor
    assert CUDA.mem_get_info(0)[0] == 54 * MIB
    CUDA.empty_cache()
    assert CUDA.mem_get_info(0) == (64 * MIB, 64 * MIB)


def test_a_share_of_the_card_can_be_the_limit() -> None:
    CUDA.set_per_process_memory_fraction(0.5, 1)

    with pytest.raises(torch.OutOfMemoryError):
        blob(33, "cuda:1")
    assert blob(32, "cuda:1").numel() == blob(33).numel() - MIB


def test_a_thousand_operations_leave_nothing() -> None:
    weight = torch.ones(64, device="cuda", requires_grad=True)
    before = held()
    gc.disable()
    try:
        for _ in range(250):
            (weight * 2).relu().sum().backward()  # type: ignore[no-untyped-call]
            weight.grad = None
    finally:
        gc.enable()

    assert held() == before
    stats = CUDA.memory_stats()
    assert stats["allocation.all.allocated"] - stats["allocation.all.freed"] == stats["allocation.all.current"] == 1


def test_a_cycle_is_given_back_when_it_is_collected() -> None:
    cycle: list[Any] = [torch.ones(1024, device="cuda")]
    cycle.append(cycle)
    gc.collect()
    del cycle
    assert held() == 4096
    gc.collect()
    assert held() == 0


def test_threads_leave_nothing() -> None:
    def work() -> None:
        for _ in range(200):
            torch.ones(64, device="cuda:1").add(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    stats = CUDA.memory_stats(1)
    assert (held(1), stats["allocation.all.current"]) == (0, 0)
    assert stats["allocation.all.allocated"] >= 1600


def test_a_sparse_tensor_counts_its_indices_and_its_values() -> None:
    indices, values = torch.zeros(2, 64, dtype=torch.int64), torch.ones(64)
    sparse = torch.sparse_coo_tensor(indices, values, (2, 2), check_invariants=False)
    moved = sparse.to("cuda:1")
    assert moved.device.index == 1
    assert held(1) == 1024 + 512


def test_accelerate_plans_with_the_memory_of_the_cards() -> None:
    from accelerate import infer_auto_device_map, init_empty_weights
    from accelerate.utils import get_max_memory

    free = get_max_memory()
    assert [free[0], free[1]] == [64 * MIB - 2 * MIB, 64 * MIB - 2 * MIB]
    with init_empty_weights():
        model = torch.nn.Sequential(*[torch.nn.Linear(2048, 2048, bias=False) for _ in range(6)])
    plan = infer_auto_device_map(model)
    # The first card keeps room for the largest layer, which may have to come back from the CPU.
    assert list(plan.values()) == [0, 0, 1, 1, 1, "cpu"]

"""Threads inside a simulation are inside it, those that outlive it are outside from its end on."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from typing import Any

import pytest
import torch

from pytest_llmdevice.simulation import simulate

CARD = "cuda:1"


def place() -> str:
    return str((torch.ones(1, device=CARD) + 1).device)


@pytest.fixture
def outer_pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()
        yield pool


def in_thread(function: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_every_kind_of_thread_is_inside(outer_pool: ThreadPoolExecutor, subtests: Any) -> None:
    class Derived(threading.Thread):
        result = ""

        def run(self) -> None:
            self.result = place()

    def derived() -> str:
        thread = Derived()
        thread.start()
        thread.join()
        return thread.result

    def timer() -> str:
        results: list[str] = []
        thread = threading.Timer(0, lambda: results.append(place()))
        thread.start()
        thread.join()
        return results[0]

    def within() -> str:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(place).result()

    def mapped() -> str:
        return next(outer_pool.map(lambda _: place(), range(1)))

    async def awaited() -> str:
        return await asyncio.to_thread(place)

    def multiprocessing() -> str:
        with ThreadPool(1) as pool:
            return pool.apply(place)

    kinds: dict[str, Callable[[], str]] = {
        "target": lambda: in_thread(place),
        "derived": derived,
        "timer": timer,
        "pool made inside": within,
        "pool made before": lambda: outer_pool.submit(place).result(),
        "map": mapped,
        "asyncio": lambda: asyncio.run(awaited()),
        "multiprocessing": multiprocessing,
        "a thread of a thread": lambda: in_thread(lambda: in_thread(place)),
        "a pool of a thread": lambda: in_thread(lambda: outer_pool.submit(place).result()),
    }
    for name, kind in kinds.items():
        with subtests.test(name):
            with simulate("cuda:2"):
                assert kind() == CARD
            assert in_thread(lambda: str(torch.ones(1).device)) == "cpu"
            with pytest.raises(AssertionError, match="not compiled"):
                outer_pool.submit(place).result()


def test_a_pool_works_after_the_simulation_and_in_the_next(outer_pool: ThreadPoolExecutor) -> None:
    with simulate("cuda:2"):
        tensor = outer_pool.submit(lambda: torch.ones(2, device=CARD)).result()
        assert str(tensor.device) == CARD
    assert outer_pool.submit(lambda: str(tensor.device)).result() == "cpu"
    with simulate("cuda:2"):
        assert outer_pool.submit(lambda: str(tensor.device)).result() == "cpu"
        assert outer_pool.submit(place).result() == CARD


def test_a_thread_that_outlives_the_simulation_is_outside_afterwards() -> None:
    made, ended = threading.Event(), threading.Event()
    seen: dict[str, Any] = {}

    def live() -> None:
        tensor = torch.ones(1, device=CARD)
        seen["inside"] = str(tensor.device)
        made.set()
        ended.wait(30)
        seen["after"] = (
            str(tensor.device),
            repr(tensor),
            str((tensor + torch.ones(1)).device),
            torch.get_default_device(),
        )
        try:
            torch.ones(1, device=CARD)
        except AssertionError as error:
            seen["new"] = str(error)

    with simulate("cuda:2"):
        thread = threading.Thread(target=live)
        thread.start()
        assert made.wait(30)
    ended.set()
    thread.join()

    assert seen["inside"] == CARD
    assert seen["after"] == ("cpu", "tensor([1.])", "cpu", torch.device("cpu"))
    assert seen["new"] == "Torch not compiled with CUDA enabled"


def test_a_thread_that_outlives_it_does_not_join_the_next() -> None:
    made, entered, looked = threading.Event(), threading.Event(), threading.Event()
    seen: list[str] = []

    def live() -> None:
        tensor = torch.ones(1, device=CARD)
        made.set()
        entered.wait(30)
        seen.append(str(tensor.device))
        looked.set()

    with simulate("cuda:2"):
        thread = threading.Thread(target=live)
        thread.start()
        made.wait(30)
    with simulate("cuda:2"):
        entered.set()
        looked.wait(30)
        thread.join()

    assert seen == ["cpu"]


def test_an_exception_comes_out_of_a_thread_and_the_thread_goes_on(outer_pool: ThreadPoolExecutor) -> None:
    missing: dict[str, int] = {}
    with simulate("cuda:2"):
        with pytest.raises(RuntimeError, match="cuda:1 and cpu"):
            outer_pool.submit(lambda: torch.ones(2, device=CARD) + torch.ones(2)).result()
        with pytest.raises(KeyError, match="mine"):
            outer_pool.submit(lambda: missing["mine"]).result()
        assert outer_pool.submit(place).result() == CARD
    assert outer_pool.submit(lambda: str(torch.ones(1).device)).result() == "cpu"


def test_a_thread_begins_with_the_first_card_and_has_its_own_current_one() -> None:
    cuda: Any = torch.cuda

    def current() -> tuple[int, int, str]:
        first = cuda.current_device()
        cuda.set_device(1)
        return first, cuda.current_device(), str(torch.ones(1, device="cuda").device)

    with simulate("cuda:2"):
        with cuda.device(1):
            assert in_thread(current) == (0, 1, "cuda:1")
        assert cuda.current_device() == 0
        assert str(torch.ones(1, device="cuda").device) == "cuda:0"


def test_a_default_device_is_of_its_thread() -> None:
    with simulate("cuda:2"), torch.device(CARD):
        assert str(torch.ones(1).device) == CARD
        assert in_thread(lambda: str(torch.ones(1).device)) == "cpu"

        def inside() -> str:
            with torch.device("cuda:0"):
                return str(torch.ones(1).device)

        assert in_thread(inside) == "cuda:0"


def test_a_backward_pass_in_a_thread() -> None:
    def train() -> tuple[str, list[float]]:
        layer = torch.nn.Linear(2, 1).to(CARD)
        layer(torch.ones(1, 2, device=CARD)).sum().backward()
        assert layer.weight.grad is not None
        return str(layer.weight.grad.device), layer.weight.grad.flatten().tolist()

    with simulate("cuda:2"):
        assert in_thread(train) == (CARD, [1.0, 1.0])


def test_a_thread_can_be_asked_what_it_is() -> None:
    with simulate("cuda:2"):
        thread = threading.Thread(target=place, name="mine", daemon=True)
        assert not thread.is_alive()
        thread.start()
        thread.join(30)
        assert (thread.name, thread.daemon, thread.is_alive()) == ("mine", True, False)
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()


def test_many_threads_draw_and_count_without_losing_anything() -> None:
    cuda: Any = torch.cuda

    def work() -> float:
        total = 0.0
        for _ in range(50):
            total += (torch.rand(8, device=CARD) < 2).sum().item()
        return total

    with simulate("cuda:2"):
        before = cuda.memory_allocated(1)
        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda _: work(), range(4))) == 1600
        stats = cuda.memory_stats(1)
        assert cuda.memory_allocated(1) == before
        assert stats["allocation.all.current"] == 0
        assert stats["allocation.all.allocated"] == stats["allocation.all.freed"] >= 4 * 50 * 3


def test_threads_that_ended_keep_nothing_alive() -> None:
    from pytest_llmdevice.simulation.threads import _ThreadMode

    def kept() -> list[_ThreadMode]:
        gc.collect()
        return [it for it in gc.get_objects() if type(it) is _ThreadMode]

    with simulate("cuda:2"):
        # Threads of earlier tests may live still.
        before = kept()
        for _ in range(5):
            in_thread(place)
        assert kept() == before

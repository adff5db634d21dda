from __future__ import annotations

import pickle
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.cuda import device_count as device_count_imported_before
from torch.cuda import is_available as is_available_imported_before

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.tags import placements_on

Drive = Callable[[str], Machine]
MIB = 2**20
# Much of it has no types.
CUDA: Any = torch.cuda

# A failed call of CUDA has a class of its own since PyTorch 2.8.
AcceleratorError = getattr(torch, "AcceleratorError", RuntimeError)


def test_the_cards_are_there_under_every_name(drive: Drive) -> None:
    drive("cuda:2")

    assert CUDA.is_available()
    assert is_available_imported_before()
    assert CUDA.device_count() == device_count_imported_before() == 2
    assert not CUDA.is_initialized()
    backend: Any = torch.backends.cuda
    assert backend.is_built()
    assert torch.version.cuda == "13.0"
    assert torch.version.hip is None
    CUDA.init()
    assert CUDA.is_initialized()
    assert CUDA.device_count() == device_count_imported_before() == 2


def test_a_card_has_the_properties_of_its_profile(drive: Drive) -> None:
    drive("cuda:2")

    properties: Any = CUDA.get_device_properties(1)

    assert properties.name == CUDA.get_device_name() == "NVIDIA H100 80GB HBM3"
    assert CUDA.get_device_capability("cuda:1") == (properties.major, properties.minor) == (9, 0)
    assert properties.total_memory == 80 * 2**30
    assert properties.multi_processor_count == 132
    assert properties.warp_size == 32
    assert properties.uuid != CUDA.get_device_properties(0).uuid
    assert repr(properties).startswith(
        "_CudaDeviceProperties(name='NVIDIA H100 80GB HBM3', major=9, minor=0, total_mem"
    )
    assert repr(properties).endswith("(simulated)")
    assert repr(pickle.loads(pickle.dumps(properties))) == repr(properties)


def test_rocm_is_a_cuda_with_another_version(drive: Drive) -> None:
    drive("rocm:2")

    properties: Any = CUDA.get_device_properties()

    assert torch.version.hip == "7.0"
    assert torch.version.cuda is None
    assert properties.gcnArchName == "gfx942"
    assert properties.warp_size == 64
    assert "gcnArchName='gfx942'" in repr(properties)
    assert CUDA.device_count() == 2
    assert CUDA.get_arch_list() == ["gfx942"]
    assert CUDA.is_bf16_supported()
    with pytest.raises(AcceleratorError, match="HIP error: invalid device ordinal"):
        CUDA.set_device(2)


@pytest.mark.parametrize(("profile", "native"), [("cuda", True), ("cuda-t4", False)])
def test_only_a_new_card_has_bfloat16_without_emulation(drive: Drive, profile: str, native: bool) -> None:
    drive(profile)

    assert CUDA.is_bf16_supported()
    assert CUDA.is_bf16_supported(including_emulation=False) is native
    if hasattr(CUDA, "is_tf32_supported"):
        assert CUDA.is_tf32_supported() is native


def test_the_current_card_changes_by_context_and_by_call(drive: Drive) -> None:
    drive("cuda:3")

    with CUDA.device(1):
        assert CUDA.current_device() == 1
        with CUDA.device("cuda:2"):
            assert CUDA.current_device() == 2
        assert CUDA.current_device() == 1
    assert CUDA.current_device() == 0
    CUDA.set_device("cuda:2")
    assert CUDA.current_device() == 2
    CUDA.set_device(-1)
    assert CUDA.current_device() == 2
    with CUDA.device_of(torch.zeros(1)):
        assert CUDA.current_device() == 2


def test_each_thread_begins_on_the_first_card(drive: Drive) -> None:
    drive("cuda:2")
    CUDA.set_device(1)
    seen: list[int] = []

    thread = threading.Thread(target=lambda: seen.append(CUDA.current_device()))
    thread.start()
    thread.join()

    assert seen == [0]


ORDINAL = "CUDA error: invalid device ordinal"
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "set": (lambda: CUDA.set_device(2), AcceleratorError, ORDINAL),
    "enter": (lambda: CUDA.device(9).__enter__(), AcceleratorError, ORDINAL),
    "properties": (lambda: CUDA.get_device_properties(2), AssertionError, "Invalid device id"),
    "peer": (lambda: CUDA.can_device_access_peer(0, 2), AssertionError, "Invalid peer device id"),
    "cpu": (lambda: CUDA.set_device("cpu"), ValueError, "Expected a cuda device, but got: cpu"),
    "statistics": (lambda: CUDA.memory_stats(5), RuntimeError, "Invalid device argument 5: did you call init?"),
    "memory": (lambda: CUDA.mem_get_info(5), AcceleratorError, ORDINAL),
    "stream": (lambda: CUDA.current_stream(2), AcceleratorError, ORDINAL),
    "fraction": (lambda: CUDA.set_per_process_memory_fraction(2.0), ValueError, "Allowed range: 0~1"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_raises_as_pytorch_does(drive: Drive, wrong: str) -> None:
    drive("cuda:2")
    CUDA.init()
    call, error, text = WRONG[wrong]

    with pytest.raises(error, match=re.escape(text)):
        call()


def test_memory_is_what_tensors_hold(drive: Drive) -> None:
    machine = drive("cuda:2,memory=16GiB")

    first = placements_on(machine.devices[1], machine.pools[1])(3 * MIB)
    second = placements_on(machine.devices[1], machine.pools[1])(MIB)
    del second

    assert CUDA.memory_allocated(1) == 3 * MIB
    assert CUDA.max_memory_allocated(1) == 4 * MIB
    assert CUDA.memory_reserved(1) == CUDA.max_memory_reserved(1) == 4 * MIB
    assert CUDA.mem_get_info(1) == (16 * 2**30 - 4 * MIB, 16 * 2**30)
    assert CUDA.memory_allocated() == CUDA.memory_allocated("cuda:0") == 0
    del first
    CUDA.empty_cache()
    CUDA.reset_peak_memory_stats(1)
    assert CUDA.mem_get_info(1) == (16 * 2**30, 16 * 2**30)
    assert CUDA.max_memory_allocated(1) == 0


def test_statistics_have_pytorchs_layout(drive: Drive) -> None:
    machine = drive("cuda")
    kept = placements_on(machine.devices[0], machine.pools[0])(MIB)
    gone = placements_on(machine.devices[0], machine.pools[0])(MIB)
    del gone

    stats = CUDA.memory_stats()

    names = {"allocation", "segment", "active", "inactive_split"}
    names |= {"allocated_bytes", "reserved_bytes", "active_bytes", "inactive_split_bytes", "requested_bytes"}
    for name in names:
        for pool in ("all", "small_pool", "large_pool"):
            for number in ("current", "peak", "allocated", "freed"):
                assert f"{name}.{pool}.{number}" in stats
    assert stats["allocated_bytes.all.allocated"] == 2 * MIB
    assert stats["allocated_bytes.all.freed"] == MIB
    assert stats["allocation.all.current"] == 1
    assert stats["allocation.all.peak"] == 2
    assert stats["num_ooms"] == 0
    assert "device ID 0" in CUDA.memory_summary()
    assert CUDA.memory_snapshot() == []
    if hasattr(CUDA, "host_memory_stats"):
        assert CUDA.host_memory_stats()["allocated_bytes.current"] == 0
    CUDA.reset_accumulated_memory_stats()
    del kept
    after = CUDA.memory_stats()
    assert after["allocated_bytes.all.allocated"] == 0
    assert after["allocated_bytes.all.freed"] == MIB


def test_a_process_can_be_kept_to_a_share_of_a_card(drive: Drive) -> None:
    machine = drive("cuda,memory=1GiB")
    CUDA.set_per_process_memory_fraction(0.5)

    with pytest.raises(torch.OutOfMemoryError, match=r"CUDA out of memory\. Tried to allocate 600\.00 MiB\. GPU 0"):
        placements_on(machine.devices[0], machine.pools[0])(600 * MIB)

    assert CUDA.memory_stats()["num_ooms"] == 1
    assert CUDA.memory_allocated() == 0


def test_what_has_nothing_to_wait_for_returns_at_once(drive: Drive) -> None:
    drive("cuda:2")

    CUDA.synchronize()
    CUDA.synchronize("cuda:1")
    CUDA.ipc_collect()

    assert CUDA.can_device_access_peer(0, 1)
    assert not CUDA.can_device_access_peer(1, 1)
    assert CUDA.get_allocator_backend() == "native"
    assert "sm_90" in CUDA.get_arch_list()
    assert not CUDA.is_current_stream_capturing()
    CUDA.set_sync_debug_mode("warn")
    assert CUDA.get_sync_debug_mode() == 1
    CUDA.check_error(CUDA.cudart().cudaProfilerStart())
    with pytest.raises(CUDA.CudaError, match=r"memoryAllocation \(2\)"):
        CUDA.check_error(2)


GRAPHS: dict[str, Callable[[], Any]] = {
    "graph": CUDA.CUDAGraph,
    "context": lambda: CUDA.graph(None),
    "pool": CUDA.graph_pool_handle,
    "callables": lambda: CUDA.make_graphed_callables(torch.nn.Linear(1, 1), ()),
}


@pytest.mark.parametrize("use", GRAPHS)
def test_graphs_are_refused_in_one_sentence(drive: Drive, use: str) -> None:
    drive("cuda")

    with pytest.raises(SimulationError, match=r"^a CUDA graph cannot be simulated: it needs a real card$"):
        GRAPHS[use]()


def test_other_things_that_need_a_card_are_refused(drive: Drive) -> None:
    drive("cuda")

    with pytest.raises(SimulationError, match="raw memory of a card cannot be simulated"):
        CUDA.caching_allocator_alloc(1024)
    with pytest.raises(SimulationError, match="a handle of cuBLAS cannot be simulated"):
        CUDA.current_blas_handle()


def test_calls_that_wait_for_a_real_card_keep_waiting() -> None:
    queue: Any = CUDA._queued_calls
    before = list(queue)

    with simulate("cuda"):
        CUDA.manual_seed(3)
        CUDA.init()
        CUDA.current_device()
        assert CUDA.initial_seed() == 3

    assert CUDA._queued_calls is queue
    assert queue == before

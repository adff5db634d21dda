"""The runtimes of Intel and Apple, and the one name for all."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_llmdevice.errors import SimulationError
from pytest_llmdevice.simulation.machine import Machine
from pytest_llmdevice.simulation.tags import placements_on

Drive = Callable[[str], Machine]
MIB = 2**20


def test_intels_cards_are_there(drive: Drive) -> None:
    drive("xpu:2")

    properties: Any = torch.xpu.get_device_properties(1)

    assert torch.xpu.is_available()
    assert torch.xpu.device_count() == 2
    assert torch.xpu.get_device_name() == properties.name == "Intel(R) Data Center GPU Max 1550"
    assert properties.total_memory == 64 * 2**30
    assert torch.xpu.get_device_capability(1)["has_fp64"] is True
    assert torch.xpu.is_bf16_supported()
    assert torch.version.xpu == "20250301"
    assert "max_compute_units=512" in repr(properties)


def test_intels_current_card(drive: Drive) -> None:
    drive("xpu:2")

    with torch.xpu.device(1):
        assert torch.xpu.current_device() == 1
    assert torch.xpu.current_device() == 0
    torch.xpu.set_device("xpu:1")
    assert torch.xpu.current_device() == 1
    torch.xpu.synchronize(0)
    for wrong in (torch.xpu.set_device, torch.xpu.synchronize, torch.xpu.get_device_properties):
        with pytest.raises(RuntimeError, match=re.escape("It must be in [0, 2), but got 2.")):
            wrong(2)


def test_intels_memory_and_random_numbers(drive: Drive) -> None:
    machine = drive("xpu,memory=1GiB")
    held = placements_on(machine.devices[0], machine.pools[0])(4 * MIB)

    assert torch.xpu.memory_allocated() == torch.xpu.max_memory_allocated() == 4 * MIB
    assert torch.xpu.memory_reserved() == 4 * MIB
    assert torch.xpu.mem_get_info() == (2**30 - 4 * MIB, 2**30)
    torch.xpu.manual_seed(5)
    assert torch.xpu.initial_seed() == 5
    assert torch.xpu.get_rng_state().equal(machine.generators[0].get_state())
    del held
    torch.xpu.empty_cache()
    torch.xpu.reset_peak_memory_stats()
    assert torch.xpu.max_memory_allocated() == 0
    assert torch.xpu.mem_get_info() == (2**30, 2**30)


def test_apples_device_is_there(drive: Drive) -> None:
    machine = drive("mps")

    assert torch.backends.mps.is_available()
    assert torch.backends.mps.is_built()
    assert torch.backends.mps.is_macos_or_newer(14, 0)
    assert not torch.backends.mps.is_macos_or_newer(99, 0)
    assert torch.mps.device_count() == 1
    assert torch.mps.recommended_max_memory() == 36 * 2**30
    held = placements_on(machine.devices[0], machine.pools[0])(MIB)
    assert torch.mps.current_allocated_memory() == MIB
    del held
    assert torch.mps.current_allocated_memory() == 0
    assert torch.mps.driver_allocated_memory() == 2 * MIB
    torch.mps.empty_cache()
    assert torch.mps.driver_allocated_memory() == 0
    torch.mps.synchronize()


def test_apples_memory_can_be_limited(drive: Drive) -> None:
    machine = drive("mps,memory=1GiB")
    torch.mps.set_per_process_memory_fraction(0.25)

    with pytest.raises(RuntimeError, match="MPS backend out of memory"):
        placements_on(machine.devices[0], machine.pools[0])(300 * MIB)
    torch.mps.set_per_process_memory_fraction(0.0)
    placements_on(machine.devices[0], machine.pools[0])(300 * MIB)


def test_apples_random_numbers(drive: Drive) -> None:
    machine = drive("mps")

    torch.mps.manual_seed(3)
    assert machine.generators[0].initial_seed() == 3
    state = torch.mps.get_rng_state()
    torch.mps.seed()
    torch.mps.set_rng_state(state)
    assert machine.generators[0].get_state().equal(state)


def test_apples_events_keep_time(drive: Drive) -> None:
    drive("mps")
    start, end, untimed = torch.mps.Event(enable_timing=True), torch.mps.Event(enable_timing=True), torch.mps.Event()

    with pytest.raises(RuntimeError, match="Events must be recorded"):
        start.elapsed_time(end)
    start.record()
    end.record()
    end.wait()
    end.synchronize()
    assert end.query()
    assert start.elapsed_time(end) > 0
    with pytest.raises(RuntimeError, match="enable_timing=True"):
        start.elapsed_time(untimed)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_an_event_of_apples_may_outlive_the_simulation(drive: Drive, request: pytest.FixtureRequest) -> None:
    drive("mps")
    events = [torch.mps.Event()]
    request.addfinalizer(gc.collect)
    request.addfinalizer(events.clear)


def test_a_shader_is_refused(drive: Drive) -> None:
    drive("mps")

    with pytest.raises(SimulationError, match="a shader of Metal cannot be simulated"):
        torch.mps.compile_shader("kernel void f() {}")


@pytest.mark.parametrize(("profile", "kind", "count"), [("cuda:2", "cuda", 2), ("xpu:3", "xpu", 3), ("mps", "mps", 1)])
def test_the_accelerator_is_the_simulated_kind(drive: Drive, profile: str, kind: str, count: int) -> None:
    drive(profile)

    assert torch.accelerator.is_available()
    assert torch.accelerator.current_accelerator() == torch.device(kind)
    assert torch.accelerator.device_count() == count
    assert torch.get_device_module() is torch.get_device_module(kind)
    assert torch.accelerator.current_device_index() == 0
    torch.accelerator.synchronize()


def test_the_accelerators_current_device_is_the_cards(drive: Drive) -> None:
    drive("cuda:2")

    torch.accelerator.set_device_index(1)
    assert torch.cuda.current_device() == torch.accelerator.current_device_index() == 1
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        torch.accelerator.set_device_index(2)
    with pytest.raises(ValueError, match="doesn't match the current accelerator"):
        torch.accelerator.set_device_index("xpu:0")
    torch.accelerator.set_device_index(0)
    cuda: Any = torch.cuda
    stream = cuda.Stream(device=1)
    torch.accelerator.set_stream(stream)
    assert torch.cuda.current_device() == 1
    assert torch.cuda.current_stream() == torch.accelerator.current_stream() == stream
    with pytest.raises(RuntimeError, match="doesn't match the current accelerator cuda"):
        torch.accelerator.set_stream(torch.Stream("cpu"))


@pytest.mark.skipif(not hasattr(torch.accelerator, "device_index"), reason="PyTorch 2.8 has brought it")
def test_the_accelerators_context(drive: Drive) -> None:
    drive("cuda:2")

    with torch.accelerator.device_index(1):
        assert torch.accelerator.current_device_index() == 1
    with torch.accelerator.device_index(None):
        assert torch.accelerator.current_device_index() == 0


@pytest.mark.skipif(not hasattr(torch.accelerator, "memory_stats"), reason="PyTorch 2.9 has brought it")
def test_the_accelerators_memory(drive: Drive) -> None:
    machine = drive("cuda:2,memory=1GiB")
    held = placements_on(machine.devices[1], machine.pools[1])(MIB)

    assert torch.accelerator.memory_allocated(1) == torch.accelerator.max_memory_allocated(1) == MIB
    assert torch.accelerator.memory_allocated() == 0
    del held
    torch.accelerator.empty_cache()
    torch.accelerator.reset_peak_memory_stats(1)
    torch.accelerator.reset_accumulated_memory_stats(1)
    assert torch.accelerator.max_memory_allocated(1) == 0


@pytest.mark.skipif(not hasattr(torch.accelerator, "get_device_capability"), reason="PyTorch 2.10 has brought it")
def test_the_dtypes_of_a_kind(drive: Drive) -> None:
    drive("mps")

    dtypes = torch.accelerator.get_device_capability()["supported_dtypes"]

    assert {torch.float32, torch.bfloat16, torch.bool} <= dtypes
    assert torch.float64 not in dtypes


@pytest.mark.skipif(not hasattr(torch.accelerator, "Graph"), reason="PyTorch 2.11 has brought it")
def test_an_accelerators_graph_is_refused(drive: Drive) -> None:
    drive("cuda")

    with pytest.raises(SimulationError, match="a graph of an accelerator cannot be simulated"):
        torch.accelerator.Graph()

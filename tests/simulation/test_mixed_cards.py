"""Cards that differ in one machine: each answers as itself, and holds what it has room for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.simulation.inventory import SimulatedMachines, devices
from pytest_llmdevice.simulation.profiles import parse

CUDA: Any = torch.cuda
MIB = 2**20


def test_each_card_answers_as_itself() -> None:
    with simulate("cuda:h100+t4"):
        assert [CUDA.get_device_name(index) for index in range(2)] == ["NVIDIA H100 80GB HBM3", "Tesla T4"]
        assert [CUDA.get_device_capability(index) for index in range(2)] == [(9, 0), (7, 5)]
        assert [CUDA.get_device_properties(index).multi_processor_count for index in range(2)] == [132, 40]
        assert [CUDA.mem_get_info(index)[1] // 2**30 for index in range(2)] == [80, 15]
        assert CUDA.get_device_properties("cuda:1").total_memory == 15 * 2**30
        native = []
        for index in range(2):
            with CUDA.device(index):
                assert CUDA.is_bf16_supported()
                native.append(CUDA.is_bf16_supported(including_emulation=False))
        assert native == [True, False]
        assert torch.ones(1, dtype=torch.bfloat16, device="cuda:1").add(1).item() == 2


def test_a_card_is_full_when_its_own_memory_is() -> None:
    with simulate("cuda:h100+t4,memory=64MiB+16MiB"):
        held = torch.empty(20 * MIB, dtype=torch.uint8, device="cuda:0")
        with pytest.raises(torch.OutOfMemoryError, match=r"GPU 1 has a total capacity of 16\.00 MiB"):
            held.to("cuda:1")
        assert CUDA.memory_allocated(0) == 20 * MIB
        assert CUDA.memory_allocated(1) == 0


@pytest.mark.parametrize(("machine", "first"), [("cuda:h100+t4", 3), ("cuda:t4+h100", 1)])
def test_accelerate_fills_each_card_by_its_own_memory(machine: str, first: int) -> None:
    from accelerate import infer_auto_device_map, init_empty_weights
    from accelerate.utils import get_max_memory

    sizes = {"cuda:h100+t4": "66MiB+18MiB", "cuda:t4+h100": "34MiB+66MiB"}[machine]
    with simulate(f"{machine},memory={sizes}"):
        assert [get_max_memory()[index] // MIB for index in range(2)] == [
            int(size.removesuffix("MiB")) - 2 for size in sizes.split("+")
        ]
        with init_empty_weights():
            model = torch.nn.Sequential(*[torch.nn.Linear(2048, 2048, bias=False) for _ in range(5)])
        plan = list(infer_auto_device_map(model).values())
    assert plan.count(0) == first
    assert plan.count(1) >= 1


def test_a_float64_is_refused_by_the_card_that_has_none() -> None:
    with simulate("xpu:a770+b580"):
        assert [torch.xpu.get_device_properties(index).has_fp64 for index in range(2)] == [False, True]
        there = torch.ones(2, dtype=torch.float64, device="xpu:1")
        assert there.mul(2).sum().item() == 4
        # A copy needs no kernel, and all that a card computes does.
        copied = torch.ones(2, dtype=torch.float64).to("xpu:0")
        assert copied.device.index == 0
        for wrong in (
            lambda: copied + 1,
            lambda: torch.zeros(2, dtype=torch.float64, device="xpu:0"),
            lambda: torch.ones(2, device="xpu:0").double(),
        ):
            with pytest.raises(RuntimeError, match=r"^Required aspect fp64 is not supported on the device$"):
                wrong()  # type: ignore[no-untyped-call]


def test_the_inventory_has_each_card() -> None:
    found = devices(parse("cuda:h100+t4"))

    assert [(device.device, device.name, device.capability, device.memory >> 30) for device in found] == [
        ("cuda:0", "NVIDIA H100 80GB HBM3", "9.0", 80),
        ("cuda:1", "Tesla T4", "7.5", 15),
    ]


def test_the_header_has_each_card_with_what_it_lacks() -> None:
    from pytest_llmdevice.hardware import Inventory

    machines = SimulatedMachines.read(["cuda:h100+t4", "mps:m1"])

    first, second = machines.describe(Inventory())

    assert first.startswith(
        "simulated cuda:h100+t4: cuda:0 as NVIDIA H100 80GB HBM3, 80 GiB, "
        "cuda:1 as Tesla T4, 15 GiB (bfloat16 is emulated, no products in float8); values are computed on the CPU"
    )
    assert second.startswith("simulated mps-m1: mps as Apple M1, 8 GiB; no float64; values are computed on the CPU")


def test_a_mixed_machine_of_amds_is_one_of_one_build() -> None:
    with simulate("rocm:mi300x+mi210"):
        assert torch.version.hip == "7.0"
        assert [CUDA.get_device_properties(index).gcnArchName for index in range(2)] == ["gfx942", "gfx90a"]
        assert CUDA.get_arch_list() == ["gfx942", "gfx90a"]


def test_a_volta_is_simulated_with_a_build_that_has_kernels_for_it() -> None:
    with simulate("cuda:v100+h100"):
        assert torch.version.cuda == "12.6"
        assert "sm_70" in CUDA.get_arch_list()
        assert "sm_100" not in CUDA.get_arch_list()


def test_products_in_float8_are_refused_by_the_card_that_has_none() -> None:
    with simulate("cuda:t4+l4"):
        outcomes = []
        for index in range(2):
            device = torch.device("cuda", index)
            left = torch.ones(16, 16, device=device).to(torch.float8_e4m3fn)
            one = torch.ones((), device=device)
            try:
                made = torch._scaled_mm(left, left.t(), scale_a=one, scale_b=one, out_dtype=torch.float32)
            except RuntimeError as error:
                outcomes.append(str(error))
            else:
                outcomes.append(f"{made.device} {made[0, 0].item()}")
        assert outcomes == [
            "torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9, or ROCm MI300+",
            "cuda:1 16.0",
        ]

"""Which cards a process sees: as PyTorch reads the variables, and as a driver does, once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.simulation import simulate
from pytest_llmdevice.simulation.inventory import SimulatedMachines
from pytest_llmdevice.simulation.profiles import parse
from pytest_llmdevice.simulation.visibility import card_uuids, order

CUDA: Any = torch.cuda
NAME = "CUDA_VISIBLE_DEVICES"
MIXED = "cuda:h100+t4+l4"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (NAME, "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"):
        monkeypatch.delenv(name, raising=False)


def names() -> list[str]:
    # Before that PyTorch counts cards, also those of which an instance is in use.
    if CUDA.is_available():
        CUDA.init()
    return [CUDA.get_device_name(index) for index in range(CUDA.device_count())]


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("1", (1,)),
        ("1,0", (1, 0)),
        ("2,0,1", (2, 0, 1)),
        (" 1 , 0 ", (1, 0)),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", (0,)),
        ("0,0", ()),
        ("0,7,1", (0,)),
        ("1gpu,2", (1, 2)),
        ("no", ()),
        ("+1", (1,)),
        ("0;1", (0,)),
    ],
)
def test_indices_choose_and_renumber(value: str, seen: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    cards = ["NVIDIA H100 80GB HBM3", "Tesla T4", "NVIDIA L4"]
    monkeypatch.setenv(NAME, value)

    with simulate(MIXED):
        assert CUDA.device_count() == len(seen)
        assert CUDA.is_available() is bool(seen)
        assert names() == [cards[index] for index in seen]
        if seen:
            assert torch.ones(1, device="cuda").device == torch.device("cuda:0")
            with pytest.raises(RuntimeError, match="CUDA error: invalid device ordinal"):
                torch.ones(1, device=f"cuda:{len(seen)}")
        else:
            with pytest.raises(RuntimeError, match=r"^No CUDA GPUs are available$"):
                torch.ones(1, device="cuda")
            assert CUDA.memory_allocated() == 0


def test_uuids_choose_too(monkeypatch: pytest.MonkeyPatch) -> None:
    uuids = card_uuids(parse(MIXED))
    with simulate(MIXED):
        assert [f"GPU-{CUDA.get_device_properties(index).uuid}" for index in range(3)] == list(uuids)
    for value, seen in (
        (uuids[1], [1]),
        (f"{uuids[2]},{uuids[0]}", [2, 0]),
        (uuids[1][:12], [1]),
        ("GPU-", []),
        (f"{uuids[1]},GPU-0000,{uuids[0]}", [1]),
        (f"{uuids[1]},{uuids[1]}", []),
    ):
        monkeypatch.setenv(NAME, value)
        with simulate(MIXED):
            assert CUDA.device_count() == len(seen), value
            found = [f"GPU-{CUDA.get_device_properties(index).uuid}" for index in range(len(seen))]
            assert found == [uuids[index] for index in seen]


def values() -> list[str]:
    """Every short list of what such a variable may hold, and some longer ones."""
    uuids = card_uuids(parse(MIXED))
    parts = ["0", "1", "2", "3", "-1", "", " 1", "1x", "x", "+0", *uuids[:2], uuids[2][:9], "GPU-"]
    short = [",".join(each) for count in (1, 2) for each in itertools.product(parts, repeat=count)]
    chance = random.Random(7)
    return short + [",".join(chance.choices(parts, k=chance.randint(3, 5))) for _ in range(200)]


@pytest.mark.parametrize("machine", [MIXED, "rocm:3"])
def test_pytorch_counts_what_the_driver_shows(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the runtime is initialised `device_count` is PyTorch's own reading of the variable."""
    profile = parse(machine)
    differ = []
    with simulate(machine):
        for value in values():
            if profile.kind == "rocm" and "GPU-" in value:
                continue  # these are another machine's
            monkeypatch.setenv(NAME, value)
            if CUDA.device_count() != len(order(profile, {NAME: value})):
                differ.append(value)
    assert differ == []


def test_a_value_that_is_set_later_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    uses: dict[str, Callable[[], Any]] = {
        "a tensor": lambda: torch.ones(1, device="cuda"),
        "init": CUDA.init,
        "is_available": CUDA.is_available,
        "properties": lambda: CUDA.get_device_properties(0),
        "a module": lambda: torch.nn.Linear(1, 1).cuda(),
        "free memory": CUDA.mem_get_info,
    }
    for name, use in uses.items():
        monkeypatch.delenv(NAME, raising=False)
        with simulate("cuda:h100+t4"):
            use()
            monkeypatch.setenv(NAME, "1")
            CUDA.init()
            assert names() == ["NVIDIA H100 80GB HBM3", "Tesla T4"], name


def test_a_value_that_is_set_before_the_first_use_has(monkeypatch: pytest.MonkeyPatch) -> None:
    questions: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "device_count": CUDA.device_count,
        "a seed": lambda: torch.manual_seed(3),
        "is_initialized": CUDA.is_initialized,
        "allocated": CUDA.memory_allocated,
        "a tensor of the cpu": lambda: torch.ones(1) + 1,
    }
    for name, question in questions.items():
        monkeypatch.delenv(NAME, raising=False)
        with simulate("cuda:h100+t4"):
            question()
            monkeypatch.setenv(NAME, "1")
            assert names() == ["Tesla T4"], name
            assert CUDA.mem_get_info()[1] == 15 * 2**30


def test_a_renumbered_card_has_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "1,0")
    with simulate("cuda:h100+t4,memory=64MiB+16MiB"):
        with pytest.raises(torch.OutOfMemoryError, match=r"GPU 0 has a total capacity of 16\.00 MiB"):
            torch.empty(20 * 2**20, dtype=torch.uint8, device="cuda:0")
        assert torch.empty(20 * 2**20, dtype=torch.uint8, device="cuda:1").device.index == 1


def test_what_was_seen_is_kept_when_the_simulation_is_entered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "1")
    simulation = simulate("cuda:h100+t4")
    with simulation:
        tensor = torch.ones(1, device="cuda")
    monkeypatch.setenv(NAME, "0")
    with simulation:
        assert CUDA.is_initialized()
        assert names() == ["Tesla T4"]
        assert tensor.device == torch.device("cuda:0")


def test_rocm_reads_its_own_variables_first(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = parse("rocm:mi300x+mi210+mi250")
    assert order(profile, {"ROCR_VISIBLE_DEVICES": "2,1"}) == (2, 1)
    assert order(profile, {"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "1"}) == (1,)
    assert order(profile, {"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"}) == (1,)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "")
    with simulate("rocm:2"), pytest.raises(RuntimeError, match=r"^No HIP GPUs are available$"):
        torch.ones(1, device="cuda")


def test_intels_mask_hides_and_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZE_AFFINITY_MASK", "1,0")
    with simulate("xpu:a770+b580"):
        assert torch.xpu.device_count() == 2
        assert torch.xpu.get_device_name(0) == "Intel(R) Arc(TM) A770 Graphics"
    monkeypatch.setenv("ZE_AFFINITY_MASK", "1")
    with simulate("xpu:a770+b580"):
        assert torch.xpu.device_count() == 1
        assert torch.xpu.get_device_name() == "Intel(R) Arc(TM) B580 Graphics"


def test_an_instance_is_one_smaller_card(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulate("cuda:h100-1g.10gb"):
        assert names() == ["NVIDIA H100 80GB HBM3 MIG 1g.10gb"]
        assert CUDA.get_device_capability() == (9, 0)
        assert CUDA.get_device_properties(0).multi_processor_count == 16
        assert CUDA.mem_get_info()[1] == 9984 * 2**20
    machine = "cuda:h100-1g.10gb+h100-3g.40gb"
    small, large = card_uuids(parse(machine))
    assert small.startswith("MIG-")
    for value, seen in ((None, "1g.10gb"), (large, "3g.40gb"), (small, "1g.10gb"), ("1", "3g.40gb")):
        if value is not None:
            monkeypatch.setenv(NAME, value)
        with simulate(machine):
            assert [name.rpartition(" ")[2] for name in names()] == [seen], value
    monkeypatch.setenv(NAME, "MIG-0000")
    with simulate(machine):
        assert not CUDA.is_available()


def test_a_blank_value_that_hides_real_cards_leaves_the_simulated_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from pytest_llmdevice.simulation import presence

    monkeypatch.setattr(presence, "BUILT_FOR_CARDS", True)
    monkeypatch.setenv(NAME, "")
    with simulate("cuda:2"):
        assert len(names()) == 2
    with simulate("cuda:2"):
        monkeypatch.setenv(NAME, "-1")  # by what runs inside
        assert not CUDA.is_available()


def test_the_inventory_has_what_the_process_sees() -> None:
    machines = SimulatedMachines.read(["cuda:h100+t4"])
    one, none = Inventory(visible={NAME: "1"}), Inventory(visible={NAME: ""})
    (device,) = machines.beside(one).simulated_devices
    assert (device.device, device.name) == ("cuda:0", "Tesla T4")
    assert machines.describe(one)[0].startswith("simulated cuda:h100+t4: cuda:0 as Tesla T4, 15 GiB; bfloat16")
    assert machines.beside(none).simulated_devices == ()
    assert machines.describe(none)[0].startswith("simulated cuda:h100+t4: no card is seen (CUDA_VISIBLE_DEVICES='')")
    real = Inventory(versions={"cuda": "13.0"}, visible={NAME: ""})
    assert len(machines.beside(real).simulated_devices) == 2

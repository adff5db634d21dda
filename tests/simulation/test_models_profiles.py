"""The zoo on cards of other makers and ages: loaded where the cell says, speaking as on the CPU."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from simulation import loaded_cells
from simulation.loaded_cells import (
    AUTOMATIC,
    IGNORED_WARNINGS,
    TWO_DEVICES,
    batch,
    load,
    loaded_on_cpu,
    places,
    tokens,
    tokens_on_cpu,
)

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_dtypes, check_meta, check_placement, check_quantization, check_tied
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.hardware.host import installed_versions
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.simulation import simulate

pytestmark = [pytest.mark.filterwarnings(warning) for warning in IGNORED_WARNINGS]

INSTALLED = Inventory(versions=installed_versions())

MACHINES = {
    "mps": ("mps", "mps"),
    "xpu:2": ("xpu", "xpu:1"),
    "rocm:2": ("rocm", "cuda:1"),
    "rocm-dcu:2": ("rocm", "cuda:1"),
    "cuda-t4:2": ("cuda", "cuda:1"),
    "cuda": ("cuda", "cuda:0"),
    "cuda:8": ("cuda", "cuda:7"),
}
"""Profile -> the kind of its cells, and the last device."""

MODELS = ("llama", "qwen2", "mixtral", "t5", "gemma3", "mamba", "gpt2")

ALONE = tuple(name for name, entry in current().of(Strategy).items() if entry.ranks == 1)
"""The strategies of one process."""


def cells() -> list[Any]:
    """Each machine by each strategy that there is on it, with models, dtypes and quantizations in turn."""
    found = []
    for row, (machine, (kind, last)) in enumerate(MACHINES.items()):
        for column, strategy in enumerate(ALONE):
            first = last.partition(":")[0] + (":0" if ":" in last else "")
            cell = Cell(
                MODELS[(row + column) % len(MODELS)],
                first if strategy in AUTOMATIC else last,
                ("float32", "bfloat16", "float16")[(row + column) % 3],
                strategy=strategy,
                kind=kind,
                simulated=True,
            )
            quantized = replace(cell, model="llama", quantization=("nf4", "int8", "fp4", "nf4-double")[column % 4])
            found += [pytest.param(machine, each, id=f"{machine}-{each}") for each in (cell, quantized) if runs(each)]
    return found


def runs(cell: Cell) -> bool:
    moved_int8 = (cell.quantization, cell.strategy) == ("int8", "to")
    alone = cell.strategy == "split" and cell.device == "cuda:0"
    return unsupported(cell, INSTALLED) is None and not moved_int8 and not alone


@pytest.mark.parametrize(("machine", "cell"), cells())
def test_a_model_is_where_its_cell_says_on_any_machine(machine: str, cell: Cell) -> None:
    expected = tokens_on_cpu(cell)
    with simulate(machine):
        model = load(cell)
        plan = expectations_of(model, checkpoint(cell.model), cell)
        results = [check_meta(model), check_placement(model, plan, cell), check_tied(model, plan)]
        results += [check_dtypes(model, plan, cell)] if (cell.model, cell.dtype) != ("t5", "float16") else []
        if cell.quantization == "none" or cell.model == "llama":
            results.append(check_quantization(model, plan, cell))
        kinds = {place.partition(":")[0] for place in places(model)}
        result = tokens(model)
    assert [each.message() for each in results if not each.passed] == []
    assert kinds - {"meta"} == {cell.torch_device.type}
    assert result == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_inputs_that_stayed_on_the_cpu_are_noticed_on_any_machine(machine: str) -> None:
    checkpoint("llama")
    _, device = MACHINES[machine]
    with simulate(machine):
        model = load(Cell("llama", device, "float32", strategy="device-map", simulated=True))
        with pytest.raises(RuntimeError) as caught:
            model(**batch())
        assert model(**batch(device)).logits.device == torch.device(device if ":" in device else f"{device}:0")
    if machine == "mps":
        assert "Placeholder storage has not been allocated on MPS device!" in str(caught.value)
    else:
        assert TWO_DEVICES in str(caught.value)
        assert device in str(caught.value)


def test_libraries_see_that_an_amd_card_is_one() -> None:
    from accelerate.utils import is_rocm_available

    libraries: Any = pytest.importorskip("transformers.utils.import_utils")
    with simulate("rocm:2"):
        inside = (bool(torch.version.hip), torch.version.cuda, is_rocm_available(), libraries.is_rocm_platform())
        name = torch.cuda.get_device_properties(1).gcnArchName
    outside = (bool(torch.version.hip), is_rocm_available(), libraries.is_rocm_platform())
    assert inside == (True, None, True, True)
    assert name.startswith("gfx942")
    assert outside == (False, False, False)


def test_an_nvidia_card_is_no_amd_card() -> None:
    from accelerate.utils import is_rocm_available

    with simulate("cuda:2"):
        assert not torch.version.hip
        assert torch.version.cuda
        assert not is_rocm_available()


@pytest.mark.parametrize(("machine", "native"), [("cuda-t4:2", False), ("cuda:2", True), ("rocm:2", True)])
def test_bfloat16_is_emulated_by_an_old_card(machine: str, native: bool) -> None:
    cell = Cell("llama", "cuda:1", "bfloat16", strategy="device-map", simulated=True)
    expected = tokens_on_cpu(cell)
    with simulate(machine):
        supported = (torch.cuda.is_bf16_supported(), torch.cuda.is_bf16_supported(including_emulation=False))
        result = tokens(load(cell))
    assert supported == (True, native)
    assert result == expected


def test_apples_device_has_no_double_precision() -> None:
    checkpoint("llama")
    with simulate("mps"):
        model = load(Cell("llama", "mps", "float32", strategy="to", simulated=True))
        with pytest.raises(TypeError, match="the MPS framework doesn't support float64"):
            model.double()
        with pytest.raises(TypeError, match="the MPS framework doesn't support float64"):
            model(**batch("mps")).logits.double()


def test_a_model_is_saved_on_one_makers_card_and_loaded_on_anothers(tmp_path: Any) -> None:
    from transformers import AutoModelForCausalLM

    cell = Cell("qwen2", "mps", "float32", strategy="device-map", simulated=True)
    expected = tokens_on_cpu(cell)
    with simulate("mps"):
        load(cell).save_pretrained(tmp_path)
    with simulate("xpu:2"):
        model = AutoModelForCausalLM.from_pretrained(tmp_path, device_map="auto", attn_implementation="eager")
        found = places(model), tokens(model)
    assert found[0] <= {"xpu:0", "xpu:1"}
    assert found[1] == expected


@pytest.mark.parametrize(("machine", "device"), [("xpu:2", "xpu"), ("mps", "mps"), ("rocm:2", "cuda")])
def test_autocast_of_other_cards(machine: str, device: str) -> None:
    cell = Cell("llama", MACHINES[machine][1], "float32", strategy="to", simulated=True)
    full = loaded_on_cpu(cell)(**batch()).logits.detach()
    with simulate(machine), torch.no_grad(), warnings.catch_warnings():
        model = load(cell)
        with torch.autocast(device, dtype=torch.float16):
            lower = model(**batch(cell.device)).logits
        found = (lower.dtype, lower.device.type)
        lower = lower.cpu().float()
    assert found == (torch.float16, device)
    assert (lower - full).abs().max() < 0.05 * full.abs().max()


def test_what_one_simulation_left_is_no_card_of_the_next() -> None:
    checkpoint("llama")
    cell = Cell("llama", "cuda:1", "float32", strategy="to", simulated=True)
    expected = tokens_on_cpu(cell)
    with simulate("cuda:2"):
        model = load(cell)
    assert places(model) == {"cpu"}
    assert tokens(model) == expected
    with simulate("xpu"):
        assert places(model) == {"cpu"}
        assert places(model.to("xpu")) == {"xpu:0"}
        assert tokens(model) == expected
    assert loaded_cells.places(model) == {"cpu"}

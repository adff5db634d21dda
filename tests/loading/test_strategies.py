"""Every strategy that a CPU can run, on real checkpoints."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_llmdevice import Cell
from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.loading import attention, quantization
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.loading.strategies import mapped
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import DTYPES

Checkpoint = Callable[[str], str]

PROMPTS = [[72, 101, 108], [84, 104, 101, 32, 99, 97, 116], [50]]

ON_ONE_DEVICE = ("device-map", "auto", "balanced", "sequential", "disk-offload", "shared-memory")

pytestmark = pytest.mark.filterwarnings(
    # accelerate says so of the cell's own "cpu" and "disk".
    "ignore:Some parameters are on the meta device"
)


def strategy_loader(name: str) -> Callable[[str, Cell], Any]:
    return current().of(Strategy)[name].load


def load(checkpoint: str, family: str, strategy: str, dtype: str = "float32", quantized: str = "none") -> Any:
    return BuiltinTarget().load(checkpoint, Cell(family, "cpu", dtype, quantized, strategy))


@pytest.fixture(scope="module")
def tokens_after_a_move(checkpoint: Checkpoint) -> Callable[[str], list[list[int]]]:
    return cache(lambda family: generate(load(checkpoint(family), family, "to"), PROMPTS, 5))


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "mixtral", "deepseek-v3", "mamba", "t5"])
@pytest.mark.parametrize("strategy", ON_ONE_DEVICE)
def test_a_strategy_gives_the_tokens_that_a_plain_move_gives(
    family: str,
    strategy: str,
    checkpoint: Checkpoint,
    tokens_after_a_move: Callable[[str], list[list[int]]],
) -> None:
    expected = tokens_after_a_move(family)
    assert generate(load(checkpoint(family), family, strategy), PROMPTS, 5) == expected
    assert len({tuple(row) for row in expected}) > 1


@pytest.mark.parametrize("strategy", ["to", *ON_ONE_DEVICE])
def test_a_loaded_model_is_ready_for_inference(strategy: str, checkpoint: Checkpoint) -> None:
    model = load(checkpoint("llama"), "llama", strategy)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("strategy", ["auto", "balanced", "sequential"])
def test_an_automatic_map_of_a_cpu_cell_leaves_no_hook(strategy: str, checkpoint: Checkpoint) -> None:
    model = load(checkpoint("llama"), "llama", strategy)
    assert not [name for name, module in model.named_modules() if hasattr(module, "_hf_hook")]
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


@pytest.mark.parametrize("family", ["llama", "qwen2", "t5"])
def test_disk_offload_keeps_the_later_layers_on_disk_behind_hooks(family: str, checkpoint: Checkpoint) -> None:
    model = load(checkpoint(family), family, "disk-offload")
    last = model.get_submodule({"t5": "decoder.block"}.get(family, "model.layers"))
    offloaded = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    assert offloaded
    assert all(parameter.is_meta for parameter in last[1].parameters())
    assert not any(parameter.is_meta for parameter in last[0].parameters())
    assert not model.get_input_embeddings().weight.is_meta
    for name in offloaded:
        assert model.get_submodule(name.rpartition(".")[0])._hf_hook.offload


def test_the_folder_of_offloaded_weights_goes_with_the_model(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = load(checkpoint("llama"), "llama", "disk-offload")
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("llmdevice-offload-")
    del model
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError("planted"), KeyboardInterrupt()])
def test_the_folder_of_offloaded_weights_goes_when_loading_fails(
    error: BaseException, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        assert len(list(tmp_path.iterdir())) == 1
        raise error

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(mapped, "from_pretrained", fail)
    with pytest.raises(type(error)):
        load(checkpoint("llama"), "llama", "disk-offload")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "second"), [(2, "cuda:0"), (3, "cuda:2")])
def test_the_second_device_of_a_split_is_the_next_one_around(
    count: int, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert mapped.second_device(Cell("llama", "cuda:1", "float16", strategy="split")) == second


@pytest.mark.parametrize(("device", "count"), [("cpu", 1), ("mps", 1), ("cuda:0", 1), ("cuda:0", 0)])
def test_a_split_needs_two_devices_of_a_kind(device: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    kind = device.partition(":")[0]
    with pytest.raises(UnsupportedByLibrary, match=f"needs two {kind} devices; this machine has {count}"):
        mapped.second_device(Cell("llama", device, "float16", strategy="split"))


class Recorder:
    """Stands in for `from_pretrained` where there is no card to load to."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}

    def __call__(self, _checkpoint: str, _cell: Cell, **options: Any) -> torch.nn.Module:
        self.options = options
        return torch.nn.Module()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    for module in ("mapped", "whole", "automatic"):
        # Looked up as a module: the package has functions of some of these names.
        monkeypatch.setattr(import_module(f"pytest_llmdevice.loading.strategies.{module}"), "from_pretrained", recorder)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return recorder


@pytest.mark.parametrize(
    ("strategy", "elsewhere"), [("split", "cuda:1"), ("cpu-offload", "cpu"), ("disk-offload", "disk")]
)
def test_an_explicit_map_sends_the_later_layers_elsewhere(
    strategy: str, elsewhere: str, checkpoint: Checkpoint, recorded: Recorder
) -> None:
    strategy_loader(strategy)(checkpoint("llama"), Cell("llama", "cuda:0", "float16", strategy=strategy))
    places = recorded.options["device_map"]
    assert places["model.layers.0"] == places["model.embed_tokens"] == places["lm_head"] == "cuda:0"
    assert places["model.layers.1"] == elsewhere


def test_a_one_device_map_names_the_card_with_its_index(checkpoint: Checkpoint, recorded: Recorder) -> None:
    strategy_loader("device-map")(checkpoint("llama"), Cell("llama", "cuda:1", "float16", strategy="device-map"))
    assert recorded.options == {"device_map": {"": torch.device("cuda", 1)}}


@pytest.mark.parametrize("strategy", ["auto", "balanced", "sequential"])
def test_an_automatic_map_is_left_to_accelerate_on_cards(
    strategy: str, checkpoint: Checkpoint, recorded: Recorder
) -> None:
    strategy_loader(strategy)(checkpoint("llama"), Cell("llama", "cuda:0", "float16", strategy=strategy))
    assert recorded.options == {"device_map": strategy}


@pytest.mark.parametrize("strategy", ["auto", "balanced", "sequential"])
def test_an_automatic_map_of_a_cpu_cell_may_use_no_card(
    strategy: str, checkpoint: Checkpoint, recorded: Recorder
) -> None:
    strategy_loader(strategy)(checkpoint("llama"), Cell("llama", "cpu", "float16", strategy=strategy))
    assert recorded.options["device_map"] == strategy
    assert set(recorded.options["max_memory"]) == {"cpu"}


def test_a_quantized_model_is_loaded_on_the_cpu_before_it_is_moved(checkpoint: Checkpoint, recorded: Recorder) -> None:
    strategy_loader("to")(checkpoint("llama"), Cell("llama", "cpu", "float16", "nf4"))
    assert recorded.options == {"device_map": {"": "cpu"}}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "kind", "double"), [("nf4", "nf4", False), ("nf4-double", "nf4", True), ("fp4", "fp4", False)]
)
def test_the_4_bit_configuration_computes_in_the_dtype_of_the_cell(
    name: str, kind: str, double: bool, dtype: str
) -> None:
    options: Any = quantization.config(Cell("llama", "cpu", dtype, name))
    assert (options.load_in_4bit, options.bnb_4bit_quant_type) == (True, kind)
    assert options.bnb_4bit_use_double_quant is double
    assert options.bnb_4bit_compute_dtype is getattr(torch, dtype)


def test_the_8_bit_configuration_is_the_plain_one() -> None:
    options: Any = quantization.config(Cell("llama", "cpu", "float16", "int8"))
    assert options.load_in_8bit
    assert options.llm_int8_skip_modules is None


def test_a_dense_cell_has_no_quantization_configuration() -> None:
    assert quantization.config(Cell("llama", "cpu", "float16")) is None


@pytest.mark.parametrize(
    ("cell", "flash_attention", "implementation"),
    [
        (Cell("llama", "cpu", "bfloat16"), True, "eager"),
        (Cell("llama", "mps", "float16"), True, "eager"),
        (Cell("llama", "cuda:0", "float16"), True, "flash_attention_2"),
        (Cell("llama", "cuda:0", "bfloat16"), True, "flash_attention_2"),
        (Cell("llama", "cuda:0", "float16"), False, "eager"),
        (Cell("llama", "cuda:0", "float32"), True, "eager"),
        (Cell("llama", "cuda:0", "float16", simulated=True), True, "eager"),
        (Cell("llama", "cuda:0", "float16", kind="rocm"), True, "eager"),
        (Cell("llama", "cuda:0", "float16", attention="sdpa"), True, "sdpa"),
        (Cell("llama", "cpu", "float32", attention="eager"), False, "eager"),
    ],
)
def test_attention_is_what_the_cell_names_or_follows_the_device(
    cell: Cell, flash_attention: bool, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "find_spec", lambda _: object() if flash_attention else None)
    assert attention.implementation(cell) == implementation


def test_the_attention_of_the_cell_arrives_in_the_model(checkpoint: Checkpoint) -> None:
    for name in ("eager", "sdpa"):
        model: Any = from_pretrained(checkpoint("llama"), Cell("llama", "cpu", "float32", attention=name))
        assert model.config._attn_implementation == name

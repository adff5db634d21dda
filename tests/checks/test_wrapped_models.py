"""No false alarm on models in wrappers, and no less seen through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from covering import in_turn
from torch import nn

from pytest_llmdevice import Cell, simulate, zoo
from pytest_llmdevice.checks import (
    Result,
    check_dtypes,
    check_forward,
    check_loads,
    check_meta,
    check_placement,
    check_quantization,
    check_tied,
)
from pytest_llmdevice.diagnosis.hints.dtypes import ADAPTER as ADAPTER_DTYPE
from pytest_llmdevice.diagnosis.hints.placement import ADAPTER, ATTRIBUTE, LEFT_BEHIND, META, WRONG_INDEX
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.model.device_map import embedding_device
from pytest_llmdevice.oracle.expectations import expectations_of

peft = pytest.importorskip("peft")

Load = Callable[[Cell], Any]
Checkpoint = Callable[[str], str]
Wrap = Callable[[Any], Any]

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore:Some parameters are on the meta device"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"),
]

TARGETS = {
    "gpt2": ["c_attn"],
    "bloom": ["query_key_value"],
    "phi3": ["qkv_proj"],
    "mamba": ["in_proj", "x_proj"],
    "t5": ["q", "v"],
    "deepseek-v3": ["q_a_proj", "kv_b_proj"],
}


def lora(family: str, **options: Any) -> Any:
    """PEFT's configuration for a model of the zoo."""
    task = "SEQ_2_SEQ_LM" if family == "t5" else "CAUSAL_LM"
    return peft.LoraConfig(task_type=task, target_modules=TARGETS.get(family, ["q_proj", "v_proj"]), **options)


class Holder(nn.Module):
    """A class that only keeps a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.lm = model


class OwnAdapter(nn.Module):
    """A low-rank adapter around a linear layer, written by hand."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        where = {"device": linear.weight.device, "dtype": torch.bfloat16}
        self.linear = linear
        self.down = nn.Linear(linear.in_features, 2, bias=False, **where)
        self.up = nn.Linear(2, linear.out_features, bias=False, **where)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.linear(hidden) + self.up(self.down(hidden))
        return result


def with_own_adapters(model: Any) -> Any:
    for layer in model.model.layers:
        layer.self_attn.q_proj = OwnAdapter(layer.self_attn.q_proj)
    return model


def with_compiled_layers(model: Any) -> Any:
    for index, layer in enumerate(model.model.layers):
        model.model.layers[index] = torch.compile(layer, backend="eager")
    return model


WRAPS: dict[str, Wrap] = {
    "data-parallel": nn.DataParallel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled-layers": with_compiled_layers,
    "holder": Holder,
    "holder-of-peft": lambda model: Holder(peft.get_peft_model(model, lora("llama"))),
    "own-adapters": with_own_adapters,
    "peft-with-a-copied-head": lambda model: peft.get_peft_model(model, lora("llama", modules_to_save=["lm_head"])),
    "peft-on-the-head": lambda model: peft.get_peft_model(
        model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["lm_head", "embed_tokens"])
    ),
    "peft-tokens": lambda model: peft.get_peft_model(model, lora("llama", trainable_token_indices=[1, 2])),
    "peft-dora": lambda model: peft.get_peft_model(model, lora("llama", use_dora=True)),
    "peft-prompt": lambda model: peft.get_peft_model(
        model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    ),
}


def structural(model: Any, folder: str, cell: Cell) -> list[Result]:
    """Every check of a loaded model that does not run it."""
    expectations = expectations_of(model, folder, cell)
    return [
        check_loads(model, expectations, folder),
        check_meta(model),
        check_placement(model, expectations, cell),
        check_dtypes(model, expectations, cell, folder),
        check_tied(model, expectations),
        check_quantization(model, expectations, cell),
    ]


def alarms(results: list[Result]) -> list[str]:
    """What is wrong, but for the experts that transformers 5 and bitsandbytes leave dense together."""
    return [
        result.message()
        for result in results
        if result.hollow or [one for one in result.findings if one.hint is None or one.hint.name != "dense-experts"]
    ]


@pytest.fixture
def cards() -> Iterator[None]:
    with simulate("cuda:2"):
        yield


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_a_right_model_passes_in_every_wrapper(
    wrap: str, device: str, quantization: str, load: Load, checkpoint: Checkpoint
) -> None:
    if quantization != "none":
        pytest.importorskip("bitsandbytes")
        if wrap == "peft-dora" and quantization == "int8":
            pytest.skip("DoRA dequantizes the weight while it is made, for which int8 needs a forward pass before")
    cell = Cell("llama", device, "bfloat16", quantization, "device-map")
    with nullcontext() if device == "cpu" else simulate("cuda:2"):
        model = WRAPS[wrap](load(cell))
        assert alarms(structural(model, checkpoint("llama"), cell)) == []


@pytest.mark.parametrize(
    ("family", "how"), in_turn(zoo.families(), ["get_peft_model", "from_pretrained", "add_adapter"])
)
@pytest.mark.usefixtures("cards")
def test_a_lora_model_of_every_family_passes_on_every_card(
    family: str, how: str, checkpoint: Checkpoint, tmp_path: Any
) -> None:
    folder = checkpoint(family)
    if how == "from_pretrained":
        plain = BuiltinTarget().load(folder, Cell(family, "cpu", "float32"))
        peft.get_peft_model(plain, lora(family)).save_pretrained(tmp_path)
    for cell in (Cell(family, "cuda:1", "float16"), Cell(family, "cuda:0", "bfloat16", strategy="split")):
        base: Any = BuiltinTarget().load(folder, cell)
        if how == "from_pretrained":
            model = peft.PeftModel.from_pretrained(base, tmp_path)
        elif how == "add_adapter":
            base.add_adapter(lora(family))
            model = base
        else:
            model = peft.get_peft_model(base, lora(family))
        assert alarms(structural(model, folder, cell)) == []


@pytest.mark.parametrize("wrap", ["data-parallel", "holder", "holder-of-peft", "compiled"])
def test_a_wrapped_model_is_run_and_generated_with(
    wrap: str, load: Load, checkpoint: Checkpoint, prompts: list[list[int]]
) -> None:
    cell = Cell("llama", "cpu", "float32")
    model = WRAPS[wrap](load(cell))
    assert embedding_device(model) == torch.device("cpu")
    assert check_forward(model, cell, prompts, checkpoint("llama")).passed
    assert generate(model, prompts, 3) == generate(load(cell), prompts, 3)


def faults(model: Any, cell: Cell, folder: str, check: str) -> list[tuple[str, str, str, Any]]:
    (result,) = [one for one in structural(model, folder, cell) if one.check == check]
    return [(finding.where, finding.expected, finding.actual, finding.hint) for finding in result.findings]


@pytest.mark.usefixtures("cards")
def test_a_base_layer_that_was_left_behind_is_found_in_a_lora_model(load: Load, checkpoint: Checkpoint) -> None:
    cell = Cell("llama", "cuda:1", "bfloat16")
    model = peft.get_peft_model(load(cell), lora("llama"))
    model.base_model.model.model.layers[1].self_attn.q_proj.base_layer.to("cpu")
    name = "base_model.model.model.layers.1.self_attn.q_proj.base_layer.weight"
    assert faults(model, cell, checkpoint("llama"), "placement") == [(name, "cuda:1", "cpu", LEFT_BEHIND)]


@pytest.mark.usefixtures("cards")
def test_an_adapter_on_another_card_than_its_base_is_found(load: Load, checkpoint: Checkpoint) -> None:
    cell = Cell("llama", "cuda:0", "bfloat16", strategy="split")
    model = peft.get_peft_model(load(cell), lora("llama"))
    layer = model.base_model.model.model.layers[1].self_attn.q_proj
    layer.lora_A.to("cuda:0")
    where = "base_model.model.model.layers.1.self_attn.q_proj"
    assert faults(model, cell, checkpoint("llama"), "placement") == [
        (f"{where}.lora_A.default.weight", f"cuda:1, as {where}.base_layer.weight", "cuda:0", ADAPTER)
    ]


@pytest.mark.usefixtures("cards")
def test_the_card_of_a_lora_model_is_compared_by_its_index(load: Load, checkpoint: Checkpoint) -> None:
    model = peft.get_peft_model(load(Cell("llama", "cuda:0", "bfloat16")), lora("llama"))
    found = faults(model, Cell("llama", "cuda:1", "bfloat16"), checkpoint("llama"), "placement")
    assert ("base_model.model.lm_head.weight", "cuda:1", "cuda:0", WRONG_INDEX) in found
    assert len(found) == 23 + 8


def test_an_adapter_in_another_half_than_the_model_is_found(load: Load, checkpoint: Checkpoint) -> None:
    cell = Cell("llama", "cpu", "float16")
    model = peft.get_peft_model(load(cell), lora("llama"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    found = faults(model, cell, checkpoint("llama"), "dtypes")
    assert len(found) == 8
    where = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert found[0] == (where, "float16 or float32", "bfloat16", ADAPTER_DTYPE)


def test_adapters_that_an_offloaded_base_took_to_meta_are_found(load: Load, checkpoint: Checkpoint) -> None:
    # PEFT makes adapters on the device of their base, which is meta here, and nothing ever fills them.
    cell = Cell("llama", "cpu", "float32", strategy="disk-offload")
    found = faults(peft.get_peft_model(load(cell), lora("llama")), cell, checkpoint("llama"), "meta")
    assert [where.partition(".self_attn.")[2] for where, *_ in found] == [
        f"{name}.lora_{one}.default.weight" for name in ("q_proj", "v_proj") for one in "AB"
    ]
    assert {hint for *_, hint in found} == {META}


@pytest.mark.usefixtures("cards")
def test_a_lora_model_that_peft_dispatches_anew_by_a_map_passes(
    load: Load, checkpoint: Checkpoint, tmp_path: Any
) -> None:
    peft.get_peft_model(load(Cell("llama", "cpu", "float32")), lora("llama")).save_pretrained(tmp_path / "adapter")
    cell = Cell("llama", "cuda:1", "bfloat16", strategy="cpu-offload")
    base = load(cell)
    device_map = {f"base_model.model.{key}": value for key, value in base.hf_device_map.items()}
    model = peft.PeftModel.from_pretrained(base, tmp_path / "adapter", device_map=device_map)
    assert alarms(structural(model, checkpoint("llama"), cell)) == []


@pytest.mark.usefixtures("cards")
def test_a_table_that_is_a_plain_attribute_and_stayed_behind_is_found(load: Load, checkpoint: Checkpoint) -> None:
    cell = Cell("llama", "cuda:1", "float16")
    model = load(cell)
    model.model.layers[0].self_attn.cos_cached = torch.zeros(4)
    model.model.layers[0].self_attn.positions = torch.arange(4)
    model.stop = torch.zeros(4)
    where = "model.layers.0.self_attn.cos_cached"
    assert faults(model, cell, checkpoint("llama"), "placement") == [(where, "cuda:1", "cpu", ATTRIBUTE)]

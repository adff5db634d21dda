"""The values check: every tensor has the value that a plain load gives it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from pytest_llmdevice import Cell, simulate
from pytest_llmdevice.checks import Result, check_values
from pytest_llmdevice.diagnosis import Hint
from pytest_llmdevice.diagnosis.hints import values
from pytest_llmdevice.loading.quantization import quantization_of
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix import vocabulary

Checkpoint = Callable[[str], str]
Loader = Callable[[Cell], Any]

LLAMA = Cell("llama", "cpu", "float32")
WEIGHT = "model.layers.1.mlp.up_proj.weight"
FREQUENCIES = "model.rotary_emb.inv_freq"

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


def checked(model: Any, checkpoint: Checkpoint, cell: Cell = LLAMA) -> Result:
    return check_values(model, checkpoint(cell.model), cell)


@pytest.mark.parametrize("family", vocabulary.models())
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_plain_load_has_its_values(family: str, dtype: str, loaded: Loader, checkpoint: Checkpoint) -> None:
    cell = Cell(family, "cpu", dtype)
    result = checked(loaded(cell), checkpoint, cell)
    assert result.passed, result.message()
    assert int(result.evidence["parameters"]) > 10


@pytest.mark.parametrize("strategy", ["disk-offload", "shared-memory"])
@pytest.mark.parametrize("family", ["qwen2", "mixtral", "t5"])
def test_every_strategy_keeps_them(family: str, strategy: str, load: Loader, checkpoint: Checkpoint) -> None:
    cell = Cell(family, "cpu", "bfloat16", strategy=strategy)
    result = checked(load(cell), checkpoint, cell)
    assert result.passed, result.message()
    assert ("offloaded" in result.evidence) == (strategy == "disk-offload")


@pytest.mark.parametrize("quantization", ["int8", "nf4", "nf4-double", "fp4"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mamba", "deepseek-v3"])
def test_packed_weights_lose_what_their_quantization_loses(
    family: str, quantization: str, load: Loader, checkpoint: Checkpoint
) -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell(family, "cpu", "bfloat16", quantization)
    result = checked(load(cell), checkpoint, cell)
    assert result.passed, result.message()
    # The table leaves room, and not much: half of what it allows is more than the zoo loses.
    assert 0 < float(result.evidence["largest error of a packed weight"]) < 0.7 * quantization_of(cell).packing_error


@pytest.mark.parametrize("quantization", ["int8", "nf4", "nf4-double", "fp4"])
def test_what_the_first_forward_pass_repacks_is_unpacked_as_before(
    quantization: str, load: Loader, checkpoint: Checkpoint
) -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell("llama", "cpu", "bfloat16", quantization)
    model = load(cell)
    before = checked(model, checkpoint, cell)
    model(torch.tensor([[1, 2, 3]]))
    weight = model.get_submodule("model.layers.0.mlp.up_proj").weight
    bytes_before = weight.data.clone()
    after = checked(model, checkpoint, cell)
    assert after.passed, after.message()
    assert after.evidence == before.evidence
    assert torch.equal(weight.data, bytes_before)


def test_simulated_cards_make_no_difference(checkpoint: Checkpoint) -> None:
    with simulate("cuda:2"):
        for cell in (
            Cell("qwen2", "cuda:1", "bfloat16", strategy="split", simulated=True),
            Cell("qwen2", "cuda:0", "float16", strategy="cpu-offload", simulated=True),
        ):
            result = checked(BuiltinTarget().load(checkpoint("qwen2"), cell), checkpoint, cell)
            assert result.passed, result.message()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_weights_of_a_wrapped_model_are_found_behind_their_longer_names(
    load: Loader, checkpoint: Checkpoint
) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["q_proj", "up_proj"], r=2)
    wrapped = peft.get_peft_model(load(LLAMA), config)
    assert checked(wrapped, checkpoint).passed
    with torch.no_grad():
        wrapped.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.base_layer").weight.zero_()
    (finding,) = checked(wrapped, checkpoint).findings
    assert finding.where == "base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"


def rounded(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.bfloat16().float()


def drawn(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)) * 0.02


PLANTED: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor], Hint]] = {
    "rounded weight": (WEIGHT, rounded, values.ROUNDED_WEIGHT),
    "weight through float16": (WEIGHT, lambda tensor: tensor.half().float(), values.ROUNDED_WEIGHT),
    "rounded buffer": (FREQUENCIES, rounded, values.ROUNDED_BUFFER),
    "zero buffer": (FREQUENCIES, torch.zeros_like, values.NEVER_COMPUTED),
    "buffer of garbage": (FREQUENCIES, lambda tensor: tensor * 1e30, values.NEVER_COMPUTED),
    "buffer that is no number": (FREQUENCIES, lambda tensor: tensor * float("nan"), values.NEVER_COMPUTED),
    "other rotary base": (FREQUENCIES, lambda tensor: tensor**1.2, values.OTHER_BUFFER),
    "zero weight": (WEIGHT, torch.zeros_like, values.NEVER_FILLED),
    "initial weight": (WEIGHT, drawn, values.INITIAL),
    "initial norm": ("model.norm.weight", torch.ones_like, values.INITIAL),
    "permuted weight": (WEIGHT, lambda tensor: tensor.flip(0), values.OTHER_CHECKPOINT),
    "transposed weight": ("model.layers.0.self_attn.q_proj.weight", lambda tensor: tensor.T, values.OTHER_CHECKPOINT),
    "scaled weight": (WEIGHT, lambda tensor: tensor * 0.5, values.CHANGED),
    "disturbed weight": (WEIGHT, lambda tensor: tensor + drawn(tensor) / 8, values.CHANGED),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_wrong_value_is_found_with_its_cause(planted: str, load: Loader, checkpoint: Checkpoint) -> None:
    name, change, hint = PLANTED[planted]
    model = load(LLAMA)
    tensor = model.state_dict(keep_vars=True).get(name)
    tensor = model.get_buffer(name) if tensor is None else tensor
    tensor.data.copy_(change(tensor.data.clone()))
    (finding,) = checked(model, checkpoint).findings
    assert (finding.where, finding.hint) == (name, hint)


def test_one_weight_in_the_place_of_another_is_named(load: Loader, checkpoint: Checkpoint) -> None:
    model = load(LLAMA)
    first, second = (model.model.layers[number].mlp.down_proj for number in (0, 1))
    second.weight.data.copy_(first.weight.data)
    (finding,) = checked(model, checkpoint).findings
    assert finding.where == "model.layers.1.mlp.down_proj.weight"
    assert "the values of model.layers.0.mlp.down_proj.weight" in finding.actual


def test_a_whole_model_that_went_through_half_precision_is_found(load: Loader, checkpoint: Checkpoint) -> None:
    model = load(Cell("llama", "cpu", "bfloat16")).float()
    findings = checked(model, checkpoint).findings
    assert len(findings) == len(list(model.parameters()))
    assert {finding.hint for finding in findings} == {values.ROUNDED_WEIGHT}


def test_another_dtype_is_not_this_checks_affair(load: Loader, checkpoint: Checkpoint) -> None:
    assert checked(load(LLAMA).half(), checkpoint).passed


def test_a_weight_of_another_shape_is_found(load: Loader, checkpoint: Checkpoint) -> None:
    model = load(LLAMA)
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.zeros(3, 64))
    (finding,) = checked(model, checkpoint).findings
    assert (finding.expected, finding.actual) == ("shape (128, 64)", "shape (3, 64)")
    assert finding.hint is values.SHAPE


def test_an_offloaded_weight_is_read_from_where_its_hook_has_it(load: Loader, checkpoint: Checkpoint) -> None:
    with simulate("cuda"):
        cell = Cell("llama", "cuda:0", "float32", strategy="cpu-offload", simulated=True)
        model = load(cell)
        hook = model.get_submodule("model.layers.1.mlp.up_proj")._hf_hook
        hook.weights_map["weight"].data.zero_()
        (finding,) = checked(model, checkpoint, cell).findings
    assert (finding.where, finding.hint) == (WEIGHT, values.NEVER_FILLED)


@pytest.mark.parametrize("quantization", ["int8", "nf4", "nf4-double"])
def test_a_packed_weight_of_other_values_is_found(quantization: str, load: Loader, checkpoint: Checkpoint) -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell("llama", "cpu", "float32", quantization)
    model = load(cell)
    first, second = (model.model.layers[number].mlp.up_proj for number in (0, 1))
    first.weight, second.weight = second.weight, first.weight
    findings = checked(model, checkpoint, cell).findings
    assert [finding.where for finding in findings] == [WEIGHT.replace("1", "0"), WEIGHT]
    assert {finding.hint for finding in findings} == {values.PACKED}


def test_a_model_that_nothing_was_read_into_has_initial_values(checkpoint: Checkpoint) -> None:
    config = AutoConfig.from_pretrained(checkpoint("llama"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        auto_class: Any = AutoModelForCausalLM
        model = auto_class.from_config(config)
    findings = checked(model, checkpoint).findings
    assert len(findings) == len(list(model.parameters()))
    assert {finding.hint for finding in findings} == {values.INITIAL}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_vocabulary_may_grow(family: str, load: Loader, checkpoint: Checkpoint) -> None:
    cell = Cell(family, "cpu", "bfloat16")
    model: Any = load(cell)
    model.resize_token_embeddings(336, mean_resizing=False)
    assert checked(model, checkpoint, cell).passed
    model.get_input_embeddings().weight.data[319] = 0
    (finding, *_) = checked(model, checkpoint, cell).findings
    assert "[319, " in finding.expected

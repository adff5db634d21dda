"""The first module, in the order of execution, that does something else than that of a plain load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from covering import in_turn
from torch import nn

from pytest_llmdevice import BuiltinTarget, Cell, examine, simulate, zoo
from pytest_llmdevice.diagnosis.divergence import first_difference, outputs_of
from pytest_llmdevice.inference.generation import inputs_for
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.matrix import vocabulary

PROMPT = [list(range(5, 25))]


def load(cell: Cell) -> Any:
    return BuiltinTarget().load(str(zoo.checkpoint(cell.model)), cell)


def compared(model: Any, plain: Any, tolerance: float = 0.02) -> Any:
    def run(one: Any) -> Any:
        return forward_logits(one, inputs_for(one, PROMPT))

    return first_difference(model, outputs_of(plain, run), run, tolerance)


@pytest.mark.parametrize(("family", "dtype"), in_turn(vocabulary.models(), ["float32", "bfloat16"]))
def test_two_plain_loads_do_not_part(family: str, dtype: str) -> None:
    cell = Cell(family, "cpu", dtype)
    assert compared(load(cell), load(cell), 0.0) is None


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_card_does_not_part_from_the_cpu(quantization: str) -> None:
    pytest.importorskip("bitsandbytes")
    plain = load(Cell("qwen2", "cpu", "float16", quantization))
    with simulate("cuda:2"):
        model = load(Cell("qwen2", "cuda:1", "float16", quantization, "device-map", simulated=True))
        assert compared(model, plain) is None


@pytest.mark.parametrize(
    ("plant", "where"),
    [
        (lambda model: model.model.layers[1].mlp.up_proj.weight.data.mul_(2), "model.layers.1.mlp.up_proj"),
        (lambda model: model.model.rotary_emb.inv_freq.mul_(1.1), "model.rotary_emb"),
        (lambda model: model.model.norm.weight.data.fill_(float("nan")), "model.norm"),
        (lambda model: model.model.layers[0].self_attn.q_proj.weight.data.zero_(), "model.layers.0.self_attn.q_proj"),
    ],
)
def test_the_part_where_a_fault_is_planted_is_named(plant: Callable[[Any], object], where: str) -> None:
    cell = Cell("llama", "cpu", "float32")
    model = load(cell)
    plant(model)
    assert compared(model, load(cell)).module == where


def test_both_values_are_told() -> None:
    cell = Cell("llama", "cpu", "float32")
    model = load(cell)
    with torch.no_grad():
        model.model.norm.weight.mul_(-1)
    found = compared(model, load(cell))
    assert (found.module, found.kind, found.error) == ("model.norm", "LlamaRMSNorm", 2.0)
    one, other = found.expected.partition(" at ")[0], found.actual.partition(" ")[0]
    assert float(one) == -float(other) != 0
    assert str(found).endswith("(relative error of the whole 2)")


def test_another_dtype_is_a_difference() -> None:
    plain = load(Cell("llama", "cpu", "bfloat16"))
    model = load(Cell("llama", "cpu", "bfloat16"))
    model.lm_head.register_forward_hook(lambda _, __, output: output.float())
    found = compared(model, plain)
    assert (found.module, found.expected, found.actual) == ("lm_head", "bfloat16", "float32")


def test_another_shape_is_a_difference() -> None:
    cell = Cell("gpt2", "cpu", "float32")
    model = load(cell)
    model.lm_head = nn.Linear(model.lm_head.in_features, 7, bias=False)
    found = compared(model, load(cell))
    assert (found.module, found.actual) == ("lm_head", "(1, 20, 7)")


def test_a_model_that_raises_is_compared_as_far_as_it_came() -> None:
    cell = Cell("llama", "cpu", "float32")
    model = load(cell)
    model.model.layers[0].input_layernorm.weight.data.zero_()
    model.model.layers[1].mlp.down_proj.weight.data = torch.zeros(3, 3)
    assert compared(model, load(cell)).module == "model.layers.0.input_layernorm"


def test_no_hook_is_left() -> None:
    cell = Cell("llama", "cpu", "float32")
    model = load(cell)
    compared(model, load(cell))
    assert not any(module._forward_hooks for module in model.modules())


class Scaled:
    """Scales a weight of the second layer."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = BuiltinTarget().load(checkpoint, cell)
        model.model.layers[1].mlp.down_proj.weight.data.mul_(3)
        return model


class Stuck:
    """Says the same token whatever the prompt is."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        return BuiltinTarget().load(checkpoint, cell)

    def generate(self, _: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        return [[7] * max_new_tokens for _ in prompts]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Scaled(), "first differs at model.layers.1.mlp.down_proj (Linear)"),
        (Stuck(), "not found: for one short prompt without padding each module says the same as in a plain load"),
    ],
)
def test_a_failed_check_of_what_a_model_says_tells_the_origin(target: Any, words: str) -> None:
    results = {
        result.check: result for result in examine(target, zoo.checkpoint("llama"), Cell("llama", "cpu", "float32"))
    }
    assert results["agreement"].origin.startswith(words)
    assert f"origin: {words}" in results["agreement"].message()
    assert results["placement"].origin == ""


class Wrapped(Scaled):
    """The same, with an adapter around it."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        from peft import LoraConfig, get_peft_model

        return get_peft_model(super().load(checkpoint, cell), LoraConfig(target_modules=["q_proj"])).eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_origin_is_found_through_a_wrapper() -> None:
    pytest.importorskip("peft")
    cell = Cell("llama", "cpu", "float32")
    results = {result.check: result for result in examine(Wrapped(), zoo.checkpoint("llama"), cell)}
    assert results["agreement"].origin.startswith("first differs at base_model.model.model.layers.1.mlp.down_proj ")

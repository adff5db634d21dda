"""A cpu cell stays on the cpu when cards are visible."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from covering import in_turn
from transformers import AutoModelForCausalLM

from pytest_llmdevice import BuiltinTarget, Cell, Result, examine, zoo
from pytest_llmdevice.checks import check_cards, check_dtypes
from pytest_llmdevice.diagnosis.hints.placement import CARD_PREFERRED, LEFT_BEHIND
from pytest_llmdevice.inference.generation_run import generate_traced
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.simulation.profiles import parse

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12]]


def looked(target: Any, cell: Cell, machine: str = "cuda:2") -> Result:
    checkpoint = str(zoo.checkpoint(cell.model))
    model = target.load(checkpoint, cell)
    alone = generate_traced(target, model, PROMPTS, 4)
    assert alone.error is None
    # T5's wo under disk offload.
    known = check_dtypes(model, expectations_of(model, checkpoint, cell), cell, checkpoint).findings
    return check_cards(target, checkpoint, cell, parse(machine), PROMPTS, 4, alone, known)


@pytest.mark.parametrize(
    ("family", "dtype", "strategy"),
    in_turn(vocabulary.models(), [("float32", "to"), ("bfloat16", "auto"), ("float16", "disk-offload")]),
)
def test_the_builtin_target_stays(family: str, dtype: str, strategy: str) -> None:
    assert looked(BuiltinTarget(), Cell(family, "cpu", dtype, strategy=strategy)).passed


@pytest.mark.parametrize(("machine", "quantization"), in_turn(["cuda:2", "mps", "xpu"], ["int8", "nf4"]))
def test_quantized_cells_stay(quantization: str, machine: str) -> None:
    pytest.importorskip("bitsandbytes")
    assert looked(BuiltinTarget(), Cell("qwen2", "cpu", "bfloat16", quantization), machine).passed


def card_if_any() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


class PrefersTheCard:
    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype)
        return model.to(card_if_any())


class SendsInputsToTheCard:
    def load(self, checkpoint: str, cell: Cell) -> Any:
        return BuiltinTarget().load(checkpoint, cell)

    def generate(self, model: Any, prompts: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        rows = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device=card_if_any())
            output = model.generate(
                ids, do_sample=False, max_new_tokens=max_new_tokens, min_new_tokens=max_new_tokens, pad_token_id=0
            )
            rows.append(output[0, len(prompt) :].tolist())
        return rows


class HalfOnCards:
    def load(self, checkpoint: str, cell: Cell) -> Any:
        dtype = torch.float16 if torch.cuda.is_available() else cell.torch_dtype
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype)


class NeedsNoCard:
    def load(self, checkpoint: str, cell: Cell) -> Any:
        if torch.cuda.is_available():
            raise RuntimeError("a card, and nothing to do with it")
        return BuiltinTarget().load(checkpoint, cell)


CELL = Cell("llama", "cpu", "float32")


def test_a_model_that_goes_to_the_card_is_found() -> None:
    first = looked(PrefersTheCard(), CELL).findings[0]
    assert (first.where, first.expected, first.actual) == (
        "model.embed_tokens.weight, with cuda:2 visible",
        "cpu",
        "cuda:0",
    )
    assert first.hint in {CARD_PREFERRED, LEFT_BEHIND}


class LeavesTheHead(PrefersTheCard):
    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = super().load(checkpoint, cell)
        model.lm_head.to("cpu")
        return model


def test_what_a_model_on_the_card_raises_is_not_a_second_cause() -> None:
    findings = looked(LeavesTheHead(), CELL).findings
    assert findings
    assert {finding.kind for finding in findings} == {""}
    assert {finding.hint for finding in findings} <= {CARD_PREFERRED, LEFT_BEHIND}


def test_inputs_that_go_to_the_card_are_found() -> None:
    result = looked(SendsInputsToTheCard(), CELL)
    assert any("cuda:0" in finding.actual for finding in result.findings)


def test_another_dtype_on_a_machine_with_cards_is_found() -> None:
    assert looked(HalfOnCards(), CELL).findings[0].actual == "float16"


def test_a_load_that_only_fails_with_cards_is_found() -> None:
    (finding,) = looked(NeedsNoCard(), CELL).findings
    assert finding.where == "load, with cuda:2 visible"
    assert "a card, and nothing to do with it" in finding.actual
    assert finding.hint == CARD_PREFERRED


class DrawsTheHead:
    """A head that is new with each load."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = BuiltinTarget().load(checkpoint, cell)
        torch.nn.init.normal_(model.lm_head.weight)
        return model


def test_tokens_that_differ_from_load_to_load_are_not_the_cards() -> None:
    assert looked(DrawsTheHead(), CELL).passed


class LeavesAWeightOut:
    """A weight that stays without numbers: what is computed with it is whatever was in memory."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model: Any = BuiltinTarget().load(checkpoint, cell)
        layer = model.model.layers[1].mlp.down_proj
        layer.weight = torch.nn.Parameter(layer.weight.to("meta"))
        return model


def test_tokens_of_a_model_without_all_its_numbers_are_not_the_cards() -> None:
    results = examine(LeavesAWeightOut(), zoo.checkpoint("llama"), CELL, beside="cuda:2")
    found = {result.check: result.findings for result in results}
    assert found["meta"]
    assert not any(finding.where.startswith("tokens") for finding in found["cards"])


def test_without_a_machine_the_check_is_not_made() -> None:
    names = [result.check for result in examine(BuiltinTarget(), zoo.checkpoint("llama"), CELL)]
    assert "placement" in names
    assert "cards" not in names

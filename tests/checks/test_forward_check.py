"""The check of one forward pass on a padded batch."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.checks import Result, check_forward, running
from pytest_llmdevice.diagnosis.hints.dtypes import UPCAST
from pytest_llmdevice.diagnosis.hints.values import NONFINITE
from pytest_llmdevice.matrix.vocabulary import DTYPES

Load = Callable[[Cell], Any]
Checkpoint = Callable[[str], str]
Tokens = list[list[int]]
Check = Callable[[Any, Cell], Result]

BF16 = Cell("llama", "cpu", "bfloat16")


@pytest.fixture
def check(checkpoint: Checkpoint, prompts: Tokens) -> Check:
    return lambda model, cell: check_forward(model, cell, prompts, checkpoint(cell.model))


@pytest.mark.parametrize("family", zoo.families())
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loaded_model_passes(
    family: str, dtype: str, loaded: Load, checkpoint: Checkpoint, prompts: Tokens, check: Check
) -> None:
    cell = Cell(family, "cpu", dtype)
    result = check(loaded(cell), cell)
    assert result.passed
    assert result.evidence == {"prompts": len(prompts), "logits": sum(map(len, prompts)) * 320}


@pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")
def test_an_offloaded_model_passes(loaded: Load, check: Check) -> None:
    cell = Cell("llama", "cpu", "bfloat16", strategy="disk-offload")
    assert check(loaded(cell), cell).passed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_found(value: float, load: Load, prompts: Tokens, check: Check) -> None:
    model = load(BF16)
    # One row of the head: one logit of each position.
    model.lm_head.weight.data[7] = value
    (finding,) = check(model, BF16).findings
    positions = sum(map(len, prompts))
    assert finding.actual == f"{positions} of {positions * 320} are inf or nan"
    assert finding.hint == NONFINITE


def test_logits_that_were_cast_up_are_found(load: Load, check: Check) -> None:
    model = load(BF16)
    # Norm and head together in float32: the one mixture of dtypes that no operation refuses.
    model.model.norm.float()
    model.lm_head.float()
    model.model.norm.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    (finding,) = check(model, BF16).findings
    assert (finding.where, finding.expected, finding.actual) == ("logits", "bfloat16", "float32")
    assert finding.hint == UPCAST


def test_logits_in_another_half_are_found_in_a_class_that_casts_up(load: Load, check: Check) -> None:
    cell = Cell("mamba", "cpu", "float16")
    model = load(Cell("mamba", "cpu", "float32"))
    assert check(model, cell).passed
    model.lm_head.register_forward_hook(lambda _, __, output: output.bfloat16())
    wrapped = model.forward
    model.forward = lambda **inputs: SimpleNamespace(logits=wrapped(**inputs).logits.bfloat16())
    (finding,) = check(model, cell).findings
    assert (finding.expected, finding.actual) == ("float16", "bfloat16")


class Stub(nn.Module):
    """A model that returns the logits it was given."""

    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor], vocabulary: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(512, 1)
        self.answer = answer
        self.config = SimpleNamespace(vocab_size=vocabulary, pad_token_id=0)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def forward(self, *, attention_mask: torch.Tensor, **_: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.answer(attention_mask))


def checked(model: Stub, prompts: Tokens) -> Result:
    return check_forward(model, Cell("llama", "cpu", "float32"), prompts, "nowhere")


def test_logits_of_padding_may_hold_anything() -> None:
    model = Stub(lambda mask: torch.where(mask[..., None].bool(), 1.0, float("nan")).expand(*mask.shape, 4))
    result = checked(model, [[1, 2, 3], [1]])
    assert result.passed
    assert result.evidence == {"prompts": 2, "logits": 4 * 4}


@pytest.mark.parametrize(
    ("shape", "text"),
    [((2, 2, 4), "(2, 2, 4)"), ((2, 3, 5), "(2, 3, 5)"), ((6, 4), "(6, 4)"), ((1, 3, 4), "(1, 3, 4)")],
)
def test_logits_of_another_shape_are_found(shape: tuple[int, ...], text: str) -> None:
    (finding,) = checked(Stub(lambda _: torch.zeros(shape)), [[1, 2, 3], [1]]).findings
    assert (finding.where, finding.expected, finding.actual) == ("logits", "shape (2, 3, 4)", text)


@pytest.mark.parametrize(("embedding", "head"), [("cuda:0", "cuda:1"), ("cuda:0", "cuda:0")])
def test_logits_on_another_device_are_found(embedding: str, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "execution_devices", lambda _: (embedding, head))
    (finding,) = checked(Stub(lambda mask: torch.zeros(*mask.shape, 4)), [[1, 2, 3], [1]]).findings
    assert (finding.where, finding.expected, finding.actual) == ("logits", f"device {head}", "cpu")


@pytest.mark.parametrize(("embedding", "head"), [("cuda:0", "cpu"), ("cpu", "cuda:0")])
def test_logits_beside_the_head_or_beside_the_input_are_right(
    embedding: str, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "execution_devices", lambda _: (embedding, head))
    assert checked(Stub(lambda mask: torch.zeros(*mask.shape, 4)), [[1, 2, 3], [1]]).passed

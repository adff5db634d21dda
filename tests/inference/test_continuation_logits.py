"""The logits a token was chosen from, in one pass over the whole, are those of generation step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pytest_llmdevice import BuiltinTarget, Cell, zoo
from pytest_llmdevice.inference.logits import batch_continuation_logits, continuation_logits
from pytest_llmdevice.oracle.reference import compute

PROMPT = list(b"Once upon a time")


@pytest.mark.parametrize("family", zoo.families())
def test_one_pass_gives_the_logits_of_each_step_of_generation(family: str) -> None:
    checkpoint = str(zoo.checkpoint(family))
    expected = compute(checkpoint, [PROMPT], 6)
    model: Any = BuiltinTarget().load(checkpoint, Cell(family, "cpu", "float32"))
    logits = continuation_logits(model, PROMPT, expected.tokens[0])
    assert logits.argmax(-1).tolist() == list(expected.tokens[0])
    # Forbidden end tokens are -inf in neither: logits are taken before generation's own rules.
    torch.testing.assert_close(logits, expected.steps[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", ["llama", "t5", "mamba"])
def test_several_continuations_have_in_one_pass_what_each_has_alone(family: str) -> None:
    model: Any = BuiltinTarget().load(str(zoo.checkpoint(family)), Cell(family, "cpu", "float32"))
    rows = [[5, 6, 7, 8], [9, 8, 7, 6], [5, 6, 7, 9]]
    together = batch_continuation_logits(model, PROMPT, rows)
    assert together.shape[:2] == (3, 4)
    for logits, row in zip(together, rows, strict=True):
        torch.testing.assert_close(logits, continuation_logits(model, PROMPT, row), rtol=0, atol=1e-4)
    # What comes last is chosen, and not read.
    torch.testing.assert_close(together[0], together[2], rtol=0, atol=1e-4)
    assert not torch.equal(together[0], together[1])

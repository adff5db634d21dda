"""What a target generates: the speed of it, and the model as it was after an exception."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_llmdevice import BuiltinTarget, Cell
from pytest_llmdevice.inference.generation_run import GenerationRun, generate_traced

PROMPTS = [[72, 101, 108], [50]]


@pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")
def test_what_a_hook_brought_goes_back_when_the_forward_pass_raises(checkpoint: Callable[[str], str]) -> None:
    model: Any = BuiltinTarget().load(checkpoint("llama"), Cell("llama", "cpu", "float32", strategy="disk-offload"))
    places = {name: parameter.device for name, parameter in model.named_parameters()}
    brought = []

    def raising(*_: Any) -> None:
        brought.append(model.model.layers[1].input_layernorm.weight.device.type)
        raise RuntimeError("in the middle of it")

    # accelerate calls what it keeps here between its own steps.
    model.model.layers[1].input_layernorm._old_forward = raising
    found = generate_traced(BuiltinTarget(), model, PROMPTS, 2)
    assert str(found.error) == "in the middle of it"
    assert brought == ["cpu"]
    assert {name: parameter.device for name, parameter in model.named_parameters()} == places


def test_the_time_to_the_first_token_is_a_part_of_the_whole(checkpoint: Callable[[str], str]) -> None:
    model: Any = BuiltinTarget().load(checkpoint("llama"), Cell("llama", "cpu", "float32"))
    found = generate_traced(BuiltinTarget(), model, PROMPTS, 4)
    assert found.measures is not None
    assert found.first_token is not None
    assert 0 < found.first_token < found.measures.seconds
    speed = found.speed()
    assert speed["llm.generate_first_token_seconds"] == pytest.approx(found.first_token, abs=1e-5)
    assert speed["llm.generate_tokens_per_second"] == pytest.approx(8 / found.measures.seconds, rel=0.01)


def test_what_did_not_generate_has_no_speed() -> None:
    assert GenerationRun().speed() == {}

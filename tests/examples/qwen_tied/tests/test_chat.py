"""The advice of the thread, as a test on every cell: look at where the model is before giving it anything."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.llm_matrix(strategies=["device-map", "auto", "balanced", "sequential", "split"])
def test_inputs_are_where_the_embedding_is(llm_model: Any, llm_inputs: Any) -> None:
    assert llm_inputs["input_ids"].device == llm_model.model.embed_tokens.weight.device


@pytest.mark.llm_matrix(models="qwen2")
def test_the_head_is_the_embedding(llm_model: Any) -> None:
    assert llm_model.lm_head.weight.device == llm_model.model.embed_tokens.weight.device

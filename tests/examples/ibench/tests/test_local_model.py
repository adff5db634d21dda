"""The project's own check, on every cell: load, then reply."""

from __future__ import annotations

from typing import Any

from pytest_llmdevice import Cell


def test_a_loaded_model_replies(llm_target: Any, llm_model: Any, llm_prompts: Any, llm_cell: Cell) -> None:
    replies = llm_target.generate(llm_model, llm_prompts[:1], 4)
    assert len(replies[0]) == 4, llm_cell

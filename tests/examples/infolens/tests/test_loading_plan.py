"""Attention is the loader's choice by device, on every cell."""

from __future__ import annotations

from typing import Any

from lens.model_loader import attention_for

from pytest_llmdevice import Cell


def test_attention_is_as_the_device_has_it(llm_model: Any, llm_cell: Cell) -> None:
    wanted = attention_for(llm_cell.torch_device) if llm_cell.attention == "default" else llm_cell.attention
    assert llm_model.config._attn_implementation == wanted

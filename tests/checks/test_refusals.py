"""A library that refuses a cell, whoever asks, is no fault of a loader; a loader that fails, and a broken file, are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from pytest_llmdevice import Cell
from pytest_llmdevice.checks.refusals import refused
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.zoo.architectures import checkpoint_of


class Own(BuiltinTarget):
    """A loader of one's own."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        attention = None if cell.attention == "default" else cell.attention
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, attn_implementation=attention)


class Failing(BuiltinTarget):
    """A loader that raises on its own account."""

    def load(self, *_: Any) -> Any:
        raise ValueError("no such model")


@pytest.fixture(scope="module")
def eager_only() -> str:
    """A model whose class has one way of attention."""
    return str(checkpoint_of("gpt_neo"))


def loaded(target: Any, folder: str, cell: Cell) -> Loaded:
    return refused(Loaded.load(target, Path(folder), cell), folder)


@pytest.mark.parametrize("target", [Own(), BuiltinTarget()])
def test_an_attention_that_the_class_has_not_is_unsupported(target: Any, eager_only: str) -> None:
    cell = Cell(f"path:{eager_only}", "cpu", "float32", attention="sdpa")
    found = loaded(target, eager_only, cell)
    assert found.unsupported.startswith("transformers ")
    assert "cannot load it, whoever asks: ValueError: GPTNeoForCausalLM does not support" in found.unsupported
    assert found.exception is None


def test_what_a_loader_raises_itself_is_its_own(checkpoint: Callable[[str], str]) -> None:
    found = loaded(Failing(), checkpoint("llama"), Cell("llama", "cpu", "float32"))
    assert not found.unsupported
    assert str(found.exception) == "no such model"


def test_a_checkpoint_that_nobody_can_load_is_broken(tmp_path: Path, checkpoint: Callable[[str], str]) -> None:
    shutil.copytree(checkpoint("llama"), tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    found = loaded(Own(), str(tmp_path / "cut"), Cell("path:cut", "cpu", "bfloat16"))
    assert not found.unsupported
    assert found.exception is not None

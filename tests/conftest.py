"""What every test folder shares."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice import zoo

pytest_plugins = ["pytester"]

collect_ignore = ["examples"]


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Tiny models gain nothing from threads, and worker processes share two cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint() -> Callable[[str], str]:
    """`checkpoint(family)`: its local folder."""

    @cache
    def folder(family: str) -> str:
        return str(zoo.checkpoint(family))

    return folder


@pytest.fixture
def tiny_llama(tmp_path: Path) -> Path:
    """A checkpoint of its own, to be damaged at will."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **sizes))
    folder = tmp_path / "tiny-llama"
    model.save_pretrained(folder)
    return folder

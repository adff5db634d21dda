"""What every test folder shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest

from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.hardware.probe import probe
from pytest_llmdevice.oracle.process import VARIABLE, OracleProcess

pytest_plugins = ["pytester"]

collect_ignore = ["examples"]


_oracle: list[OracleProcess] = []


def pytest_configure(config: pytest.Config) -> None:
    """One process that makes expectations for all tests, and all runs of pytest that they make."""
    distributes = bool(config.getoption("tx", None)) and not hasattr(config, "workerinput")
    if not (distributes or config.option.collectonly or VARIABLE in os.environ):
        _oracle.append(OracleProcess(fork=False))
        os.environ[VARIABLE] = str(_oracle[0].address)


def pytest_unconfigure() -> None:
    for process in _oracle:
        os.environ.pop(VARIABLE, None)
        process.close()
    _oracle.clear()


@pytest.fixture(autouse=True, scope="session")
def _answering() -> None:
    for process in _oracle:
        process.wait()


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Tiny models gain nothing from threads, and worker processes share two cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint() -> Callable[[str], str]:
    """`checkpoint(family)`: its local folder."""
    return checkpoints.checkpoint


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    """What a real probe of this machine says, asked once for all tests that run pytest."""
    # Imported here so that runs in this process find them imported: pytester drops what a run imported.
    import accelerate  # noqa: F401
    import bitsandbytes  # noqa: F401

    # With what transformers imports when it is asked for: a class of one run is no class of the next.
    from transformers import (  # noqa: F401
        AutoModelForCausalLM,
        AutoTokenizer,
        DeepseekV3ForCausalLM,
        Gemma3ForCausalLM,
        GPT2LMHeadModel,
        LlamaForCausalLM,
        MixtralForCausalLM,
        Qwen2ForCausalLM,
        Qwen3ForCausalLM,
    )

    found = probe()
    assert not found.failure
    return found


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

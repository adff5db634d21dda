"""Loads, in a simulation and out of it, leave no object behind, whether they fail or not."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from pytest_llmdevice.loading.load import Leftovers, Loaded
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.simulation import simulate

SIZES: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "vocab_size": 16}
HEADS: dict[str, Any] = {"num_hidden_layers": 1, "num_attention_heads": 2}


class _Target:
    def __init__(self, *, fails: bool) -> None:
        self.fails = fails

    def load(self, checkpoint: str, cell: Cell) -> Any:
        model = LlamaForCausalLM.from_pretrained(checkpoint, device_map=cell.device)
        model(torch.zeros(1, 2, dtype=torch.int64, device=cell.device))
        if self.fails:
            raise ValueError("broken")
        return model


def _counted() -> Counter[str]:
    """The objects that the project, PyTorch's tensors and their classes are made of."""
    gc.collect()
    found: Counter[str] = Counter()
    for value in gc.get_objects():
        kind = type(value)
        ours = str(kind.__module__).startswith("pytest_llmdevice")
        if ours or issubclass(kind, (torch.Tensor, torch.UntypedStorage, type)):
            found[f"{kind.__module__}.{kind.__qualname__}"] += 1
    return found


@pytest.mark.parametrize("where", ["cpu", "same machine", "new machines"])
def test_no_object_is_left(tmp_path: Path, where: str) -> None:
    LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS)).save_pretrained(tmp_path)
    kept, leftovers = simulate("cuda:2"), Leftovers()
    cell = Cell("llama", "cpu" if where == "cpu" else "cuda:1", "float32", simulated=where != "cpu")

    def load(number: int) -> None:
        machine: Any = nullcontext() if where == "cpu" else kept if where == "same machine" else simulate("cuda:2")
        with machine:
            Loaded.load(_Target(fails=number % 3 == 2), tmp_path, cell, leftovers).release()

    for number in range(3):
        load(number)
    before = _counted()
    for number in range(9):
        load(number)
    # Fewer may be there: what other tests have left goes in its own time.
    assert not _counted() - before


def test_a_model_in_which_tensors_met_on_two_cards_is_gone_when_it_is_let_go() -> None:
    with simulate("cuda:2"):
        model = nn.Sequential(nn.Linear(2, 2).to("cuda:0"), nn.Linear(2, 2).to("cuda:1"))
        known = weakref.ref(model)
        with pytest.raises(RuntimeError, match=r"two devices|same device"):
            model(torch.ones(1, 2, device="cuda:0"))
        del model
        gc.collect()
        assert known() is None

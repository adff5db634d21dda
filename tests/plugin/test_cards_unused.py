"""A process from which others are forked does not begin to use a card, and says so where something else did."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from pytest_llmdevice import Cell
from pytest_llmdevice.plugin.cards_unused import answer_without_using, cards_in_use, import_without_using

MODULES = {
    "uses_cuda_at_import": "import torch\ntorch.cuda.init()\n",
    "asks_a_card_at_import": "import torch\nNAME = torch.cuda.get_device_name(0)\n",
    "asks_whether_there_is_one": "import torch\nHERE = torch.cuda.is_available()\n",
    "needs_one_that_uses_it": "import uses_cuda_at_import\n",
    "draws_at_import": "import torch\nSTATE = torch.cuda.get_rng_state()\n",
    "does_without_a_card": "import torch\ntry:\n    torch.cuda.init()\nexcept Exception:\n    CARDS = 0\n",
}


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever begins to use a card, as on a machine that has one."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    begun: list[str] = []
    for module in (torch.cuda, torch.cuda.random):
        monkeypatch.setattr(module, "_lazy_init", lambda: begun.append("cuda"))
    return begun


def test_a_module_that_uses_a_card_when_it_is_imported_is_left_to_the_children(begun: list[str]) -> None:
    import_without_using(list(MODULES))
    assert not begun
    assert "asks_whether_there_is_one" in sys.modules
    for name in MODULES.keys() - {"asks_whether_there_is_one"}:
        assert name not in sys.modules
    del sys.modules["asks_whether_there_is_one"]
    torch.cuda._lazy_init()  # type: ignore[no-untyped-call]
    assert begun == ["cuda"]


def test_cards_in_use_are_those_of_the_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert cards_in_use(Cell("llama", "cuda:0", "float32"))
    assert not cards_in_use(Cell("llama", "cpu", "float32"))
    assert not cards_in_use(Cell("llama", "cuda:0", "float32", simulated=True))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert not cards_in_use(Cell("llama", "cuda:0", "float32"))


def test_a_setting_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    monkeypatch.setenv(name, "0")
    answer_without_using()()
    assert os.environ[name] == "0"
    monkeypatch.delenv(name)
    take_back = answer_without_using()
    assert os.environ[name] == "1"
    take_back()
    assert name not in os.environ

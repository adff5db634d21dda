"""Checkpoints that are quantized by themselves, in cells that ask for no quantization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from pytest_llmdevice import BuiltinTarget, Cell, Result, examine
from pytest_llmdevice.loading.stored_packed import stored_method, stored_packed

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

CELL = Cell("path:stored", "cpu", "bfloat16")

WAYS: dict[str, dict[str, Any]] = {
    "int8": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16},
}


@pytest.fixture(scope="module", params=WAYS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose files hold packed weights, and whose configuration says so."""
    made: Path = tmp_path_factory.mktemp(request.param)
    config: Any = BitsAndBytesConfig(**WAYS[request.param])
    kind: Any = AutoModelForCausalLM
    kind.from_pretrained(
        checkpoint("llama"), dtype=torch.bfloat16, quantization_config=config, device_map="cpu"
    ).save_pretrained(made)
    AutoTokenizer.from_pretrained(checkpoint("llama")).save_pretrained(made)
    return str(made)


def outcomes(target: Any, folder: str) -> dict[str, Result]:
    return {result.check: result for result in examine(target, folder, CELL)}


def test_it_is_known_what_the_files_hold_packed(folder: str) -> None:
    modules = ["model.layers.0.mlp.up_proj", "lm_head", "model.embed_tokens"]
    assert stored_method(folder) == "bitsandbytes"
    assert stored_packed(folder, modules) == {"model.layers.0.mlp.up_proj"}
    assert stored_method(checkpoint("llama")) == ""
    assert stored_packed(checkpoint("llama"), modules) == set()


def test_a_plain_load_of_it_is_right(folder: str) -> None:
    results = outcomes(BuiltinTarget(), folder)
    assert {name for name, result in results.items() if result.outcome in {"failed", "hollow"}} == set()
    assert results["quantization"].evidence["packed in the checkpoint"] == 14


class Unpacked:
    """Gives dense weights, which is what the cell asks for."""

    def load(self, folder: str, cell: Cell) -> Any:
        model: Any = BuiltinTarget().load(folder, cell)
        return model.dequantize()


def test_unpacked_while_loading_it_is_right_too(folder: str) -> None:
    results = outcomes(Unpacked(), folder)
    wrong = {name: result.message() for name, result in results.items() if result.outcome in {"failed", "hollow"}}
    assert wrong == {}


class Damaged:
    """Loses some of the packed numbers."""

    def load(self, folder: str, cell: Cell) -> Any:
        model: Any = BuiltinTarget().load(folder, cell)
        model.model.layers[1].mlp.up_proj.weight.data.flatten()[:64] = 0
        return model


class Original:
    """Loads the dense checkpoint instead of the one that it was given."""

    def load(self, _: str, cell: Cell) -> Any:
        return BuiltinTarget().load(checkpoint("llama"), cell)


@pytest.mark.parametrize("target", [Damaged(), Original()], ids=["damaged", "another"])
def test_other_numbers_are_found(target: Any, folder: str) -> None:
    (first, *_) = outcomes(target, folder)["values"].findings
    assert first.where.startswith("model.layers.")

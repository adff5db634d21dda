"""A loader may leave layers unquantized and say so; what it says must be so, and must be about layers that exist."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from pytest_llmdevice import Cell, examine, zoo
from pytest_llmdevice.checks import Result
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.zoo import cache_directory

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

CELL = Cell("llama", "cpu", "bfloat16", "nf4")
DOWN = ("*.mlp.down_proj",)


class Skipping(BuiltinTarget):
    """Leaves one layer of each block dense."""

    def load(self, checkpoint: str, cell: Cell) -> Any:
        config: Any = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=cell.torch_dtype,
            llm_int8_skip_modules=["lm_head", "down_proj"],
        )
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=cell.torch_dtype, quantization_config=config)


def results(target: Any, dense: tuple[str, ...]) -> dict[str, Result]:
    pytest.importorskip("bitsandbytes")
    folder = zoo.checkpoint("llama")
    found = examine(target, folder, CELL, dense=dense, folder=cache_directory() / "references")
    return {result.check: result for result in found}


def test_what_is_dense_on_purpose_passes_every_check() -> None:
    assert [result.message() for result in results(Skipping(), DOWN).values() if not result.passed] == []


def test_what_is_dense_and_not_declared_is_found() -> None:
    findings = results(Skipping(), ())["quantization"].findings
    assert {finding.where for finding in findings} == {f"model.layers.{layer}.mlp.down_proj" for layer in (0, 1)}


def test_what_is_declared_dense_and_packed_is_found() -> None:
    findings = results(BuiltinTarget(), ("down_proj",))["quantization"].findings
    assert {(finding.where, finding.expected) for finding in findings} == {
        (f"model.layers.{layer}.mlp.down_proj", "dense: not to be quantized") for layer in (0, 1)
    }


def test_a_declaration_of_what_is_not_there_is_found() -> None:
    (finding,) = results(BuiltinTarget(), ("*.no_such_proj",))["quantization"].findings
    assert finding.where == "'*.no_such_proj', declared dense"

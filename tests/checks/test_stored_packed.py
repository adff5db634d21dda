"""Checkpoints that are quantized by themselves, in cells that ask for no quantization."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import checkpoint
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from pytest_llmdevice import BuiltinTarget, Cell, Result, examine
from pytest_llmdevice.loading.stored_packed import stored_method, stored_packed
from pytest_llmdevice.oracle.unpacked import unpacked_checkpoint, unpacked_in, unpacked_modules

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

PACKED = ["llama~bnb-int8", "llama~bnb-4bit"]
UNPACKED_BY_TRANSFORMERS = ["llama~fp8", "qwen3-moe~fp8", "gpt-oss~mxfp4"]
WITH_A_LIBRARY = [
    pytest.param(
        "llama~w4a16", marks=pytest.mark.skipif(find_spec("compressed_tensors") is None, reason="needs the library")
    )
]


def outcomes(target: Any, model: str, dtype: str = "bfloat16") -> dict[str, Result]:
    cell = Cell(model, "cpu", dtype)
    return {result.check: result for result in examine(target, checkpoint(model), cell)}


def wrong(results: dict[str, Result]) -> dict[str, str]:
    return {name: result.message() for name, result in results.items() if result.outcome in {"failed", "hollow"}}


@pytest.mark.parametrize("model", PACKED)
def test_it_is_known_what_the_files_hold_packed(model: str) -> None:
    modules = ["model.layers.0.mlp.up_proj", "lm_head", "model.embed_tokens"]
    assert stored_method(checkpoint(model)) == "bitsandbytes"
    assert stored_packed(checkpoint(model), modules) == {"model.layers.0.mlp.up_proj"}
    assert stored_method(checkpoint("llama")) == ""
    assert stored_packed(checkpoint("llama"), modules) == set()


@pytest.mark.parametrize(
    ("names", "module"),
    [
        (("layers.0.q.qweight", "layers.0.q.scales"), "layers.0.q"),
        (("layers.0.experts.gate_up_proj_blocks", "layers.0.experts.gate_up_proj_scales"), "layers.0.experts"),
        (("layers.0.experts.3.w1.weight_packed", "layers.0.experts.3.w1.weight_scale"), "layers.0.experts"),
    ],
    ids=["gptq", "mxfp4", "an expert of a stack"],
)
def test_packed_weights_of_any_name_are_known(tmp_path: Path, names: tuple[str, str], module: str) -> None:
    from safetensors.torch import save_file

    packed, scale = names
    save_file(
        {packed: torch.ones(4, 4, dtype=torch.int32), scale: torch.ones(4), "head.weight": torch.ones(4, 4)},
        tmp_path / "model.safetensors",
    )
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "any"}}))
    assert stored_packed(str(tmp_path), [module, "head", "layers.1"]) == {module}


@pytest.mark.parametrize("model", [*PACKED, *UNPACKED_BY_TRANSFORMERS, *WITH_A_LIBRARY])
def test_a_plain_load_of_it_is_right(model: str) -> None:
    results = outcomes(BuiltinTarget(), model)
    assert wrong(results) == {}
    # Nothing of what it says was excused by a plain load, but for what transformers cannot write.
    assert {name for name, result in results.items() if result.upstream} <= {"save"}
    packed = results["quantization"].evidence.get("packed in the checkpoint", 0)
    assert packed == (0 if model in UNPACKED_BY_TRANSFORMERS else 14)


class Unpacked:
    """Gives dense weights, which is what the cell asks for."""

    def load(self, folder: str, cell: Cell) -> Any:
        model: Any = BuiltinTarget().load(folder, cell)
        return model.dequantize()


@pytest.mark.parametrize("model", PACKED)
def test_unpacked_while_loading_it_is_right_too(model: str) -> None:
    results = outcomes(Unpacked(), model)
    assert wrong(results) == {}
    assert results["quantization"].evidence["quantized modules"] == 0


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
@pytest.mark.parametrize("model", [*PACKED, "llama~fp8"])
def test_other_numbers_are_found(target: Any, model: str) -> None:
    (first, *_) = outcomes(target, model)["values"].findings
    assert first.where.startswith("model.layers.")


Blocks = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def spread(scale: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    wide = scale.repeat_interleave(32, 0).repeat_interleave(32, 1)
    return wide[: shape[0], : shape[1]]


RIGHT: dict[str, Blocks] = {
    "in float32": lambda weight, scale: weight.float() * spread(scale, weight.shape),
    "in bfloat16": lambda weight, scale: weight.bfloat16() * spread(scale, weight.shape).bfloat16(),
}

FAULTY: dict[str, Blocks] = {
    "no scale": lambda weight, _: weight.float(),
    "divided": lambda weight, scale: weight.float() / spread(scale, weight.shape),
    "one scale for all": lambda weight, scale: weight.float() * scale[0, 0],
    "blocks of columns only": lambda weight, scale: weight.float() * spread(scale[:1].expand_as(scale), weight.shape),
    "in steps of another block": lambda weight, scale: (
        weight.float() * scale.repeat(32, 32)[: weight.shape[0], : weight.shape[1]]
    ),
    "last block forgotten": lambda weight, scale: (
        weight.float() * torch.where(torch.arange(len(weight))[:, None] < 32, spread(scale, weight.shape), 1.0)
    ),
}


class OfItsOwn:
    """Unpacks FP8 with code of its own, in one way or another."""

    def __init__(self, unpack: Blocks) -> None:
        self.unpack = unpack

    def load(self, folder: str, cell: Cell) -> Any:
        stored = load_file(Path(folder) / "model.safetensors")
        dtype = getattr(torch, cell.dtype)
        config = AutoConfig.from_pretrained(folder)
        del config.quantization_config
        plain: Any = AutoModelForCausalLM
        model: Any = plain.from_config(config, dtype=dtype, attn_implementation="eager")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                scale = stored.get(f"{name}_scale_inv")
                value = stored[name] if scale is None else self.unpack(stored[name], scale)
                parameter.copy_(value.to(dtype))
        return model.eval()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("way", RIGHT)
def test_whoever_unpacks_by_himself_is_right(way: str, dtype: str) -> None:
    assert wrong(outcomes(OfItsOwn(RIGHT[way]), "llama~fp8", dtype)) == {}


@pytest.mark.parametrize("way", FAULTY)
def test_whoever_unpacks_wrongly_is_not(way: str) -> None:
    result = outcomes(OfItsOwn(FAULTY[way]), "llama~fp8")["values"]
    assert result.outcome == "failed"
    assert all(".layers." in finding.where for finding in result.findings)


def test_a_dense_twin_says_what_was_unpacked(tmp_path: Path) -> None:
    folder = unpacked_checkpoint(checkpoint("qwen3-moe~fp8"), tmp_path)
    assert unpacked_in(folder) == "bfloat16"
    assert "model.layers.0.mlp.experts" in unpacked_modules(folder)
    assert "model.layers.0.mlp.gate" not in unpacked_modules(folder)
    assert unpacked_in(checkpoint("llama")) == ""
    assert unpacked_modules(checkpoint("llama")) == set()
    assert stored_method(folder) == ""
    # It is kept.
    before = (Path(folder) / "model.safetensors").stat().st_mtime_ns
    assert unpacked_checkpoint(checkpoint("qwen3-moe~fp8"), tmp_path) == folder
    assert (Path(folder) / "model.safetensors").stat().st_mtime_ns == before

"""No false alarm on checkpoints that are not the zoo's: other classes, other dtypes on disk, other ties."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from covering import in_turn

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import (
    Result,
    check_agreement,
    check_dtypes,
    check_forward,
    check_generation,
    check_meta,
    check_mode,
    check_placement,
    check_quantization,
    check_tied,
    generation_tolerance,
    tolerance,
)
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.inference.generation_run import GenerationRun
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.oracle.reference import Reference, reference

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")

PROMPTS = [[5, 6, 7], [9, 10, 11, 12, 13, 14], [20, 21]]

SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 128,
}

SMALL: dict[str, Any] = {key: SIZES[key] for key in ("hidden_size", "num_attention_heads", "vocab_size")}

BART: dict[str, Any] = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}

MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama-in-bfloat16": ("LlamaConfig", SIZES, "bfloat16"),
    "llama-tied-in-float16": ("LlamaConfig", {**SIZES, "tie_word_embeddings": True}, "float16"),
    "qwen2-untied": ("Qwen2Config", {**SIZES, "num_key_value_heads": 2}, "float32"),
    "gpt-neox": ("GPTNeoXConfig", SIZES, "float32"),
    "gpt-neox-tied": ("GPTNeoXConfig", {**SIZES, "tie_word_embeddings": True}, "bfloat16"),
    "falcon": ("FalconConfig", {**SMALL, "num_hidden_layers": 2}, "float32"),
    "falcon-alibi": ("FalconConfig", {**SMALL, "num_hidden_layers": 2, "alibi": True}, "float32"),
    "gptj": ("GPTJConfig", {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 128, "rotary_dim": 8}, "float32"),
    "phi": ("PhiConfig", SIZES, "float32"),
    "bart": ("BartConfig", BART, "float32"),
    "mt5-untied": (
        "MT5Config",
        {
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 128,
            "tie_word_embeddings": False,
        },
        "float32",
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`saved(name)`: the folder of a checkpoint with random weights."""

    @cache
    def save(name: str) -> str:
        config_class, arguments, dtype = MODELS[name]
        config = getattr(transformers, config_class)(**arguments)
        auto_class: Any = (
            transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = auto_class.from_config(config).to(getattr(torch, dtype))
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="module")
def expected(saved: Callable[[str], str]) -> Callable[[str], Reference]:
    return cache(lambda name: reference(saved(name), PROMPTS, 6))


def all_checks(folder: str, cell: Cell, known: Reference) -> list[Result]:
    model: Any = BuiltinTarget().load(folder, cell)
    expectations = expectations_of(model, folder, cell)
    first, second = generate(model, PROMPTS, 6), generate(model, PROMPTS, 6)
    alone = [generate(model, [prompt], 6)[0] for prompt in PROMPTS]
    return [
        check_meta(model),
        check_placement(model, expectations, cell),
        check_dtypes(model, expectations, cell),
        check_tied(model, expectations),
        check_quantization(model, expectations, cell),
        check_mode(model),
        check_forward(model, cell, PROMPTS, folder),
        check_generation(GenerationRun(first, second), PROMPTS, 6, model),
        check_agreement(model, known, PROMPTS, first, alone, tolerance(cell), generation_tolerance(cell)),
    ]


@pytest.mark.parametrize(
    ("name", "dtype", "strategy"),
    in_turn(
        MODELS, [("float32", "to"), ("bfloat16", "shared-memory"), ("float16", "to"), ("bfloat16", "disk-offload")]
    ),
)
def test_a_plain_load_passes_every_check(
    name: str,
    dtype: str,
    strategy: str,
    saved: Callable[[str], str],
    expected: Callable[[str], Reference],
) -> None:
    cell = Cell(f"path:{name}", "cpu", dtype, strategy=strategy)
    results = all_checks(saved(name), cell, expected(name))
    assert [result.message() for result in results if not result.passed] == []


@pytest.mark.parametrize("name", ["llama-in-bfloat16", "gpt-neox", "phi"])
@pytest.mark.parametrize("quantization", ["int8", "nf4-double"])
def test_a_quantized_load_passes_every_check(
    name: str, quantization: str, saved: Callable[[str], str], expected: Callable[[str], Reference]
) -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell(f"path:{name}", "cpu", "bfloat16", quantization)
    results = all_checks(saved(name), cell, expected(name))
    assert [result.message() for result in results if not result.passed] == []

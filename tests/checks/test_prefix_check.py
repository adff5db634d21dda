"""The check of prefixes: what it lets pass, and that it tells a mask error from noise and from lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from covering import NATIVE, in_turn

from pytest_llmdevice import Cell, simulate, zoo
from pytest_llmdevice.checks import Result, check_prefix
from pytest_llmdevice.diagnosis.hints.sequences import FAR, LEAK, LENGTH, NOISE, UNSCALED
from pytest_llmdevice.inference.stepping import longest_text_length, random_text
from pytest_llmdevice.model.lengths import sliding_window

Load = Callable[[Cell], Any]
Tokens = list[list[int]]
Check = Callable[..., Result]

FP32 = Cell("llama", "cpu", "float32")
BF16 = Cell("llama", "cpu", "bfloat16")


@pytest.fixture
def check(checkpoint: Callable[[str], str], prompts: Tokens) -> Check:
    """`check(model, cell)`."""
    return lambda model, cell: check_prefix(model, cell, prompts, checkpoint(cell.model))


@pytest.mark.parametrize(("family", "dtype"), in_turn(zoo.families(), ["float32", "bfloat16"]))
def test_a_loaded_model_passes(family: str, dtype: str, loaded: Load, check: Check) -> None:
    cell = Cell(family, "cpu", dtype)
    result = check(loaded(cell), cell)
    assert result.findings == ()
    assert result.evidence["exchanges"] == 2
    assert int(result.evidence["positions"]) > 256
    assert int(result.evidence["far positions"]) >= 16


@pytest.mark.parametrize(
    "cell",
    [
        Cell("qwen3", "cpu", "float16"),
        Cell("t5", "cpu", "float16", attention="sdpa"),
        Cell("gemma3", "cpu", "bfloat16", attention="sdpa"),
        Cell("mixtral", "cpu", "bfloat16", attention="sdpa"),
        Cell("gpt2", "cpu", "bfloat16", strategy="disk-offload"),
        Cell("bloom", "cpu", "float16", strategy="shared-memory"),
    ],
    ids=str,
)
def test_other_dtypes_attentions_and_strategies_pass(cell: Cell, load: Load, check: Check) -> None:
    assert check(load(cell), cell).findings == ()


@pytest.mark.parametrize(
    ("quantization", "family", "dtype"),
    in_turn(NATIVE[1:], [("llama", "float16"), ("gpt2", "float32"), ("opt", "float32")]),
)
def test_a_quantized_model_passes(family: str, dtype: str, quantization: str, load: Load, check: Check) -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell(family, "cpu", dtype, quantization)
    assert check(load(cell), cell).findings == ()


@pytest.mark.parametrize(
    ("family", "profile", "device", "strategy"),
    in_turn(["llama", "t5", "mamba"], [("cuda:2", "cuda:1", "split"), ("mps", "mps", "to")]),
)
def test_a_model_on_simulated_devices_passes(
    family: str, profile: str, device: str, strategy: str, load: Load, check: Check
) -> None:
    cell = Cell(family, device, "bfloat16", strategy=strategy, simulated=True)
    with simulate(profile):
        assert check(load(cell), cell).findings == ()


def blind(model: Any, cells: int) -> None:
    """Let every token see as many later ones as `cells` says."""
    for layer in model.model.layers:
        attention = layer.self_attn

        def forward(*args: Any, inner: Any = attention.forward, **kwargs: Any) -> Any:
            mask = kwargs["attention_mask"]
            length = mask.shape[-1]
            seen = torch.ones(mask.shape[-2], length, dtype=torch.bool).tril(length - mask.shape[-2] + cells)
            kwargs["attention_mask"] = torch.zeros_like(mask).masked_fill(~seen, torch.finfo(mask.dtype).min)
            return inner(*args, **kwargs)

        attention.forward = forward


@pytest.mark.parametrize("cell", [FP32, BF16, Cell("qwen2", "cpu", "float16")], ids=str)
@pytest.mark.parametrize("cells", [1, 1000])
def test_a_mask_that_shows_later_tokens_is_a_mask_error(cells: int, cell: Cell, load: Load, check: Check) -> None:
    model = load(cell)
    blind(model, cells)
    result = check(model, cell)
    assert {finding.hint for finding in result.findings} == {LEAK}
    first = result.findings[0]
    assert first.where.startswith("logits before token 12 of 24, the tokens from there on being exchanged")
    assert "a mask error and no numeric noise" in result.message()


def test_an_off_by_one_mask_is_found_at_the_last_position_only(load: Load, check: Check) -> None:
    model = load(Cell("llama", "cpu", "float32"))
    del model.model.layers[1:]
    blind(model, 1)
    first = check(model, FP32).findings[0]
    assert first.where.endswith("first at position 11")
    assert first.actual.endswith("beyond it 1 of 12 positions")


def test_frequencies_that_are_made_again_for_long_texts_are_no_mask_error(load: Load, check: Check) -> None:
    model = load(FP32)
    rotary = model.model.rotary_emb
    inner = rotary.forward

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        right = rotary.inv_freq
        if int(position_ids.max()) >= 512:
            rotary.inv_freq = right * 0.5
        try:
            return inner(x, position_ids)
        finally:
            rotary.inv_freq = right

    rotary.forward = forward
    result = check(model, FP32)
    assert {finding.hint for finding in result.findings} == {LENGTH}
    assert "those of the whole text of 520 tokens" in result.findings[0].expected


def test_a_part_that_computes_in_a_half_is_noise(load: Load, check: Check) -> None:
    model = load(FP32)
    head = model.lm_head
    inner = head.forward

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        # Rounds otherwise in another shape, as kernels do.
        rounded: torch.Tensor = inner(hidden.bfloat16().float() if hidden.shape[1] % 2 else hidden)
        return rounded

    head.forward = forward
    assert {finding.hint for finding in check(model, FP32).findings} == {NOISE}


@pytest.mark.parametrize("family", ["llama", "gemma3", "deepseek-v3"])
def test_rounded_frequencies_are_found_far_into_a_text(family: str, load: Load, check: Check) -> None:
    cell = Cell(family, "cpu", "float32")
    model = load(cell)
    for name, buffer in model.named_buffers():
        if name.endswith("inv_freq"):
            buffer.copy_(buffer.bfloat16())
    (finding,) = check(model, cell).findings
    assert finding.where == "logits from position 256 of 520 on"
    assert finding.hint == FAR


@pytest.mark.parametrize("cell", [BF16, FP32, Cell("phi3", "cpu", "float16")], ids=str)
def test_positions_that_are_counted_in_bfloat16_are_found(cell: Cell, load: Load, check: Check) -> None:
    model = load(cell)
    rotary = model.model.rotary_emb
    inner = rotary.forward
    rotary.forward = lambda x, position_ids: inner(x, position_ids.bfloat16().long())
    (finding,) = check(model, cell).findings
    assert finding.hint == FAR
    assert finding.actual.endswith("(the first 24: 0)")


def test_nan_is_found(load: Load, check: Check) -> None:
    model = load(FP32)
    model.lm_head.weight.data[7] = float("nan")
    assert "inf" in check(model, FP32).findings[0].actual


def test_a_long_text_ends_where_positions_do_or_just_beyond_a_table(loaded: Load, prompts: Tokens) -> None:
    assert longest_text_length(loaded(FP32), prompts) == 520
    assert longest_text_length(loaded(Cell("gpt2", "cpu", "float32")), prompts) == 272
    assert longest_text_length(loaded(Cell("mamba", "cpu", "float32")), prompts) == 272
    assert longest_text_length(torch.nn.Linear(1, 1), prompts) == max(map(len, prompts))


def test_scaled_positions_are_not_left(load: Load, prompts: Tokens) -> None:
    model = load(FP32)
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert longest_text_length(model, prompts) == 272
    model.config.rope_parameters = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    assert longest_text_length(model, prompts) == 64


def test_a_text_is_drawn_from_the_prompts(prompts: Tokens) -> None:
    known = {token for prompt in prompts for token in prompt}
    assert set(random_text(prompts, 300)) <= known
    assert random_text(prompts, 300) == random_text(prompts, 300)
    assert random_text(prompts, 300) != random_text(prompts, 300, seed=1)


def test_the_window_of_sliding_layers_is_known(loaded: Load) -> None:
    assert sliding_window(loaded(Cell("mistral", "cpu", "float32"))) == 16
    assert sliding_window(loaded(FP32)) is None


def unscaled(folder: str, dtype: torch.dtype) -> Any:
    """A model whose configuration scales positions by length, and whose module of rotary angles does not."""
    from transformers import AutoConfig, AutoModelForCausalLM

    library: Any = AutoModelForCausalLM
    model = library.from_pretrained(folder, dtype=dtype).eval()
    config: Any = AutoConfig.from_pretrained(folder)
    theta = config.rope_parameters["rope_theta"]
    config.rope_parameters = {"rope_type": "default", "rope_theta": theta}
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model


def test_a_text_long_enough_for_scaled_positions_is_read(loaded: Load, check: Check) -> None:
    cell = Cell("llama~rope-dynamic", "cpu", "bfloat16")
    result = check(loaded(cell), cell)
    assert result.findings == ()
    assert result.evidence["scaled positions"] == 128


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dropped_scaling_by_length_is_found(dtype: str, checkpoint: Callable[[str], str], check: Check) -> None:
    family = "llama~rope-dynamic"
    (finding,) = check(unscaled(checkpoint(family), getattr(torch, dtype)), Cell(family, "cpu", dtype)).findings
    assert finding.where == "logits of a text of 128 tokens, for which positions are scaled"
    assert finding.hint == UNSCALED


def test_a_model_that_reads_otherwise_after_a_short_text_passes(loaded: Load, check: Check) -> None:
    # BigBird's sparse attention is given up for good by the first text that is too short for it.
    cell = Cell("big-bird", "cpu", "bfloat16")
    model = loaded(cell)
    with torch.no_grad():
        model(torch.tensor([[72, 101, 108, 108, 111]]))
    assert check(model, cell).findings == ()

"""The check of caches: what it lets pass, and what it finds in values, dtypes, devices and beams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import transformers
from covering import NATIVE, in_turn
from transformers import DynamicCache

from pytest_llmdevice import Cell, simulate, zoo
from pytest_llmdevice.checks import Result, check_cache
from pytest_llmdevice.diagnosis.hints.sequences import BEAMS, CACHE_DEVICE, CACHE_DTYPE, CACHED
from pytest_llmdevice.inference.generation import generate
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.model.kv_cache import cache_tensors, caches_used, layer_devices

Load = Callable[[Cell], Any]
Tokens = list[list[int]]
Check = Callable[..., Result]

FP32 = Cell("llama", "cpu", "float32")
BF16 = Cell("llama", "cpu", "bfloat16")


@pytest.fixture
def check(prompts: Tokens) -> Check:
    """`check(model, cell)`: with the built-in target's generation, unless there is another."""

    def run(model: Any, cell: Cell, target: Any = None) -> Result:
        return check_cache(model, cell, prompts, target or BuiltinTarget())

    return run


@pytest.mark.parametrize(("family", "dtype"), in_turn(zoo.families(), ["float32", "bfloat16"]))
def test_a_loaded_model_passes(family: str, dtype: str, loaded: Load, check: Check) -> None:
    cell = Cell(family, "cpu", dtype)
    result = check(loaded(cell), cell)
    assert result.findings == ()
    assert result.evidence["positions"] == 272
    assert result.evidence["pieces"] == (5 if family == "mamba" else 8)
    assert result.evidence["single tokens"] == (20 if family == "mamba" else 8)
    assert int(result.evidence["tensors"]) >= 4
    assert result.evidence["caches in generate"] == 1


@pytest.mark.parametrize("family", ["llama", "t5", "gemma3"])
def test_static_caches_and_beams_are_looked_at(family: str, loaded: Load, check: Check) -> None:
    cell = Cell(family, "cpu", "float32")
    evidence = check(loaded(cell), cell).evidence
    assert evidence["static steps"] == 6
    assert evidence["beam steps"] == 24


@pytest.mark.parametrize(
    "cell",
    [
        Cell("qwen3", "cpu", "float16"),
        Cell("t5", "cpu", "float16", attention="sdpa"),
        Cell("phi3", "cpu", "bfloat16", attention="sdpa"),
        Cell("mistral", "cpu", "bfloat16", attention="sdpa"),
        Cell("mixtral", "cpu", "bfloat16", strategy="disk-offload"),
        Cell("mamba", "cpu", "float16", strategy="disk-offload"),
        Cell("bloom", "cpu", "float16", strategy="shared-memory"),
    ],
    ids=str,
)
def test_other_dtypes_attentions_and_strategies_pass(cell: Cell, load: Load, check: Check) -> None:
    assert check(load(cell), cell).passed


@pytest.mark.parametrize(
    ("quantization", "family", "dtype"),
    in_turn(NATIVE[1:], [("llama", "float16"), ("gpt2", "float32"), ("t5", "bfloat16")]),
)
def test_a_quantized_model_passes(family: str, dtype: str, quantization: str, load: Load, check: Check) -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell(family, "cpu", dtype, quantization)
    assert check(load(cell), cell).findings == ()


@pytest.mark.parametrize(
    ("family", "profile", "device", "strategy"),
    [
        ("llama", "cuda:2", "cuda:1", "split"),
        ("t5", "cuda:2", "cuda:1", "split"),
        ("t5", "cuda:2", "cuda:0", "cpu-offload"),
        ("mamba", "mps", "mps", "to"),
    ],
)
def test_a_model_on_simulated_devices_passes(
    family: str, profile: str, device: str, strategy: str, load: Load, check: Check
) -> None:
    cell = Cell(family, device, "bfloat16", strategy=strategy, simulated=True)
    with simulate(profile):
        assert check(load(cell), cell).passed


def rewrite(model: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """After each forward pass, put what the cache holds through `change`."""

    def after(_: Any, __: Any, output: Any) -> None:
        cache = output.past_key_values
        for layer in getattr(cache, "layers", ()):
            layer.keys, layer.values = change(layer.keys), change(layer.values)

    model.register_forward_hook(after)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_history_that_was_rounded_to_a_half_is_found_by_its_values(
    dtype: torch.dtype, load: Load, check: Check
) -> None:
    model = load(FP32)
    rewrite(model, lambda states: states.to(dtype).to(states.dtype))
    first = check(model, FP32).findings[0]
    assert first.where.startswith("logits of new tokens after a prompt, first at position 26")
    assert first.hint == CACHED


@pytest.mark.parametrize(("cell", "dtype"), [(FP32, torch.float16), (BF16, torch.float16)], ids=str)
def test_a_cache_that_was_cast_to_a_half_is_found_by_its_dtype(
    cell: Cell, dtype: torch.dtype, load: Load, check: Check
) -> None:
    model = load(cell)
    for layer in model.model.layers:
        attention = layer.self_attn

        def forward(*args: Any, inner: Any = attention.forward, **kwargs: Any) -> Any:
            cache = kwargs.get("past_key_values")
            index = 0 if cache is None else len(cache.layers)
            for kept in cache.layers[:index] if cache is not None else ():
                if kept.keys is not None:
                    kept.keys, kept.values = kept.keys.to(cell.torch_dtype), kept.values.to(cell.torch_dtype)
            return inner(*args, **kwargs)

        attention.forward = forward
    rewrite(model, lambda states: states.to(dtype))
    findings = [one for one in check(model, cell).findings if one.hint == CACHE_DTYPE]
    assert findings[0].where == "layers[0].keys"
    assert (findings[0].expected, findings[0].actual) == (
        " or ".join(dict.fromkeys((cell.dtype, "float32"))),
        "float16",
    )


def test_a_float32_history_of_a_half_model_is_no_finding(loaded: Load) -> None:
    from pytest_llmdevice.checks.cache import _misplaced

    cache = ((torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)),)
    assert _misplaced(loaded(BF16), BF16, cache) == []
    (finding,) = _misplaced(loaded(BF16), BF16, ((torch.ones(1, 1, 2, 2).half(),),))
    assert finding.where == "[0][0]"


def test_a_cache_on_another_card_than_its_layer_is_found(load: Load, check: Check) -> None:
    cell = Cell("llama", "cuda:0", "float32", strategy="split", simulated=True)
    with simulate("cuda:2"):
        model = load(cell)
        for layer in model.model.layers:
            attention = layer.self_attn

            def forward(*args: Any, inner: Any = attention.forward, **kwargs: Any) -> Any:
                cache = kwargs.get("past_key_values")
                for kept in cache.layers if cache is not None else ():
                    if kept.keys is not None and kept.keys.numel():
                        home = args[0].device if args else kwargs["hidden_states"].device
                        kept.keys, kept.values = kept.keys.to(home), kept.values.to(home)
                return inner(*args, **kwargs)

            attention.forward = forward
        rewrite(model, lambda states: states.to("cuda:0"))
        found = [one for one in check(model, cell).findings if one.hint == CACHE_DEVICE]
    assert found[0].where == "layers[1].keys"
    assert found[0].expected == "cuda:1, where layer 1 computes"
    assert found[0].actual == "cuda:0"


@pytest.mark.parametrize("cell", [BF16, FP32], ids=str)
def test_new_tokens_that_are_counted_in_bfloat16_are_found(cell: Cell, load: Load, check: Check) -> None:
    model = load(cell)
    rotary = model.model.rotary_emb
    inner = rotary.forward

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        return inner(x, position_ids.bfloat16().long() if position_ids.shape[1] == 1 else position_ids)

    rotary.forward = forward
    first = check(model, cell).findings[0]
    assert first.where.startswith("logits of new tokens after a prompt")
    assert first.hint == CACHED


def test_a_second_turn_that_starts_from_position_zero_is_found(load: Load, check: Check) -> None:
    model = load(FP32)
    rotary = model.model.rotary_emb
    inner = rotary.forward

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        again = position_ids.shape[1] > 1 and int(position_ids[0, 0]) > 0
        return inner(x, position_ids - position_ids[:, :1] if again else position_ids)

    rotary.forward = forward
    first = check(model, FP32).findings[0]
    assert first.where.startswith("logits of a second prompt on a carried cache, first at position 264")


def test_a_cache_that_is_kept_from_an_earlier_call_is_found(load: Load, check: Check) -> None:
    model = load(FP32)
    inner = model.forward
    kept = DynamicCache(config=model.config)

    def forward(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("use_cache") and kwargs.get("past_key_values") is None:
            kwargs["past_key_values"] = kept
            kwargs.pop("attention_mask", None)
        return inner(*args, **kwargs)

    model.forward = forward
    result = check(model, FP32)
    assert {finding.hint for finding in result.findings} == {CACHED}
    assert "a cache that is kept from an earlier call" in result.message()


@pytest.mark.parametrize("family", ["llama", "t5", "gpt2", "gemma3", "mixtral"])
def test_beams_whose_cache_is_not_reordered_are_found(family: str, load: Load, check: Check) -> None:
    cell = Cell(family, "cpu", "float32")
    model = load(cell)
    # `generate` asks the class for its own way first.
    model._reorder_cache = lambda cache, _: cache
    result = check(model, cell)
    assert {finding.hint for finding in result.findings} == {BEAMS}
    assert result.findings[0].where.startswith("logits of beam ")


def test_beams_that_are_indexed_on_one_card_only_are_found(load: Load, check: Check) -> None:
    cell = Cell("llama", "cuda:0", "float32", strategy="split", simulated=True)

    def reorder(cache: Any, beam_idx: torch.Tensor) -> Any:
        for layer in cache.layers:
            layer.keys = torch.index_select(layer.keys, 0, beam_idx)
            layer.values = torch.index_select(layer.values, 0, beam_idx)
        return cache

    with simulate("cuda:2"):
        model = load(cell)
        model._reorder_cache = reorder
        (finding,) = check(model, cell).findings
    assert finding.kind == "exception"
    assert "same device" in finding.actual


def test_a_cache_that_the_target_makes_in_a_half_is_found(load: Load, check: Check) -> None:
    class Target(BuiltinTarget):
        def generate(self, model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Tokens:
            cache = DynamicCache(config=model.config)
            with torch.inference_mode():
                output = model(
                    input_ids=torch.tensor([list(prompt) for prompt in prompts]), past_key_values=cache, use_cache=True
                )
            for layer in output.past_key_values.layers:
                layer.keys, layer.values = layer.keys.half(), layer.values.half()
            return generate(model, prompts, max_new_tokens)

    findings = check(load(FP32), FP32, Target()).findings
    assert findings[0].where == "generate's cache, layers[0].keys"
    assert {finding.hint for finding in findings} == {CACHE_DTYPE}


@pytest.mark.parametrize("implementation", ["static", "offloaded", "dynamic"])
def test_a_cache_that_the_configuration_asks_for_changes_nothing(implementation: str, load: Load, check: Check) -> None:
    model = load(FP32)
    if implementation != "dynamic":
        model.generation_config.cache_implementation = implementation
    model.generation_config.disable_compile = True
    if implementation == "offloaded":
        pytest.importorskip("accelerate")
        cell = Cell("llama", "cuda:0", "float32", simulated=True)
        with simulate("cuda:2"):
            model = load(cell)
            model.generation_config.cache_implementation = "offloaded"
            assert check(model, cell).findings == ()
    else:
        assert check(model, FP32).findings == ()


def test_a_configuration_without_a_cache_is_no_finding(load: Load, check: Check) -> None:
    model = load(FP32)
    model.config.use_cache = model.generation_config.use_cache = False
    assert check(model, FP32).passed


def test_a_class_that_has_no_cache_says_so(tmp_path: Any, prompts: Tokens) -> None:
    config = transformers.OpenAIGPTConfig(vocab_size=320, n_embd=64, n_layer=2, n_head=4, n_positions=64)
    torch.manual_seed(0)
    model: Any = transformers.OpenAIGPTLMHeadModel(config).train(False)
    result = check_cache(model, Cell("path:openai", "cpu", "float32"), prompts, None)
    assert result.passed
    assert result.evidence["cache"] == "none"


def test_what_a_cache_holds_has_names_and_layers(loaded: Load) -> None:
    model = loaded(Cell("t5", "cpu", "float32"))
    with caches_used(model) as caches:
        generate(model, [[5, 6, 7]], 2)
    names = {one.name: one.layer for one in cache_tensors(caches[-1])}
    assert names["self_attention_cache.layers[1].keys"] == 1
    assert names["cross_attention_cache.layers[0].values"] == 0
    assert layer_devices(model)[1] == {"cpu"}

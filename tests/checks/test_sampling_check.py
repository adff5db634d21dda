"""The check of what comes after the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from covering import in_turn
from torch import nn

from pytest_llmdevice import BuiltinTarget, Cell, DoesNotApply, Result, simulate, zoo
from pytest_llmdevice.checks import check_sampling
from pytest_llmdevice.diagnosis.hints import generation as hints
from pytest_llmdevice.diagnosis.hints.values import NONFINITE
from pytest_llmdevice.matrix.vocabulary import DTYPES

Load = Callable[[Cell], Any]
Tokens = list[list[int]]
Check = Callable[..., Result]

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

FP32 = Cell("llama", "cpu", "float32")


@pytest.fixture
def check(checkpoint: Callable[[str], str], prompts: Tokens) -> Check:
    """`check(model, family)`."""
    return lambda model, family="llama": check_sampling(model, prompts, checkpoint(family))


@pytest.mark.parametrize(("family", "dtype"), in_turn(zoo.families(), DTYPES))
def test_a_loaded_model_passes(family: str, dtype: str, loaded: Load, check: Check) -> None:
    result = check(loaded(Cell(family, "cpu", dtype)), family)
    assert result.passed, result.message()
    assert result.evidence == {"prompts": 2, "tokens": 40}


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_a_quantized_model_passes(quantization: str, loaded: Load, check: Check) -> None:
    pytest.importorskip("bitsandbytes")
    assert check(loaded(Cell("llama", "cpu", "bfloat16", quantization))).passed


@pytest.mark.parametrize(
    ("family", "strategy"), in_turn(["llama", "gpt2", "mixtral", "t5"], ["to", "split", "cpu-offload"])
)
def test_a_model_on_cards_passes(family: str, strategy: str, checkpoint: Callable[[str], str], check: Check) -> None:
    cell = Cell(family, "cuda:0", "float16", strategy=strategy, simulated=True)
    with simulate("cuda:2"):
        result = check(BuiltinTarget().load(checkpoint(family), cell), family)
    assert result.passed, result.message()


@pytest.mark.parametrize("profile", ["mps", "xpu"])
def test_other_kinds_of_devices_pass(profile: str, checkpoint: Callable[[str], str], check: Check) -> None:
    cell = Cell("llama", "mps" if profile == "mps" else "xpu:0", "float32", simulated=True)
    with simulate(profile):
        assert check(BuiltinTarget().load(checkpoint("llama"), cell)).passed


def test_an_adapter_passes(load: Load, check: Check) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(load(FP32), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).eval()
    assert check(model).passed


def test_random_states_are_put_back(loaded: Load, check: Check) -> None:
    before = torch.get_rng_state()
    check(loaded(FP32))
    assert torch.equal(torch.get_rng_state(), before)


def test_it_does_not_apply_to_what_is_no_model_of_transformers(
    checkpoint: Callable[[str], str], prompts: Tokens
) -> None:
    with pytest.raises(DoesNotApply, match="Linear has no generate of transformers"):
        check_sampling(nn.Linear(2, 2), prompts, checkpoint("llama"))


def wrapping(model: Any, change: Callable[[dict[str, Any]], dict[str, Any]], after: Callable[[Any], Any]) -> Any:
    inner = model.generate
    model.generate = lambda *args, **kwargs: after(inner(*args, **change(kwargs)))
    return model


def same(value: Any) -> Any:
    return value


@pytest.mark.parametrize("ignored", ["eos_token_id", "bad_words_ids", "forced_eos_token_id"])
def test_what_generate_ignores_is_found(ignored: str, load: Load, check: Check) -> None:
    model = wrapping(load(FP32), lambda given: {key: given[key] for key in given if key != ignored}, same)
    result = check(model)
    assert result.findings
    wanted = hints.STOP_IGNORED if ignored == "eos_token_id" else hints.PROCESSORS
    assert {finding.hint for finding in result.findings} == {wanted}


def test_sampling_that_seeds_itself_is_found(load: Load, check: Check) -> None:
    def change(given: dict[str, Any]) -> dict[str, Any]:
        if given["do_sample"]:
            torch.seed()
            given["temperature"] = 50.0
            given["top_p"] = 1.0
        return given

    (finding,) = check(wrapping(load(FP32), change, same)).findings
    assert finding.where == "seeded sampling"
    assert finding.hint == hints.UNREPEATED


def test_nan_is_found(load: Load, check: Check) -> None:
    model = load(FP32)
    model.lm_head.weight.data[7] = float("nan")
    result = check(model)
    assert not result.passed
    assert NONFINITE in {finding.hint for finding in result.findings} or "nan" in result.message()


def test_an_end_token_that_was_lost_is_found(load: Load, check: Check) -> None:
    model = load(FP32)
    model.generation_config.eos_token_id = None
    (finding,) = check(model).findings
    assert (finding.where, finding.expected, finding.actual) == ("generation_config.eos_token_id", "258", "None")
    assert finding.hint == hints.STOP


def test_another_end_token_beside_is_a_choice(load: Load, check: Check) -> None:
    model = load(FP32)
    model.generation_config.eos_token_id = [258, 10]
    model.generation_config.pad_token_id = 258
    assert check(model).passed


@pytest.mark.parametrize("pad", [-1, 320])
def test_a_padding_token_outside_the_vocabulary_is_found(pad: int, load: Load, check: Check) -> None:
    model = load(FP32)
    model.generation_config.pad_token_id = pad
    result = check(model)
    assert result.findings[0].where == "generation_config.pad_token_id"


def test_another_start_of_the_decoder_is_found(load: Load, check: Check) -> None:
    model = load(Cell("t5", "cpu", "float32"))
    model.generation_config.decoder_start_token_id = 5
    assert check(model, "t5").findings[0].where == "generation_config.decoder_start_token_id"


def test_what_it_raises_is_a_finding_that_names_what_was_under_way(load: Load, check: Check) -> None:
    def change(given: dict[str, Any]) -> dict[str, Any]:
        if "bad_words_ids" in given:
            raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices")
        return given

    (finding,) = check(wrapping(load(FP32), change, same)).findings
    assert finding.where == "logits processors"

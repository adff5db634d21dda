"""Settings that enter the arithmetic are the checkpoint's: in the configuration, and in the modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_loads
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.hints.loads import HEADLESS, NUMBERED, OVERRIDDEN
from pytest_llmdevice.oracle.expectations import expectations_of

Checkpoint = Callable[[str], str]
Load = Callable[[Cell], Any]

FP32 = Cell("llama", "cpu", "float32")


def findings(model: Any, folder: str, cell: Cell = FP32) -> tuple[Finding, ...]:
    return check_loads(model, expectations_of(model, folder, cell), folder, cell).findings


def configured(folder: str, **settings: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **settings)


@pytest.mark.parametrize(
    ("family", "name", "value"),
    [
        ("llama", "rms_norm_eps", 1e-5),
        ("gpt2", "activation_function", "gelu"),
        ("gpt2", "layer_norm_epsilon", 1e-6),
        ("mixtral", "num_experts_per_tok", 1),
        ("gemma3", "final_logit_softcapping", 30.0),
        ("gemma3", "query_pre_attn_scalar", 64),
        ("mistral", "sliding_window", None),
        ("phi3", "max_position_embeddings", 64),
    ],
)
def test_a_setting_of_another_model_is_found(family: str, name: str, value: Any, checkpoint: Checkpoint) -> None:
    folder = checkpoint(family)
    found = findings(configured(folder, **{name: value}), folder, Cell(family, "cpu", "float32"))
    assert (found[0].where, found[0].actual, found[0].hint) == (f"config.{name}", str(value), OVERRIDDEN)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_cache", False),
        ("max_position_embeddings", 4096),
        ("attention_dropout", 0.1),
        ("initializer_range", 0.5),
        ("pad_token_id", 3),
        ("rms_norm_eps", 1e-6),
    ],
)
def test_a_setting_that_changes_no_number_may_be_set(name: str, value: Any, checkpoint: Checkpoint) -> None:
    folder = checkpoint("llama")
    assert findings(configured(folder, **{name: value}), folder) == ()


def test_a_fraction_that_a_module_keeps_for_itself_is_found(load: Load, checkpoint: Checkpoint) -> None:
    model = load(FP32)
    model.model.norm.variance_epsilon = 1e-3
    model.model.layers[1].self_attn.scaling *= 2
    found = {one.where: (one.expected, one.actual) for one in findings(model, checkpoint("llama"))}
    assert found == {
        "model.norm.variance_epsilon": ("1e-06", "0.001"),
        "model.layers.1.self_attn.scaling": ("0.25", "0.5"),
    }


def test_layers_that_were_exchanged_are_found_by_their_numbers(load: Load, checkpoint: Checkpoint) -> None:
    model = load(FP32)
    model.model.layers = nn.ModuleList(reversed(model.model.layers))
    found = findings(model, checkpoint("llama"))
    assert [(one.where, one.hint) for one in found] == [
        ("model.layers.0.self_attn.layer_idx", NUMBERED),
        ("model.layers.1.self_attn.layer_idx", NUMBERED),
    ]


def test_a_class_of_ones_own_with_other_settings_is_not_compared(load: Load, checkpoint: Checkpoint) -> None:
    from transformers import PretrainedConfig

    model = load(FP32)
    own: Any = PretrainedConfig
    model.config = own(vocab_size=320, rms_norm_eps=1.0)
    assert not [one for one in findings(model, checkpoint("llama")) if one.hint == OVERRIDDEN]


def test_another_head_is_one_finding(checkpoint: Checkpoint) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = checkpoint("llama")
    (finding,) = findings(AutoModelForSequenceClassification.from_pretrained(folder), folder)
    assert finding.hint == HEADLESS
    assert finding.actual == "LlamaForSequenceClassification (llama), which has no lm_head.weight"

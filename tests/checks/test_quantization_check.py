"""The check that quantization was really done."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from covering import NATIVE
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import Result, check_dtypes, check_quantization
from pytest_llmdevice.diagnosis.hints.quantization import (
    COMPUTE,
    CONFIG,
    DROPPED,
    EMBEDDING,
    EXCLUDED,
    EXPERTS,
    KEPT_HALF,
    PLAIN,
    WRAPPED,
)
from pytest_llmdevice.oracle.expectations import Expectations
from pytest_llmdevice.oracle.linear_weights import LinearWeight

pytest.importorskip("bitsandbytes")

Load = Callable[[Cell], Any]
Checkpoint = Callable[[str], str]
Check = Callable[[Any, Cell], Result]

quantizations = pytest.mark.parametrize("quantization", NATIVE[1:])

UP = "model.layers.0.mlp.up_proj"


def llama(quantization: str, dtype: str = "bfloat16") -> Cell:
    return Cell("llama", "cpu", dtype, quantization)


@pytest.fixture
def check(expectations: Callable[[Any, Cell], Expectations]) -> Check:
    return lambda model, cell: check_quantization(model, expectations(model, cell), cell)


@pytest.fixture
def configured(checkpoint: Checkpoint) -> Callable[..., Any]:
    """`configured(**options)`: llama in bfloat16, quantized by a configuration of the test's own."""

    def load(**options: Any) -> Any:
        make: Any = BitsAndBytesConfig
        return AutoModelForCausalLM.from_pretrained(
            checkpoint("llama"), dtype=torch.bfloat16, quantization_config=make(**options), device_map={"": "cpu"}
        )

    return load


def found(result: Result) -> set[tuple[str, str]]:
    """Expected and actual of the findings: what goes wrong with a configuration goes wrong in every layer."""
    return {(finding.expected, finding.actual) for finding in result.findings}


@quantizations
@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "t5"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantized_model_passes(family: str, quantization: str, dtype: str, loaded: Load, check: Check) -> None:
    cell = Cell(family, "cpu", dtype, quantization)
    result = check(loaded(cell), cell)
    assert result.passed
    assert int(result.evidence["quantized modules"]) >= 8
    assert int(str(result.evidence["share of elements quantized"]).rstrip("%")) > 50


def test_the_evidence_has_the_share_of_elements_that_is_packed(load: Load, check: Check) -> None:
    # Of llama's linear weights all but the head: 61440 of 81920 elements.
    assert check(load(llama("nf4")), llama("nf4")).evidence == {
        "linear weights": 15,
        "expert weights": 0,
        "quantized modules": 14,
        "share of elements quantized": "78%",
    }


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_a_dense_model_passes_as_a_dense_cell(family: str, loaded: Load, check: Check) -> None:
    cell = Cell(family, "cpu", "bfloat16")
    result = check(loaded(cell), cell)
    assert result.passed
    assert result.evidence["quantized modules"] == 0
    assert result.evidence["share of elements quantized"] == "0%"


@quantizations
def test_a_configuration_that_was_dropped_is_found_in_every_layer(quantization: str, load: Load, check: Check) -> None:
    result = check(load(llama("none")), llama(quantization))
    layer = "Linear8bitLt with int8" if quantization == "int8" else "Linear4bit with uint8"
    assert found(result) == {(layer, "Linear with bfloat16")}
    assert len(result.findings) == 14
    assert {finding.hint for finding in result.findings} == {DROPPED}
    assert result.evidence["share of elements quantized"] == "0%"


def test_one_layer_that_stayed_dense_is_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    model.model.layers[0].mlp.up_proj = nn.Linear(64, 128, bias=False, dtype=torch.bfloat16)
    (finding,) = check(model, llama("nf4")).findings
    assert (finding.where, finding.actual) == (UP, "Linear with bfloat16")


@pytest.mark.parametrize(
    ("loaded", "asked", "finding"),
    [
        ("fp4", "nf4", ("nf4", "fp4")),
        ("nf4", "fp4", ("fp4", "nf4")),
        ("nf4", "nf4-double", ("double quantization", "nested=False")),
        ("nf4-double", "nf4", ("single quantization", "nested=True")),
        ("int8", "nf4", ("Linear4bit with uint8", "Linear8bitLt with int8")),
        ("nf4", "int8", ("Linear8bitLt with int8", "Linear4bit with uint8")),
    ],
)
def test_another_quantization_than_was_asked_for_is_found(
    loaded: str, asked: str, finding: tuple[str, str], load: Load, check: Check
) -> None:
    result = check(load(llama(loaded)), llama(asked))
    assert found(result) == {finding}
    assert len(result.findings) == 14


def test_a_compute_dtype_that_was_not_given_is_found(configured: Callable[..., Any], check: Check) -> None:
    result = check(configured(load_in_4bit=True, bnb_4bit_quant_type="nf4"), llama("nf4"))
    assert found(result) == {("compute dtype bfloat16", "float32")}
    assert {finding.hint for finding in result.findings} == {COMPUTE}


@pytest.mark.parametrize(
    ("options", "layer"),
    [
        ({"load_in_8bit": True}, "Linear8bitLt with int8"),
        (
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16},
            "Linear4bit with uint8",
        ),
    ],
    ids=["int8", "nf4"],
)
def test_a_head_that_lost_its_exclusion_is_found(
    options: dict[str, Any], layer: str, configured: Callable[..., Any], check: Check
) -> None:
    model = configured(**options, llm_int8_skip_modules=["nothing"])
    (finding,) = check(model, llama("int8" if "load_in_8bit" in options else "nf4")).findings
    assert (finding.where, finding.actual, finding.hint) == ("lm_head", layer, EXCLUDED)


@quantizations
def test_a_quantized_model_in_a_dense_cell_is_found(quantization: str, load: Load, check: Check) -> None:
    result = check(load(llama(quantization)), llama("none"))
    assert len(result.findings) == 14
    assert {finding.expected for finding in result.findings} == {"dense: not to be quantized"}


def test_a_packed_layer_that_the_architecture_does_not_have_is_found_in_a_dense_cell(load: Load, check: Check) -> None:
    model = load(llama("none"))
    model.adapter = load(llama("nf4")).model.layers[0].mlp.up_proj
    (finding,) = check(model, llama("none")).findings
    assert (finding.where, finding.expected, finding.actual) == ("adapter", "a dense layer", "Linear4bit")


def test_int8_weights_that_are_kept_in_half_are_found(load: Load, check: Check) -> None:
    model = load(llama("int8"))
    model.model.layers[0].mlp.up_proj.state.has_fp16_weights = True
    (finding,) = check(model, llama("int8")).findings
    assert (finding.where, finding.expected) == (UP, "int8 weights kept")


def test_a_weight_without_its_quantization_state_is_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    model.model.layers[0].mlp.up_proj.weight.quant_state = None
    (finding,) = check(model, llama("nf4")).findings
    assert (finding.where, finding.expected, finding.actual) == (UP, "a quantization state beside the weight", "none")


def test_a_quantization_state_that_was_left_on_another_device_is_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    state = model.model.layers[0].mlp.up_proj.weight.quant_state
    state.absmax = state.absmax.to("meta")
    (finding,) = check(model, llama("nf4")).findings
    assert (finding.where, finding.expected, finding.actual) == (
        f"{UP}.weight.quant_state.absmax",
        "cpu, as its weight",
        "meta",
    )


def test_a_layer_that_is_gone_is_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    del model.model.layers[0].mlp.up_proj
    (finding,) = check(model, llama("nf4")).findings
    assert (finding.where, finding.actual) == (UP, "nothing of that name")


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_experts_that_stayed_dense_are_found_with_the_share_that_is_packed(
    quantization: str, load: Load, check: Check
) -> None:
    cell = Cell("mixtral", "cpu", "bfloat16", quantization)
    model = load(cell)
    if isinstance(model.model.layers[0].mlp.experts, nn.ModuleList):
        pytest.skip("this transformers keeps experts as linear layers")
    result = check(model, cell)
    assert [finding.where for finding in result.findings] == [
        f"model.layers.{layer}.mlp.experts.{name}" for layer in (0, 1) for name in ("gate_up_proj", "down_proj")
    ]
    first = result.findings[0]
    assert (first.expected, first.actual) == (f"quantized to {quantization}", "dense bfloat16 4x256x64")
    assert first.hint == EXPERTS
    assert result.evidence["expert weights"] == 4
    assert int(str(result.evidence["share of elements quantized"]).rstrip("%")) < 20


def test_experts_of_a_packed_dtype_count_as_quantized() -> None:
    model = nn.Module()
    model.experts = nn.Module()
    model.experts.up = nn.Parameter(torch.zeros(2, 2, 2, dtype=torch.uint8), requires_grad=False)
    weights = (LinearWeight("experts", "experts.up", 8, expert=True, quantization="nf4"),)
    result = check_quantization(model, Expectations((), (), (), weights, ("cpu",)), llama("nf4"))
    assert result.passed
    assert result.evidence["share of elements quantized"] == "100%"


def test_a_missing_expert_weight_is_found() -> None:
    model = nn.Module()
    model.experts = nn.Module()
    weights = (LinearWeight("experts", "experts.up", 8, expert=True, quantization="nf4"),)
    (finding,) = check_quantization(model, Expectations((), (), (), weights, ("cpu",)), llama("nf4")).findings
    assert (finding.where, finding.actual) == ("experts.up", "dense nothing missing")


@pytest.mark.parametrize("quantization", NATIVE)
def test_a_model_without_linear_weights_is_hollow(quantization: str) -> None:
    expectations = SimpleNamespace(weights=(), unknown=(), stored=frozenset())
    result = check_quantization(nn.ReLU(), expectations, llama(quantization))  # type: ignore[arg-type]
    assert result.hollow
    assert not result.passed


def test_a_wrapper_around_a_dense_weight_is_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.zeros(128, 64, dtype=torch.bfloat16))
    (finding,) = check(model, llama("nf4")).findings
    assert (finding.where, finding.actual, finding.hint) == (UP, "Linear4bit with bfloat16", WRAPPED)


def test_a_packed_weight_in_a_plain_layer_is_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    mlp = model.model.layers[0].mlp
    packed, mlp.up_proj = mlp.up_proj.weight, nn.Linear(64, 128, bias=False)
    mlp.up_proj.weight = packed
    (finding,) = check(model, llama("nf4")).findings
    assert (finding.where, finding.actual, finding.hint) == (UP, "Linear with uint8", PLAIN)


def test_a_configuration_that_says_another_quantization_is_found(load: Load, check: Check) -> None:
    model = load(llama("nf4"))
    model.config.quantization_config.bnb_4bit_quant_type = "fp4"
    (finding,) = check(model, llama("nf4")).findings
    assert (finding.where, finding.expected, finding.actual, finding.hint) == (
        "config.quantization_config",
        "quantization nf4",
        "fp4",
        CONFIG,
    )


def test_a_configuration_of_a_quantization_that_was_not_done_is_found(load: Load, check: Check) -> None:
    model = load(llama("none"))
    model.config.quantization_config = {"load_in_8bit": True}
    (finding,) = check(model, llama("none")).findings
    assert (finding.expected, finding.actual) == ("quantization none", "int8")


def test_a_quantized_embedding_is_found(load: Load, check: Check) -> None:
    embedding: Any = pytest.importorskip("bitsandbytes").nn.EmbeddingNF4
    model = load(Cell("qwen2", "cpu", "bfloat16", "nf4"))
    model.model.embed_tokens = embedding(320, 64)
    (finding,) = check(model, Cell("qwen2", "cpu", "bfloat16", "nf4")).findings
    assert (finding.where, finding.actual, finding.hint) == ("model.embed_tokens", "EmbeddingNF4", EMBEDDING)


def test_half_weights_beside_the_packed_ones_are_told(load: Load, check: Check) -> None:
    model = load(llama("int8"))
    model.model.layers[0].mlp.up_proj.state.has_fp16_weights = True
    assert [finding.hint for finding in check(model, llama("int8")).findings] == [KEPT_HALF]


def test_packed_numbers_may_be_held_in_another_dtype(
    configured: Callable[..., Any], check: Check, expectations: Callable[[Any, Cell], Expectations]
) -> None:
    cell = llama("nf4")
    options = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    model = configured(**options, bnb_4bit_quant_storage=torch.bfloat16)
    assert model.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
    assert check(model, cell).passed
    assert check_dtypes(model, expectations(model, cell), cell).passed

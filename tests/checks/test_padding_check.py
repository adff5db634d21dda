"""The check that padding and masks change nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from covering import in_turn
from packaging.version import Version
from torch import nn

from pytest_llmdevice import BuiltinTarget, Cell, Result, simulate, zoo
from pytest_llmdevice.checks import check_padding, generation_tolerance
from pytest_llmdevice.checks.padding import LENGTHS, long_prompts
from pytest_llmdevice.diagnosis.hints.generation import MASKED_ROW, PADDING
from pytest_llmdevice.matrix.vocabulary import DTYPES

Load = Callable[[Cell], Any]
Tokens = list[list[int]]
Check = Callable[..., Result]

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

FP32 = Cell("llama", "cpu", "float32")
MASKING = [family for family in zoo.families() if family not in {"mamba", "t5"}]


@pytest.fixture
def check(checkpoint: Callable[[str], str], prompts: Tokens) -> Check:
    """`check(model, cell)`."""
    return lambda model, cell: check_padding(model, cell, prompts, checkpoint(cell.model), generation_tolerance(cell))


@pytest.mark.parametrize(("family", "dtype"), in_turn(zoo.families(), DTYPES))
def test_a_loaded_model_passes(family: str, dtype: str, loaded: Load, check: Check) -> None:
    cell = Cell(family, "cpu", dtype)
    result = check(loaded(cell), cell)
    assert result.passed, result.message()
    assert result.evidence["tokens"] == 5 + sum(LENGTHS)


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_a_quantized_model_passes(family: str, quantization: str, loaded: Load, check: Check) -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell(family, "cpu", "bfloat16", quantization)
    assert check(loaded(cell), cell).passed


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_attention_passes(attention: str, dtype: str, loaded: Load, check: Check) -> None:
    cell = Cell("llama", "cpu", dtype, attention=attention)
    assert check(loaded(cell), cell).passed


@pytest.mark.parametrize(("family", "strategy"), in_turn(zoo.families(), ["auto", "cpu-offload"]))
def test_a_model_on_cards_passes(family: str, strategy: str, checkpoint: Callable[[str], str], check: Check) -> None:
    if family == "mamba" and strategy == "cpu-offload" and Version(version("transformers")) < Version("5"):
        pytest.skip("Mamba of transformers 4 reads a weight past the hook that brings it")
    cell = Cell(family, "cuda:0", "float16", strategy=strategy, simulated=True)
    with simulate("cuda:2"):
        assert check(BuiltinTarget().load(checkpoint(family), cell), cell).passed


def test_an_adapter_passes(load: Load, check: Check) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(load(FP32), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])).eval()
    assert check(model, FP32).passed


def blind(model: Any, *names: str) -> None:
    """Have the model ignore what it is handed under `names`."""
    forward = model.forward

    def deaf(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **{key: value for key, value in kwargs.items() if key not in names})

    model.forward = deaf


@pytest.mark.parametrize(("family", "dtype"), in_turn(zoo.families(), ["float32", "bfloat16"]))
def test_a_model_that_drops_the_mask_of_a_batch_of_one_is_found(
    family: str, dtype: str, load: Load, check: Check
) -> None:
    cell = Cell(family, "cpu", dtype)
    model = load(cell)
    forward = model.forward

    def deaf(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        single = attention_mask is not None and attention_mask.ndim == 2 and len(attention_mask) == 1
        return forward(*args, attention_mask=None if single else attention_mask, **kwargs)

    model.forward = deaf
    (finding,) = check(model, cell).findings
    assert finding.where == "logits of one prompt that is padded, with nothing beside it"
    assert finding.hint == PADDING


@pytest.mark.parametrize(("family", "dtype"), in_turn(zoo.families(), ["float32", "bfloat16"]))
def test_a_model_that_drops_its_mask_is_found(family: str, dtype: str, load: Load, check: Check) -> None:
    cell = Cell(family, "cpu", dtype)
    model = load(cell)
    blind(model, "attention_mask")
    (finding,) = check(model, cell).findings
    assert finding.where == "logits of a padded batch"
    assert finding.hint == PADDING


def test_a_model_that_counts_padding_is_found(load: Load, check: Check) -> None:
    cell = Cell("gpt2", "cpu", "bfloat16")
    model = load(cell)
    blind(model, "position_ids")
    (finding,) = check(model, cell).findings
    assert finding.hint == PADDING


def test_positions_that_are_rounded_beyond_256_are_found(load: Load, check: Check) -> None:
    cell = Cell("llama", "cpu", "bfloat16")
    model = load(cell)
    rotary = model.model.rotary_emb
    forward = rotary.forward
    # Only where a batch is padded, as an expanded mask makes them.
    rotary.forward = lambda x, position_ids: forward(
        x, position_ids.bfloat16().float() if len(position_ids) > 1 else position_ids
    )
    assert not check(model, cell).passed


class Hiding(nn.Module):
    """An attention that hides by -inf without a thought for rows in which all is hidden."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        hidden, *rest = self.inner(*args, attention_mask=attention_mask, **kwargs)
        if attention_mask is not None and bool((attention_mask < -1).all(dim=-1).any()):
            rows = (attention_mask < -1).all(dim=-1)[:, 0]
            hidden = hidden.masked_fill(rows.all(dim=-1)[:, None, None], float("nan"))
            hidden = hidden + hidden.sum() * 0
        return (hidden, *rest)


def test_a_row_that_is_all_padding_and_gives_nan_is_found(load: Load, check: Check) -> None:
    model = load(FP32)
    model.model.layers[0].self_attn = Hiding(model.model.layers[0].self_attn)
    (finding,) = check(model, FP32).findings
    assert finding.where == "logits of a batch with a row that is all padding"
    assert finding.actual == "nan"
    assert finding.hint == MASKED_ROW


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_mask_of_infinities_that_gives_nan_is_found(family: str, load: Load, check: Check) -> None:
    cell = Cell(family, "cpu", "float32")
    model = load(cell)
    forward = model.forward

    def scaling(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
        # 0 * inf is no number.
        mask = attention_mask * 0 if attention_mask is not None and attention_mask.ndim == 4 else attention_mask
        return forward(*args, attention_mask=mask, **kwargs)

    model.forward = scaling
    (finding,) = check(model, cell).findings
    assert finding.where == "logits under a mask with -inf"
    assert finding.hint == MASKED_ROW


def test_prompts_are_no_longer_than_the_model_takes(load: Load, prompts: Tokens) -> None:
    model = load(FP32)
    assert [len(prompt) for prompt in long_prompts(model, prompts)] == [5, *LENGTHS]
    model.config.max_position_embeddings = 100
    assert [len(prompt) for prompt in long_prompts(model, prompts)] == [5, 84, 100]
    assert long_prompts(model, []) == []

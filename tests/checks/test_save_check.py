"""The check of saving: what it lets pass, that it changes nothing, and what it finds."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from covering import NATIVE, in_turn
from torch import nn

from pytest_llmdevice import Cell, simulate, zoo
from pytest_llmdevice.checks import Result, check_save
from pytest_llmdevice.checks.save import LARGEST
from pytest_llmdevice.diagnosis.hints.saving import CONFIGURED, LOGITS, TENSORS, TIES
from pytest_llmdevice.inference.stepping import Stepper
from pytest_llmdevice.oracle.expectations import Expectations, expectations_of

Load = Callable[[Cell], Any]
Tokens = list[list[int]]
Check = Callable[..., Result]

FP32 = Cell("llama", "cpu", "float32")
BF16 = Cell("llama", "cpu", "bfloat16")

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture
def check(checkpoint: Callable[[str], str], prompts: Tokens) -> Check:
    """`check(model, cell)`."""

    def run(model: Any, cell: Cell) -> Result:
        folder = checkpoint(cell.model)
        return check_save(model, expectations_of(model, folder, cell), cell, prompts, folder)

    return run


@pytest.mark.parametrize(
    ("family", "dtype", "strategy"),
    in_turn(
        zoo.families(),
        [("float32", "to"), ("bfloat16", "disk-offload"), ("float16", "shared-memory"), ("float16", "device-map")],
    ),
)
def test_a_loaded_model_passes(family: str, dtype: str, strategy: str, load: Load, check: Check) -> None:
    cell = Cell(family, "cpu", dtype, strategy=strategy)
    result = check(load(cell), cell)
    assert result.findings == ()
    assert int(result.evidence["files"]) >= 2
    assert int(result.evidence["tensors"]) > 10
    assert "as a plain load does" not in result.evidence


@pytest.mark.parametrize(
    ("quantization", "family", "dtype"),
    in_turn(NATIVE[1:], [("llama", "float16"), ("gpt2", "bfloat16"), ("t5", "float32")]),
)
def test_a_quantized_model_passes(family: str, dtype: str, quantization: str, load: Load, check: Check) -> None:
    pytest.importorskip("bitsandbytes")
    cell = Cell(family, "cpu", dtype, quantization, "device-map")
    assert check(load(cell), cell).passed


@pytest.mark.parametrize(
    ("profile", "device", "quantization", "strategy", "family"),
    in_turn(
        [
            ("cuda:2", "cuda:1", "none", "split"),
            ("cuda:2", "cuda:0", "none", "cpu-offload"),
            ("cuda:2", "cuda:1", "nf4", "split"),
            ("cuda:2", "cuda:1", "int8", "device-map"),
            ("mps", "mps", "none", "to"),
        ],
        ["qwen2", "t5"],
    ),
)
def test_a_model_on_simulated_devices_passes(
    family: str, profile: str, device: str, quantization: str, strategy: str, load: Load, check: Check
) -> None:
    if quantization != "none":
        pytest.importorskip("bitsandbytes")
    cell = Cell(family, device, "bfloat16", quantization, strategy, simulated=True)
    with simulate(profile):
        assert check(load(cell), cell).findings == ()


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4", "nf4-double"])
def test_the_model_is_left_as_it_was(quantization: str, load: Load, check: Check, prompts: Tokens) -> None:
    if quantization != "none":
        pytest.importorskip("bitsandbytes")
    cell = Cell("qwen2", "cpu", "bfloat16", quantization, "device-map")
    model = load(cell)
    feed = Stepper(model, prompts[0])
    before, _ = feed(prompts[0])
    config, generation = copy.deepcopy(vars(model.config)), copy.deepcopy(vars(model.generation_config))
    dtype = model.config.dtype
    # Not by `state_dict`, which unpacks weights of 4 bits in place.
    places = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    check(model, cell)
    assert places == {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    assert torch.equal(feed(prompts[0])[0], before)
    assert str(vars(model.config)) == str(config)
    assert str(vars(model.generation_config)) == str(generation)
    assert model.config.dtype is dtype is torch.bfloat16


def test_nothing_is_left_on_disk(load: Load, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert check(load(FP32), FP32).passed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trained", [False, True])
def test_adapters_are_saved_and_put_onto_their_base_again(trained: bool, load: Load, check: Check) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(load(FP32), peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=4)).eval()
    if trained:
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
    result = check(model, FP32)
    assert result.findings == ()
    assert result.passed


def test_adapters_that_are_not_in_the_files_are_found(load: Load, check: Check) -> None:
    peft = pytest.importorskip("peft")
    base = load(FP32)
    base.model.layers[0].mlp.up_proj.weight.data *= 1.5
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=["q_proj"], r=4)).eval()
    (finding,) = check(model, FP32).findings
    assert finding.where == "logits of the reloaded model"
    assert finding.hint == LOGITS


def test_a_configuration_that_names_another_dtype_is_found(
    load: Load, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(BF16)
    inner = model.save_pretrained

    def save(folder: Any, **options: Any) -> None:
        inner(folder, **options)
        path = Path(folder) / "config.json"
        path.write_text(path.read_text("utf-8").replace('"bfloat16"', '"float32"'), "utf-8")

    model.save_pretrained = save
    findings = check(model, BF16).findings
    assert findings[0].where == "dtype in the saved config.json"
    assert (findings[0].expected, findings[0].actual) == ("bfloat16", "float32")
    assert findings[0].hint == CONFIGURED
    assert {finding.hint for finding in findings[1:]} == {TENSORS}


def test_weights_that_are_cast_while_they_are_saved_are_found(load: Load, check: Check) -> None:
    model = load(FP32)
    inner = model.save_pretrained

    def save(folder: Any, **options: Any) -> None:
        state = {name: tensor.half() for name, tensor in model.state_dict().items()}
        inner(folder, state_dict=state, **options)

    model.save_pretrained = save
    assert {finding.hint for finding in check(model, FP32).findings} == {TENSORS}


def test_files_in_another_dtype_are_found(load: Load, check: Check) -> None:
    model = load(BF16)
    model.save_pretrained = lambda folder: type(model).save_pretrained(copy.deepcopy(model).half(), folder)
    found = {(one.where, one.expected, one.actual) for one in check(model, BF16).findings}
    assert ("lm_head.weight, reloaded", "bfloat16", "float16") in found


def test_a_part_that_comes_back_in_the_right_dtype_is_no_finding(load: Load, check: Check) -> None:
    model = load(BF16)
    model.lm_head.float()
    inner = model.lm_head.forward
    model.lm_head.forward = lambda hidden: inner(hidden.float())
    assert not any(one.where.startswith("lm_head") for one in check(model, BF16).findings)


def test_a_tie_that_the_configuration_does_not_know_is_found(load: Load, check: Check) -> None:
    cell = Cell("qwen2", "cpu", "float32")
    model = load(cell)
    model.config.tie_word_embeddings = False
    findings = check(model, cell).findings
    assert TIES in {finding.hint for finding in findings}
    assert any(finding.where == "lm_head.weight, reloaded" for finding in findings)


def test_an_untied_head_that_is_saved_as_tied_is_found(load: Load, check: Check) -> None:
    model = load(FP32)
    inner = model.save_pretrained

    def save(folder: Any, **options: Any) -> None:
        model.config.tie_word_embeddings = True
        inner(folder, state_dict={k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}, **options)

    model.save_pretrained = save
    findings = check(model, FP32).findings
    assert findings[0].where == "lm_head.weight, reloaded"
    assert {finding.hint for finding in findings} == {TIES, LOGITS}
    assert model.config.tie_word_embeddings is False


def test_a_buffer_that_was_changed_and_is_not_saved_is_found(load: Load, check: Check) -> None:
    model = load(FP32)
    model.model.rotary_emb.inv_freq *= 0.5
    (finding,) = check(model, FP32).findings
    assert finding.hint == LOGITS


def test_a_save_that_raises_does_so_here(load: Load, check: Check) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError("cannot be saved")

    model = load(FP32)
    model.save_pretrained = refuse
    with pytest.raises(NotImplementedError, match="cannot be saved"):
        check(model, FP32)


def test_a_module_that_cannot_be_saved_says_so() -> None:
    result = check_save(nn.Linear(2, 2), Expectations((), (), (), (), ()), FP32, [[1]], "")
    assert result.outcome == "inapplicable"
    assert result.inapplicable == "Linear has no save_pretrained"


def test_a_model_that_is_too_large_for_a_temporary_folder_is_not_saved(
    load: Load, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LARGEST == 2**30
    monkeypatch.setattr("pytest_llmdevice.checks.save.LARGEST", 1000)
    result = check(load(FP32), FP32)
    assert result.outcome == "inapplicable"
    assert result.inapplicable.endswith(" GiB are too many to be written beside the checkpoint")

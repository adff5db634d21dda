"""The plan, held to what a plain `from_pretrained` gives, and to rules that no CPU can show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from covering import NATIVE
from torch import nn

from pytest_llmdevice import Cell, zoo
from pytest_llmdevice.matrix.vocabulary import DTYPES
from pytest_llmdevice.model.device_map import device_map, offload_hook, with_index
from pytest_llmdevice.model.dtypes import intended_dtype, kept_in_float32
from pytest_llmdevice.oracle.expectations import Expectations, expectations_of
from pytest_llmdevice.oracle.plain_load import plain_model

Checkpoint = Callable[[str], str]

every_family = pytest.mark.parametrize("family", zoo.families())
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def plain(family: str, folder: str, dtype: str, **options: Any) -> Any:
    """What transformers itself loads; nothing of the project takes part."""
    auto_class = getattr(transformers, zoo.family(family).auto_class)
    return auto_class.from_pretrained(folder, dtype=getattr(torch, dtype), **options)


def planned(expectations: Expectations, role: str) -> dict[str, str]:
    return {expected.name: expected.dtype for expected in expectations.tensors if expected.role == role}


def dtypes_of(named: Any) -> dict[str, str]:
    return {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in named}


@every_family
@every_dtype
def test_names_and_dtypes_are_those_of_a_plain_load(family: str, dtype: str, checkpoint: Checkpoint) -> None:
    model = plain(family, checkpoint(family), dtype)
    expectations = expectations_of(model, checkpoint(family), Cell(family, "cpu", dtype))
    assert planned(expectations, "parameter") == dtypes_of(model.named_parameters(remove_duplicate=False))
    assert planned(expectations, "buffer") == dtypes_of(model.named_buffers(remove_duplicate=False))


@every_family
def test_ties_are_those_of_a_plain_load(family: str, checkpoint: Checkpoint) -> None:
    model = plain(family, checkpoint(family), "float32")
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(parameter.data_ptr(), []).append(name)
    expectations = expectations_of(model, checkpoint(family), Cell(family, "cpu", "float32"))
    assert set(expectations.ties) == {tuple(names) for names in groups.values() if len(names) > 1}
    assert bool(expectations.ties) is zoo.family(family).tied
    assert bool(expectations.untied) is not zoo.family(family).tied


@pytest.mark.parametrize(("dtype", "kept"), [("float32", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32")])
def test_the_output_projection_of_t5_stays_float32_in_float16_only(
    dtype: str, kept: str, checkpoint: Checkpoint
) -> None:
    expectations = expectations_of(nn.Module(), checkpoint("t5"), Cell("t5", "cpu", dtype))
    projections = {
        name: found for name, found in planned(expectations, "parameter").items() if name.endswith(".wo.weight")
    }
    assert len(projections) == 4
    assert set(projections.values()) == {kept}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_correction_bias_of_deepseek_stays_float32_in_both_halves(dtype: str, checkpoint: Checkpoint) -> None:
    expectations = expectations_of(nn.Module(), checkpoint("deepseek-v3"), Cell("deepseek-v3", "cpu", dtype))
    (bias,) = [expected for expected in expectations.tensors if expected.name.endswith("e_score_correction_bias")]
    assert bias.dtype == "float32"
    assert bias.why


def test_rotary_frequencies_stay_float32_with_the_reason(checkpoint: Checkpoint) -> None:
    model = plain_model(checkpoint("llama"), "bfloat16")
    expectations = expectations_of(model, checkpoint("llama"), Cell("llama", "cpu", "bfloat16"))
    (frequencies,) = [expected for expected in expectations.tensors if expected.name.endswith("rotary_emb.inv_freq")]
    assert (frequencies.dtype, frequencies.role) == ("float32", "buffer")
    assert "on purpose" in frequencies.why


@pytest.mark.parametrize("quantization", NATIVE[1:])
def test_packed_weights_are_those_that_bitsandbytes_packs(quantization: str, checkpoint: Checkpoint) -> None:
    cell = Cell("llama", "cpu", "bfloat16", quantization)
    expectations = expectations_of(nn.Module(), checkpoint("llama"), cell)
    packed = {expected.name: expected.dtype for expected in expectations.tensors if expected.storage == "packed"}
    assert set(packed.values()) == {"int8" if quantization == "int8" else "uint8"}
    assert len(packed) == 2 * 7
    assert "lm_head.weight" not in packed


def test_experts_are_weights_to_quantize_although_they_are_no_linear_layers(checkpoint: Checkpoint) -> None:
    expectations = expectations_of(nn.Module(), checkpoint("mixtral"), Cell("mixtral", "cpu", "bfloat16", "nf4"))
    experts = [weight for weight in expectations.weights if weight.expert]
    assert [weight.quantized for weight in experts] == [True] * len(experts)
    linear = [weight for weight in expectations.weights if not weight.expert]
    # Four projections in each of two layers, and the head, which stays dense.
    assert [weight.parameter for weight in linear if not weight.quantized] == ["lm_head.weight"]
    assert len(linear) == 9
    assert sum(weight.elements for weight in experts) > sum(weight.elements for weight in linear)


def test_a_dense_cell_has_nothing_to_quantize(checkpoint: Checkpoint) -> None:
    expectations = expectations_of(nn.Module(), checkpoint("mixtral"), Cell("mixtral", "cpu", "bfloat16"))
    assert expectations.weights
    assert not any(weight.quantized for weight in expectations.weights)


def test_three_dimensional_weights_that_are_no_experts_are_not_expected_to_be_quantized(tmp_path: Path) -> None:
    config = transformers.RecurrentGemmaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, lru_width=32, vocab_size=32
    )
    config.save_pretrained(tmp_path)
    expectations = expectations_of(nn.Module(), str(tmp_path), Cell("path:x", "cpu", "float32", "int8"))
    assert expectations.weights
    assert not any("rg_lru" in weight.parameter for weight in expectations.weights)


@pytest.mark.parametrize(("device", "kind"), [("cuda:1", "cuda"), ("cuda:1", "rocm"), ("mps", "mps"), ("cpu", "cpu")])
@pytest.mark.parametrize("strategy", ["to", "device-map", "shared-memory"])
def test_all_tensors_belong_on_the_device_of_the_cell(
    device: str, kind: str, strategy: str, checkpoint: Checkpoint
) -> None:
    cell = Cell("llama", device, "float16", strategy=strategy, kind=kind)
    expectations = expectations_of(nn.Module(), checkpoint("llama"), cell)
    assert {expected.devices for expected in expectations.tensors} == {(device,)}


class Mapped(nn.Module):
    """A model on which accelerate left a map."""

    def __init__(self, **entries: object) -> None:
        super().__init__()
        self.hf_device_map = {name.replace("_dot_", "."): device for name, device in entries.items()}


def split_plan(strategy: str, folder: str, **entries: object) -> dict[str, tuple[str, ...]]:
    expectations = expectations_of(Mapped(**entries), folder, Cell("llama", "cuda:0", "float16", strategy=strategy))
    return {expected.name: expected.devices for expected in expectations.tensors}


@pytest.mark.parametrize("strategy", ["split", "auto", "balanced", "sequential"])
def test_a_map_over_several_cards_says_where_each_part_belongs(strategy: str, checkpoint: Checkpoint) -> None:
    where = split_plan(
        strategy,
        checkpoint("llama"),
        model_dot_embed_tokens=0,
        model_dot_layers_dot_0=0,
        model_dot_layers_dot_1=torch.device("cuda", 1),
        model_dot_norm="cuda:0",
        lm_head=1,
    )
    assert where["model.embed_tokens.weight"] == ("cuda:0",)
    assert where["model.layers.0.mlp.up_proj.weight"] == ("cuda:0",)
    assert where["model.layers.1.mlp.up_proj.weight"] == ("cuda:1",)
    assert where["model.norm.weight"] == ("cuda:0",)
    assert where["lm_head.weight"] == ("cuda:1",)


@pytest.mark.parametrize("strategy", ["split", "auto"])
def test_a_map_does_not_excuse_a_part_on_another_kind_of_device(strategy: str, checkpoint: Checkpoint) -> None:
    where = split_plan(strategy, checkpoint("llama"), model="cpu", lm_head=1)
    assert where["model.norm.weight"] == ("cuda:0", "cuda:1")


def test_a_map_is_not_believed_by_a_strategy_that_names_the_device(checkpoint: Checkpoint) -> None:
    assert set(split_plan("device-map", checkpoint("llama"), model=1, lm_head=1).values()) == {("cuda:0",)}


def test_names_that_only_begin_alike_are_not_in_one_part_of_a_map(checkpoint: Checkpoint) -> None:
    where = split_plan("split", checkpoint("llama"), model=1, lm=0, lm_head=1, model_dot_layer=0)
    assert (where["lm_head.weight"], where["model.layers.0.mlp.up_proj.weight"]) == (("cuda:1",), ("cuda:1",))


def test_the_entry_that_says_most_of_a_name_decides(checkpoint: Checkpoint) -> None:
    where = split_plan("split", checkpoint("llama"), model=0, lm_head=0, model_dot_layers_dot_1=1)
    assert (where["model.layers.0.mlp.up_proj.weight"], where["model.norm.weight"]) == (("cuda:0",), ("cuda:0",))
    assert where["model.layers.1.mlp.up_proj.weight"] == ("cuda:1",)


def test_an_entry_without_a_name_is_for_all_that_has_no_other(checkpoint: Checkpoint) -> None:
    expectations = expectations_of(
        Mapped(**{"": 0, "lm_head": 1}), checkpoint("llama"), Cell("llama", "cuda:0", "float16", strategy="auto")
    )
    where = {expected.name: expected.devices for expected in expectations.tensors}
    assert (where["model.norm.weight"], where["lm_head.weight"]) == (("cuda:0",), ("cuda:1",))


def test_a_device_map_is_read_in_every_spelling() -> None:
    model = Mapped(a=2, b="cuda", c="cuda:1", d=torch.device("cpu"), e="disk", f="mps")
    assert list(device_map(model).values()) == ["cuda:2", "cuda:0", "cuda:1", "cpu", "disk", "mps"]


def test_a_model_without_a_map_has_an_empty_one() -> None:
    assert device_map(nn.Module()) == {}


@pytest.mark.parametrize(
    ("device", "written"),
    [("cuda", "cuda:0"), ("cuda:3", "cuda:3"), ("xpu", "xpu:0"), ("cpu", "cpu"), ("cpu:0", "cpu"), ("mps:0", "mps")],
)
def test_a_device_is_written_as_a_tensor_on_it_would(device: str, written: str) -> None:
    assert with_index(torch.device(device)) == written


def test_a_tensor_of_a_module_that_is_not_there_has_no_hook() -> None:
    assert offload_hook(nn.Linear(1, 1), "nowhere.weight") is None


class Insistent(nn.Module):
    """A class that keeps some modules in float32, as transformers' classes say it."""

    _keep_in_fp32_modules = ("wo", "gate.bias")
    _keep_in_fp32_modules_strict = frozenset({"scale"})


@pytest.mark.parametrize(
    ("name", "float16", "bfloat16"),
    [
        ("layer.wo.weight", True, False),
        ("layer.scale", True, True),
        ("scale.weight", True, True),
        ("gate.bias", True, False),
        ("layer.gate.bias", True, False),
        ("gate.weight", False, False),
        # Not by substring: this was transformers#26589.
        ("word_embeddings.weight", False, False),
        ("two.weight", False, False),
        ("rescale.weight", False, False),
    ],
)
def test_float32_is_kept_by_whole_components_of_a_name(name: str, float16: bool, bfloat16: bool) -> None:
    assert kept_in_float32(Insistent(), name, torch.float16) is float16
    assert kept_in_float32(Insistent(), name, torch.bfloat16) is bfloat16


def test_nothing_is_kept_by_a_class_without_lists_nor_in_a_float32_model() -> None:
    assert not kept_in_float32(nn.Module(), "layer.wo.weight", torch.float16)
    assert not kept_in_float32(Insistent(), "layer.wo.weight", torch.float32)


@pytest.mark.parametrize("present", [torch.int64, torch.bool, torch.uint8])
def test_integers_and_booleans_are_not_cast(present: torch.dtype) -> None:
    assert intended_dtype(nn.Module(), "mask", present, torch.float16) is present


@pytest.mark.parametrize("present", [torch.float32, torch.bfloat16, torch.float64])
def test_floating_point_is_cast_unless_the_class_keeps_it(present: torch.dtype) -> None:
    assert intended_dtype(Insistent(), "up.weight", present, torch.float16) is torch.float16
    assert intended_dtype(Insistent(), "wo.weight", present, torch.float16) is torch.float32


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_the_class_does_not_name_is_not_expected_to_be_packed(tmp_path: Path, *, tied: bool) -> None:
    config = transformers.FSMTConfig(
        langs=["en", "de"],
        src_vocab_size=32,
        tgt_vocab_size=32,
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        tie_word_embeddings=tied,
    )
    model: Any = transformers.FSMTForConditionalGeneration(config)
    model.save_pretrained(tmp_path)
    found = expectations_of(nn.Module(), str(tmp_path), Cell(f"path:{tmp_path}", "cpu", "bfloat16", "nf4"))
    dense = [weight.module for weight in found.weights if not weight.quantized]
    assert dense == ["model.decoder.output_projection"]
    assert len(found.weights) > 10

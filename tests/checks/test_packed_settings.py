"""How a weight was packed, held against how its library packs one when asked as the cell asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from checks.mixed_layers import EightBits, FourBits, packed
from checks.test_quantizers import every, installed
from torch import nn

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_quantization
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.loading.smoke_layers import untried
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.registry import built_in, current, in_force
from pytest_llmdevice.oracle.expectations import expectations_of

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

Packs = Callable[[Any], object]


def hand_packed(load: Callable[[Cell], Any], pack: Packs, dtype: str = "bfloat16") -> Any:
    """Llama, of which `pack` gets each linear layer but the head, as the one layer of a model."""
    model = load(Cell("llama", "cpu", dtype))
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and module is not model.lm_head:
            path, _, key = name.rpartition(".")
            holder = nn.Sequential(module.requires_grad_(requires_grad=False))
            pack(holder)
            setattr(model.get_submodule(path), key, holder[0])
    return model


def found(model: Any, folder: str, cell: Cell) -> set[tuple[str, str]]:
    """(expected, actual) of what is wrong, at all of the packed layers alike."""
    findings = check_quantization(model, expectations_of(model, folder, cell), cell).findings
    assert len(findings) % 14 == 0
    return {(finding.expected, finding.actual) for finding in findings}


def torchao(name: str, **options: Any) -> Packs:
    def pack(model: Any) -> None:
        library: Any = import_module("torchao.quantization")
        given = {key: value(library) if callable(value) else value for key, value in options.items()}
        library.quantize_(model, getattr(library, name)(**given))

    return pack


def intx(bits: int = 4, group: int = 32, *, symmetric: bool = True) -> Packs:
    kind = "SYMMETRIC" if symmetric else "ASYMMETRIC"
    return torchao(
        "IntxWeightOnlyConfig",
        weight_dtype=getattr(torch, f"int{bits}"),
        granularity=lambda library: library.PerGroup(group),
        mapping_type=lambda _: getattr(import_module("torchao.quantization.quant_primitives").MappingType, kind),
    )


def dynamic_intx(model: Any) -> None:
    torchao(
        "Int8DynamicActivationIntxWeightConfig",
        weight_dtype=torch.int4,  # type: ignore[attr-defined]
        weight_granularity=lambda library: library.PerGroup(32),
    )(model)


def quanto(weights: str, activations: str | None = None) -> Packs:
    def pack(model: Any) -> None:
        library: Any = import_module("optimum.quanto")
        asked = None if activations is None else getattr(library, f"q{activations}")
        library.quantize(model, weights=getattr(library, f"q{weights}"), activations=asked)
        library.freeze(model)

    return pack


def hqq(bits: int, group: int = 64, axis: int = 1) -> Packs:
    def pack(model: Any) -> None:
        library: Any = import_module("hqq.core.quantize")
        config = library.BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis)
        model[0] = library.HQQLinear(model[0], quant_config=config, compute_dtype=torch.bfloat16, device="cpu")

    return pack


WRONG = [
    ("torchao-int4", intx(group=64), [("block_size (1, 32)", "block_size (1, 64)")]),
    ("torchao-int4", intx(symmetric=False), [("zero_point zero", "zero_point not zero")]),
    ("torchao-int4", intx(bits=8), [("target_dtype int4", "target_dtype int8")]),
    (
        "torchao-int4",
        intx(bits=3, group=64),
        [("block_size (1, 32)", "block_size (1, 64)"), ("target_dtype int4", "target_dtype int3")],
    ),
    (
        "torchao-int4",
        dynamic_intx,
        [("activation_quantization None", "activation_quantization int8_asym_per_token")],
    ),
    ("torchao-int8", torchao("Int8DynamicActivationInt8WeightConfig"), "act_quant_kwargs QuantizeTensorToInt8Kwargs"),
    ("torchao-int8-dynamic", torchao("Int8WeightOnlyConfig"), "act_quant_kwargs None"),
    ("quanto-int4", quanto("int2"), [("qtype qint4", "qtype qint2")]),
    ("quanto-int8", quanto("int8", "int8"), [("activation_qtype none", "activation_qtype qint8")]),
    ("hqq-int4", hqq(8), [("nbits 4", "nbits 8"), ("packing 4bit_u8", "packing 8bit_u8")]),
    ("hqq-int8", hqq(4), [("nbits 8", "nbits 4"), ("packing 8bit_u8", "packing 4bit_u8")]),
    ("hqq-int4", hqq(4, group=32), [("group_size 64", "group_size 32")]),
    ("hqq-int4", hqq(4, axis=0), [("axis 1", "axis 0")]),
]


@pytest.mark.parametrize(("asked", "pack", "wrong"), WRONG)
def test_a_layer_that_was_packed_with_other_settings_is_found(
    asked: str, pack: Packs, wrong: Any, load: Callable[[Cell], Any], checkpoint: Callable[[str], str]
) -> None:
    installed(current().of(Quantization)[asked])
    problems = found(hand_packed(load, pack), checkpoint("llama"), Cell("llama", "cpu", "bfloat16", asked))
    if isinstance(wrong, str):
        ((_, actual),) = problems
        assert actual.startswith(wrong)
    else:
        assert problems == set(wrong)


@every
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_layer_that_was_packed_as_asked_passes(
    entry: Quantization, dtype: str, load: Callable[[Cell], Any], checkpoint: Callable[[str], str]
) -> None:
    installed(entry)
    model = hand_packed(load, lambda one: entry.pack(one, torch.device("cpu"), dtype), dtype)
    assert found(model, checkpoint("llama"), Cell("llama", "cpu", dtype, entry.name)) == set()


@every
def test_a_weight_that_computes_in_another_dtype_is_found(
    entry: Quantization, load: Callable[[Cell], Any], checkpoint: Callable[[str], str]
) -> None:
    installed(entry)
    if entry.library == "hqq":
        pytest.skip("its packed weight has no dtype")
    model = hand_packed(load, lambda one: entry.pack(one.float(), torch.device("cpu"), "float32"))
    assert found(model, checkpoint("llama"), Cell("llama", "cpu", "bfloat16", entry.name)) == {
        ("a packed weight that computes in bfloat16", "float32")
    }


@every
def test_wide_layers_may_have_groups_and_classes_of_their_own(entry: Quantization, tmp_path: Path) -> None:
    # Quanto's four bits in bfloat16 are of another class where a row has groups of 128.
    from transformers import LlamaConfig, LlamaForCausalLM

    installed(entry)
    if entry.library == "hqq":
        pytest.skip("transformers does not load it")
    sizes: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 384, "num_attention_heads": 4, "vocab_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(num_hidden_layers=2, **sizes)).save_pretrained(tmp_path)
    cell = Cell(f"path:{tmp_path}", "cpu", "bfloat16", entry.name)
    model = from_pretrained(str(tmp_path), cell)
    assert found(model, str(tmp_path), cell) == set()


@every
def test_experts_have_settings_too(entry: Quantization, checkpoint: Callable[[str], str]) -> None:
    installed(entry)
    if entry.library != "torchao" or entry.no_experts:
        pytest.skip("it packs no experts")
    folder, cell = checkpoint("mixtral"), Cell("mixtral", "cpu", "bfloat16", entry.name)
    model: Any = from_pretrained(folder, cell)
    assert check_quantization(model, expectations_of(model, folder, cell), cell).passed
    other = {"torchao-int8": "torchao-int8-dynamic", "torchao-int8-dynamic": "torchao-int8"}.get(entry.name)
    if other is not None:
        cell = replace(cell, quantization=other)
        findings = check_quantization(model, expectations_of(model, folder, cell), cell).findings
        assert len(findings) == 12
        assert sum("experts" in finding.where for finding in findings) == 4


class Grouped(EightBits):
    """A layer that says how it was packed."""

    def __init__(self, linear: nn.Linear, group: int = 64) -> None:
        super().__init__(linear)
        self.in_features, self.meta = linear.in_features, {"group": group, "scale": self.scales}


def groups_of_64(model: Any, _: torch.device, __: str) -> None:
    model[0] = Grouped(model[0])


@pytest.mark.parametrize("group", [64, 32])
def test_ones_own_layer_is_held_to_what_its_own_function_packs(
    group: int, load: Callable[[Cell], Any], checkpoint: Callable[[str], str]
) -> None:
    def pack(one: Any) -> None:
        one[0] = Grouped(one[0], group)

    with in_force(built_in()) as registry:
        registry.add(
            Quantization(
                "grouped", "bytes", "", "", lambda _: None, MappingProxyType({}), "Grouped", "", "int8", untried,
                packing_error=0.02, logits_error=0.1, pack=groups_of_64,
            )
        )  # fmt: skip
        wrong = found(hand_packed(load, pack), checkpoint("llama"), Cell("llama", "cpu", "bfloat16", "grouped"))
    assert wrong == (set() if group == 64 else {("group 64", "group 32")})


def test_settings_that_nobody_packs_an_example_of_are_not_compared(
    load: Callable[[Cell], Any], checkpoint: Callable[[str], str]
) -> None:
    entry = Quantization(
        "bytes", "bytes", "", "", lambda _: None, MappingProxyType({}), "FourBits", "", "int8", untried,
        packing_error=0.3, logits_error=0.6,
    )  # fmt: skip
    every_layer = dict.fromkeys(("_proj",), "four")
    with in_force(built_in()) as registry:
        registry.add(entry)
        model = packed(load(Cell("llama", "cpu", "bfloat16")), every_layer)
        assert isinstance(model.model.layers[0].mlp.up_proj, FourBits)
        assert found(model, checkpoint("llama"), Cell("llama", "cpu", "bfloat16", "bytes")) == set()

"""Layers that an installed quantizer leaves dense on purpose, and modules of torchao with settings of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from checks.test_quantizers import every, installed

from pytest_llmdevice import Cell, examine
from pytest_llmdevice.checks import Result, check_quantization
from pytest_llmdevice.checks.values import check_values
from pytest_llmdevice.diagnosis.hints.quantization import EXCLUDED
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.loading.quantization import config
from pytest_llmdevice.loading.target import BuiltinTarget
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.expand import load as read
from pytest_llmdevice.matrix.registry import built_in, in_force
from pytest_llmdevice.oracle.expectations import expectations_of
from pytest_llmdevice.zoo import cache_directory

pytestmark = pytest.mark.filterwarnings("default", "ignore::DeprecationWarning", "ignore::FutureWarning")

DOWN = ("*.mlp.down_proj",)
LAYERS = [f"model.layers.{layer}.mlp.down_proj" for layer in (0, 1)]

SKIPPED = {
    # torchao matches the names of weights, which end otherwise.
    "torchao": (r".*\.down_proj", "lm_head"),
    "optimum-quanto": ("down_proj", "lm_head"),
    "hqq": ("down_proj", "lm_head"),
}


class Skipping(BuiltinTarget):
    """Loads with a list of modules to skip."""

    def __init__(self, *skipped: str) -> None:
        self.skipped = list(skipped)

    def load(self, checkpoint: str, cell: Cell) -> Any:
        said = config(cell)
        said.modules_to_not_convert = self.skipped
        return from_pretrained(checkpoint, cell, quantization_config=said)


def loadable(entry: Quantization) -> Cell:
    installed(entry)
    cell = Cell("llama", "cpu", "bfloat16", entry.name)
    if unsupported(cell, Inventory(versions={"transformers": "5.23.0", entry.library: "99"})):
        pytest.skip("transformers does not load it")
    return cell


def quantization(target: Any, folder: str, cell: Cell, dense: tuple[str, ...]) -> Result:
    model = target.load(folder, cell)
    return check_quantization(model, expectations_of(model, folder, cell, dense), cell)


@every
def test_what_is_skipped_and_declared_passes_every_check(entry: Quantization, checkpoint: Callable[[str], str]) -> None:
    cell = loadable(entry)
    target = Skipping(*SKIPPED[entry.library])
    results = examine(target, checkpoint("llama"), cell, dense=DOWN, folder=cache_directory() / "references")
    found = {result.check: result for result in results}
    assert [result.message() for result in found.values() if result.findings] == []
    assert found["quantization"].evidence["quantized modules"] == 12


@every
def test_what_is_skipped_or_declared_alone_is_found(entry: Quantization, checkpoint: Callable[[str], str]) -> None:
    cell, folder = loadable(entry), checkpoint("llama")
    undeclared = quantization(Skipping(*SKIPPED[entry.library]), folder, cell, ()).findings
    assert [(finding.where, finding.expected) for finding in undeclared] == [(name, entry.form) for name in LAYERS]
    unskipped = quantization(BuiltinTarget(), folder, cell, DOWN).findings
    assert [(finding.where, finding.expected) for finding in unskipped] == [
        (name, "dense: not to be quantized") for name in LAYERS
    ]


@every
def test_a_list_that_drops_the_default_one_packs_the_head(
    entry: Quantization, checkpoint: Callable[[str], str]
) -> None:
    cell = loadable(entry)
    (finding,) = quantization(Skipping(SKIPPED[entry.library][0]), checkpoint("llama"), cell, DOWN).findings
    assert (finding.where, finding.hint) == ("lm_head", EXCLUDED)


MIXED = Cell("llama", "cpu", "bfloat16", "some-of-each")
MATRIX = """
models = ["llama"]
devices = ["cpu"]
dtypes = ["bfloat16"]
quantization = ["some-of-each"]

[[mixed]]
name = "some-of-each"
modules = { "mlp.down_proj" = "torchao-int8", "*.o_proj" = "none", "*" = "torchao-int4" }
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[None]:
    pytest.importorskip("torchao")
    (tmp_path / "mixed.toml").write_text(MATRIX, encoding="utf-8")
    with in_force(built_in()):
        read(str(tmp_path / "mixed.toml"), tmp_path)
        yield


def fqn(modules: dict[str, str | None]) -> Any:
    """torchao's configuration by names; the values are `"int8"`, `"int4"` or None."""
    import transformers

    library = import_module("torchao.quantization")
    kinds = {
        None: None,
        "int8": library.Int8WeightOnlyConfig(),
        "int4": library.IntxWeightOnlyConfig(
            weight_dtype=torch.int4,  # type: ignore[attr-defined]
            granularity=library.PerGroup(32),
        ),
    }
    wrap: Any = transformers.TorchAoConfig
    return wrap(library.FqnToConfig({name: kinds[kind] for name, kind in modules.items()}))


RIGHT = {
    r"re:model\.layers\.\d+\.mlp\.down_proj": "int8",
    r"re:model\.layers\.\d+\.self_attn\.o_proj": None,
    "_default": "int4",
}


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_what_is_mixed_of_torchaos_is_loaded_so(model: str, checkpoint: Callable[[str], str]) -> None:
    # Qwen2's layers have biases, which are not to be packed.
    cell = Cell(model, "cpu", "bfloat16", "some-of-each")
    results = examine(BuiltinTarget(), checkpoint(model), cell, folder=cache_directory() / "references")
    found = {result.check: result for result in results}
    assert [result.message() for result in found.values() if result.findings or result.upstream] == []
    assert found["quantization"].evidence["quantized modules"] == 12


def test_experts_the_head_and_the_embedding_may_have_their_own(
    tmp_path: Path, checkpoint: Callable[[str], str]
) -> None:
    pytest.importorskip("torchao")
    own = '"experts" = "torchao-int8", "lm_head" = "torchao-int8", "embed_tokens" = "torchao-int4"'
    (tmp_path / "mixed.toml").write_text(
        MATRIX.replace("{ ", f"{{ {own}, ").replace('"mlp.down_proj" = "torchao-int8", ', "")
    )
    cell, folder = Cell("mixtral", "cpu", "bfloat16", "some-of-each"), checkpoint("mixtral")
    with in_force(built_in()):
        read(str(tmp_path / "mixed.toml"), tmp_path)
        model: Any = BuiltinTarget().load(folder, cell)
        result = check_quantization(model, expectations_of(model, folder, cell), cell)
        assert (result.findings, result.evidence["quantized modules"]) == ((), 10)
        assert check_values(model, folder, cell).findings == ()
        kinds = [type(weight).__name__ for weight in (
            model.model.layers[0].mlp.experts.gate_up_proj, model.lm_head.weight, model.model.embed_tokens.weight,
        )]  # fmt: skip
        assert kinds == ["Int8Tensor", "Int8Tensor", "IntxUnpackedToInt8Tensor"]
        # Dense ones in their place.
        for module in (model.lm_head, model.model.embed_tokens):
            module.weight = torch.nn.Parameter(module.weight.dequantize(), requires_grad=False)
        findings = check_quantization(model, expectations_of(model, folder, cell), cell).findings
        assert sorted(finding.where for finding in findings) == ["lm_head", "model.embed_tokens"]


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize(
    ("change", "quantized", "valued"),
    [
        ({}, [], []),
        ({r"re:model\.layers\.\d+\.mlp\.down_proj": "int4"}, LAYERS, [f"{name}.weight" for name in LAYERS]),
        ({r"re:model\.layers\.\d+\.mlp\.down_proj": None}, LAYERS, []),
        ({"_default": "int8"}, 10, []),
        ({r"re:model\.layers\.\d+\.self_attn\.o_proj": "int4"}, 2, []),
    ],
    ids=["right", "four for eight", "dense for eight", "eight for four", "four for dense"],
)
def test_a_module_with_the_settings_of_another_is_found(
    change: dict[str, str | None], quantized: Any, valued: list[str], checkpoint: Callable[[str], str]
) -> None:
    folder = checkpoint("llama")
    model: Any = from_pretrained(folder, MIXED, quantization_config=fqn({**RIGHT, **change}))
    found = [
        finding.where for finding in check_quantization(model, expectations_of(model, folder, MIXED), MIXED).findings
    ]
    assert (len(found) if isinstance(quantized, int) else found) == quantized
    assert [finding.where for finding in check_values(model, folder, MIXED).findings] == valued

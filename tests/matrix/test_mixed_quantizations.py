"""Quantizations of which each module has its own: what a matrix file says of them, and what is registered."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.hardware import Inventory
from pytest_llmdevice.hardware.library_support import unsupported
from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.expand import load
from pytest_llmdevice.matrix.registry import Registry, built_in, in_force

AXES = """
models = ["llama"]
devices = ["cpu"]
dtypes = ["bfloat16"]
quantization = ["two"]
"""
MIXED = """
[[mixed]]
name = "two"
modules = { "*.mlp.down_proj" = "torchao-int8", "*.o_proj" = "none", "*" = "torchao-int4" }
"""


pytestmark = pytest.mark.usefixtures("registry")


def read(folder: Path, text: str, name: str = "mixed.toml") -> Quantization:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    with in_force(built_in()) as registry:
        load(str(path), folder)
        return registry.of(Quantization)["two"]


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read(folder, text)
    return str(caught.value).partition("mixed.toml: ")[2]


def test_the_first_pattern_that_fits_a_module_counts(tmp_path: Path) -> None:
    entry = read(tmp_path, AXES + MIXED)
    assert (entry.packs, entry.members) == (True, ("torchao-int8", "torchao-int4"))
    names = ("model.layers.1.mlp.down_proj", "model.layers.1.self_attn.o_proj", "model.layers.1.self_attn.q_proj")
    assert [entry.of_module(name, usual=True) for name in names] == ["torchao-int8", "none", "torchao-int4"]


def test_the_head_has_to_be_named(tmp_path: Path) -> None:
    entry = read(tmp_path, AXES + MIXED)
    assert entry.of_module("lm_head", usual=False) == "none"
    named = read(tmp_path, AXES + MIXED.replace("{ ", '{ "lm_head" = "torchao-int8", '))
    assert named.of_module("lm_head", usual=False) == "torchao-int8"


def test_what_holds_of_each_holds_of_the_mix(tmp_path: Path, registry: Registry) -> None:
    known = registry.of(Quantization)
    entry = read(tmp_path, AXES + MIXED)
    assert entry.library == "torchao"
    assert entry.logits_error == known["torchao-int4"].logits_error
    assert entry.packing_error == known["torchao-int4"].packing_error
    assert read(tmp_path, AXES + MIXED + "logits_error = 0.5\n").logits_error == 0.5
    assert read(tmp_path, AXES + MIXED.replace("torchao-int4", "quanto-int4")).unsaved == known["quanto-int4"].unsaved


def test_each_library_that_is_missing_is_said(tmp_path: Path, registry: Registry) -> None:
    text = AXES + MIXED.replace("torchao-int4", "quanto-int4")
    (tmp_path / "mixed.toml").write_text(text)
    load(str(tmp_path / "mixed.toml"), tmp_path)
    cell = Cell("llama", "cpu", "bfloat16", "two")
    assert registry.of(Quantization)["two"].library == ""
    assert "pip install 'pytest-llmdevice[torchao]'" in str(unsupported(cell, Inventory()))
    assert "pip install 'pytest-llmdevice[quanto]'" in str(unsupported(cell, Inventory(versions={"torchao": "1"})))
    assert unsupported(cell, Inventory(versions={"torchao": "1", "optimum-quanto": "1"})) is None


def test_a_mix_may_be_of_ones_own(tmp_path: Path) -> None:
    own = '[[quantizations]]\nname = "rows"\nlayer_class = "RowLinear"\nstorage_dtype = "int8"\npacking_error = 0.02\n'
    text = f"{AXES}{own}logits_error = 0.1\n" + MIXED.replace("torchao-int4", "rows")
    assert read(tmp_path, text).members == ("torchao-int8", "rows")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MIXED.replace("int4", "int5"),
            "mixed, 'two': modules, '*': unknown quantization 'torchao-int5'; did you mean",
        ),
        (
            MIXED.replace('"*" = ', '"q" = ').replace('{ "*.mlp.down_proj"', '{ "*"'),
            "mixed[0]: '*' fits every module: put it behind the other patterns of 'modules'",
        ),
        ('[[mixed]]\nname = "two"\nmodules = { "*" = "none" }\n', "mixed[0]: leaves every module dense"),
        ('[[mixed]]\nname = "two"\nmodules = {}\n', "mixed[0].modules: "),
        (MIXED + 'config = "make"\n', "mixed[0].config: 'make' names no function"),
        (MIXED + 'config = "nowhere_at_all:make"\n', "mixed, 'two': config: there is no module 'nowhere_at_all'"),
        (MIXED + "arguments = { bits = 4 }\n", "mixed[0]: has 'arguments' and no 'config'"),
        (MIXED + "bits = 4\n", "mixed[0].bits: unknown key 'bits' (valid: name, description, modules, config,"),
        (
            MIXED + MIXED.replace("two", "three").replace("torchao-int4", "two"),
            "mixed, 'three': modules, '*': 'two' is mixed itself",
        ),
    ],
)
def test_a_table_that_is_wrong_is_named_with_its_key(text: str, message: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, AXES + text).startswith(message)


def test_a_mix_of_torchaos_has_no_device_map_of_transformers_own(tmp_path: Path) -> None:
    (tmp_path / "mixed.toml").write_text(AXES + MIXED, encoding="utf-8")
    load(str(tmp_path / "mixed.toml"), tmp_path)
    machine = Inventory(versions={"transformers": "5.23.0", "torchao": "0.18.0"})
    reason = unsupported(Cell("llama", "cuda:0", "bfloat16", "two", "auto"), machine)
    assert str(reason).startswith("transformers 5 makes no device map for modules with settings of their own")
    assert unsupported(Cell("llama", "cuda:0", "bfloat16", "two", "split"), machine) is None


@pytest.mark.parametrize(("experts", "can"), [("torchao-int8", True), ("none", True), ("torchao-int4", False)])
def test_experts_of_a_mix_are_asked_of_their_own(experts: str, can: bool, tmp_path: Path) -> None:
    text = MIXED.replace("{ ", f'{{ "experts" = "{experts}", ')
    (tmp_path / "mixed.toml").write_text(AXES + text, encoding="utf-8")
    load(str(tmp_path / "mixed.toml"), tmp_path)
    machine = Inventory(versions={"transformers": "5.23.0", "torchao": "0.18.0"})
    reason = unsupported(Cell("mixtral", "cpu", "bfloat16", "two"), machine)
    assert (reason is None) is can
    assert can or "one 3-D parameter" in str(reason)

"""A cell in which each module has a quantization of its own: each is held to that, and not to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checks.mixed_layers import packed

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import check_quantization
from pytest_llmdevice.checks.values import check_values
from pytest_llmdevice.matrix.expand import load as read
from pytest_llmdevice.matrix.registry import built_in, in_force
from pytest_llmdevice.oracle.expectations import expectations_of

DENSE, MIXED = Cell("llama", "cpu", "float32"), Cell("llama", "cpu", "float32", "some-of-each")

MATRIX = """
models = ["llama"]
devices = ["cpu"]
dtypes = ["float32"]
quantization = ["some-of-each"]

[[quantizations]]
name = "eight"
layer_class = "EightBits"
storage_dtype = "int8"
packing_error = 0.03
logits_error = 0.1

[[quantizations]]
name = "four"
layer_class = "FourBits"
storage_dtype = "int8"
packing_error = 0.3
logits_error = 0.6

[[mixed]]
name = "some-of-each"
modules = { "mlp.down_proj" = "eight", "self_attn.o_proj" = "none", "*" = "four" }
"""
RIGHT = {
    "down_proj": "eight",
    "gate_proj": "four",
    "up_proj": "four",
    "q_proj": "four",
    "k_proj": "four",
    "v_proj": "four",
}


@pytest.fixture(autouse=True)
def _registered(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "mixed.toml").write_text(MATRIX, encoding="utf-8")
    with in_force(built_in()):
        read(str(tmp_path / "mixed.toml"), tmp_path)
        yield


@pytest.fixture
def found(load: Callable[[Cell], Any], checkpoint: Callable[[str], str]) -> Callable[..., Any]:
    """`found(modules)`: the findings of both checks, by where they are, and the evidence of the first."""

    def of(modules: dict[str, str], folder: str = "") -> tuple[dict[str, tuple[str, str]], dict[str, str], Any]:
        model = packed(load(DENSE), modules)
        folder = checkpoint("llama")
        first = check_quantization(model, expectations_of(model, folder, MIXED), MIXED)
        second = check_values(model, folder, MIXED)
        return (
            {finding.where: (finding.expected, finding.actual) for finding in first.findings},
            {finding.where: finding.expected for finding in second.findings},
            first.evidence,
        )

    return of


def test_modules_that_each_have_their_own_pass(found: Callable[..., Any]) -> None:
    quantization, values, evidence = found(RIGHT)
    assert (quantization, values) == ({}, {})
    assert evidence["quantized modules"] == 12


def test_four_bits_where_eight_were_asked_for_are_found_by_both(found: Callable[..., Any]) -> None:
    quantization, values, _ = found(RIGHT | {"down_proj": "four"})
    names = [f"model.layers.{layer}.mlp.down_proj" for layer in (0, 1)]
    assert quantization == dict.fromkeys(names, ("EightBits with int8", "FourBits with int8"))
    allowed = "the checkpoint's value, relative error at most 0.03 once unpacked"
    assert values == {f"{name}.weight": allowed for name in names}


def test_eight_bits_where_four_were_asked_for_are_found_by_their_class(found: Callable[..., Any]) -> None:
    quantization, values, _ = found(RIGHT | {"q_proj": "eight"})
    assert quantization == {
        f"model.layers.{layer}.self_attn.q_proj": ("FourBits with int8", "EightBits with int8") for layer in (0, 1)
    }
    # More exact than they have to be.
    assert values == {}


def test_the_two_exchanged_are_found_everywhere(found: Callable[..., Any]) -> None:
    other = {"eight": "four", "four": "eight"}
    quantization, _, _ = found({end: other[kind] for end, kind in RIGHT.items()})
    assert len(quantization) == 12


@pytest.mark.parametrize("end", ["k_proj", "down_proj"])
def test_a_module_that_stayed_dense_is_found(end: str, found: Callable[..., Any]) -> None:
    quantization, _, _ = found({key: kind for key, kind in RIGHT.items() if key != end})
    assert {actual for _, actual in quantization.values()} == {"Linear with float32"}
    assert len(quantization) == 2


def test_a_module_that_was_to_stay_dense_is_found(found: Callable[..., Any]) -> None:
    quantization, _, _ = found(RIGHT | {"o_proj": "four"})
    assert {expected for expected, _ in quantization.values()} == {"dense: not to be quantized"}
    assert len(quantization) == 2


@pytest.mark.parametrize(("pattern", "kind"), [("no_such_proj", "eight"), ("*.mlp", "none")])
def test_a_pattern_that_fits_nothing_is_found(
    pattern: str, kind: str, tmp_path: Path, found: Callable[..., Any]
) -> None:
    (tmp_path / "mixed.toml").write_text(MATRIX.replace("{ ", f'{{ "{pattern}" = "{kind}", '), encoding="utf-8")
    with in_force(built_in()):
        read(str(tmp_path / "mixed.toml"), tmp_path)
        quantization, _, _ = found(RIGHT)
    said = "dense" if kind == "none" else kind
    assert quantization == {f"{pattern!r}, declared {said}": ("a linear layer of that name", "none")}


def test_a_head_that_is_named_has_to_be_packed(tmp_path: Path, found: Callable[..., Any]) -> None:
    (tmp_path / "mixed.toml").write_text(MATRIX.replace("{ ", '{ "lm_head" = "eight", '), encoding="utf-8")
    with in_force(built_in()):
        read(str(tmp_path / "mixed.toml"), tmp_path)
        assert found(RIGHT)[0] == {"lm_head": ("EightBits with int8", "Linear with float32")}
        assert found(RIGHT | {"lm_head": "eight"})[:2] == ({}, {})

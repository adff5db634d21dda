"""Selectors, and the expressions of `--llm-cell`."""

from __future__ import annotations

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.select import KEYS, Selector, parse, parse_all, value_of

CELLS = (
    Cell("llama", "cpu", "float32"),
    Cell("llama", "cuda:0", "bfloat16", "nf4", "auto"),
    Cell("gpt2", "cuda:1", "float16", "int8", "device-map", "sdpa"),
    Cell("opt", "cuda:0", "float16", kind="rocm"),
    Cell("t5", "cuda:0", "float16", simulated=True),
)


def chosen(expression: str) -> list[str]:
    selector = parse(expression)
    return [cell.model for cell in CELLS if selector.matches(cell)]


@pytest.mark.parametrize(
    ("expression", "models"),
    [
        ("model=llama", ["llama", "llama"]),
        ("device=cpu", ["llama"]),
        ("device=cuda:1", ["gpt2"]),
        ("device=rocm:*", ["opt"]),
        ("dtype=*16", ["llama", "gpt2", "opt", "t5"]),
        ("quantization=nf4|int8", ["llama", "gpt2"]),
        ("quantization=nf4 | int8 , model=gpt2", ["gpt2"]),
        ("strategy=device-map", ["gpt2"]),
        ("attention=sdpa", ["gpt2"]),
        ("kind=rocm", ["opt"]),
        ("kind=cuda", ["llama", "gpt2", "t5"]),
        ("simulated=true", ["t5"]),
        ("id=*.cpu.*", ["llama"]),
        ("llama.cuda0.bf16.nf4.auto", ["llama"]),
        ("*.rocm0.*", ["opt"]),
        ("  gpt2.*  ", ["gpt2"]),
        ("device=CPU", []),
    ],
)
def test_an_expression_chooses_the_cells_that_fit_each_of_its_keys(expression: str, models: list[str]) -> None:
    assert chosen(expression) == models


def test_a_rocm_card_is_not_chosen_by_the_name_it_has_for_torch() -> None:
    assert chosen("device=cuda:0") == ["llama", "t5"]
    assert chosen("device=rocm:0") == ["opt"]


def test_a_selector_without_patterns_matches_everything() -> None:
    assert all(Selector.of({}).matches(cell) for cell in CELLS)


@pytest.mark.parametrize("key", KEYS)
def test_every_cell_can_be_chosen_by_every_key(key: str) -> None:
    for cell in CELLS:
        assert parse(f"{key}={value_of(cell, key)}").matches(cell)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("devcie=cpu", r"--llm-cell 'devcie=cpu': unknown key 'devcie'; did you mean 'device'\? \(valid: model, "),
        ("device=", r"'device' has no value; write KEY=PATTERN"),
        ("device=|", r"'device' has no value"),
        ("device=cpu,dtype", r"'dtype' has no value"),
        ("device=cpu,", r"unknown key ''"),
        ("device=cpu,device=mps", r"'device' is given twice; join alternatives with '\|'"),
        ("", r"--llm-cell '': write KEY=PATTERN"),
        ("   ", r"write KEY=PATTERN"),
        ("cpu,mps", r"write KEY=PATTERN"),
    ],
)
def test_what_is_no_expression_is_refused_with_the_way_to_write_one(expression: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(expression)


def test_several_expressions_are_read_in_their_order() -> None:
    first, second = parse_all(["device=cpu", "model=gpt2"], CELLS)
    assert (first.patterns, second.patterns) == ((("device", ("cpu",)),), (("model", ("gpt2",)),))


def test_an_expression_that_fits_no_cell_names_the_key_and_what_the_matrix_has() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_all(["model=llama,quantization=nf5"], CELLS)
    assert str(caught.value) == (
        "--llm-cell 'model=llama,quantization=nf5' matches no cell of the matrix: unknown quantization 'nf5'; "
        "did you mean 'nf4'? (the matrix has: none, nf4, int8)"
    )


def test_an_id_that_fits_no_cell_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"did you mean 'llama\.cpu\.fp32\.none\.to'\?"):
        parse_all(["llama.cpu.fp32.to"], CELLS)


def test_keys_that_fit_only_apart_are_said_to_fit_only_apart() -> None:
    with pytest.raises(ConfigurationError, match="each part fits some cell, but no cell fits them all"):
        parse_all(["model=gpt2,device=cpu"], CELLS)


def test_a_long_list_of_values_is_cut() -> None:
    many = [Cell(f"path:{number}", "cpu", "float32") for number in range(50)]
    with pytest.raises(ConfigurationError, match=r"path:19, \.\.\.\)$"):
        parse_all(["model=zzz"], many)

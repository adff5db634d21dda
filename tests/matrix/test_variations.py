"""Variations that take the place of cells: as many cells as before, each variation on each kind of device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.expand import cells, load
from pytest_llmdevice.matrix.model_names import parts_of
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.schema import Matrix, Vary
from pytest_llmdevice.matrix.variations import varied

DEVICES = [("cpu", "cpu"), ("cuda", "cuda:0"), ("rocm", "cuda:0"), ("mps", "mps"), ("xpu", "xpu:0")]


def one_card(specs: object) -> list[tuple[str, str]]:
    del specs
    return DEVICES


OF_A_LIBRARY = {"bnb-int8", "bnb-4bit", "w4a16"}
"""Traits that take an optional library to build or to load."""


def default(**changes: object) -> tuple[Cell, ...]:
    matrix = load("default", Path("nowhere"))
    return cells(matrix.model_copy(update=changes), one_card)


def test_the_default_matrix_has_no_cell_more_for_its_variations() -> None:
    assert len(default()) == len(default(vary=()))


@pytest.mark.parametrize("kind", ["cpu", "cuda", "rocm", "mps", "xpu"])
def test_every_trait_is_met_on_every_kind_of_device(kind: str) -> None:
    met = {trait for cell in default() if cell.kind == kind for trait in parts_of(cell.model).traits}
    assert met == set(current().names("trait")) - OF_A_LIBRARY


def test_traits_that_take_a_library_to_build_are_met_with_the_quantizers() -> None:
    found = cells(load("quantizers", Path("nowhere")), one_card)
    met = {trait for cell in found for trait in parts_of(cell.model).traits if cell.quantization == "none"}
    assert met == {*OF_A_LIBRARY, "fp8", "mxfp4"}


@pytest.mark.parametrize("kind", ["cpu", "cuda", "rocm", "mps", "xpu"])
def test_every_family_stays_with_a_dense_cell_of_its_own_on_every_kind_of_device(kind: str) -> None:
    plain = {cell.model for cell in default() if cell.kind == kind and cell.quantization == "none"}
    assert plain >= set(current().names("family")) | {"gpt-oss~mxfp4", "qwen3-next", "mamba2", "mllama"}


def test_a_pair_of_a_family_and_another_axis_stays_covered_by_the_family_or_its_variation() -> None:
    def pairs(found: tuple[Cell, ...]) -> set[tuple[str, str, str]]:
        return {
            (cell.kind, parts_of(cell.model).base, value)
            for cell in found
            for value in (cell.quantization, cell.strategy)
        }

    stood_in = {"bloom", "mixtral", "opt", "mamba"}
    lost = {pair for pair in pairs(default(vary=())) - pairs(default()) if pair[1] not in stood_in}
    assert lost == set()


def rules(*tables: dict[str, object]) -> tuple[Vary, ...]:
    return tuple(Vary.model_validate(table) for table in tables)


def some(*models: str) -> list[Cell]:
    return [Cell(model, "cpu", dtype) for model in models for dtype in ("float32", "bfloat16", "float16")]


def test_a_variation_takes_a_place_of_the_model_that_it_varies_and_its_dtype() -> None:
    found = varied(some("llama", "gpt2"), rules({"by": "gpt2~right"}, {"by": "llama~chat", "dtype": "bfloat16"}))
    assert sorted(cell.model for cell in found) == ["gpt2", "gpt2", "gpt2~right", "llama", "llama", "llama~chat"]
    assert [cell.dtype for cell in found if cell.model == "llama~chat"] == ["bfloat16"]


def test_where_the_others_are_does_not_depend_on_one_that_is_added_behind() -> None:
    few = varied(some("llama"), rules({"by": ["llama~right", "llama~chat"]}))
    more = varied(some("llama"), rules({"by": ["llama~right", "llama~chat", "llama~epsilon"]}))
    assert [cell for cell in few if cell.model != "llama"] == [
        cell for cell in more if cell.model in {"llama~right", "llama~chat"}
    ]


def test_with_fewer_cells_than_variations_there_are_no_more_of_either() -> None:
    found = varied(some("llama")[:1], rules({"by": ["llama~right", "llama~chat"]}))
    assert [cell.model for cell in found] == ["llama~right"]


def test_on_each_kind_it_is_the_same_place() -> None:
    both = [*some("llama"), *(replace(cell, device="mps", kind="mps") for cell in some("llama"))]
    found = varied(both, rules({"by": "llama~right"}))
    assert len({cell.dtype for cell in found if cell.model == "llama~right"}) == 1
    assert {cell.kind for cell in found if cell.model == "llama~right"} == {"cpu", "mps"}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("by", "llama~rihgt", "did you mean 'right'"), ("dtype", "bf16", "unknown dtype 'bf16'")],
)
def test_what_it_names_must_exist(key: str, value: str, says: str, tmp_path: Path) -> None:
    table = {"by": "llama~right", key: value}
    lines = "\n".join(f'{name} = "{text}"' for name, text in table.items())
    head = 'models = "llama"\ndevices = "cpu"\ndtypes = "float32"\n[[vary]]\n'
    (tmp_path / "one.toml").write_text(head + lines)
    with pytest.raises(ConfigurationError, match=rf"vary\[0\]\.{key}: ") as raised:
        load("one.toml", tmp_path)
    assert says in str(raised.value)


def test_a_matrix_without_them_is_what_it_was() -> None:
    assert Matrix.model_validate({"models": "llama", "devices": "cpu", "dtypes": "float32"}).vary == ()

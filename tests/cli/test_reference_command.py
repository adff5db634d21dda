"""The reference pages are made from the code: those in the repository are what the command writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.calling import call
from pytest_llmdevice.cli.declarations import declared
from pytest_llmdevice.cli.markdown import attributes_of
from pytest_llmdevice.cli.reference_pages import MATRIX_EXAMPLE, pages
from pytest_llmdevice.matrix.expand import load
from pytest_llmdevice.matrix.registry import built_in
from pytest_llmdevice.matrix.schema import Exclude, Expect, Include, Matrix, Require

if TYPE_CHECKING:
    from pydantic import BaseModel

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_the_pages_in_the_repository_are_what_the_command_writes() -> None:
    called = call("reference", "--check", "--output", str(REFERENCE))
    assert called.err == ""
    assert called.code == 0
    assert {path.name for path in REFERENCE.iterdir()} == set(pages())


def test_the_command_writes_what_is_missing_or_stale_and_then_finds_nothing_to_do(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert call("reference", "-o", str(folder)).out.count(": written\n") == len(pages())
    (folder / "checks.md").write_text("old")
    stale = call("reference", "--check", "-o", str(folder))
    assert (stale.code, stale.err) == (1, f"{folder / 'checks.md'}: not what `llmdevice reference` writes\n")
    assert (folder / "checks.md").read_text() == "old"
    assert call("reference", "-o", str(folder)).out == f"{folder / 'checks.md'}: written\n"
    assert call("reference", "-o", str(folder)).out == ""


@pytest.mark.parametrize("table", ["check", "hint"])
def test_every_entry_has_a_row(table: str) -> None:
    # A hint that is inferred has stars behind its name.
    page = pages()[f"{table}s.md"].replace("\\*", "")
    assert [name for name in built_in().names(table) if f"\n| `{name}` |" not in page] == []


def test_every_value_of_an_axis_has_a_row() -> None:
    tables = ("family", "quantization", "strategy", "simulation profile")
    page = pages()["axes.md"]
    assert [name for table in tables for name in built_in().names(table) if f"\n| `{name}` |" not in page] == []


def test_flags_keys_and_markers_are_those_that_pytest_knows(pytestconfig: pytest.Config) -> None:
    found = declared()
    assert found.flags
    assert all(hasattr(pytestconfig.option, flag.dest) for flag in found.flags)
    for key in found.ini_keys:
        pytestconfig.getini(key)  # raises for a key that is not declared
    known = [line.partition("(")[0] for line in pytestconfig.getini("markers")]
    assert {marker.partition("(")[0] for marker in found.markers} <= set(known)


@pytest.mark.parametrize("table", [Matrix, Exclude, Include, Expect, Require])
def test_every_key_of_a_matrix_file_is_described(table: type[BaseModel]) -> None:
    assert set(attributes_of(table)) >= set(table.model_fields)


def test_the_example_of_a_matrix_file_is_one(tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(MATRIX_EXAMPLE)
    assert load(str(path), tmp_path).require is not None
    assert MATRIX_EXAMPLE in pages()["matrix-file.md"]

"""`[[exclude]]`, `[[include]]` and `[[expect]]`: which cells they speak of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.expand import cells, load
from pytest_llmdevice.matrix.schema import Expect

AXES = """
models = ["llama", "gpt2"]
devices = ["cpu", "cuda:0"]
dtypes = ["float32", "float16"]
strategies = ["to", "auto"]
"""

HALF = Cell("mixtral", "cuda:0", "float16", "nf4")


def pairs(specs: Sequence[str]) -> list[tuple[str, str]]:
    return [(spec.partition(":")[0], spec.replace("rocm", "cuda")) for spec in specs]


def ids(folder: Path, extra: str) -> list[str]:
    (folder / "mine.toml").write_text(AXES + extra)
    return [cell.id for cell in cells(load("mine.toml", folder), pairs)]


def test_cells_are_the_product_in_the_order_of_the_axes(tmp_path: Path) -> None:
    found = ids(tmp_path, "")
    assert len(found) == 16
    assert found[:3] == ["llama.cpu.fp32.none.to", "llama.cpu.fp32.none.auto", "llama.cpu.fp16.none.to"]


def test_an_exclusion_takes_the_cells_that_fit_all_its_keys(tmp_path: Path) -> None:
    found = ids(tmp_path, '[[exclude]]\nmodels = ["gpt2"]\ndevices = ["cuda:*"]\n')
    assert len(found) == 12
    assert not [name for name in found if name.startswith("gpt2.cuda0")]


def test_exclusions_add_up(tmp_path: Path) -> None:
    found = ids(tmp_path, '[[exclude]]\nmodels = ["gpt2"]\n[[exclude]]\ndevices = ["cuda:*"]\n')
    assert len(found) == 4
    assert all(name.startswith("llama.cpu.") for name in found)


def test_an_inclusion_takes_the_matrix_values_for_the_axes_it_lacks(tmp_path: Path) -> None:
    found = ids(tmp_path, '[[include]]\nmodels = ["opt"]\nstrategies = ["split"]\n')
    assert found[16:] == [
        "opt.cpu.fp32.none.split",
        "opt.cpu.fp16.none.split",
        "opt.cuda0.fp32.none.split",
        "opt.cuda0.fp16.none.split",
    ]


def test_an_inclusion_brings_an_excluded_cell_back(tmp_path: Path) -> None:
    found = ids(
        tmp_path,
        '[[exclude]]\nmodels = ["gpt2"]\n'
        '[[include]]\nmodels = ["gpt2"]\ndevices = ["cpu"]\ndtypes = ["float32"]\nstrategies = ["to"]\n',
    )
    assert [name for name in found if name.startswith("gpt2")] == ["gpt2.cpu.fp32.none.to"]


def test_a_cell_that_is_included_anyway_is_there_once(tmp_path: Path) -> None:
    assert len(ids(tmp_path, '[[include]]\nmodels = ["llama"]\n')) == 16


def test_a_matrix_of_inclusions_alone_has_cells(tmp_path: Path) -> None:
    found = ids(tmp_path, '[[exclude]]\nmodels = ["*"]\n[[include]]\nmodels = ["t5"]\ndevices = ["cpu"]\n')
    assert len(found) == 4


@pytest.mark.parametrize(
    ("given", "applies"),
    [
        ({}, True),
        ({"models": ["mixtral"]}, True),
        ({"models": ["llama"]}, False),
        ({"devices": ["cuda:*"]}, True),
        ({"devices": ["cuda:1"]}, False),
        ({"quantization": ["nf4*"], "dtypes": ["float16"]}, True),
        ({"quantization": ["nf4*"], "dtypes": ["float32"]}, False),
        ({"checks": ["quantization"]}, True),
        ({"checks": ["forward"]}, False),
        ({"versions": {"transformers": ">=5"}}, True),
        ({"versions": {"transformers": ">=5,<5.20"}}, False),
        ({"versions": {"transformers": ">=5", "torch": ">=2.6"}}, True),
        ({"versions": {"transformers": ">=5", "torch": "<2.6"}}, False),
        ({"versions": {"flash_attn": ">=2"}}, False),
    ],
)
def test_an_expectation_applies_when_all_it_names_fits(given: dict[str, object], applies: bool) -> None:
    expectation = Expect.model_validate({"xfail": "known", **given})
    versions = {"transformers": "5.23.0", "torch": "2.13.0+cpu"}
    assert expectation.applies(HALF, "quantization", versions) is applies


def test_a_version_before_a_release_counts_as_that_release_or_later() -> None:
    expectation = Expect.model_validate({"xfail": "known", "versions": {"transformers": ">=5"}})
    assert expectation.applies(HALF, "loads", {"transformers": "5.24.0.dev0"})

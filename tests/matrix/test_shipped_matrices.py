"""The matrices that ship: each is valid, and is what its description says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
from covering import NATIVE

import pytest_llmdevice
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.coverage import pairs_of
from pytest_llmdevice.matrix.expand import cells, load
from pytest_llmdevice.matrix.files import shipped
from pytest_llmdevice.matrix.schema import Matrix
from pytest_llmdevice.matrix.vocabulary import DTYPES

NAMES = (
    "cpu",
    "cuda",
    "dcu",
    "default",
    "ibench",
    "infolens",
    "lmp",
    "mps",
    "multi-gpu",
    "quantizers",
    "qwen-tied",
    "ranks",
    "release",
    "rocm",
)

RANKED = ("tensor-parallel", "fsdp", "data-parallel")
"""Strategies of several processes, which have a matrix of their own."""

every_matrix = pytest.mark.parametrize("name", NAMES)

Devices = list[tuple[str, str]]


def with_cards(count: int, specs: Sequence[str]) -> Devices:
    """Devices of a machine with `count` cards of each kind, and `KIND:0` where there is none."""
    found: Devices = []
    for spec in specs:
        kind, _, index = spec.partition(":")
        torch_type = "cuda" if kind == "rocm" else kind
        if not vocabulary.indexed(kind):
            found.append((kind, kind))
        else:
            numbers = range(max(1, count)) if index == "*" else [int(index or 0)]
            found += [(kind, f"{torch_type}:{number}") for number in numbers]
    return found


@cache
def expanded(name: str, count: int = 2) -> tuple[Matrix, tuple[Cell, ...]]:
    matrix = load(name, Path("nowhere"))
    return matrix, cells(matrix, lambda specs: with_cards(count, specs))


def test_the_shipped_matrices_are_these() -> None:
    assert shipped() == NAMES


@every_matrix
@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_shipped_matrix_has_cells_whatever_the_number_of_cards(name: str, count: int) -> None:
    matrix, found = expanded(name, count)
    assert found
    assert matrix.description


@every_matrix
def test_no_cell_asks_a_device_for_what_it_cannot_be(name: str) -> None:
    for cell in expanded(name)[1]:
        assert not (cell.strategy in {"split", "cpu-offload"} and cell.kind in {"cpu", "mps"}), cell.id
        assert not (cell.model == "mamba" and cell.quantization != "none"), cell.id
        # bitsandbytes keeps no packed weight anywhere but on the device.
        assert not (cell.quantization != "none" and "offload" in cell.strategy), cell.id


@every_matrix
def test_a_device_is_never_given_twice_to_a_strategy_that_chooses_for_itself(name: str) -> None:
    assert not [
        cell.id for cell in expanded(name)[1] if cell.index and cell.strategy in {"auto", "balanced", "sequential"}
    ]


def test_the_default_matrix_has_every_kind_of_device() -> None:
    assert {cell.kind for cell in expanded("default")[1]} == set(vocabulary.kinds())


@pytest.mark.parametrize("kind", ["cuda", "rocm", "xpu"])
def test_the_default_matrix_has_every_pair_that_its_rules_allow_on_each_kind(kind: str) -> None:
    # Before variations take their places, which test_variations looks at.
    matrix = load("default", Path("nowhere")).model_copy(update={"vary": ()})
    found = cells(matrix, lambda specs: with_cards(2, specs))
    everything = cells(matrix.model_copy(update={"coverage": "full"}), lambda specs: with_cards(2, specs))

    def pairs(some: Sequence[Cell]) -> set[object]:
        points = [(cell.model, cell.device, cell.dtype, cell.quantization, cell.strategy) for cell in some]
        return {pair for point, cell in zip(points, some, strict=True) if cell.kind == kind for pair in pairs_of(point)}

    assert pairs(found) == pairs(everything)
    assert len(found) < len(everything) / 5


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("model", vocabulary.models()),
        ("dtype", DTYPES),
        ("quantization", NATIVE),
        ("strategy", tuple(name for name in vocabulary.strategies() if name not in {"split", "cpu-offload", *RANKED})),
    ],
)
@pytest.mark.parametrize("name", ["default", "cpu"])
def test_the_cpu_gets_all_it_can_run(name: str, axis: str, values: tuple[str, ...]) -> None:
    found = {getattr(cell, axis) for cell in expanded(name)[1] if cell.kind == "cpu"}
    if axis == "model":
        # Variations that the default matrix has in the place of some are further models.
        found &= set(values)
    # On one device `balanced` and `sequential` are `auto`: the cpu matrix, which is run in full, leaves them out.
    expected = set(values) - ({"balanced", "sequential"} if name == "cpu" else set())
    assert found == expected


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("cpu", {"cpu"}),
        ("cuda", {"cuda"}),
        ("multi-gpu", {"cuda"}),
        ("mps", {"mps"}),
        ("rocm", {"rocm"}),
        ("dcu", {"rocm"}),
        ("release", {"cpu", "cuda"}),
        ("ibench", {"cpu", "cuda"}),
        ("infolens", {"cpu", "cuda", "mps"}),
        ("qwen-tied", {"cpu", "cuda"}),
        ("lmp", {"cpu", "cuda"}),
        ("quantizers", {"cpu"}),
    ],
)
def test_a_matrix_has_the_devices_that_it_is_named_after(name: str, kinds: set[str]) -> None:
    assert {cell.kind for cell in expanded(name)[1]} == kinds


def test_several_cards_are_each_addressed_and_split_over() -> None:
    found = expanded("multi-gpu", 3)[1]
    assert {cell.device for cell in found if cell.strategy == "split"} == {"cuda:0", "cuda:1", "cuda:2"}


def test_the_release_matrix_requires_every_model_dtype_and_quantization() -> None:
    require = expanded("release")[0].require
    assert require is not None
    assert (require.models, require.dtypes, require.quantization) == (("*",), DTYPES, NATIVE)


@every_matrix
def test_a_failure_that_is_known_beforehand_names_its_source_and_the_checks_that_fail(name: str) -> None:
    for expectation in expanded(name)[0].expect:
        assert expectation.source.startswith("https://github.com/")
        assert expectation.checks
        assert expectation.versions


@pytest.mark.parametrize("model", ["mixtral", "qwen3-moe", "deepseek-v3"])
@pytest.mark.parametrize("name", ["default", "cpu", "release"])
def test_dense_experts_are_expected_from_transformers_5_and_not_before(name: str, model: str) -> None:
    cell = Cell(model, "cpu", "bfloat16", "nf4-double")
    known = expanded(name)[0].expect
    assert any(expectation.applies(cell, "quantization", {"transformers": "5.0.0"}) for expectation in known)
    assert not any(expectation.applies(cell, "quantization", {"transformers": "4.57.1"}) for expectation in known)


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("ibench", "qwen2.cuda0.fp16.int8.auto"),
        ("infolens", "llama.cpu.fp32.int8.device-map"),
        ("infolens", "gemma3.mps.fp16.none.auto"),
        ("dcu", "qwen3.rocm0.fp16.nf4-double.auto"),
        ("qwen-tied", "qwen2.cuda0.bf16.none.split"),
        ("quantizers", "llama.cpu.bf16.torchao-int8.to"),
        ("lmp", "deepseek-v3.cuda1.bf16.none.shared-memory"),
    ],
)
def test_a_project_finds_the_cell_that_it_is_about(name: str, identity: str) -> None:
    assert identity in {cell.id for cell in expanded(name)[1]}


def test_the_matrices_are_found_inside_an_installed_package_too(tmp_path: Path) -> None:
    package = tmp_path / "pytest_llmdevice"
    (package / "matrix").mkdir(parents=True)
    source = Path(pytest_llmdevice.__file__).parent
    for path in [source / "__init__.py", source / "errors.py", *(source / "matrix").glob("*.py")]:
        (package / path.relative_to(source)).write_text(path.read_text())
    (package / "matrices").mkdir()
    (package / "matrices" / "only.toml").write_text("")
    code = "from pytest_llmdevice.matrix.files import shipped; print(shipped())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('only',)"

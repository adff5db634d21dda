"""The shipped example of a quantization of one's own: right where it is, and red where it is not what was asked for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from forked_run import run_forked

EXAMPLE = Path(__file__).parents[1] / "examples" / "quantizer"


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    # As `project` has it, which knows already what a probe would say.
    monkeypatch.setenv("LLMDEVICE_CACHE", os.environ.get("LLMDEVICE_CACHE", str(Path.home() / ".cache" / "llmdevice")))
    folder = pytester.path / "quantizer"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(folder: Path, target: str, cell: str, *options: str) -> pytest.RunResult:
    # A process of its own: the example's conftest registers what must not stay in this one, and the probe tries it.
    return run_forked(folder, "--llm-matrix", "--llm-target", f"bytes_layer:{target}", "--llm-cell", cell, *options)


@pytest.mark.parametrize(
    ("target", "cell", "lines"),
    [
        ("loader", "dtype=float32", ["4 cells: 2 passed, 2 not run", "  1 cell: save: no file format holds the bytes"]),
        (
            "forgetful", "quantization=bytes,dtype=float32",
            ["   where *.mlp.down_proj", "   expected ByteLinear with int8"],
        ),
        (
            "eager", "quantization=none,dtype=float32",
            ["   expected dense: not to be quantized", "   found    ByteLinear with int8"],
        ),
    ],
)  # fmt: skip
def test_a_layer_of_ones_own_is_known_by_what_its_entry_says(
    folder: Path, target: str, cell: str, lines: list[str]
) -> None:
    result = run(folder, target, cell)
    assert result.ret == (0 if target == "loader" else 1)
    result.stdout.fnmatch_lines(lines)


@pytest.mark.parametrize(
    ("target", "cell", "workers", "lines"),
    [
        (
            "loader", "dtype=float32", "2",
            ["4 cells: 2 passed, 2 not run", "  1 cell: save: no file format holds the bytes"],
        ),
        ("forgetful", "quantization=byte-rows,dtype=float32", "0", ["   expected ByteLinear with int8"]),
        ("eager", "quantization=none,dtype=float32", "0", ["   found    ByteLinear with int8"]),
    ],
)  # fmt: skip
def test_a_quantization_that_the_matrix_file_describes_is_known_by_it(
    folder: Path, target: str, cell: str, lines: list[str], workers: str
) -> None:
    # No plugin registers anything.
    (folder / "conftest.py").unlink()
    result = run(folder, target, cell, "--llm-matrix-file", "described.toml", "-n", workers)
    assert result.ret == (0 if target == "loader" else 1)
    result.stdout.fnmatch_lines(lines)


@pytest.mark.parametrize(
    ("target", "workers", "lines"),
    [
        # What is a fault where all layers are to be packed is right where some are to be dense.
        ("forgetful", "2", ["1 cell: 1 passed"]),
        (
            "loader", "0",
            ["   where    model.layers.{0,1}.mlp.down_proj", "   expected dense: not to be quantized"],
        ),
    ],
)  # fmt: skip
def test_modules_may_have_quantizations_of_their_own(folder: Path, target: str, lines: list[str], workers: str) -> None:
    (folder / "conftest.py").unlink()
    result = run(folder, target, "dtype=float32", "--llm-matrix-file", "mixed.toml", "-n", workers)
    assert result.ret == (0 if target == "forgetful" else 1)
    result.stdout.fnmatch_lines(lines)

"""Checkpoints that are named and cannot be had through a mistake: the run is not green."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MATRIX = 'models = "{model}"\ndevices = "cpu"\ndtypes = "float32"\n'
RUN = ("--llm-matrix", "--llm-matrix-file=named.toml", "--pyargs", "pytest_llmdevice.suite", "-k", "loads")


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("path:modle", "*path:modle: there is no directory *modle; did you mean 'model'?"),
        ("path:file", "*path:file: *file is a file; name the folder of a checkpoint"),
        ("hub:a/b/c", "*hub:a/b/c is no model: expected hub:org/name@revision"),
    ],
)
def test_a_slip_of_the_pen_is_a_usage_error(project: pytest.Pytester, model: str, line: str) -> None:
    (project.path / "model").mkdir()
    (project.path / "file").touch()
    project.makefile(".toml", named=MATRIX.format(model=model))
    result = project.runpytest(*RUN)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "*holds no config.json*"),
        ({"config.json": "rubbish"}, "*"),
        ({"config.json": "[]"}, "*"),
        ({"config.json": "{}"}, "*"),
    ],
    ids=["empty", "no JSON", "no table", "no model"],
)
def test_a_broken_checkpoint_fails_its_cell(project: pytest.Pytester, files: dict[str, str], why: str) -> None:
    (project.path / "model").mkdir()
    for name, text in files.items():
        (project.path / "model" / name).write_text(text)
    project.makefile(".toml", named=MATRIX.format(model="path:model"))
    result = project.runpytest(*RUN)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([why])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_a_cache_that_cannot_be_written_is_an_error(
    project: pytest.Pytester,
    run_process: Callable[..., pytest.RunResult],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("LLMDEVICE_CACHE", str(tmp_path / "cache"))
    project.makefile(".toml", named=MATRIX.format(model="llama"))
    result = run_process(*RUN)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*checkpoint of llama cannot be built: the cache directory *cache cannot be written*"])

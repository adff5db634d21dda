"""Results that are removed, cut, replaced or added to while a run writes them make it red, in one sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.store import Writer, read

RunProcess = Callable[..., pytest.RunResult]

TESTS = """
import glob, os, shutil

def test_cell(llm_cell):
    if llm_cell.dtype == "float32":
        (path,) = glob.glob("results/*.jsonl")
        {disturb}

def test_again(llm_cell): pass
"""


@pytest.mark.parametrize(
    ("disturb", "said"),
    [
        ("os.unlink(path)", "the results were removed while the run wrote them (No such file or directory)"),
        ("shutil.rmtree('results')", "the results were removed while the run wrote them (No such file or directory)"),
        ("os.truncate(path, 0)", "the results were changed while the run wrote them: 0 bytes, and not the *"),
        ("os.truncate(path, 500)", "the results were changed while the run wrote them: 500 bytes, and not the *"),
        (
            "os.truncate(path, os.path.getsize(path) + 4)",
            "the results were changed while the run wrote them: * bytes, and not *",
        ),
        ("shutil.copy(path, 'x'); os.replace('x', path)", "the results were replaced while the run wrote them"),
        ("os.unlink(path); os.mkdir(path)", "the results were replaced while the run wrote them"),
    ],
)
def test_a_run_whose_results_are_disturbed_is_red(project: pytest.Pytester, disturb: str, said: str) -> None:
    project.makepyfile(TESTS.format(disturb=disturb))
    result = project.runpytest("--llm-matrix", "--llm-matrix-file=two.toml", "--llm-results=results", ".")
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"results/*.jsonl: {said}*; run again"])


def test_a_process_that_was_forked_writes_nothing(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.makepyfile("def test_cell(llm_cell): pass")
    project.runpytest("--llm-matrix", "--llm-matrix-file=one.toml", "--llm-results=results", ".")
    (file,) = read(project.path / "results")
    folder = tmp_path_factory.mktemp("other")
    with Writer(folder, file.run) as writer:
        before = writer.path.read_bytes()
        monkeypatch.setattr("os.getpid", lambda: 1)
        with pytest.raises(ResultsError, match="a process that was forked while the run wrote its results"):
            writer.write(*file.checks)
        assert writer.path.read_bytes() == before

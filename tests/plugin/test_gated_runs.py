"""Runs that are held against a baseline, and runs that write one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmdevice.results.baseline import read_baseline

GOOD = """
def test_one(llm_cell): pass
def test_two(llm_cell): pass
"""

FLAGS = ("--llm-matrix", "--llm-matrix-file=two.toml", "--llm-baseline=base.jsonl")


@pytest.fixture
def gated(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with two good tests, on a machine of somebody's own."""
    monkeypatch.delenv("CI", raising=False)
    project.makepyfile(test_own=GOOD)
    return project


@pytest.fixture
def kept(gated: pytest.Pytester) -> pytest.Pytester:
    """The same with a baseline in which everything passed."""
    result = gated.runpytest(*FLAGS, "--llm-baseline-update", "test_own.py")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["baseline: *base.jsonl, 4 checks of 2 cells"])
    return gated


def baseline(project: pytest.Pytester) -> dict[tuple[str, str, str], str]:
    found = read_baseline(project.path / "base.jsonl")
    return {key: line.outcome for key, line in found.checks.items()}


def test_a_baseline_has_an_entry_for_each_check_of_each_cell(kept: pytest.Pytester) -> None:
    assert baseline(kept) == {
        ("builtin", f"llama.cpu.{dtype}.none.to", f"test_own::test_{name}"): "passed"
        for dtype in ("fp32", "bf16")
        for name in ("one", "two")
    }


def test_a_run_like_the_baseline_is_green(kept: pytest.Pytester) -> None:
    result = kept.runpytest(*FLAGS, "test_own.py")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["Since *base.jsonl: 4 unchanged"])


def test_a_test_that_is_gone_turns_a_green_run_red(kept: pytest.Pytester) -> None:
    kept.makepyfile(test_own="def test_one(llm_cell): pass")
    result = kept.runpytest(*FLAGS, "test_own.py")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*vanished*test_own::test_two*", "--llm-fail-on: 2 vanished"])


def test_what_is_not_named_does_not_fail_the_run(kept: pytest.Pytester) -> None:
    kept.makepyfile(test_own="def test_one(llm_cell): pass")
    result = kept.runpytest(*FLAGS, "--llm-fail-on=regression", "test_own.py")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*2 vanished*"])


def test_a_regression_is_named(kept: pytest.Pytester) -> None:
    kept.makepyfile(test_own=GOOD.replace("def test_two(llm_cell): pass", "def test_two(llm_cell): assert 0, 'broken'"))
    result = kept.runpytest(*FLAGS, "test_own.py")
    result.stdout.fnmatch_lines(["*regression*llama.cpu.*test_own::test_two*", "--llm-fail-on: 2 regressions"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_part_of_the_matrix_can_be_held_against_the_whole(kept: pytest.Pytester) -> None:
    result = kept.runpytest(*FLAGS, "--llm-cell=dtype=float32", "test_own.py")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*2 unchanged*"])


def test_an_update_of_a_part_keeps_the_rest(kept: pytest.Pytester) -> None:
    before = baseline(kept)
    kept.runpytest(*FLAGS, "--llm-baseline-update", "--llm-cell=dtype=float32", "test_own.py")
    assert baseline(kept) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("ci", "*CI is set*"),
        ("dirty", "*tree with changes*"),
        ("failing", "*failed, such as test_own::test_two of llama.cpu*"),
    ],
)
def test_an_update_is_refused_and_can_be_forced(
    gated: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, change: str, says: str
) -> None:
    if change == "ci":
        monkeypatch.setenv("CI", "true")
    if change == "dirty":
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "add", "test_own.py"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
        (gated.path / "test_own.py").write_text(f"{GOOD}\n# changed\n")
    if change == "failing":
        gated.makepyfile(test_own=GOOD.replace("def test_two(llm_cell): pass", "def test_two(llm_cell): assert 0"))
    result = gated.runpytest(*FLAGS, "--llm-baseline-update", "test_own.py")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([says])
    assert not (gated.path / "base.jsonl").exists()
    gated.runpytest(*FLAGS, "--llm-baseline-update", f"--llm-baseline-force={change}", "test_own.py")
    assert len(baseline(gated)) == 4


def test_repeated_runs_in_one_folder_are_the_samples_of_a_baseline(gated: pytest.Pytester) -> None:
    suite = ("--pyargs", "pytest_llmdevice.suite", "-k", "loads or generation")
    for _ in range(2):
        gated.runpytest("--llm-matrix", "--llm-matrix-file=two.toml", "--llm-results=runs", *suite)
    gated.runpytest(*FLAGS, "--llm-baseline-update", "--llm-results=runs", *suite)
    cells = read_baseline(gated.path / "base.jsonl").cells
    assert {len(line.load_seconds) for line in cells.values()} == {3}
    assert {len(line.tokens) for line in cells.values()} == {3}


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[: len(text) // 2], "*base.jsonl:*"),
    "not JSON": (lambda _: "hello", "*base.jsonl:1: not JSON*"),
    "newer": (lambda text: text.replace('"schema":1', '"schema":99', 1), "*base.jsonl:1: written in schema 99*update*"),
    "another matrix": (lambda text: text.replace("two.toml", "nightly"), "*a baseline of the matrix nightly*"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("update", [(), ("--llm-baseline-update",)], ids=["compare", "update"])
def test_a_baseline_that_is_no_good_is_one_sentence_and_stays_as_it_is(
    kept: pytest.Pytester, kind: str, update: tuple[str, ...]
) -> None:
    damage, says = BROKEN[kind]
    path = kept.path / "base.jsonl"
    path.write_text(damage(path.read_text()))
    before = path.read_bytes()
    result = kept.runpytest(*FLAGS, *update, "test_own.py")
    assert result.ret in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.TESTS_FAILED}
    (result.stderr if result.ret == pytest.ExitCode.USAGE_ERROR else result.stdout).fnmatch_lines([says])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--llm-fail-on=regression",), "--llm-fail-on: give the file with --llm-baseline FILE"),
        (("--llm-baseline-update",), "--llm-baseline-update: give the file with --llm-baseline FILE"),
        (("--llm-baseline=no.jsonl",), "*no.jsonl: there is no baseline yet*"),
        (("--llm-baseline=b", "--llm-baseline-force=ci"), "--llm-baseline-force: add --llm-baseline-update*"),
        (("--llm-baseline=b", "--llm-baseline-update", "--llm-baseline-force=all"), "*'all': known are ci, dirty, *"),
        (("--llm-baseline=b", "--llm-fail-on=regresion"), "--llm-fail-on: *regresion*did you mean*regression*"),
        (("--llm-report=pdf:x",), "--llm-report: *unknown format 'pdf'*"),
        (("--llm-report=html",), "--llm-report: *give a format and a path*"),
        (("--llm-grid=model/colour",), "--llm-grid: *unknown axis 'colour'*"),
        (("--llm-shard=6/5",), "--llm-shard: *counted from 1/5 to 5/5*"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(gated: pytest.Pytester, flags: tuple[str, ...], says: str) -> None:
    result = gated.runpytest("--llm-matrix", "--llm-matrix-file=two.toml", *flags, "test_own.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {says}"])
    assert "Traceback" not in result.stderr.str()


def test_the_options_need_a_matrix(gated: pytest.Pytester) -> None:
    result = gated.runpytest("--llm-results=results", "--llm-shard=1/2", "test_own.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --llm-results, --llm-shard: add --llm-matrix*"])
    assert not Path("results").exists()

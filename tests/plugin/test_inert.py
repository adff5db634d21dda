"""Without `--llm-matrix` the plugin does nothing, and its fixtures stand for the reference cell."""

from __future__ import annotations

import pytest


def test_nothing_heavy_is_imported_without_the_flag(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            heavy = {"torch", "transformers", "accelerate", "bitsandbytes", "pydantic", "rich", "allpairspy"}
            assert not heavy & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*llm matrix*")


def test_no_probe_is_started_without_the_flag(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_llmdevice.plugin.session.start", lambda _: pytest.fail("a probe was started"))
    project.makepyfile("def test_nothing(): pass")
    project.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1)
    left = {path.name for path in project.path.iterdir()} - {"__pycache__"}
    assert not {name for name in left if not name.endswith((".py", ".toml", ".ini"))}


def test_a_project_runs_with_the_plugin_switched_off(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    pytester.runpytest_subprocess("-p", "no:llmdevice").assert_outcomes(passed=1)


def test_fixtures_stand_for_the_reference_cell(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import torch

        def test_cell(llm_cell, llm_device, llm_dtype, llm_model, llm_tokenizer, llm_prompts, llm_inputs,
                      llm_checkpoint):
            assert llm_cell.id == "llama.cpu.fp32.none.to"
            assert (llm_device, llm_dtype) == (torch.device("cpu"), torch.float32)
            assert llm_model.dtype == torch.float32 and not llm_model.training
            assert llm_tokenizer.padding_side == "left"
            assert len({len(prompt) for prompt in llm_prompts}) == len(llm_prompts)
            assert llm_inputs["input_ids"].shape == (len(llm_prompts), max(map(len, llm_prompts)))
            assert (llm_checkpoint / "config.json").is_file()
        """
    )
    result = project.runpytest("-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*::test_cell PASSED*"])


def test_a_test_for_other_cells_is_skipped_with_the_reason(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.llm_matrix(devices="cuda:*")
        def test_cuda(llm_cell): pass

        @pytest.mark.llm_requires(devices=2)
        def test_two(llm_cell): pass

        @pytest.mark.llm_matrix(devices="cpu")
        @pytest.mark.llm_requires(kinds="cpu")
        def test_cpu(llm_cell): pass
        """
    )
    result = project.runpytest("-rs")
    result.assert_outcomes(passed=1, skipped=2)
    result.stdout.fnmatch_lines(
        [
            "SKIPPED*not requested: this test is for llm_matrix(devices='cuda:*'); run it with --llm-matrix",
            "SKIPPED*not requested: this test is for llm_requires(devices=2); run it with --llm-matrix",
        ]
    )


@pytest.mark.parametrize(
    "flag", ["--llm-cell=device=cpu", "--llm-matrix-file=cpu", "--llm-require=cuda", "--llm-simulate=mps"]
)
def test_a_flag_that_needs_the_matrix_says_so(project: pytest.Pytester, flag: str) -> None:
    result = project.runpytest(flag)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --llm-*: add --llm-matrix, without it no matrix is run"])


def test_the_markers_are_known_to_strict_markers(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest("--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.llm_matrix(*",
            "@pytest.mark.llm_requires(*",
            "@pytest.mark.llm_cell(*",
            "@pytest.mark.llm_check(*",
        ]
    )

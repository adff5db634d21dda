"""The tests that the example projects bring along, on a cell each of the matrix that their pyproject.toml names."""

from __future__ import annotations

from pathlib import Path

import pytest

from systems.examined import NOISE

pytestmark = [pytest.mark.filterwarnings(warning) for warning in NOISE]

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize(
    ("project", "machine", "identity", "passed"),
    [
        ("ibench", "cuda:8", "qwen2.cuda0.fp16.nf4.auto.sim", 1),
        ("infolens", "mps", "gemma3.mps.fp16.none.auto.sim", 2),
        ("qwen_tied", "cuda:8", "qwen2.cuda3.bf16.none.split.sim", 2),
        ("dcu", "rocm-dcu:2", "llama.rocm0.fp16.nf4-double.auto.sim", 4),
        ("lmp", "cuda:2", "deepseek-v3.cuda1.bf16.none.shared-memory.sim", 1),
    ],
)
def test_pass(
    project: str,
    machine: str,
    identity: str,
    passed: int,
    pytester: pytest.Pytester,
    without_cards: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(EXAMPLES / project)
    result = pytester.runpytest_inprocess(
        "tests", "--llm-matrix", f"--llm-simulate={machine}", f"--llm-cell={identity}", "-p", "no:cacheprovider"
    )
    counted = result.parseoutcomes()
    assert counted.get("passed") == passed
    assert "failed" not in counted
    assert "errors" not in counted

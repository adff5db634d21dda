"""Of a checkpoint whose choices are close to ties, `agreement` says so: what noise turns there is no finding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pytest_llmdevice import BuiltinTarget, Cell, examine, zoo
from pytest_llmdevice.checks.agreement import UNCLEAR
from pytest_llmdevice.zoo.fitted import say_choices


@pytest.mark.parametrize("why", [None, "its last matrices cannot tell all places apart"])
def test_the_evidence_says_why_choices_are_not_clear(tmp_path: Path, why: str | None) -> None:
    folder = shutil.copytree(zoo.checkpoint("llama"), tmp_path / "llama")
    say_choices(folder, why)
    cell = Cell(f"path:{folder}", "cpu", "float32")
    result = next(each for each in examine(BuiltinTarget(), folder, cell, folder=tmp_path) if each.check == "agreement")
    assert result.passed
    assert result.evidence.get(UNCLEAR) == why

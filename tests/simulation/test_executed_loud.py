"""Bugs raise on simulated cards what they raise under PyTorch's CUDA build, text for text."""

from __future__ import annotations

import pytest
import torch
import transformers
from simulation.ground_truth.executed.loud import KNOWN, differing, read
from simulation.ground_truth.executed.loud_subjects import subjects

HEADER, ROWS = read()
SUBJECTS = {subject.name: subject for subject in subjects()}
LOUD = [name for name, row in ROWS.items() if name in KNOWN or any(row.get("steps", {}).values())]

SAME_VERSIONS = pytest.mark.skipif(
    torch.__version__.partition("+")[0] != HEADER["torch"].partition("+")[0]
    or transformers.__version__ != HEADER["transformers"],
    reason=f"the rows are those of PyTorch {HEADER['torch']} and transformers {HEADER['transformers']}",
)


@SAME_VERSIONS
@pytest.mark.parametrize("name", LOUD)
def test_a_bug_is_as_loud_as_under_the_cuda_build(name: str) -> None:
    subject = SUBJECTS[name]
    if subject.needs:
        pytest.importorskip(subject.needs)
    found = differing(ROWS[name], subject)
    assert found == [] or name in KNOWN
    assert found or name not in KNOWN, "it agrees now: take it from the list"


def test_every_bug_that_is_run_on_cards_was_asked() -> None:
    assert set(SUBJECTS) == set(ROWS)
    assert not [row for row in ROWS.values() if "died" in row]
    assert len(LOUD) >= 15

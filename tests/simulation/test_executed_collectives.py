"""Collectives refuse on simulated cards what those of PyTorch's CUDA build refuse before NCCL, in the same words."""

from __future__ import annotations

import pytest
import torch
from simulation.ground_truth.executed.collectives import CALLS, KNOWN, LAYOUTS, differing, read

HEADER, SAID = read()


@pytest.mark.skipif(
    torch.__version__.partition("+")[0] != HEADER["torch"].partition("+")[0],
    reason=f"what is written is of PyTorch {HEADER['torch']}, and here is {torch.__version__}",
)
def test_collectives_refuse_what_those_of_the_cuda_build_refuse() -> None:
    found = differing()
    assert {name: each for name, each in found.items() if name not in KNOWN} == {}
    assert KNOWN.keys() - found.keys() == set(), "they agree now: take them from the list"


def test_every_call_was_asked_with_every_layout() -> None:
    assert SAID.keys() == {f"{call}: {layout}" for call in CALLS for layout in LAYOUTS}
    assert len(set(SAID.values())) > 5

"""The zoo's models on simulated cards, against the same models under PyTorch's CUDA build: equal to the byte."""

from __future__ import annotations

import pytest
import torch
import transformers
from simulation.ground_truth.executed.libraries import MODES, cells, differing, read

from pytest_llmdevice import zoo

HEADER, ROWS = read()

SAME_VERSIONS = pytest.mark.skipif(
    torch.__version__.partition("+")[0] != HEADER["torch"].partition("+")[0]
    or transformers.__version__ != HEADER["transformers"],
    reason=(
        f"the rows are those of PyTorch {HEADER['torch']} and transformers {HEADER['transformers']}, "
        f"and here are {torch.__version__} and {transformers.__version__}"
    ),
)


@SAME_VERSIONS
@pytest.mark.parametrize("model", list(zoo.families()))
@pytest.mark.filterwarnings("ignore:MatMul8bitLt", "ignore:Some parameters are on the meta device")
def test_tensors_are_where_the_cuda_build_has_them(model: str) -> None:
    assert list(differing(ROWS, cells([model]))) == []


def test_every_cell_of_every_family_was_asked() -> None:
    asked = [cell.id for cell in cells(zoo.families())]
    assert len(asked) == len(list(zoo.families())) * len(MODES)
    assert set(asked) <= set(ROWS)
    assert not [row for row in ROWS.values() if "died" in row]

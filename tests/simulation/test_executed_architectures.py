"""Architectures beyond the zoo's families on simulated cards, against PyTorch's CUDA build: equal to the byte."""

from __future__ import annotations

import pytest
import torch
import transformers
from simulation.ground_truth.executed import architectures, quantizers
from simulation.ground_truth.executed.libraries import MODES, differing, read

from pytest_llmdevice.matrix.axes import Quantization
from pytest_llmdevice.matrix.registry import current

pytestmark = pytest.mark.filterwarnings("ignore")
# What the libraries warn of is not looked at.

HEADER, ROWS = architectures.read()
PACKED_HEADER, PACKED = read(quantizers.QUANTIZERS)

REPLAYED = (
    "mamba2",  # a state instead of a cache
    "kolibri1",  # a product in a dtype that it names, on cards alone
    "xlnet",  # factors of different dtypes
    "reformer",  # a number that its dtype cannot hold, while it is loaded
    "marian",  # an encoder and a decoder that share an embedding, and positions that are not learnt
)
"""What the ordinary tests replay; `python -m tests.simulation.ground_truth.executed.architectures --compare` is all."""

SAME_VERSIONS = pytest.mark.skipif(
    torch.__version__.partition("+")[0] != HEADER["torch"].partition("+")[0]
    or transformers.__version__ != HEADER["transformers"],
    reason=f"the rows are those of PyTorch {HEADER['torch']} and transformers {HEADER['transformers']}",
)


@SAME_VERSIONS
@pytest.mark.parametrize("name", REPLAYED)
def test_tensors_are_where_the_cuda_build_has_them(name: str) -> None:
    assert list(architectures.differing(ROWS, [name])) == []


@SAME_VERSIONS
@pytest.mark.parametrize(
    "quantization", ["torchao-int8", "torchao-int4", "torchao-float8", "quanto-int8", "quanto-int4"]
)
def test_packed_weights_are_where_the_cuda_build_has_them(quantization: str) -> None:
    entry = current().of(Quantization)[quantization]
    pytest.importorskip(entry.module or entry.library)
    wanted = [cell for cell in quantizers.cells(["llama"]) if cell.quantization == quantization]
    assert list(differing(PACKED, wanted)) == []


def test_every_cell_was_asked() -> None:
    assert len(ROWS) >= 200
    assert {len(rows) for rows in ROWS.values()} == {len(MODES)}
    assert [cell.id for cell in quantizers.cells()] == list(PACKED)
    rows = [row for rows in ROWS.values() for row in rows]
    assert not [row for row in rows if isinstance(row, str) and row.startswith("died")]
    # What a card was not seen to compute: choices of experts, made of what happened to be in its memory.
    assert sum(row[-1] is None for row in rows if isinstance(row, list)) < len(rows) / 6

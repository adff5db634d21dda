"""Cells as values: ids, spellings, and what they can be used for."""

from __future__ import annotations

import pickle
import re
import shlex
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from itertools import product
from pathlib import Path

import pytest

from pytest_llmdevice import Cell
from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.cell import REFERENCE
from pytest_llmdevice.matrix.expand import cells, load
from pytest_llmdevice.matrix.vocabulary import ATTENTIONS, DTYPES

DEVICES = [
    ("cpu", "cpu"),
    ("cuda", "cuda:0"),
    ("cuda", "cuda:11"),
    ("rocm", "cuda:0"),
    ("mps", "mps"),
    ("xpu", "xpu:1"),
]


@pytest.mark.parametrize(
    ("cell", "identity"),
    [
        (Cell("llama", "cpu", "float32"), "llama.cpu.fp32.none.to"),
        (Cell("llama", "cuda:0", "bfloat16", "nf4", "auto"), "llama.cuda0.bf16.nf4.auto"),
        (
            Cell("qwen3-moe", "cuda:12", "float16", "nf4-double", "device-map"),
            "qwen3-moe.cuda12.fp16.nf4-double.device-map",
        ),
        (Cell("gpt2", "cuda:1", "float16", kind="rocm"), "gpt2.rocm1.fp16.none.to"),
        (Cell("gpt2", "mps", "float16"), "gpt2.mps.fp16.none.to"),
        (Cell("gpt2", "xpu:0", "float16"), "gpt2.xpu0.fp16.none.to"),
        (Cell("t5", "cpu", "float32", attention="sdpa"), "t5.cpu.fp32.none.to.sdpa"),
        (Cell("t5", "cuda:0", "float32", simulated=True), "t5.cuda0.fp32.none.to.sim"),
        (Cell("t5", "cuda:0", "float32", attention="eager", simulated=True), "t5.cuda0.fp32.none.to.eager.sim"),
        (Cell("hub:org/Name.v1@main", "cpu", "float32"), "hub-org-Name-v1-main.cpu.fp32.none.to"),
        (Cell("path:/tmp/my model (1)/", "cpu", "float32"), "path-tmp-my-model-1.cpu.fp32.none.to"),
    ],
)
def test_the_id_has_the_axes_joined_by_dots(cell: Cell, identity: str) -> None:
    assert (cell.id, str(cell)) == (identity, identity)


def all_cells() -> list[Cell]:
    """Every combination there is, several models by path among them."""
    models = [
        *vocabulary.models(),
        "path:/a b/$HOME;rm -rf *",
        "path:C:\\models\\x",
        "hub:org/name@refs/pr/1",
        "path:'\"`",
    ]
    return [
        Cell(model, device, dtype, quantization, strategy, attention, kind=kind, simulated=simulated)
        for model, (kind, device), dtype, quantization, strategy, attention, simulated in product(
            models,
            DEVICES,
            DTYPES,
            vocabulary.quantizations(),
            vocabulary.strategies()[:3],
            ATTENTIONS[:3],
            (False, True),
        )
    ]


def test_no_two_cells_share_an_id() -> None:
    everything = all_cells()
    assert len({cell.id for cell in everything}) == len(set(everything)) == len(everything)


def test_ids_need_no_quoting_in_a_shell_nor_in_a_selection_by_keyword() -> None:
    for cell in all_cells():
        assert shlex.quote(cell.id) == cell.id
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", cell.id)


def test_a_rocm_card_is_cuda_to_torch_and_rocm_to_the_matrix() -> None:
    cell = Cell("llama", "cuda:1", "float16", kind="rocm")
    assert (cell.device, cell.kind, cell.spec, cell.index) == ("cuda:1", "rocm", "rocm:1", 1)


def test_the_kind_is_taken_from_the_device_unless_it_is_given() -> None:
    assert [Cell("llama", device, "float32").kind for device in ("cpu", "cuda:3", "mps")] == ["cpu", "cuda", "mps"]


def test_the_device_and_the_dtype_are_those_of_torch() -> None:
    import torch

    cell = Cell("llama", "cuda:2", "bfloat16")
    assert (cell.torch_device, cell.torch_dtype) == (torch.device("cuda", 2), torch.bfloat16)


def test_a_cell_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        REFERENCE.model = "gpt2"  # type: ignore[misc]


def test_equal_cells_are_one_key() -> None:
    again = Cell("llama", "cpu", "float32", kind="cpu")
    assert len({REFERENCE, again, replace(REFERENCE, dtype="float16")}) == 2


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_cell_crosses_processes(protocol: int) -> None:
    cell = Cell("path:/x", "cuda:1", "float16", "nf4", "auto", "sdpa", kind="rocm", simulated=True)
    assert pickle.loads(pickle.dumps(cell, protocol)) == cell


def test_cells_of_shipped_matrices_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    found = cells(load("default", tmp_path), lambda _: DEVICES)
    assert len({cell.id for cell in found}) == len(found) > 100


@pytest.mark.parametrize("module", ["", ".matrix.cell", ".matrix.expand", ".matrix.required", ".matrix.select"])
def test_the_matrix_is_read_without_torch_and_without_pytest(module: str) -> None:
    code = (
        f"import sys, pytest_llmdevice{module}; "
        "print(sorted({'torch', 'pytest', '_pytest', 'transformers', 'accelerate'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"

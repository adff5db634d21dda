"""Runs on machines whose cards differ, are hidden, are small, or lack something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pytest_llmdevice.hardware import Inventory

pytestmark = pytest.mark.usefixtures("no_cards")

MATRIX = """
models = "llama"
devices = ["cuda:*"]
dtypes = "bfloat16"

[[cards]]
name = "cuda-edge"
backend = "cuda"
card = "Edge Card"
memory = "6 GiB"
capability = [7, 2]
"""
NAMES = """
import torch

def test_card_names_seen(llm_cell, llm_model):
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    print("seen:", llm_cell.device, names, llm_model.device)
"""
CHOOSER = """
import os

import torch
from pytest_llmdevice import BuiltinTarget

class Chooser(BuiltinTarget):
    def load(self, checkpoint, cell):
        os.environ["CUDA_VISIBLE_DEVICES"] = "1"
        try:
            return super().load(checkpoint, cell)
        finally:
            del os.environ["CUDA_VISIBLE_DEVICES"]

class Wasteful(BuiltinTarget):
    def load(self, checkpoint, cell):
        model = super().load(checkpoint, cell)
        return model, torch.empty(16 * 2**20, dtype=torch.uint8, device=cell.torch_device)
"""


@pytest.fixture
def own(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    project.makefile(".toml", own=MATRIX)
    project.makepyfile(test_card_names_seen=NAMES, chooser=CHOOSER)
    project.syspathinsert()
    return project


def run(project: pytest.Pytester, machine: str, *args: str) -> pytest.RunResult:
    options = ("--llm-matrix", "--llm-matrix-file", "own.toml", "-p", "no:cacheprovider", "-rA")
    return project.runpytest(*options, "--llm-simulate", machine, *args, "test_card_names_seen.py")


def test_a_card_of_the_matrix_file_is_simulated_beside_another(own: pytest.Pytester) -> None:
    result = run(own, "cuda:h100+edge")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines_random(
        [
            "  simulated cuda:h100+edge: cuda:0 as NVIDIA H100 80GB HBM3, 80 GiB, cuda:1 as Edge Card, 6 GiB (bfl*",
            "seen: cuda:0 ['NVIDIA H100 80GB HBM3', 'Edge Card'] cuda:0",
            "seen: cuda:1 ['NVIDIA H100 80GB HBM3', 'Edge Card'] cuda:1",
        ]
    )


def test_a_target_may_choose_its_card_before_it_uses_one(own: pytest.Pytester) -> None:
    result = run(own, "cuda:h100+edge", "--llm-target=chooser:Chooser", "--llm-cell=device=cuda:0")

    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["seen: cuda:0 ['Edge Card'] cuda:0"])


def test_a_card_that_was_hidden_by_the_target_is_none(own: pytest.Pytester) -> None:
    result = run(own, "cuda:h100+edge", "--llm-target=chooser:Chooser", "--llm-cell=device=cuda:1")

    result.assert_outcomes(errors=1, deselected=1)
    result.stdout.fnmatch_lines(["*CUDA error: invalid device ordinal*"])


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("1", ["seen: cuda:0 ['Edge Card'] cuda:0"]),
        ("", ["*cuda:h100+edge: no card is seen (CUDA_VISIBLE_DEVICES='')*", "*absent: no cuda*"]),
    ],
)
def test_a_run_sees_the_cards_that_its_environment_shows(
    value: str,
    lines: list[str],
    own: pytest.Pytester,
    no_cards: Inventory,
    known_probe: Callable[[Inventory], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    known_probe(replace(no_cards, visible={"CUDA_VISIBLE_DEVICES": value}))

    result = run(own, "cuda:h100+edge")

    result.assert_outcomes(passed=int(bool(value)), skipped=int(not value))
    result.stdout.fnmatch_lines_random(lines)


def test_a_load_that_does_not_fit_says_which_modules_fill_the_card(own: pytest.Pytester) -> None:
    machine = "cuda:edge+edge,memory=8MiB"
    result = run(own, machine, "--llm-target=chooser:Wasteful", "--llm-cell=device=cuda:0")

    result.assert_outcomes(errors=1, deselected=1)
    result.stdout.fnmatch_lines(
        [
            "*OutOfMemoryError: CUDA out of memory. Tried to allocate 16.00 MiB. GPU 0 has a total * 8.00 MiB*",
            "*The * KiB that are held, by the module that owns them:",
            "* KiB  model.* (LlamaForCausalLM)",
        ]
    )


def test_a_quantization_that_needs_what_a_card_lacks_is_unsupported_there(own: pytest.Pytester) -> None:
    own.makefile(
        ".toml",
        own=MATRIX.replace("dtypes", 'quantization = "eighth"\ndtypes')
        + """
        [[quantizations]]
        name = "eighth"
        layer_class = "EighthLinear"
        storage_dtype = "float8_e4m3fn"
        packing_error = 0.1
        logits_error = 0.5
        needs = ["float8"]
        """,
    )

    result = run(own, "cuda:h100+edge")

    result.stdout.fnmatch_lines(
        ["*unsupported: eighth needs float8, and of cuda:1 (Edge Card, compute capability 7.2) is known: no products*"]
    )
    assert not any("eighth needs float8, and of cuda:0" in line for line in result.outlines)

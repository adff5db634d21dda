"""Cells that several processes load together: right ones pass, and what is wrong in one rank is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmdevice.results.store import read

if TYPE_CHECKING:
    import pytest

EXAMPLES = Path(__file__).parents[1] / "examples" / "targets"

MODELS = {
    "llama": "right",
    "qwen3": "whole",
    "mistral": "first card",
    "qwen2": "other part",
    "mixtral": "twice",
    "phi3": "ended",
    "gemma3": "stuck",
    "qwen3-moe": "cut by hand",
    "llama~right": "wrong part by hand",
}
"""Model -> what its loader does."""

HOW = tuple(MODELS.values())
STUCK_IN = "test_loads[gemma3.cuda0.fp32.none.tensor-parallel.sim]"

MATRIX = f"""
models = {list(MODELS)}
devices = "cuda:0"
dtypes = "float32"
strategies = "tensor-parallel"
"""

TARGET = """
import os
import time

import torch
from torch.distributed.tensor import DTensor

from pytest_llmdevice import BuiltinTarget
from pytest_llmdevice.loading.pretrained import from_pretrained
from pytest_llmdevice.plugin import ranked_cells

ranked_cells.APART_SECONDS = 30.0
MODELS = {models}


class Target(BuiltinTarget):
    def load(self, checkpoint, cell):
        rank = int(os.environ["RANK"])
        assert cell.device == f"cuda:{{rank}}", cell.device
        how = MODELS[cell.model]
        if how == "whole":
            return from_pretrained(checkpoint, cell).to(cell.torch_device)
        if how == "ended" and rank == 1:
            os._exit(9)
        model = super().load(checkpoint, cell)
        if how == "stuck" and rank == 1:
            time.sleep(600)
        if how == "first card":
            for module in model.modules():
                for name, buffer in list(module.named_buffers(recurse=False)):
                    setattr(module, name, buffer.to("cuda:0"))
        weight = model.model.layers[0].self_attn.q_proj.weight
        if how == "other part" and rank == 1:
            weight.to_local().data.neg_()
        if how == "twice":
            norm = model.model.norm.weight
            with torch.no_grad():
                norm.mul_(1 + rank)
        if how.endswith("by hand"):
            for module in model.modules():
                for name, parameter in list(module.named_parameters(recurse=False)):
                    if isinstance(parameter, DTensor):
                        local = parameter.to_local().detach()
                        if how.startswith("wrong") and name == "weight" and local.shape[0] < parameter.shape[0]:
                            local = parameter.full_tensor().detach().chunk(2)[1 - rank].clone()
                        module.register_parameter(name, torch.nn.Parameter(local, requires_grad=False))
        return model
"""


def test_what_is_wrong_in_one_rank_is_found_and_named(
    project: pytest.Pytester, run_process: Callable[..., pytest.RunResult]
) -> None:
    project.makepyfile(together=TARGET.format(models=MODELS))
    project.makefile(".toml", ranked=MATRIX)
    result = run_process(
        "--llm-matrix", "--llm-matrix-file=ranked.toml", "--llm-target=together:Target", "--llm-results=res",
        "--llm-simulate=cuda:2", "--pyargs", "pytest_llmdevice.suite",
        "-k", "test_loads or test_placement or test_values or test_agreement",
    )  # fmt: skip
    (path,) = (project.path / "res").glob("*.jsonl")
    (file,) = read(path)
    # What the loader does, and the check.
    outcomes = {(MODELS[check.cell.partition(".")[0]], check.check): check for check in file.checks}
    printed = result.stdout.str()
    found = {how: {check: record.outcome for (one, check), record in outcomes.items() if one == how} for how in HOW}
    passed = dict.fromkeys(("loads", "placement", "values", "agreement"), "passed")
    assert found["right"] == passed
    assert outcomes["right", "placement"].evidence["ranks"] == 2
    assert found["whole"] == passed | {"placement": "failed"}
    (finding,) = outcomes["whole", "placement"].findings
    assert (finding.actual, finding.hint) == ("0% of them cut", "weights-not-cut")
    # One rank's own fault is told as its own.
    assert found["first card"]["placement"] == "failed"
    assert {finding.where.partition(",")[0] for finding in outcomes["first card", "placement"].findings} == {
        "rank 1 of 2"
    }
    assert outcomes["first card", "placement"].message.startswith("on rank 1 of 2 alone: ")
    assert found["other part"]["values"] == "failed"
    # A collected tensor is the same in each rank, and so is what is wrong with it.
    assert [finding.where for finding in outcomes["other part", "values"].findings] == [
        "model.layers.0.self_attn.q_proj.weight"
    ]
    assert [finding.where for finding in outcomes["twice", "values"].findings] == ["rank 1 of 2, model.norm.weight"]
    assert found["cut by hand"]["placement"] == found["cut by hand"]["values"] == "passed"
    assert found["wrong part by hand"]["values"] == "failed"
    assert "(part 1)" in outcomes["wrong part by hand", "values"].findings[0].actual

    # Those that end or do not come along end the others.
    for how in ("ended", "stuck"):
        assert [outcomes[how, check].outcome for check in ("loads", "values")] == ["aborted", "aborted"]
    assert "rank 1 of 2 ended with exit code 9" in outcomes["ended", "loads"].message
    assert "rank 0 of 2 was killed: it cannot go on alone" in printed
    assert "rank 1 of 2 was killed: it did not come to the end of the test" in printed
    assert "rank 1 of 2 did not come to the end of it" in outcomes["stuck", "loads"].message
    assert outcomes["stuck", "values"].message.endswith(f"its ranks were ended in {STUCK_IN}")


def test_loaders_of_ones_own_for_several_processes_pass(
    project: pytest.Pytester, run_process: Callable[..., pytest.RunResult]
) -> None:
    shutil.copy(EXAMPLES / "several_processes.py", project.path)
    matrix = 'models = "llama"\ndevices = "cuda:0"\ndtypes = "bfloat16"\n'
    project.makefile(".toml", three=f'{matrix}strategies = ["tensor-parallel", "fsdp", "data-parallel"]\n')
    result = run_process(
        "--llm-matrix", "--llm-matrix-file=three.toml", "--llm-target=several_processes", "--llm-simulate=cuda:2",
        "--pyargs", "pytest_llmdevice.suite",
    )  # fmt: skip
    result.stdout.fnmatch_lines(["3 cells: simulated: 3 passed"])
    # What cannot be saved is said, and is no pass.
    result.stdout.fnmatch_lines(["*1 cell: save: its weights were not cut by transformers*"])

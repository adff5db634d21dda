"""Results to make pages of: a release as it might be, on a laptop and two servers, held against an older one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from results.builder import CUDA, LAPTOP, ResultsBuilder, check

from pytest_llmdevice.matrix import expand, vocabulary
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.results.merged_results import MergedResults, merge_runs
from pytest_llmdevice.results.records import Check, Memory, RecordedFinding
from pytest_llmdevice.results.run_header import Commit, Machine, MachineDevice
from pytest_llmdevice.results.transitions import NAMES, Comparison, Transition
from pytest_llmdevice.results.vocabulary import CheckOutcome

ROCM = Machine(
    system="Linux",
    architecture="x86_64",
    cpu="Another server CPU",
    cores=96,
    memory=2**39,
    devices=(MachineDevice(spec="rocm:0", name="AMD Instinct MI300X", memory=192 * 2**30, capability="gfx942"),),
)

WRONG: dict[str, tuple[str, RecordedFinding]] = {
    "dtypes": (
        "dtype",
        RecordedFinding(
            where="model.layers.0.self_attn.q_proj.weight",
            expected="bfloat16",
            actual="float32",
            hint="dtype-dropped",
            advice="The dtype that was asked for did not reach from_pretrained: it is read from `dtype`, and "
            "`torch_dtype` was passed inside a dict that is not unpacked.",
            source="https://github.com/huggingface/transformers/issues/24774",
        ),
    ),
    "placement": (
        "placement",
        RecordedFinding(
            where="model.rotary_emb.inv_freq",
            expected="cuda:0",
            actual="cpu",
            hint="buffer-left-behind",
            advice="A buffer that is not persistent is made on the CPU after the weights were placed.",
            source="https://github.com/huggingface/accelerate/issues/1450",
        ),
    ),
    "agreement": (
        "numeric",
        RecordedFinding(where="layers.3.mlp, token 7", expected="|difference| <= 0.02", actual="0.31"),
    ),
}


def machines(cell: Cell) -> str:
    """Which of the machines a cell runs on."""
    return {"cpu": "laptop", "cuda": "server" if cell.index == 0 else "", "rocm": "rocm", "mps": "simulated"}.get(
        cell.kind, ""
    )


def realistic(folder: Path) -> tuple[MergedResults, Comparison]:
    """The default matrix on a laptop, an H100 and an MI300X, with `mps` simulated, and what changed."""
    chance = random.Random(5)
    specs = [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda", "cuda:1"), ("rocm", "cuda:0"), ("mps", "mps")]
    matrix = expand.load("default", Path())
    cells = expand.cells(matrix, lambda _specs: specs)
    files = []
    for number, (name, machine) in enumerate((("laptop", LAPTOP), ("server", CUDA), ("rocm", ROCM))):
        here = [cell for cell in cells if machines(cell) == name]
        if name == "laptop":
            here += [
                Cell(
                    cell.model,
                    cell.device,
                    cell.dtype,
                    cell.quantization,
                    cell.strategy,
                    kind=cell.kind,
                    simulated=True,
                )
                for cell in cells
                if machines(cell) == "simulated"
            ]
        skipped = {
            cell: (
                ("unusable", f"{cell.spec} is there, but the probe failed: out of memory")
                if cell.spec == "cuda:1" and name == "server"
                else ("absent", f"no {cell.spec} on this machine")
            )
            for cell in cells
            if machines(cell) != name and not (name == "laptop" and machines(cell) == "simulated")
        }
        builder = ResultsBuilder(
            {cell: _outcomes(cell, chance) for cell in here},
            skipped,
            changes={cell: _measured(cell, chance) for cell in here},
            name=f"20261125T10{number}000Z-{name}",
            started=f"2026-11-25T10:{number}0:00+00:00",
            machine=machine,
            simulated=("mps",) if name == "laptop" else (),
            commit=Commit(id="4f2c9a17d0e8b35566f1"),
            killed=name == "rocm",
            unfinished=[] if name != "rocm" else [cell for cell in cells if cell.kind == "xpu"],
        )
        files.append(builder.file(folder))
    merged = merge_runs(files)
    return merged, compared(merged)


def _outcomes(cell: Cell, chance: random.Random) -> dict[str, CheckOutcome | Check]:
    found: dict[str, CheckOutcome | Check] = {
        name: check(cell, name, seconds=chance.uniform(0.001, 0.3), evidence={"tensors": 23, "layers": 4})
        for name in vocabulary.checks()
    }
    draw = chance.random()
    if draw < 0.05 and cell.dtype == "bfloat16":
        found["dtypes"] = failed(cell, "dtypes")
    elif draw < 0.1 and cell.strategy in {"balanced", "auto", "split"}:
        found["placement"] = failed(cell, "placement")
    elif draw < 0.12:
        found["agreement"] = failed(cell, "agreement")
    elif draw < 0.14:
        found = {
            "loads": check(
                cell, "loads", "error", failure="out-of-memory", findings=(), message="CUDA out of memory: 20.00 MiB"
            )
        }
    elif draw < 0.15:
        found["prefix"] = check(cell, "prefix", "hollow", evidence={}, message="nothing was looked at")
    elif cell.model == "mixtral" and cell.quantization != "none":
        found["quantization"] = check(cell, "quantization", "xfail", message="the experts stay dense")
    elif draw < 0.16:
        found["cache"] = check(cell, "cache", "xpass", message="it was expected to fail")
    return found


def failed(cell: Cell, name: str) -> Check:
    """A check of `cell` that failed as `WRONG` says."""
    failure, finding = WRONG[name]
    return check(
        cell,
        name,
        "failed",
        failure=failure,
        findings=(finding,),
        message=f"{finding.where}: expected {finding.expected}, got {finding.actual}",
    )


def _measured(cell: Cell, chance: random.Random) -> dict[str, Any]:
    base = 0.15 + 0.01 * (len(cell.model) + 3 * len(cell.strategy)) + (0.4 if cell.quantization != "none" else 0)
    load = chance.lognormvariate(0, 0.3) * base
    size = int(2**20 * (4 + len(cell.model)) * (0.4 if cell.quantization != "none" else 1) * chance.uniform(0.9, 1.3))
    host = Memory(place="host", before=2**29, after=2**29 + size, peak=2**29 + int(size * 1.8))
    card = Memory(place=cell.device, before=2**20, after=2**20 + size, peak=2**20 + int(size * 1.2))
    memory = (host, card) if cell.kind in {"cuda", "rocm"} else (host,)
    return {
        "load_seconds": load,
        "first_token_seconds": chance.lognormvariate(-4, 0.4),
        "tokens_per_second": chance.lognormvariate(6, 0.35),
        "load_memory": memory,
        "generate_memory": memory,
        "devices": f"{cell.device}: 21 {cell.dtype} tensors, 215.5 KiB",
    }


def compared(merged: MergedResults) -> Comparison:
    """Some of each transition."""
    chance = random.Random(7)
    views = list(merged.cells.values())
    wrong = [view for view in views if view.outcome in {"failed", "error"}]
    found = [
        Transition("regression", view.id, "dtypes", view.target, "passed", "failed", "lm_head.weight is float32")
        for view in wrong[:6]
    ]
    for name in NAMES[3:]:
        view = chance.choice([each for each in views if each.outcome == "passed"])
        before, after = {"slower": ("0.21 s", "0.34 s"), "larger": ("12.1 MiB", "15.9 MiB")}.get(
            name, ("passed", "passed" if name == "other-tokens" else name)
        )
        found.append(
            Transition(name, view.id, "" if name in {"slower", "larger"} else "tied", view.target, before, after)
        )
    found.append(Transition("unused", "opt.cpu.fp32.none.gone", "", "builtin", "passed", "no such cell"))
    return Comparison(
        "baselines/release.json",
        tuple(sorted(found, key=lambda each: NAMES.index(each.name))),
        3120,
        ("Timings of 12 cells could not be compared: the baseline has one sample of each.",),
    )

"""Runs made up for tests: small ones to read, compare and show, and large ones to measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pytest_llmdevice.matrix import vocabulary
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import DTYPES
from pytest_llmdevice.results.records import Begun, CellDone, Check, End, Memory, Planned, RecordedFinding
from pytest_llmdevice.results.redaction import Redactor
from pytest_llmdevice.results.run_header import BUILTIN, Commit, Machine, MachineDevice, MatrixInfo, Record, Run
from pytest_llmdevice.results.store import RunFile, Writer, read_file
from pytest_llmdevice.results.vocabulary import WORST_FIRST, CheckOutcome, Outcome

PLAIN = Redactor((), (), frozenset())
"""Hides nothing."""

VERSIONS = {
    "python": "3.11.7",
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "accelerate": "1.15.0",
    "bitsandbytes": "0.50.2",
}

LAPTOP = Machine(system="Linux", architecture="x86_64", cpu="Some CPU", cores=8, memory=2**34)
CUDA = Machine(
    system="Linux",
    architecture="x86_64",
    cpu="Server CPU",
    cores=64,
    memory=2**38,
    devices=(MachineDevice(spec="cuda:0", name="NVIDIA H100", memory=80 * 2**30, capability="9.0"),),
)

COMMIT = Commit(id="0123456789abcdef")

CPU_FP32 = Cell("llama", "cpu", "float32")
CPU_BF16 = Cell("llama", "cpu", "bfloat16")
CARD = Cell("llama", "cuda:0", "bfloat16")
SIMULATED = Cell("llama", "cuda:0", "bfloat16", simulated=True)

DTYPE_FINDING = RecordedFinding(
    where="lm_head.weight",
    expected="bfloat16",
    actual="float32",
    hint="dtype-dropped",
    advice="the dtype was dropped on the way",
    source="https://github.com/huggingface/transformers/issues/24774",
)


def check(cell: Cell, name: str, outcome: CheckOutcome = "passed", **changes: Any) -> Check:
    """A check of `cell`; a failure is one of dtypes unless `changes` say otherwise."""
    values: dict[str, Any] = {"seconds": 0.1, "evidence": {"tensors": 23}}
    if outcome in {"failed", "error", "aborted"}:
        values |= {"failure": "dtype", "findings": (DTYPE_FINDING,), "message": "lm_head.weight: expected bfloat16"}
    if outcome == "skipped":
        values |= {"cause": "by the test", "message": "not for this one"}
    return Check(
        cell=cell.id,
        simulated=cell.simulated,
        check=name,
        outcome=outcome,
        **(values | changes),
    )


def done(cell: Cell, outcome: Outcome = "passed", **changes: Any) -> CellDone:
    """The record of a finished cell."""
    values: dict[str, Any] = {
        "seconds": 1.5,
        "load_seconds": 0.2,
        "first_token_seconds": 0.02,
        "tokens_per_second": 400.0,
        "load_memory": (Memory(place="host", before=2**29, after=2**29 + 2**20, peak=2**29 + 2**21),),
        "loaded": True,
        "devices": "cpu: 21 bfloat16 tensors, 215.5 KiB",
        "tokens": ((1, 2, 3), (4, 5, 6)),
        "checks": {outcome: 1},
    }
    if outcome in {"failed", "error", "aborted"}:
        values["failure"] = "dtype"
    return CellDone(
        cell=cell.id,
        simulated=cell.simulated,
        outcome=outcome,
        **(values | changes),
    )


@dataclass
class ResultsBuilder:
    """A run to be written into a folder.

    Attributes:
        outcomes: by cell, the outcome of each check; a check may be given as a finished record instead.
        skipped: by cell, why it did not run, as (cause, reason).
        changes: what the record of a whole cell has instead of the usual values, by cell.
        begun: by cell that the run was killed in, the checks that it had come to.
        killed: whether the run never came to its end.
    """

    outcomes: Mapping[Cell, Mapping[str, CheckOutcome | Check]]
    skipped: Mapping[Cell, tuple[str, str]] = field(default_factory=dict)
    changes: Mapping[Cell, Mapping[str, Any]] = field(default_factory=dict)
    unfinished: Sequence[Cell] = ()
    begun: Mapping[Cell, Sequence[Check]] = field(default_factory=dict)
    name: str = "20261125T100000Z-aaaaaa"
    started: str = "2026-11-25T10:00:00+00:00"
    target: str = BUILTIN
    machine: Machine = LAPTOP
    versions: Mapping[str, str] = field(default_factory=lambda: dict(VERSIONS))
    simulated: Sequence[str] = ()
    commit: Commit | None = COMMIT
    matrix: str = "default"
    shard: str = ""
    after: str = ""
    required: Sequence[str] = ()
    exempt: Mapping[Cell, Sequence[str]] = field(default_factory=dict)
    digest: str = "d1"
    killed: bool = False

    def records(self) -> list[Record]:
        """The records, in the order of a file."""
        run = Run(
            run=self.name,
            started=self.started,
            plugin="0.1.0",
            command=("pytest", "--llm-matrix"),
            versions=dict(self.versions),
            machine=self.machine,
            simulated=tuple(self.simulated),
            matrix=MatrixInfo(
                name=self.matrix,
                digest=self.digest,
                cells=len({*self.outcomes, *self.unfinished, *self.skipped}),
            ),
            target=self.target,
            commit=self.commit,
            shard=self.shard,
            after=self.after,
            required=tuple(self.required),
        )
        found: list[Record] = [run]
        found += [
            Planned.of(cell, "run simulated" if cell.simulated else "run", None, "", tuple(self.exempt.get(cell, ())))
            for cell in (*self.outcomes, *self.unfinished)
        ]
        found += [Planned.of(cell, "skip", cause, reason) for cell, (cause, reason) in self.skipped.items()]
        for cell, made in self.begun.items():
            found += [Begun(cell=cell.id), *made]
        for cell, checks in self.outcomes.items():
            made = [
                one if isinstance(one, Check) else check(cell, name, one, target=self.target)
                for name, one in checks.items()
            ]
            found += made
            worst = next((each for each in WORST_FIRST if each in {one.outcome for one in made}), "skipped")
            counts = {each: sum(one.outcome == each for one in made) for each in {one.outcome for one in made}}
            cause = {"cause": "by the test"} if worst == "skipped" else {}
            changes = dict(self.changes.get(cell, {}))
            outcome = changes.pop("outcome", worst)
            found.append(done(cell, outcome, **({"target": self.target, "checks": counts} | cause | changes)))
        if not self.killed:
            found.append(End(finished=self.started, exit_status=0))
        return found

    def write(self, folder: Path) -> Path:
        """Write the file into `folder`; return its path."""
        first, *rest = self.records()
        assert isinstance(first, Run)
        with Writer(folder, first, PLAIN) as writer:
            writer.write(*rest)
            return writer.path

    def file(self, folder: Path) -> RunFile:
        """Write the file and read it back."""
        return read_file(self.write(folder))


def many_cells(count: int) -> list[Cell]:
    """`count` different cells."""
    devices = ("cpu", *(f"cuda:{index}" for index in range(8)))
    strategies = ("to", "device-map", "auto", "balanced", "sequential", "disk-offload", "shared-memory")
    found = [
        Cell(model, device, dtype, quantization, strategy)
        for model, device, dtype, quantization, strategy in product(
            vocabulary.models(), devices, DTYPES, vocabulary.quantizations(), strategies
        )
    ]
    assert len(found) >= count
    return found[:count]


def large(
    cells: int, outcome: Callable[[Cell, str], CheckOutcome] = lambda _cell, _check: "passed", **values: Any
) -> ResultsBuilder:
    """A run of so many cells with every check of the suite: 20 records and one for each cell."""
    return ResultsBuilder(
        {cell: {name: outcome(cell, name) for name in vocabulary.checks()} for cell in many_cells(cells)}, **values
    )

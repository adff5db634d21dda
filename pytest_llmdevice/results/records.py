"""Defines the records that a run writes to its file of results, one JSON object a line, and their JSON Schema.

A file has, in this order: one `Run` (what ran, where, with which versions), one `Planned` for each cell of the matrix,
a `Begun` for each cell that a test was begun of, a `Check` and a `CellDone` for whatever finished, as it finished, and
an `End`, which a run that was killed does not reach. The types are told apart by their key `type`. `SCHEMA` counts up
whenever a reader of an older version would misunderstand a newer file; docs/results.md and docs/results.schema.json
describe it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator, model_validator

from pytest_llmdevice.errors import FailureClass
from pytest_llmdevice.matrix.cell import FIELDS, Cell
from pytest_llmdevice.results.vocabulary import CheckOutcome, Outcome, SkipCause
from pytest_llmdevice.text import encodable

SCHEMA: Final = 2
"""1 had no `after`, `required`, `exempt`, `begun`, `loaded` and `reruns`, and no outcome `partial`."""

SUFFIX: Final = ".jsonl"
"""Of a file of results, which has the name of its run."""

BUILTIN: Final = "builtin"
"""The name of the built-in target."""


class Record(BaseModel):
    """Base of all records: frozen, and a key that is not listed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_LARGEST: Final = 2**63 - 1

Whole: TypeAlias = Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]
"""A whole number as every reader of JSON takes it."""

Count: TypeAlias = Annotated[int, Field(ge=0, le=_LARGEST)]
"""How many there are of something; bytes."""

Seconds: TypeAlias = Annotated[float, Field(ge=0, le=1e12)]
"""A time or a speed that something can have."""


class MachineDevice(Record):
    """A device of the machine: `spec` as a matrix spells it (`rocm:0`), the vendor's name, total bytes of memory, and
    the compute capability or architecture.
    """

    spec: str
    name: str = ""
    memory: Count = 0
    capability: str = ""


class Machine(Record):
    """The machine: operating system, architecture, processor, cores, bytes of RAM, and the real devices it has."""

    system: str = ""
    architecture: str = ""
    cpu: str = ""
    cores: Count = 0
    memory: Count = 0
    devices: tuple[MachineDevice, ...] = ()


class MatrixInfo(Record):
    """The matrix: its name as it was asked for, a digest of its cells, and how many it has on this machine."""

    name: str
    digest: str = ""
    cells: Count = 0


class Commit(Record):
    """The commit of the code under test, and whether the tree had changes that are not committed."""

    id: str
    dirty: bool = False


RunId: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", max_length=100)]
"""What names a run, and its file."""


class Run(Record):
    """The first record of a file: what ran.

    Attributes:
        run: an identifier, unique among all runs, that sorts by start; it names the file.
        started: ISO 8601, UTC.
        after: the latest run that was in the folder when this one began, whatever the clock said; empty for none.
        plugin: the version of pytest-llmdevice.
        command: the command line, with the home folder as `~` and nothing secret.
        versions: of Python and of the libraries that matter.
        machine: where it ran.
        simulated: the machines that were simulated, as `--llm-simulate` spells them.
        matrix: what ran.
        target: the code under test, `module:attribute`, or `"builtin"`.
        commit: of the project whose tests ran; None where there is no repository.
        shard: `"2/5"` where only a part of the cells was asked for; empty otherwise.
        required: the checks that must have run on a cell before it counts as passed, as patterns of their names.
        ci: whether the variable `CI` was set.
    """

    type: Literal["run"] = "run"
    schema_version: Annotated[int, Field(alias="schema")] = SCHEMA
    run: RunId
    started: str
    after: RunId | Literal[""] = ""
    plugin: str = ""
    command: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    machine: Machine = Machine()
    simulated: tuple[str, ...] = ()
    matrix: MatrixInfo
    target: str = BUILTIN
    commit: Commit | None = None
    shard: Annotated[str, Field(pattern=r"^([0-9]{1,6}/[0-9]{1,6})?$")] = ""
    required: tuple[str, ...] = ()
    ci: bool = False

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    @field_validator("started")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is no time such as 2026-11-25T10:00:00+00:00") from None
        if moment.utcoffset() != timedelta(0):
            raise ValueError(f"{text!r} is not in UTC: write it as 2026-11-25T10:00:00+00:00")
        return text

    @property
    def when(self) -> datetime:
        """`started` as a time."""
        return datetime.fromisoformat(self.started).astimezone(UTC)


class Planned(Record):
    """A cell of the matrix, and what becomes of it on this machine.

    Attributes:
        cell: its id.
        model, device, dtype, quantization, strategy, attention, kind, simulated: its axes, see `Cell`.
        verdict: whether it runs.
        cause: why not; None where it runs.
        reason: the same in a sentence.
        exempt: those of the run's `required` that do not apply to this cell.
    """

    type: Literal["planned"] = "planned"
    cell: str
    model: str
    device: str
    dtype: str
    quantization: str = "none"
    strategy: str = "to"
    attention: str = "default"
    kind: str = ""
    simulated: bool = False
    verdict: Literal["run", "run simulated", "skip"]
    cause: SkipCause | None = None
    reason: str = ""
    exempt: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.axes.id != self.cell:
            raise ValueError(f"the axes are those of {self.axes.id}, not of {self.cell}")
        if (self.cause is not None) != (self.verdict == "skip"):
            raise ValueError(f"the verdict {self.verdict!r} does not go with the cause {self.cause!r}")
        return self

    @property
    def axes(self) -> Cell:
        """The cell itself."""
        return Cell(**{name: getattr(self, name) for name in FIELDS})

    @classmethod
    def of(
        cls,
        cell: Cell,
        verdict: Literal["run", "run simulated", "skip"],
        cause: Any,
        reason: str,
        exempt: tuple[str, ...] = (),
    ) -> Planned:
        """The record of `cell`."""
        said = {"verdict": verdict, "cause": cause, "reason": encodable(reason), "exempt": exempt}
        return cls.model_validate({"cell": cell.id, **cell.values(), **said})


class Begun(Record):
    """A cell that is being run: of a run that was killed, this says where.

    Attributes:
        cell: its id.
        check: the first of its tests.
    """

    type: Literal["begun"] = "begun"
    cell: str
    check: str = ""


class RecordedFinding(Record):
    """One thing that is wrong, as the check that found it describes it.

    Attributes:
        where, expected, actual: the tensor, module or step, what it should be, and is; of an exception its text.
        hint, advice, source: the known cause, what to do, and an address to read on; empty where no cause is known.
        kind: `"exception"` where something was raised, `"no model"` where a load gave none; empty where a value is
            wrong, and in files from before this key.
    """

    where: str
    expected: str
    actual: str
    hint: str = ""
    advice: str = ""
    source: str = ""
    kind: str = ""


class Outcomes(Record):
    """What `Check` and `CellDone` have in common.

    Attributes:
        cell: the id of the cell.
        target: the code under test.
        simulated: whether the cell ran on a simulated device.
        outcome: what became of it.
        failure: what kind of thing went wrong; None where nothing did, or nothing is known of what was aborted.
        cause: why it did not run; None where it did.
        seconds: how long it took.
    """

    cell: str
    target: str = BUILTIN
    simulated: bool = False
    outcome: Outcome
    failure: FailureClass | None = None
    cause: SkipCause | None = None
    seconds: Seconds = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.simulated != self.cell.endswith(".sim"):
            raise ValueError(f"{self.cell} is {'not ' if self.simulated else ''}simulated by its id")
        # What was aborted may have done no wrong.
        if self.outcome != "aborted" and (self.failure is not None) != (self.outcome in _FAILURES):
            raise ValueError(f"the outcome {self.outcome!r} does not go with the failure {self.failure!r}")
        if (self.cause is not None) != (self.outcome == "skipped"):
            raise ValueError(f"the outcome {self.outcome!r} does not go with the cause {self.cause!r}")
        return self


_FAILURES: Final = frozenset({"failed", "error"})


class Check(Outcomes):
    """One check of one cell, finished.

    Attributes:
        check: its name: of the suite, or `module::test` of a test of one's own, with parameters other than the cell.
        message: the first line of what a failure says, or the reason of a skip or an expected failure.
        findings: everything that is wrong.
        evidence: what was looked at.
        reruns: how often it was run again, by a plugin that repeats what fails, before it had this outcome.
        undeclared: of an `xfail`, whether it is a check of the suite that something else than the matrix expects to
            fail: a marker that a conftest added.
    """

    type: Literal["check"] = "check"
    outcome: CheckOutcome
    check: str
    message: str = ""
    findings: tuple[RecordedFinding, ...] = ()
    evidence: dict[str, Whole | float | str] = {}
    reruns: Count = 0
    undeclared: bool = False


class Memory(Record):
    """Bytes held by one place (`"host"`, `"cuda:0"`) before, after, and at most."""

    place: str
    before: Count
    after: Count
    peak: Count


class CellDone(Outcomes):
    """A cell all of whose tests are over.

    Attributes:
        checks: how many checks had each outcome.
        loaded: whether there was a model.
        load_seconds: what the load took; None where nothing was loaded.
        first_token_seconds: from the call of `generate` to the end of the first forward pass.
        tokens_per_second: new tokens by the time that the generation of the batch took.
        load_memory, generate_memory: of the host and of every card.
        devices: which tensors are where, in words.
        tokens: the new token ids of each prompt, greedy; empty where nothing was generated.
    """

    type: Literal["cell"] = "cell"
    checks: dict[Outcome, Count] = {}
    loaded: bool = False
    load_seconds: Seconds | None = None
    first_token_seconds: Seconds | None = None
    tokens_per_second: Seconds | None = None
    load_memory: tuple[Memory, ...] = ()
    generate_memory: tuple[Memory, ...] = ()
    devices: str = ""
    tokens: tuple[tuple[Whole, ...], ...] = ()


class End(Record):
    """The last record: the run came to its end.

    Attributes:
        finished: ISO 8601, UTC.
        exit_status: pytest's.
    """

    type: Literal["end"] = "end"
    finished: str
    exit_status: Whole = 0


Line: TypeAlias = Annotated[Run | Planned | Begun | Check | CellDone | End, Field(discriminator="type")]
"""Any record."""


@cache
def adapter() -> TypeAdapter[Run | Planned | Begun | Check | CellDone | End]:
    """Reads a line into its record; raises pydantic's `ValidationError`."""
    return TypeAdapter(Line)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of one line."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **adapter().json_schema(by_alias=True)}

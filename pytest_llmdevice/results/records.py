"""Defines the records that a run writes to its file of results, one JSON object a line, and their JSON Schema.

A file has, in this order: one `Run` (what ran, where, with which versions), one `Planned` for each cell of the matrix,
a `Begun` for each cell that a test was begun of, a `Check` and a `CellDone` for whatever finished, as it finished, and
an `End`, which a run that was killed does not reach. The types are told apart by their key `type`. `SCHEMA` counts up
whenever a reader of an older version would misunderstand a newer file; docs/results.md and docs/results.schema.json
describe it.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import Field, TypeAdapter, model_validator

from pytest_llmdevice.errors import FailureClass
from pytest_llmdevice.matrix.cell import FIELDS, Cell
from pytest_llmdevice.results.run_header import BUILTIN, Count, Record, Run, Seconds, Whole
from pytest_llmdevice.results.vocabulary import CheckOutcome, Outcome, SkipCause
from pytest_llmdevice.text import encodable


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
        kind: `"exception"` where something was raised, `"no model"` where a load gave none, `"answer"` where the
            target's own generation says something else than its model, `"form"` where it returns no lists of token ids;
            empty where another value is wrong, and in files from before this key.
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

    @property
    def answered(self) -> bool:
        """Whether it was made, or cannot be made of this model at all."""
        return self.outcome != "skipped" or self.cause == "does not apply"


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
    evidence: dict[str, Whole | float | str] = Field(default_factory=dict)
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
    checks: dict[Outcome, Count] = Field(default_factory=dict)
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

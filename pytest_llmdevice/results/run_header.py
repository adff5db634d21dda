"""Defines the first record of a run, and what all records are made of: checked numbers, and no unlisted keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator

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

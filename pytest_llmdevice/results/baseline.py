"""Reads and writes a baseline: what results have to be like, as a text file for git that diffs line by line.

The first line is the head. A line for each environment follows, then for each cell one line with its measures and one
for each of its checks. Entries point to their environment by number: a new version of a library changes the line of
that environment and no other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pytest_llmdevice.errors import FailureClass, ResultsError
from pytest_llmdevice.results.environments import LIBRARIES, Environment
from pytest_llmdevice.results.files import replace_file
from pytest_llmdevice.results.lines import lines_of, parsed
from pytest_llmdevice.results.run_header import BUILTIN, Commit, Count, MatrixInfo, Record, Seconds, Whole
from pytest_llmdevice.results.store import explained

BASELINE_SCHEMA: Final = 1
"""Counts up whenever a reader of an older version would misunderstand a newer file."""

CellId: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_~+-]+(\.[A-Za-z0-9_-]+){4,6}$")]

KeptOutcome: TypeAlias = Literal["passed", "failed", "error", "hollow", "xfail", "xpass", "aborted", "upstream"]
"""What a check of a baseline can be: one that was skipped says nothing, and is no entry."""


class Head(Record):
    """The first line.

    Attributes:
        matrices: what the results were of.
        written: the day, ISO 8601.
        commit: of the latest run; None where there is no repository.
        environments, cells, checks: how many lines of each type follow: a file that was cut off is known by them.
    """

    type: Literal["baseline"] = "baseline"
    schema_version: Annotated[int, Field(alias="schema")] = BASELINE_SCHEMA
    matrices: tuple[MatrixInfo, ...]
    written: str = ""
    commit: Commit | None = None
    environments: Count
    cells: Count
    checks: Count


class EnvironmentLine(Record):
    """An environment, and the number that entries know it by."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)

    type: Literal["environment"] = "environment"
    environment: Count
    hardware: str
    # The key in the file is older than the word "simulated", and baselines are kept for years.
    simulated_on: Annotated[str, Field(alias="pretended")] = ""
    versions: dict[str, str]

    @property
    def value(self) -> Environment:
        """The environment itself."""
        ordered = tuple((name, self.versions[name]) for name in LIBRARIES if name in self.versions)
        return Environment(self.hardware, self.simulated_on, ordered)

    @classmethod
    def of(cls, number: int, environment: Environment) -> Self:
        """The line of `environment`."""
        return cls(
            environment=number,
            hardware=environment.hardware,
            simulated_on=environment.simulated_on,
            versions=dict(environment.versions),
        )


class CellLine(Record):
    """What was measured of a cell: a value for each of the repeated runs, the oldest first.

    Attributes:
        cell, target: which.
        environment: number of where it ran.
        tokens: the new token ids of each prompt.
        load_seconds, first_token_seconds, tokens_per_second, seconds: see `CellDone`.
        memory: by place, the most bytes that the load added to what was held before.
    """

    type: Literal["cell"] = "cell"
    cell: CellId
    target: str = BUILTIN
    environment: Count
    tokens: tuple[tuple[Whole, ...], ...] = ()
    load_seconds: tuple[Seconds, ...] = ()
    first_token_seconds: tuple[Seconds, ...] = ()
    tokens_per_second: tuple[Seconds, ...] = ()
    seconds: tuple[Seconds, ...] = ()
    memory: dict[str, tuple[Count, ...]]


class CheckLine(Record):
    """An entry: a check of a cell, and the outcome that it is to have."""

    type: Literal["check"] = "check"
    cell: CellId
    target: str = BUILTIN
    check: Annotated[str, Field(min_length=1)]
    outcome: KeptOutcome
    failure: FailureClass | None = None
    environment: Count

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.outcome != "aborted" and (self.failure is not None) != (self.outcome in {"failed", "error"}):
            raise ValueError(f"the outcome {self.outcome!r} does not go with the failure {self.failure!r}")
        return self


BaselineLine: TypeAlias = Annotated[Head | EnvironmentLine | CellLine | CheckLine, Field(discriminator="type")]
"""Any line."""

CellKey: TypeAlias = tuple[str, str]
"""(target, id of the cell with the `.sim` of a simulated one)."""

CheckKey: TypeAlias = tuple[str, str, str]
"""(target, cell, check)."""


@dataclass(frozen=True)
class Baseline:
    """What a file of a baseline holds.

    Attributes:
        path: the file.
        head: its first line.
        environments: by number.
        cells: the measures of each cell.
        checks: the entries.
        notes: of one that was just written: what was kept from the old one, and what was dropped.
    """

    path: Path
    head: Head
    environments: dict[int, Environment]
    cells: dict[CellKey, CellLine]
    checks: dict[CheckKey, CheckLine]
    notes: tuple[str, ...] = ()


@cache
def _adapter() -> TypeAdapter[Head | EnvironmentLine | CellLine | CheckLine]:
    return TypeAdapter(BaselineLine)


_RESTORE: Final = "restore it from git, or delete it and write a new one"


def read_baseline(path: Path) -> Baseline:
    """The baseline in `path`.

    Raises:
        ResultsError: it is missing, was cut off, is from a newer schema or contradicts itself: file, line, what to do.
    """
    try:
        first, *lines = lines_of(path, "the baseline")
    except FileNotFoundError:
        raise ResultsError(
            f"{path}: there is no baseline yet; write one with --llm-baseline-update or llmdevice gate --update"
        ) from None
    head = _head(path, first)
    if lines[-1:] != [b""]:
        raise ResultsError(f"{path}:{len(lines) + 1}: the file was cut off in the middle of this line: {_RESTORE}")
    baseline = Baseline(path, head, {}, {}, {})
    for number, line in enumerate(lines[:-1], start=2):
        wrong = _take(baseline, _line(path, number, line))
        if wrong:
            raise ResultsError(f"{path}:{number}: {wrong}; the file was changed by hand: {_RESTORE}")
    for what in ("environments", "cells", "checks"):
        said, there = getattr(head, what), len(getattr(baseline, what))
        if said != there:
            raise ResultsError(
                f"{path}:1: says that {said} {what} follow, and {there} do; the file was cut off or changed by hand: "
                f"{_RESTORE}"
            )
    return baseline


def _head(path: Path, line: bytes) -> Head:
    try:
        data = parsed(line)
    except ValueError as error:
        raise ResultsError(f"{path}:1: {error}; this is no baseline: {_RESTORE}") from None
    kind = data.get("type") if isinstance(data, dict) else None
    if kind == "run":
        raise ResultsError(f"{path}:1: these are results and no baseline; make one of them with --llm-baseline-update")
    version = data.get("schema") if isinstance(data, dict) else None
    if kind != "baseline" or type(version) is not int or version < 1:
        raise ResultsError(f"{path}:1: not the head of a baseline: {_RESTORE}")
    if version > BASELINE_SCHEMA:
        raise ResultsError(
            f"{path}:1: written in schema {version}, and this version reads up to {BASELINE_SCHEMA}: "
            "update pytest-llmdevice"
        )
    head = _line(path, 1, line)
    assert isinstance(head, Head)
    return head


def _line(path: Path, number: int, line: bytes) -> Record:
    try:
        parsed(line)
        return _adapter().validate_json(line, strict=True)
    except ValueError as error:
        wrong = explained(error) if isinstance(error, ValidationError) else str(error)
        if line.startswith((b"<<<<<<<", b"=======", b">>>>>>>", b"|||||||")):
            wrong = "a conflict of a git merge is left here; take one side whole"
        raise ResultsError(f"{path}:{number}: {wrong}: {_RESTORE}") from None


def _take(baseline: Baseline, line: Record) -> str:
    """Put `line` in its place; say what is wrong with it, or nothing."""
    match line:
        case EnvironmentLine():
            again = line.environment in baseline.environments
            baseline.environments[line.environment] = line.value
            return f"environment {line.environment} is there a second time" if again else ""
        case CellLine():
            key = line.target, line.cell
            again = key in baseline.cells
            baseline.cells[key] = line
            if again:
                return f"{line.cell} of {line.target} is there a second time"
        case CheckLine():
            check_key = line.target, line.cell, line.check
            again = check_key in baseline.checks
            baseline.checks[check_key] = line
            if again:
                return f"{line.check} of {line.cell} of {line.target} is there a second time"
            if (line.target, line.cell) not in baseline.cells:
                return f"{line.check} is a check of {line.cell}, and no line before it is about that cell"
        case _:
            return "the head is there a second time"
    missing = line.environment not in baseline.environments
    return f"points to environment {line.environment}, which no line before it describes" if missing else ""


def write_baseline(baseline: Baseline) -> None:
    """Write the file in one step: whoever reads it meanwhile, or kills this process, finds the old one whole.

    Raises:
        ResultsError: it cannot be written.
    """
    lines: list[Record] = [baseline.head]
    lines += [EnvironmentLine.of(number, value) for number, value in sorted(baseline.environments.items())]
    by_cell: dict[CellKey, list[CheckLine]] = {key: [] for key in sorted(baseline.cells)}
    for (target, cell, _), entry in sorted(baseline.checks.items()):
        by_cell[target, cell].append(entry)
    for key, entries in by_cell.items():
        lines += [baseline.cells[key], *entries]
    text = "".join(f"{_dumped(line)}\n" for line in lines)
    replace_file(baseline.path, text.encode())


def _dumped(line: Record) -> str:
    data: dict[str, Any] = line.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    head: dict[str, Any] = {"type": getattr(line, "type", None)}
    if isinstance(line, Head):
        head["schema"] = line.schema_version
    return json.dumps(head | data, ensure_ascii=False, separators=(",", ":"))

"""Writes the records of a run as they come, and reads them back, also where the run was killed."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from pydantic import ValidationError

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results.consistency import contradiction, incomplete_plan
from pytest_llmdevice.results.lines import lines_of, parsed
from pytest_llmdevice.results.order import in_order
from pytest_llmdevice.results.records import Begun, CellDone, Check, End, Planned, adapter
from pytest_llmdevice.results.redaction import Redactor
from pytest_llmdevice.results.run_header import SCHEMA, SUFFIX, Record, Run
from pytest_llmdevice.results.vocabulary import Outcome


class Writer:
    """Appends records to a new file of a folder, each as one line that is handed to the system at once.

    A process that is killed loses at most the record that it was writing.

    Args:
        folder: made where it is missing.
        run: the first record; its `run` names the file.
        redactor: what hides secrets; that of this process by default.

    Raises:
        ResultsError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, run: Run, redactor: Redactor | None = None) -> None:
        self.path = folder / f"{run.run}{SUFFIX}"
        self._redactor = redactor or Redactor.of()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except OSError as error:
            raise ResultsError(f"{folder}: results cannot be written there: {error.strerror or error}") from None
        self._process = os.getpid()
        self._size = 0
        self.write(run)

    def write(self, *records: Record) -> None:
        """Append `records`. Texts are redacted here and nowhere else.

        Raises:
            ResultsError: the disk is full, or the file is not as this process left it.
        """
        self._refuse_others()
        lines = (dumped(record, self._redactor) for record in records)
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            while data:
                written = os.write(self._file, data)
                self._size += written
                data = data[written:]
        except OSError as error:
            raise ResultsError(f"{self.path}: the results cannot be written: {error.strerror or error}") from None

    def _refuse_others(self) -> None:
        """Make sure that the file is there and holds what was written into it, and nothing else.

        Raises:
            ResultsError: it does not: the records of a run that are not all there must not pass for a run.
        """
        if os.getpid() != self._process:
            raise ResultsError(f"{self.path}: a process that was forked while the run wrote its results wrote too")
        held = os.fstat(self._file)
        try:
            there = self.path.stat()
        except OSError as error:
            raise ResultsError(
                f"{self.path}: the results were removed while the run wrote them ({error.strerror or error}); run again"
            ) from None
        if (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            raise ResultsError(f"{self.path}: the results were replaced while the run wrote them; run again")
        if held.st_size != self._size:
            raise ResultsError(
                f"{self.path}: the results were changed while the run wrote them: {held.st_size} bytes, and not the "
                f"{self._size} that were written; run again"
            )

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def dumped(record: Record, redactor: Redactor) -> str:
    """`record` as a line of JSON, without its end. Defaults are left out, but for the type."""
    data = record.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    head: dict[str, Any] = {"type": getattr(record, "type", None)}
    if isinstance(record, Run):
        head["schema"] = record.schema_version
    return json.dumps(head | redactor.record(data), ensure_ascii=False, separators=(",", ":"))


@dataclass
class RunFile:
    """What a file holds.

    Attributes:
        path: the file.
        run: its first record.
        planned: the cells of the matrix, by id.
        begun: the cells that a test was begun of, by id.
        checks: the checks that finished, in their order.
        counted: how many checks of each cell have each outcome.
        cells: the cells that finished, by id.
        end: None in a file of a run that did not come to its end.
        cut: whether the last line was only half written.
    """

    path: Path
    run: Run
    planned: dict[str, Planned] = field(default_factory=dict)
    begun: dict[str, Begun] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    counted: dict[str, Counter[Outcome]] = field(default_factory=dict)
    cells: dict[str, CellDone] = field(default_factory=dict)
    end: End | None = None
    cut: bool = False


def read(paths: Path | list[Path]) -> list[RunFile]:
    """The runs in files and folders, the oldest first; one run that is found twice is read once.

    Args:
        paths: each a file, or a folder whose `*.jsonl` are read.

    Raises:
        ResultsError: one is missing or holds no run, a line is not what it should be, or two files of one run
            contradict each other: file, line and what to do.
    """
    given = [paths] if isinstance(paths, Path) else paths
    by_id: dict[str, RunFile] = {}
    for path in given:
        runs = list(map(read_file, _files(path)))
        if not runs:
            raise ResultsError(f"{path}: no results here; run pytest with --llm-matrix --llm-results {path}")
        for run_file in runs:
            other = by_id.get(run_file.run.run)
            by_id[run_file.run.run] = run_file if other is None else _fuller(other, run_file)
    return in_order(by_id.values())


def _fuller(first: RunFile, second: RunFile) -> RunFile:
    """Of two files of one run the one that has more: a copy may have been taken while it ran."""
    shorter, longer = sorted((first, second), key=lambda each: each.path.stat().st_size)
    if shorter.path == longer.path or longer.path.read_bytes().startswith(shorter.path.read_bytes()):
        return longer
    raise ResultsError(
        f"{second.path}: the run {second.run.run} is in {first.path} too, with other records; one of the two files was "
        f"changed by hand: leave it out"
    )


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(path.glob(f"*{SUFFIX}"))
    elif path.is_file():
        yield path
    else:
        raise ResultsError(f"{path}: no such file or folder; give the folder that --llm-results wrote")


def read_file(path: Path) -> RunFile:
    """What the file `path` holds.

    Raises:
        ResultsError: a line is not what it should be, or the run was killed before it had said what it would run.
    """
    lines = lines_of(path, "the file")
    try:
        ahead = next(lines)
    except FileNotFoundError:
        raise ResultsError(f"{path}: cannot be read: it is gone") from None
    file: RunFile | None = None
    for number, following in enumerate(lines, start=1):
        # The last one is of no interest: empty, or cut off.
        line, ahead = ahead, following
        if file is None:
            file = RunFile(path, _head(path, line))
        else:
            _take(file, _record(path, number, line), number)
    if file is None:
        raise ResultsError(f"{path}:1: the run was killed before its first record was whole: {_REMOVE}")
    file.cut = bool(ahead)
    if wrong := incomplete_plan(file):
        raise ResultsError(f"{path}:1: {wrong}; the run was killed, or the file was changed by hand: {_REMOVE}")
    return file


def _head(path: Path, line: bytes) -> Run:
    try:
        data = parsed(line)
    except ValueError as error:
        raise ResultsError(f"{path}:1: {error}; this is no file of results: {_REMOVE}") from None
    version = data.get("schema") if isinstance(data, dict) else None
    if isinstance(data, dict) and data.get("type") == "baseline":
        raise ResultsError(f"{path}:1: this is a baseline and no run; keep it outside of the folder of results")
    if not isinstance(data, dict) or data.get("type") != "run" or type(version) is not int:
        raise ResultsError(f"{path}:1: not the first record of a run; this is no file of results: {_REMOVE}")
    if version < 1:
        raise ResultsError(f"{path}:1: written in schema {version}, which there is not: {_REMOVE}")
    if version > SCHEMA:
        raise ResultsError(
            f"{path}:1: written in schema {version}, and this version reads up to {SCHEMA}: update pytest-llmdevice"
        )
    record = _record(path, 1, line)
    assert isinstance(record, Run)
    return record


_REMOVE: Final = "leave it out, or run again"


def _record(path: Path, number: int, line: bytes) -> Record:
    try:
        parsed(line)
        return adapter().validate_json(line, strict=True)
    except ValidationError as error:
        raise ResultsError(f"{path}:{number}: {explained(error)}: {_REMOVE}") from None
    except ValueError as error:
        raise ResultsError(f"{path}:{number}: {error}: {_REMOVE}") from None


def explained(error: ValidationError) -> str:
    """The first problem of a line in words."""
    first = error.errors(include_url=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return "not JSON, the line was damaged or cut off"
    where = ".".join(str(part) for part in first["loc"][1:])
    return f"{where}: {first['msg']}" if where else str(first["msg"]).removeprefix("Value error, ")


def _take(file: RunFile, record: Record, number: int) -> None:
    wrong = contradiction(file, record)
    match record:
        case Planned():
            file.planned[record.cell] = record
        case Begun():
            file.begun[record.cell] = record
        case Check():
            file.checks.append(record)
            file.counted.setdefault(record.cell, Counter())[record.outcome] += 1
        case CellDone():
            file.cells[record.cell] = record
        case End():
            file.end = record
        case _:
            wrong = "the run is begun a second time"
    if wrong:
        raise ResultsError(f"{file.path}:{number}: {wrong}; the file was changed by hand: {_REMOVE}")

"""Files that no run wrote: whatever field is not as the schema has it, the line is refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.calling import Called, call

from pytest_llmdevice.errors import ResultsError
from pytest_llmdevice.results import lines
from pytest_llmdevice.results.baseline import read_baseline
from pytest_llmdevice.results.store import read_file
from results.builder import CARD, CPU_FP32, CUDA, SIMULATED, ResultsBuilder, check

Path_ = tuple[str | int, ...]

FAILED = check(CPU_FP32, "dtypes", "failed", evidence={"tensors": 3, "what": "words", "share": 0.5})
RUN = ResultsBuilder(
    {CPU_FP32: {"dtypes": FAILED, "loads": "passed"}, SIMULATED: {"loads": "xfail"}},
    skipped={CARD: ("absent", "absent: no CUDA device")},
    machine=CUDA,
    simulated=("cuda:2",),
)


def written(folder: Path, kind: str) -> Path:
    """A file of results or a baseline, with every field that there is."""
    results = RUN.write(folder / "results")
    if kind == "results":
        # Defaults are not written; those of numbers are looked at too.
        records = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
        for record in records:
            if record["type"] == "end":
                record["exit_status"] = 1
        rewrite(results, records)
        return results
    path = folder / "baseline.jsonl"
    words = "ci,failing,dirty,unstable"
    assert call("gate", str(results), "--baseline", str(path), "--update", "--force", words).code == 0
    return path


def rewrite(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")


def read(kind: str, path: Path) -> None:
    read_file(path) if kind == "results" else read_baseline(path)


def leaves(data: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    yield path, data
    inside = data.items() if isinstance(data, dict) else list(enumerate(data))[:1] if isinstance(data, list) else ()
    for key, value in inside:
        yield from leaves(value, (*path, key))


def wrong(value: Any, path: Path_) -> Iterator[Any]:
    """Values that nothing in the place of `value` may have."""
    if isinstance(value, bool):
        yield from (0, 1, 1.0, "true", None, [])
    elif isinstance(value, str):
        yield from (True, [], {})
        # Evidence is a number or a text.
        yield from () if "evidence" in path else (0, 1.5, None if path[-1] not in {"failure", "cause"} else 3)
    elif isinstance(value, (int, float)):
        yield from (True, [], {}, [1], float("nan"), float("inf"), -float("inf"))
        yield from (
            () if "evidence" in path else ("1", "1e999", "nan", 10**30, 1e300 if isinstance(value, int) else 1e13)
        )
        if not {"exit_status", "tokens", "evidence"} & set(path):
            yield -1
        if isinstance(value, int) and "evidence" not in path and "seconds" not in path[-1:]:
            yield 1.5
    elif isinstance(value, list):
        yield from (0, "text", {}, True, None)
    elif isinstance(value, dict):
        yield from (0, "text", [], True)


def cases() -> list[Any]:
    import tempfile

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("results", "baseline"):
            for line in written(Path(folder) / kind, kind).read_text("utf-8").splitlines():
                record = json.loads(line)
                for path, value in leaves(record):
                    for bad in wrong(value, path) if path else ():
                        label = f"{kind}-{record['type']}.{'.'.join(map(str, path))}={bad!r}"
                        found[label] = pytest.param(kind, path, bad, id=label)
    # Every worker of xdist collects the same, and the keys of some tables come in any order.
    return [found[label] for label in sorted(found)]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("originals")
    return {kind: written(folder / kind, kind).read_text("utf-8") for kind in ("results", "baseline")}


@pytest.mark.parametrize(("kind", "keys", "bad"), cases())
def test_a_field_of_a_wrong_kind_is_refused_with_its_line(
    originals: dict[str, str], tmp_path: Path, kind: str, keys: Path_, bad: Any, request: pytest.FixtureRequest
) -> None:
    type_ = request.node.callspec.id.partition("-")[2].partition(".")[0]
    records = [json.loads(line) for line in originals[kind].splitlines()]
    number, holder = next(
        (number, found)
        for number, record in enumerate(records, start=1)
        if record["type"] == type_ and (found := holding(record, keys)) is not None
    )
    holder[keys[-1]] = bad
    path = tmp_path / "20261125T100000Z-aaaaaa.jsonl"
    rewrite(path, records)
    with pytest.raises(ResultsError) as raised:
        read(kind, path)
    assert str(raised.value).startswith(f"{path}:{number}: ")
    assert "\n" not in str(raised.value)


def holding(record: Any, keys: Path_) -> Any:
    for key in keys[:-1]:
        try:
            record = record[key]
        except (KeyError, IndexError):
            return None
    present = keys[-1] in record if isinstance(record, dict) else len(record) > 0
    return record if present else None


LINES = {
    "a key that is there twice": lambda line: line[:-1] + b',"type":"run"}',
    "a key within that is there twice": lambda line: line[:-1] + b',"versions":{"a":"1","a":"2"}}',
    "a number of 5,000 digits": lambda line: line[:-1] + b',"x":' + b"9" * 5000 + b"}",
    "a constant of JavaScript": lambda line: line[:-1] + b',"x":NaN}',
    "bytes that are no text": lambda line: line[:-1] + b',"x":"\xff\xfe"}',
    "deep nesting": lambda line: line[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep tables": lambda line: line[:-1] + b',"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "a lone surrogate": lambda line: line[:-1] + b',"x":"\\ud800"}',
    "a control character": lambda line: line[:-1] + b',"x":"\x01"}',
    "two objects": lambda line: line + line,
    "another key": lambda line: line[:-1] + b',"x":1}',
    "nothing": lambda _: b"",
    "null": lambda _: b"null",
    "a very long line": lambda line: line[:-1] + b',"x":"' + b"x" * lines.LONGEST + b'"}',
}


@pytest.mark.parametrize("kind", ["results", "baseline"])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("change", LINES.values(), ids=LINES.keys())
def test_a_line_that_is_no_json_with_one_meaning_is_refused(
    originals: dict[str, str], tmp_path: Path, kind: str, number: int, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "20261125T100000Z-aaaaaa.jsonl"
    found = originals[kind].encode().split(b"\n")
    found[number - 1] = change(found[number - 1])
    path.write_bytes(b"\n".join(found))
    called: Called = (
        call("show", str(path))
        if kind == "results"
        else call("gate", str(written(tmp_path, "results")), "--baseline", str(path))
    )
    assert called.code == 2
    assert called.err.count("\n") == 1
    assert f"{path}:{number}: " in called.err
    assert len(called.err) < 1000


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", None, [], 10**30])
@pytest.mark.parametrize("kind", ["results", "baseline"])
def test_a_schema_that_there_is_not_is_refused(
    originals: dict[str, str], tmp_path: Path, kind: str, version: object
) -> None:
    path = tmp_path / "file.jsonl"
    records = [json.loads(line) for line in originals[kind].splitlines()]
    records[0]["schema"] = version
    rewrite(path, records)
    with pytest.raises(ResultsError) as raised:
        read(kind, path)
    assert str(raised.value).startswith(f"{path}:1: ")


def test_a_huge_file_of_one_line_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ResultsError, match=r"huge.jsonl:1: a line of more than"):
        read_file(path)

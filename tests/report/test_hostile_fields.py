"""Every text of a file of results, one after the other, would like to be obeyed by every reader of every output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.calling import call
from hostile import TEXT, obeyed
from results.builder import CPU_BF16, CPU_FP32, CUDA, SIMULATED, ResultsBuilder, check

from pytest_llmdevice.matrix.cell import Cell

LATER = "20261125T110000Z-bbbbbb"
AXES = ("model", "device", "dtype", "quantization", "strategy", "attention", "kind")


def whole(folder: Path) -> list[dict[str, Any]]:
    """The records of a run that has every field there is."""
    skipped, expected = check(CPU_BF16, "loads", "skipped"), check(SIMULATED, "loads", "xfail")
    finished = check(CPU_FP32, "dtypes", "failed", evidence={"tensors": 3, "what": "words"})
    builder = ResultsBuilder(
        {
            CPU_FP32: {"dtypes": finished, "loads": "passed"},
            CPU_BF16: {"loads": skipped},
            SIMULATED: {"loads": expected},
        },
        skipped={Cell("qwen2", "cuda:0", "float32"): ("absent", "absent: no CUDA device")},
        machine=CUDA,
        simulated=("cuda:2",),
        shard="1/2",
        killed=True,
    )
    return [json.loads(line) for line in builder.write(folder).read_text("utf-8").splitlines()]


def texts(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where there is a text in `data`; `"*"` stands for the name of a key that is free."""
    if isinstance(data, str):
        yield path
    elif isinstance(data, list):
        for index, value in enumerate(data[:1]):
            yield from texts(value, (*path, index))
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from texts(value, (*path, key))
            if path[-1:] in {("versions",), ("evidence",), ("checks",)}:
                yield (*path, key, "*")


def places() -> list[tuple[str | int, ...]]:
    """(type of the record, keys) of every text."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        found = {(record["type"], *path): None for record in whole(Path(folder)) for path in texts(record)}
    # In one order whatever the seed of hashes is: every worker of xdist has to collect the same.
    return sorted((place for place in found if place[1:] != ("type",)), key=str)


def planted(records: list[dict[str, Any]], place: tuple[str | int, ...]) -> list[dict[str, Any]]:
    """`records` with `TEXT` at `place` of the first record that has it; the ids of cells follow their axes."""
    kind, *keys = place
    for record in records:
        holder: Any = record
        try:
            for key in keys[:-2] if keys[-1] == "*" else keys[:-1]:
                holder = holder[key]
            present = record["type"] == kind and (keys[-2] if keys[-1] == "*" else keys[-1]) in (
                holder if isinstance(holder, dict) else range(len(holder))
            )
        except (KeyError, IndexError, TypeError):
            continue
        if not present:
            continue
        if keys[-1] == "*":
            holder[TEXT] = holder.pop(keys[-2])
        else:
            holder[keys[-1]] = TEXT
        if kind == "planned" and keys[0] in AXES:
            old = record["cell"]
            values = {name: record[name] for name in AXES if name in record}
            new = Cell(**values, simulated=record.get("simulated", False)).id
            for other in records:
                if other.get("cell") == old:
                    other["cell"] = new
        return records
    raise AssertionError(place)


@pytest.fixture
def results(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "results"
    records = planted(whole(folder), request.param)
    (path,) = folder.iterdir()
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    ResultsBuilder({CPU_FP32: {"loads": "passed"}}, name=LATER, started="2026-11-25T11:00:00+00:00").write(folder)
    return folder


@pytest.mark.parametrize("results", places(), indirect=True, ids=lambda place: ".".join(map(str, place)))
def test_no_text_of_a_record_is_obeyed_in_any_output(results: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.jsonl"
    ResultsBuilder({CPU_FP32: {"dtypes": "passed", "loads": "passed"}}).write(tmp_path / "before")
    assert call("gate", str(tmp_path / "before"), "--baseline", str(baseline), "--update", "--force", "ci").code == 0
    for arguments in (
        ("show", results),
        ("show", results, "--width", "20", "--grid", "model/device,dtype,quantization,strategy"),
        ("show", results, "--json", "--baseline", baseline),
        ("show", results, "--baseline", baseline),
        ("report", results),
        ("report", results, "-f", "json"),
        ("gate", results),
        ("gate", results, "--baseline", baseline),
        ("gate", results, "--baseline", baseline, "--json"),
        ("plan", "--times", results),
        ("merge", results, "-o", tmp_path / "merged"),
        ("merge", results, "-o", tmp_path / "merged-2", "--json"),
        ("gate", results, "--baseline", tmp_path / "new.jsonl", "--update", "--force", "ci,failing,dirty,unstable"),
    ):
        called = call(*map(str, arguments))
        assert called.code in {0, 1, 2}
        # The report's own, which keeps GitHub from notifying a user of that name.
        assert not obeyed(called.out.replace("&#64;\u200b", "") + called.err), arguments
        if called.code != 2 and {"--json", "json"} & set(arguments):
            json.loads(called.out, parse_constant=pytest.fail)


@pytest.mark.parametrize("results", places(), indirect=True, ids=lambda place: ".".join(map(str, place)))
def test_no_text_of_a_record_is_obeyed_in_the_page(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    called = call("report", str(results), "-o", str(page))
    assert not obeyed(called.out + called.err)
    if called.code == 0:
        text = page.read_text("utf-8")
        # The style has pseudo-elements, which begin with colons.
        assert not [found for found in obeyed(text) if not found.strip().startswith("::")]
        assert "<script>alert" not in text
        assert "<img" not in text

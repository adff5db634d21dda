"""Times, memory and tokens against the spread of repeated runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_llmdevice.results.compare import compare
from pytest_llmdevice.results.merged_results import merge_runs
from pytest_llmdevice.results.records import Memory
from pytest_llmdevice.results.run_header import Commit
from pytest_llmdevice.results.store import read
from pytest_llmdevice.results.transitions import Comparison
from pytest_llmdevice.results.update import update
from results.builder import CPU_FP32, CUDA, ResultsBuilder

MIB = 2**20


def measured(folder: Path, *changes: dict[str, Any], **values: Any) -> Path:
    """A run for each of `changes`, in one folder."""
    for number, change in enumerate(changes):
        ResultsBuilder(
            {CPU_FP32: {"dtypes": "passed"}},
            changes={CPU_FP32: change},
            name=f"run-{number:02}",
            started=f"2026-11-25T10:{number:02}:00+00:00",
            **values,
        ).write(folder)
    return folder


def compared(
    tmp_path: Path,
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
    *,
    slower: float = 20,
    larger: float = 10,
    **values: Any,
) -> Comparison:
    old = merge_runs(read(measured(tmp_path / "before", *before)))
    baseline = update(old, tmp_path / "baseline.jsonl", environment={}, today="2026-11-25")
    new = merge_runs(read(measured(tmp_path / "after", *after, **values)))
    return compare(new, baseline, slower=slower, larger=larger)


def loads(*seconds: float) -> list[dict[str, Any]]:
    return [{"load_seconds": each} for each in seconds]


def memory(*sizes: float, before: int = 100 * MIB) -> list[dict[str, Any]]:
    return [
        {"load_memory": (Memory(place="host", before=before, after=before, peak=before + int(size * MIB)),)}
        for size in sizes
    ]


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ((1.0, 1.0, 1.0), (1.21,), True),
        ((1.0, 1.0, 1.0), (1.19,), False),
        # Worse than the worst, and still within once more the spread.
        ((0.8, 1.0, 1.3), (1.7,), False),
        ((0.8, 1.0, 1.3), (1.9,), True),
        # The median of those at hand, not the worst of them.
        ((1.0, 1.0, 1.0), (1.0, 1.0, 9.0), False),
        ((1.0, 1.0, 1.0), (0.2,), False),
        ((1.0, 1.0), (9.0,), False),
    ],
)
def test_a_time_is_slower_beyond_the_percentage_and_the_spread(
    tmp_path: Path, before: tuple[float, ...], after: tuple[float, ...], *, named: bool
) -> None:
    found = compared(tmp_path, loads(*before), loads(*after))
    assert [each.name for each in found.transitions] == (["slower"] if named else [])


def test_the_percentage_can_be_chosen(tmp_path: Path) -> None:
    assert compared(tmp_path, loads(1, 1, 1), loads(1.4), slower=50).transitions == ()


def test_what_is_slower_says_by_how_much_and_what_the_limit_is(tmp_path: Path) -> None:
    (found,) = compared(tmp_path, loads(0.2, 0.2, 0.2), loads(0.5)).transitions
    assert (found.before, found.after) == ("load 0.2 s", "0.5 s")
    assert found.detail == "+150 %, median of 1 run; the limit from 3 runs is 0.24 s"


@pytest.mark.parametrize(("rate", "named"), [(300.0, True), (330.0, False), (900.0, False)])
def test_fewer_tokens_per_second_are_slower(tmp_path: Path, rate: float, *, named: bool) -> None:
    found = compared(tmp_path, [{}, {}, {}], [{"tokens_per_second": rate}])
    assert [each.before for each in found.transitions] == (["generation 400 tokens/s"] if named else [])


def test_the_seconds_of_a_whole_cell_are_no_matter_of_the_gate(tmp_path: Path) -> None:
    assert compared(tmp_path, [{}, {}, {}], [{"seconds": 1000.0}]).transitions == ()


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [((50, 50, 50), 56, True), ((50, 50, 50), 54, False), ((45, 50, 60), 70, False), ((2, 2, 2), 2.9, False)],
)
def test_memory_is_larger_beyond_the_percentage_the_spread_and_what_allocators_round(
    tmp_path: Path, before: tuple[float, ...], after: float, *, named: bool
) -> None:
    found = compared(tmp_path, memory(*before), memory(after))
    assert [each.name for each in found.transitions] == (["larger"] if named else [])


def test_what_the_process_held_before_the_load_is_not_counted(tmp_path: Path) -> None:
    assert compared(tmp_path, memory(50, 50, 50), memory(50, before=900 * MIB)).transitions == ()


def test_too_few_runs_are_a_note_that_says_how_to_get_more(tmp_path: Path) -> None:
    found = compared(tmp_path, loads(0.2, 0.2), loads(9.0))
    (note,) = found.notes
    assert note == (
        "the baseline has fewer than 3 runs of 1 cell, too few to tell slower and larger: run 3 times into one folder "
        "of results and update the baseline from it"
    )


def test_other_hardware_has_other_times_and_other_tokens(tmp_path: Path) -> None:
    found = compared(tmp_path, loads(1, 1, 1), [{"load_seconds": 9.0, "tokens": ((7,),)}], machine=CUDA)
    assert set(found.counts) == {"not-comparable"}


def test_only_runs_of_the_latest_commit_are_samples(tmp_path: Path) -> None:
    measured(tmp_path / "all", *loads(1, 1))
    later = Commit(id="fedcba9876543210")
    ResultsBuilder({CPU_FP32: {"dtypes": "passed"}}, name="z", started="2026-12-01T00:00:00+00:00", commit=later).write(
        tmp_path / "all"
    )
    baseline = update(merge_runs(read(tmp_path / "all")), tmp_path / "b.jsonl", environment={})
    assert baseline.cells["builtin", CPU_FP32.id].load_seconds == (0.2,)


@pytest.mark.parametrize(
    ("after", "detail"),
    [
        (((1, 2, 3), (4, 5, 6)), ""),
        (((1, 2, 3), (4, 9, 6)), "prompt 2 of 2, new token 2: 5 -> 9"),
        (((1, 2), (4, 5, 6)), "prompt 1 of 2, new token 3: 3 -> its end"),
        (((1, 2, 3, 8), (4, 5, 6)), "prompt 1 of 2, new token 4: its end -> 8"),
        (((1, 2, 3),), "1 prompt instead of 2"),
        ((), "nothing was generated"),
    ],
)
def test_other_tokens_are_named_by_the_first_that_differs(
    tmp_path: Path, after: tuple[tuple[int, ...], ...], detail: str
) -> None:
    found = compared(tmp_path, [{}], [{"tokens": after}]).transitions
    assert [(each.name, each.detail) for each in found] == ([("other-tokens", detail)] if detail else [])


def test_a_cell_that_failed_before_it_generated_is_not_told_to_have_other_tokens(tmp_path: Path) -> None:
    old = merge_runs(read(measured(tmp_path / "before", {})))
    baseline = update(old, tmp_path / "baseline.jsonl", environment={})
    ResultsBuilder({CPU_FP32: {"dtypes": "failed"}}, changes={CPU_FP32: {"tokens": ()}}).write(tmp_path / "after")
    assert compare(merge_runs(read(tmp_path / "after")), baseline).counts == {"regression": 1}

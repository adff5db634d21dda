"""Deals the cells of a matrix out to several machines, by the same rule on each of them."""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from pytest_llmdevice.errors import ConfigurationError
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import kinds

if TYPE_CHECKING:
    from pytest_llmdevice.results.run_header import Run
    from pytest_llmdevice.results.store import RunFile

Block: TypeAlias = list[Cell]

_SPLIT: Final[tuple[Callable[[Cell], object], ...]] = (
    lambda cell: cell.model,
    lambda cell: cell.quantization,
    lambda cell: cell.dtype,
    lambda cell: (cell.kind, cell.index),
    lambda cell: cell.strategy,
    lambda cell: cell.attention,
)
"""How a block that is too long is split, the first that tells two of its cells apart. The model comes first, so that
a machine builds few checkpoints."""

_ALIKE: Final[tuple[Callable[[Cell], object], ...]] = (
    lambda cell: (cell.kind, cell.model, cell.quantization),
    lambda cell: (cell.kind, cell.model),
    lambda cell: (cell.kind, cell.quantization),
    lambda cell: cell.kind,
    lambda _: None,
)
"""Whose recorded times stand for a cell that has none, the most alike first."""

_TOLERANCE: Final = 1.05
"""A shard may be this much longer than the ideal if its models then stay together."""

_SINGLE_SPLITS: Final = 64
"""After so many blocks that were split one by one all are: for shards that need more, the rest is noise."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of a matrix, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `"2/5"`.

        Raises:
            ConfigurationError: it is not two numbers, or there is no such part.
        """
        return cls(*parse_shard(text))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def cells(self, cells: Iterable[Cell], seconds: Mapping[str, float] | None = None) -> tuple[Cell, ...]:
        """Those of `cells` that are in this part, in their order."""
        return tuple(cell for cell, shard in assigned(cells, self.count, seconds).items() if shard == self)

    def others(self, cells: Iterable[Cell], seconds: Mapping[str, float] | None = None) -> dict[Cell, str]:
        """Those of `cells` that are in another part, each with the sentence that says in which."""
        shards = assigned(cells, self.count, seconds)
        return {cell: f"it belongs to shard {shard}" for cell, shard in shards.items() if shard != self}


def parse_shard(text: str) -> tuple[int, int]:
    """`"2/5"` -> `(2, 5)`.

    Raises:
        ConfigurationError: it is not two numbers, or there is no such part.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*/\s*(\d{1,6})\s*", text, re.ASCII)
    if match is None:
        raise ConfigurationError(f"shard {text!r} is not INDEX/COUNT, such as 2/5 for the second of five parts")
    index, count = int(match[1]), int(match[2])
    if count < 1:
        raise ConfigurationError(f"shard {text!r}: there must be at least one part, as in 1/1")
    if not 1 <= index <= count:
        raise ConfigurationError(f"shard {text!r}: the parts are counted from 1/{count} to {count}/{count}")
    return index, count


def assigned(cells: Iterable[Cell], count: int, seconds: Mapping[str, float] | None = None) -> dict[Cell, Shard]:
    """The part that each of `cells` is in, in the order of `cells`."""
    given = list(cells)
    parts = {cell: Shard(index, count) for index, part in enumerate(shards(given, count, seconds), 1) for cell in part}
    return {cell: parts[cell] for cell in given}


def shards(cells: Iterable[Cell], count: int, seconds: Mapping[str, float] | None = None) -> list[list[Cell]]:
    """`cells` in `count` parts of about equal length, each cell in one part; parts are empty where cells are too few.

    The parts depend on the cells and their times alone: not on their order, on the machine, or on whether a cell is
    simulated. Each kind of device is dealt out on its own, so that what runs on a machine is spread evenly whatever
    the matrix has for others, and a machine with other cards deals out the cpu in the same way. Within a kind, blocks
    of cells that belong together are given to the shortest part, the longest block first.

    Args:
        cells: the cells of a matrix, each once.
        count: how many parts, at least 1.
        seconds: recorded times by id, see `recorded_seconds`; without them all cells count the same.
    """
    ordered = sorted(set(cells), key=_key)
    weights = estimates(ordered, seconds or {})
    parts: list[list[Cell]] = [[] for _ in range(count)]
    for kind in dict.fromkeys(cell.kind for cell in ordered):
        dealt = _dealt([cell for cell in ordered if cell.kind == kind], count, weights)
        # Each kind begins with another part: the first one would get what is left over of every kind.
        offset = kinds().index(kind) if kind in kinds() else 0
        for index, part in enumerate(dealt):
            parts[(index + offset) % count] += part
    return [sorted(part, key=_key) for part in parts]


def estimates(cells: Iterable[Cell], seconds: Mapping[str, float]) -> dict[Cell, float]:
    """Seconds that each cell will take: recorded, else the median of those most alike; 1 where nothing is recorded.

    A cell that was recorded only as simulated, or only as real, takes that time.
    """
    given = list(cells)
    known: dict[Cell, float] = {}
    for cell in given:
        recorded = seconds.get(cell.id, seconds.get(_other_id(cell.id), 0.0))
        # A time of zero is a record that measured nothing.
        if 0 < recorded < math.inf:
            known[cell] = recorded
    medians: dict[tuple[int, object], float] = {}
    for level, alike in enumerate(_ALIKE):
        groups: dict[object, list[float]] = {}
        for cell, time in known.items():
            groups.setdefault(alike(cell), []).append(time)
        medians |= {(level, group): median(times) for group, times in groups.items()}
    return {cell: known[cell] if cell in known else _guess(cell, medians) for cell in given}


def recorded_seconds(files: Iterable[RunFile]) -> dict[str, float]:
    """The seconds of each cell that ran, by id: the median over the runs."""
    times: dict[str, list[float]] = {}
    for file in files:
        for record in file.cells.values():
            if record.outcome != "skipped" and 0 < record.seconds < math.inf:
                times.setdefault(record.cell, []).append(record.seconds)
    return {cell: median(values) for cell, values in times.items()}


def _guess(cell: Cell, medians: Mapping[tuple[int, object], float]) -> float:
    levels = ((level, alike(cell)) for level, alike in enumerate(_ALIKE))
    return next((medians[level] for level in levels if level in medians), 1.0)


def _other_id(cell_id: str) -> str:
    return cell_id.removesuffix(".sim") if cell_id.endswith(".sim") else f"{cell_id}.sim"


def _key(cell: Cell) -> tuple[str | int, ...]:
    return (cell.kind, cell.model, cell.quantization, cell.dtype, cell.index, cell.strategy, cell.attention)


def _dealt(cells: Sequence[Cell], count: int, weights: Mapping[Cell, float]) -> list[list[Cell]]:
    longest_cell = max(weights[cell] for cell in cells)
    ideal = max(_length(cells, weights) / count, longest_cell)
    fewest = max(0, count - len(cells))
    best: list[list[Block]] = []
    least = (count, math.inf)
    for blocks in _attempts(list(cells), count, ideal, weights):
        parts = _packed(blocks, count, weights)
        longest = max(sum(_length(block, weights) for block in part) for part in parts)
        imbalance = sum(not part for part in parts), longest
        if imbalance < least:
            best, least = parts, imbalance
        if least[0] <= fewest and least[1] <= _TOLERANCE * ideal:
            break
    return [[cell for block in part for cell in block] for part in best]


def _attempts(cells: Block, count: int, ideal: float, weights: Mapping[Cell, float]) -> Iterator[list[Block]]:
    """Blocks that are smaller and smaller: at first one after the other is split, then all, to single cells at last."""
    blocks = list(_blocks(cells, ideal, weights))
    for _ in range(_SINGLE_SPLITS):
        yield blocks
        longest = max(_packed(blocks, count, weights), key=lambda part: sum(_length(block, weights) for block in part))
        largest = max(longest, key=lambda block: _length(block, weights))
        parts = _split(largest)
        if len(parts) < 2:
            break
        place = blocks.index(largest)
        blocks = [*blocks[:place], *parts, *blocks[place + 1 :]]
    for halvings in range(len(cells).bit_length()):
        yield list(_blocks(cells, ideal / 2**halvings, weights))
    yield [[cell] for cell in cells]


def _blocks(cells: Block, limit: float, weights: Mapping[Cell, float]) -> Iterator[Block]:
    parts = _split(cells) if _length(cells, weights) > limit else []
    if len(parts) < 2:
        yield cells
    for part in parts if len(parts) > 1 else ():
        yield from _blocks(part, limit, weights)


def _split(cells: Block) -> list[Block]:
    """By the first axis on which the cells differ; one block where they do not."""
    for axis in _SPLIT:
        values: dict[object, Block] = {}
        for cell in cells:
            values.setdefault(axis(cell), []).append(cell)
        if len(values) > 1:
            return list(values.values())
    return [cells]


def _packed(blocks: Sequence[Block], count: int, weights: Mapping[Cell, float]) -> list[list[Block]]:
    """The blocks in `count` parts: each to the part that is shortest so far, the longest block first."""
    parts: list[list[Block]] = [[] for _ in range(count)]
    heap = [(0.0, index) for index in range(count)]
    # Sorting is stable: of equal blocks the first in the order of the cells.
    for block in sorted(blocks, key=lambda block: -_length(block, weights)):
        length, index = heap[0]
        parts[index].append(block)
        heapq.heapreplace(heap, (length + _length(block, weights), index))
    return parts


def _length(cells: Iterable[Cell], weights: Mapping[Cell, float]) -> float:
    return math.fsum(weights[cell] for cell in cells)


def missing_shards(runs: Iterable[Run]) -> list[str]:
    """The parts of a whole that no run is of, `["2/2"]`; none where a run was not of a part."""
    there = {run.shard for run in runs}
    counts = sorted({int(shard.partition("/")[2]) for shard in there if shard})
    if "" in there:
        return []
    return [part for count in counts for number in range(1, count + 1) if (part := f"{number}/{count}") not in there]


def unlike_shards(runs: Iterable[Run]) -> Iterator[str]:
    """The splits whose parts were cut from different lists of cells, a sentence each."""
    lists: dict[tuple[str, str, int], set[str]] = {}
    for run in runs:
        if run.shard and run.matrix.digest:
            count = int(run.shard.partition("/")[2])
            lists.setdefault((run.matrix.name, run.target, count), set()).add(run.matrix.digest)
    for (name, _, count), digests in lists.items():
        if len(digests) > 1:
            yield (
                f"the {count} parts of {name} were cut from {len(digests)} different lists of cells, since their "
                "machines have other devices, or the matrix changed: a cell may be in none of them. Run all parts on "
                "machines with the same devices, or have llmdevice plan make the jobs"
            )

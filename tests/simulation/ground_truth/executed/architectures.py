"""What the libraries make of a card with every architecture of transformers that is no family of the zoo.

The cells are those of `libraries`. A row is short: a digest of where each tensor is, in which dtype and shape, and of
the map of devices; the bytes that are allocated on each card; and the logits, or what is raised. From the repository's
root, in an environment with the CUDA build:

    python -m tests.simulation.ground_truth.executed.architectures [name ...]

and what the simulation does otherwise, with any build, about 20 minutes for all:

    python -m tests.simulation.ground_truth.executed.architectures --compare [name ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_llmdevice import zoo
from pytest_llmdevice.errors import UnsupportedByLibrary
from pytest_llmdevice.zoo.architectures import architectures
from pytest_llmdevice.zoo.catalogue import hyphenated

from . import record
from .libraries import cells, recorded, simulated

ARCHITECTURES: Final = Path(__file__).parent / "architectures.json"

Short = str | list[Any] | None
"""What came of a cell: what was raised, or the digest, the bytes on each card and the logits.

None for a model with a `final_logits_bias` that is split: transformers puts that where the last of a set of names is,
whose order differs from process to process (`PYTHONHASHSEED`).
"""


def names() -> list[str]:
    """The architectures of the installed transformers that are no family of the zoo, as a matrix spells them."""
    families = set(zoo.families())
    return [name for name in map(hyphenated, architectures()) if name not in families]


def short(row: Mapping[str, Any]) -> Short:
    """A row of `libraries` in short."""
    for problem in ("died", "raises"):
        if problem in row:
            return f"{problem}: {row[problem]}"
    if "final_logits_bias" in row["map"]:
        return None
    said = json.dumps([row["each"], row["map"]])
    return [hashlib.sha256(said.encode()).hexdigest()[:12], *row["allocated"], row["logits"]]


def buildable(name: str) -> bool:
    """Whether the zoo has a checkpoint of `name`."""
    try:
        zoo.checkpoint(name)
    except UnsupportedByLibrary:
        return False
    return True


def written(header: Mapping[str, Any], rows: Mapping[str, Sequence[Short]]) -> str:
    """The rows of each architecture, in the order of `MODES`, as text: an architecture to a line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    return f'{{"header": {json.dumps(header)},\n"rows": {{\n{lines}\n}}}}\n'


def read(path: Path = ARCHITECTURES) -> tuple[dict[str, Any], dict[str, list[Short]]]:
    """The header, and the rows of each architecture in the order of `MODES`."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["header"], data["rows"]


def record_rows(wanted: Iterable[str]) -> Iterator[tuple[str, list[Short]]]:
    """The rows of each of `wanted` that can be built, over the stand-in."""
    for name in wanted:
        if buildable(name):
            yield name, [short(row) for row in recorded([name])]


def same(cuda: Short, found: Short) -> bool:
    """Whether two rows say the same; where the logits were not to be seen on a card, they may be anything."""
    if cuda is None:
        return True
    if isinstance(cuda, list) and isinstance(found, list) and cuda[-1] is None:
        return cuda[:-1] == found[:-1]
    return cuda == found


def differing(rows: Mapping[str, Sequence[Short]], wanted: Iterable[str]) -> Iterator[str]:
    """What the simulation does otherwise with the cells of `wanted`, in words."""
    for name in wanted:
        for cell, cuda in zip(cells([name]), rows.get(name, ()), strict=False):
            found = short(simulated(cell))
            if not same(cuda, found):
                yield f"{cell.id}: CUDA {cuda}, simulated {found}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--out", type=Path, default=ARCHITECTURES, help="where the rows go")
    parser.add_argument("--compare", action="store_true", help="ask the simulation")
    options = parser.parse_args(arguments)
    wanted = options.names or names()
    if options.compare:
        rows = read(options.out)[1]
        lines = []
        for line in differing(rows, wanted):
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            lines.append(line)
        cells_of = sum(len(rows.get(name, ())) for name in wanted)
        sys.stdout.write(f"{cells_of} cells, {len(lines)} differ\n")
        return bool(lines)

    def write() -> None:
        # What was not asked for stays.
        kept = read(options.out)[1] if options.names and options.out.exists() else {}
        found = {**kept, **dict(record_rows(wanted))}
        options.out.write_text(written(record.header(), found), encoding="utf-8")

    return record.over_the_standin(__spec__.name, [*options.names, "--out", str(options.out)], write)


if __name__ == "__main__":
    sys.exit(main())

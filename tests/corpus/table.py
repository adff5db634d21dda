"""Writes docs/corpus.md: what the checks say of every bug and of every twin.

In `tests/`: `python -m corpus.table`. It runs all cases, which takes some minutes, prints the summary, and fails when a
bug that is not declared as missed was missed, or a twin did not pass.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from corpus.case import Case
from corpus.catalog import CASES
from corpus.fresh import section
from pytest_llmdevice import Cell, Result

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "corpus.md"

WIDEST: Final = 240
"""Characters of a message in the table."""

_HEAD: Final = """\
# The corpus

Loaders and generators with bugs that people shipped, each written anew for this project from the public issue or pull
request it names, and each beside a correct twin ([`tests/corpus`](../tests/corpus/README.md)). All of them run on a
machine with a CPU and nothing else; cells that end in `.sim` are on simulated cards.

This page is written by `python -m corpus.table` in `tests/`.
"""


Failures = tuple[tuple[Cell, Result], ...]


@dataclass(frozen=True)
class Row:
    """What the checks said of one case.

    Attributes:
        case: the case.
        caught: the cells and results of the checks that the bug failed.
        alarms: the same of its twin: false alarms.
    """

    case: Case
    caught: Failures
    alarms: Failures

    @property
    def wrong(self) -> bool:
        """Whether the bug was missed and must not be, was caught and is declared as missed, or the twin failed."""
        return bool(self.alarms) or bool(self.caught) == bool(self.case.missed)


def run() -> Iterator[Row]:
    """Every check on every cell of every case, in as many processes as there are cores."""
    with ProcessPoolExecutor(initializer=_quiet, mp_context=get_context("spawn")) as pool:
        for case, (caught, alarms) in zip(CASES, pool.map(_failures, range(len(CASES)), chunksize=4), strict=True):
            yield Row(case, caught, alarms)


def _failures(number: int) -> tuple[Failures, Failures]:
    case = CASES[number]
    return tuple(case.failures(case.buggy())), tuple(case.failures(case.fixed()))


def _quiet() -> None:
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore")


def summary(rows: list[Row]) -> str:
    """How many bugs, caught ones, false alarms and cells there are."""
    caught = sum(bool(row.caught) for row in rows)
    cells = sum(len(row.case.cells) for row in rows)
    alarms = sum(len({cell for cell, _ in row.alarms}) for row in rows)
    share = f"{100 * caught / len(rows):.0f} %" if rows else "none"
    return (
        f"{len(rows)} bugs, {caught} caught ({share}), {len(rows) - caught} missed; "
        f"{alarms} false alarms on the twins' {cells} cells"
    )


def document(rows: list[Row]) -> str:
    """The page."""
    parts = [_HEAD, f"**{summary(rows)}.**\n", *section()]
    for family in dict.fromkeys(row.case.family for row in rows):
        parts.append(f"## {family.capitalize()}\n")
        parts.append("| bug | what goes wrong | caught by | message |\n| --- | --- | --- | --- |")
        parts += [_line(row) for row in rows if row.case.family == family]
        parts.append("")
    return "\n".join(parts)


def _line(row: Row) -> str:
    case = row.case
    where = ", ".join(f"`{cell.id}`" for cell in case.cells)
    checks = ", ".join(dict.fromkeys(result.check for _, result in row.caught))
    if row.caught:
        cell, result = row.caught[0]
        said = _cut(result.message(cell.id).partition("\n")[0])
    else:
        said = f"missed: {case.missed or 'it should not be'}"
    if row.alarms:
        said += f" (false alarm: {', '.join(dict.fromkeys(result.check for _, result in row.alarms))})"
    return (
        f"| `{case.name}` ([source]({case.source})) | {_escaped(case.story)}; {where} | {checks} | {_escaped(said)} |"
    )


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def main() -> int:
    """Run everything, write the page, and say how it went."""
    rows = []
    for row in run():
        rows.append(row)
        if row.wrong:
            print(f"{row.case.name}: {'missed' if not row.caught else 'caught'}")
            print("\n\n".join(result.message(cell.id) for cell, result in row.alarms))
    DOCUMENT.write_text(document(rows), "utf-8")
    print(summary(rows))
    return int(any(row.wrong for row in rows))


if __name__ == "__main__":
    sys.exit(main())

"""Asks the simulation what the CUDA build was asked, and tells where the two differ.

From the repository's root, with any build of PyTorch of the version that the rows have:

    python -m tests.simulation.ground_truth.executed.compare [operator ...]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cases import all_cases
from ..declare import Case, Gives, Outcome, Raises
from ..observe import observe
from .chunks import RECORDED
from .rows import EXECUTED, Call, everything, read


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that the simulation answers otherwise.

    Attributes:
        operator: its name in the database of operators.
        case: the row.
        cuda: what the CUDA build did.
        simulated: what the simulation does.
    """

    operator: str
    case: Case
    cuda: Outcome
    simulated: Outcome

    @property
    def kind(self) -> str:
        """In what they differ, in words."""
        if isinstance(self.cuda, Raises):
            if isinstance(self.simulated, Gives):
                return "CUDA refuses, the simulation works"
            return "another text" if self.cuda.type == self.simulated.type else "another exception"
        return "CUDA works, the simulation refuses" if isinstance(self.simulated, Raises) else "another result"


def calls(path: Path = EXECUTED) -> list[Call]:
    """All rows, those of the declared table by the first part of their ids; what a card has said of a row counts."""
    declared, found = read(path)[1], everything(path)
    said = {
        (call.operator, case.id): outcome
        for recorded in sorted(path.parent.glob(RECORDED))
        for call in read(recorded)[2]
        for case, outcome in call.rows
    }
    found = [
        Call(call.operator, tuple((case, said.get((call.operator, case.id), outcome)) for case, outcome in call.rows))
        for call in found
    ]
    by_name: dict[str, list[tuple[Case, Outcome]]] = {}
    for case in all_cases():
        if case.id in declared:
            by_name.setdefault(f"declared {case.id.partition('/')[0]}", []).append((case, declared[case.id]))
    return [*(Call(name, tuple(rows)) for name, rows in by_name.items()), *found]


def differences(rows: Iterable[tuple[Case, Outcome]], operator: str) -> Iterator[Difference]:
    """The rows that the simulation answers otherwise; it is on while they run."""
    from pytest_llmdevice.simulation import simulate

    with simulate("cuda:2"):
        for case, outcome in rows:
            seen = observe(case).outcome
            if seen != outcome:
                yield Difference(operator, case, outcome, seen)


def main(only: Sequence[str]) -> None:
    counts = Counter[str]()
    total = 0
    for call in calls():
        if only and call.operator not in only:
            continue
        total += len(call.rows)
        for found in differences(call.rows, call.operator):
            counts[found.kind] += 1
            sys.stdout.write(
                f"{found.kind} | {found.operator} | {found.case.id}\n   {found.cuda}\n   {found.simulated}\n"
            )
    sys.stdout.write(f"{total} rows, {sum(counts.values())} differ: {dict(counts)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""Runs the executed cases on a real card; where one breaks the context, a new process goes on behind it."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..declare import Case
from ..observe import observe
from . import rows
from .run import Executed

LONGEST: Final = 240
"""Seconds of one process."""

RECORDED: Final = "recorded-*.json"
"""What cards said of the same cases, beside what the CUDA build said."""


def listed() -> list[tuple[str, Case]]:
    """The operator and the case of each executed row."""
    return [(call.operator, case) for call in rows.everything() for case, _ in call.rows]


def ask(out: Path, start: int) -> None:
    """Run the cases from number `start` on in this process, and write what each did, one to a line."""
    import torch

    with out.open("a", encoding="utf-8") as lines:
        for operator, case in listed()[start:]:
            row = rows.raw(operator, case, Executed(observe(case).outcome))
            torch.cuda.synchronize()
            lines.write(json.dumps(row) + "\n")
            lines.flush()


def recorded(header: Mapping[str, Any], folder: Path) -> tuple[str, int, int]:
    """What the card here says of all cases: the rows as text, their number, and that of those that broke a context.

    Args:
        header: which card it is, and the versions.
        folder: where the lines of the processes go.
    """
    cases = listed()
    raw = folder / "rows.jsonl"
    raw.touch()
    broken: list[int] = []
    while (done := len(raw.read_text(encoding="utf-8").splitlines()) + len(broken)) < len(cases):
        command = [sys.executable, "-m", __spec__.name, str(raw), str(done)]
        try:
            ended = subprocess.run(command, timeout=LONGEST, capture_output=True, check=False).returncode
        except subprocess.TimeoutExpired:
            ended = 1
        if ended:
            # The case behind the last line.
            broken.append(len(raw.read_text(encoding="utf-8").splitlines()) + len(broken))
    kept = [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()]
    left_out = {"broke the card's context": len(broken)} if broken else {}
    return rows.written(header, kept, left_out), len(kept), len(broken)


def disagreements(path: Path) -> list[str]:
    """Where the card of the file `path` did something else than the CUDA build over the stand-in: one line each."""
    executed = rows.everything()
    _, _, said = rows.read(path)
    by_card = {(call.operator, case.id): outcome for call in said for case, outcome in call.rows}
    lines = []
    for call in executed:
        for case, outcome in call.rows:
            other = by_card.get((call.operator, case.id), outcome)
            if other != outcome:
                lines.append(f"{call.operator}: {case.id}: executed {outcome}, recorded {other}")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("start", type=int)
    options = parser.parse_args(arguments)
    ask(options.out, options.start)


if __name__ == "__main__":
    main()

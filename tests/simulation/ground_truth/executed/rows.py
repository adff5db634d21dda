"""The executed rows: how they are written, and read again as cases with an outcome."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..declare import Case, Outcome
from ..table import outcome_from_json, outcome_to_json
from .run import Executed, unseen

EXECUTED: Final = Path(__file__).parent / "rows.json"
"""The rows of the declared table, of `extra` and of the database of operators."""

OTHERS: Final = ("modules.json", "autocast.json", "generators.json", "meta.json", "pairs.json")
"""The files of other rows, beside that."""


@dataclass(frozen=True, slots=True)
class Call:
    """The rows of one piece of code.

    Attributes:
        operator: its name in the database of operators; empty for a case of the declared table.
        rows: each case, and what the CUDA build did.
    """

    operator: str
    rows: tuple[tuple[Case, Outcome], ...]


def raw(operator: str, case: Case, seen: Executed) -> dict[str, Any]:
    """What one run saw of a case, as data."""
    return {
        "operator": operator,
        "id": case.id,
        "code": case.code,
        "operands": case.operands,
        "outcome": outcome_to_json(seen.outcome),
        "launches": seen.launches,
        "reads": seen.reads,
        "died": seen.died,
    }


def _executed(data: Mapping[str, Any]) -> Executed:
    outcome = None if data["outcome"] is None else outcome_from_json(data["outcome"])
    return Executed(outcome, data["launches"], data["reads"], data["died"])


def judged(
    first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], Counter[str]]:
    """The cases that two runs can be believed about, and how many of the others there are by reason.

    Args:
        first: all cases.
        second: those of them in which something was read from a card.
    """
    others = {row["id"]: row for row in second}
    kept, left_out = [], Counter[str]()
    for one in first:
        reason = unseen(_executed(one), _executed(others.get(one["id"], one)))
        if reason is None:
            kept.append(one)
        else:
            left_out[reason] += 1
    return kept, left_out


def written(header: Mapping[str, Any], kept: Iterable[Mapping[str, Any]], left_out: Mapping[str, int]) -> str:
    """The rows as text: outcomes once each, and the rows of one piece of code on a line."""
    outcomes: dict[str, int] = {}
    calls: dict[tuple[str, str, tuple[str, ...]], list[list[Any]]] = {}
    declared: list[str] = []
    for row in kept:
        outcome = outcomes.setdefault(json.dumps(row["outcome"]), len(outcomes))
        if not row["operator"]:
            declared.append(json.dumps([row["id"], outcome]))
            continue
        key = (row["operator"], row["code"], tuple(row["operands"]))
        calls.setdefault(key, []).append([*row["operands"].values(), outcome])
    lines = [json.dumps([*key, found]) for key, found in calls.items()]
    return (
        f'{{"header": {json.dumps({**header, "left out": dict(left_out)})},\n"outcomes": [\n'
        + ",\n".join(outcomes)
        + '\n],\n"declared": [\n'
        + ",\n".join(declared)
        + '\n],\n"calls": [\n'
        + ",\n".join(lines)
        + "\n]}\n"
    )


def read(path: Path = EXECUTED) -> tuple[dict[str, Any], dict[str, Outcome], list[Call]]:
    """The header, the outcomes of cases of the declared table by their id, and the other rows."""
    data = json.loads(path.read_text(encoding="utf-8"))
    outcomes = [outcome_from_json(outcome) for outcome in data["outcomes"]]
    declared = {name: outcomes[number] for name, number in data["declared"]}
    calls = []
    for operator, code, names, found in data["calls"]:
        rows = []
        for *texts, number in found:
            operands = dict(zip(names, texts, strict=True))
            case = Case(f"{code} [{', '.join(texts)}]", operands, code, None, operator, values=False)
            rows.append((case, outcomes[number]))
        calls.append(Call(operator, tuple(rows)))
    return data["header"], declared, calls


def everything(path: Path | None = None) -> list[Call]:
    """The rows of `path`, `EXECUTED` by default, and of the other files beside it; not those of the declared table."""
    path = EXECUTED if path is None else path
    files = (path, *(path.with_name(name) for name in OTHERS))
    return [call for file in files if file.exists() for call in read(file)[2]]

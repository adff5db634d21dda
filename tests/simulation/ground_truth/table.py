"""The table as data: the declared rows as JSON, and what a card has said in their place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from .cases import all_cases
from .declare import Case, Gives, Outcome, Raises
from .observe import Observation

FOLDER: Final = Path(__file__).parent
DOCUMENTED: Final = FOLDER / "documented.json"
RECORDED: Final = "recorded*.json"

EXECUTED: Final = "executed/rows.json"

Origin = Literal["documented", "executed", "recorded", "open"]


@dataclass(frozen=True)
class Row:
    """A case and the best that is known of it.

    Attributes:
        case: the declaration.
        origin: `"recorded"` where a card was asked, `"executed"` where PyTorch's CUDA build was, without a card,
            `"documented"` where only sources were read, `"open"` else.
        outcome: what CUDA does; None when open.
        values: of each tensor its elements, when recorded.
    """

    case: Case
    origin: Origin
    outcome: Outcome | None
    values: tuple[list[Any], ...] = ()


def outcome_to_json(outcome: Outcome | None) -> dict[str, Any] | None:
    if outcome is None:
        return None
    if isinstance(outcome, Gives):
        return {"gives": list(outcome.leaves)}
    return {"raises": outcome.type, "text": outcome.text}


def outcome_from_json(data: dict[str, Any]) -> Outcome:
    return Gives(tuple(data["gives"])) if "gives" in data else Raises(data["raises"], data["text"])


def documented() -> str:
    """The declared rows, one to a line so that a change can be read."""
    rows = []
    for case in all_cases():
        row = {
            "id": case.id,
            "origin": "open" if case.expected is None else "documented",
            "source": case.source,
            "cards": case.cards,
            "operands": case.operands,
            "code": case.code,
            "expected": outcome_to_json(case.expected),
        }
        rows.append(json.dumps(row))
    return "[\n" + ",\n".join(rows) + "\n]\n"


def recorded(header: dict[str, Any], seen: dict[str, Observation | str]) -> str:
    """What a card said: a header, then one row to a line; a text instead of an observation is a reason to skip."""
    rows = []
    for name, observation in seen.items():
        if isinstance(observation, str):
            rows.append(json.dumps({"id": name, "skipped": observation}))
        else:
            outcome = outcome_to_json(observation.outcome)
            rows.append(json.dumps({"id": name, "observed": outcome, "values": observation.values}))
    return f'{{"header": {json.dumps(header)},\n"rows": [\n' + ",\n".join(rows) + "\n]}\n"


def recorded_rows(folder: Path = FOLDER) -> dict[str, tuple[Outcome, tuple[list[Any], ...]]]:
    """What all recordings in a folder say, the newest file (by name) last and thus winning."""
    rows = {}
    for path in sorted(folder.glob(RECORDED)):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            if "observed" in row:
                rows[row["id"]] = (outcome_from_json(row["observed"]), tuple(row["values"]))
    return rows


def executed_rows(folder: Path = FOLDER) -> dict[str, Outcome]:
    """What the CUDA build did over the stand-in for its runtime; empty where it was not asked."""
    path = folder / EXECUTED
    if not path.exists():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return {name: outcome_from_json(data["outcomes"][number]) for name, number in data["declared"]}


def table(folder: Path = FOLDER) -> list[Row]:
    """Every case; a recorded row wins over an executed one, and that over a documented one."""
    seen, executed = recorded_rows(folder), executed_rows(folder)
    rows = []
    for case in all_cases():
        if case.id in seen:
            outcome, values = seen[case.id]
            rows.append(Row(case, "recorded", outcome, values))
        elif case.id in executed:
            rows.append(Row(case, "executed", executed[case.id]))
        else:
            rows.append(Row(case, "open" if case.expected is None else "documented", case.expected))
    return rows


def disagreements(folder: Path = FOLDER) -> list[str]:
    """Where a card, or the CUDA build, did something else than what is known from less: one line each."""
    recorded, executed = recorded_rows(folder), executed_rows(folder)
    lines = []
    for case in all_cases():
        known: list[tuple[str, Outcome | None]] = [
            ("documented", case.expected),
            ("executed", executed.get(case.id)),
            ("recorded", recorded[case.id][0] if case.id in recorded else None),
        ]
        said = [(origin, outcome) for origin, outcome in known if outcome is not None]
        if not said:
            continue
        best = said[-1]
        lines += [
            f"{case.id}: {origin} {outcome}, {best[0]} {best[1]}" for origin, outcome in said if outcome != best[1]
        ]
    return lines

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

Origin = Literal["documented", "recorded", "open"]


@dataclass(frozen=True)
class Row:
    """A case and the best that is known of it.

    Attributes:
        case: the declaration.
        origin: `"recorded"` where a card was asked, `"documented"` where only sources were read, `"open"` else.
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


def table(folder: Path = FOLDER) -> list[Row]:
    """Every case; a recorded row wins over a documented one."""
    seen = recorded_rows(folder)
    rows = []
    for case in all_cases():
        if case.id in seen:
            outcome, values = seen[case.id]
            rows.append(Row(case, "recorded", outcome, values))
        else:
            rows.append(Row(case, "open" if case.expected is None else "documented", case.expected))
    return rows


def disagreements(folder: Path = FOLDER) -> list[str]:
    """Where a card said something else than the sources promised: one line each."""
    seen = recorded_rows(folder)
    return [
        f"{case.id}: documented {case.expected}, recorded {seen[case.id][0]}"
        for case in all_cases()
        if case.expected is not None and case.id in seen and seen[case.id][0] != case.expected
    ]

"""What a run on a real card has shown is held against the simulation, and against what the CUDA build said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulation.ground_truth import card_run, record
from simulation.ground_truth.declare import Case, Gives, Raises
from simulation.ground_truth.executed import chunks, rows
from simulation.ground_truth.executed.compare import calls
from simulation.ground_truth.executed.run import Executed

from pytest_llmdevice.results.records import Check

if TYPE_CHECKING:
    import pytest

CELLS = {"llama.cuda0.fp16.none.to": ("float16", "none"), "llama.cuda0.bf16.nf4.auto": ("bfloat16", "nf4")}


def check(cell: str, name: str, outcome: Any, **more: Any) -> Check:
    return Check(cell=cell, check=name, outcome=outcome, **more)


def by_key(*checks: Check) -> card_run.Checks:
    return {(each.cell, each.check): each for each in checks}


FIRST, SECOND = CELLS
REAL = by_key(
    check(FIRST, "dtypes", "passed"),
    check(FIRST, "agreement", "passed", evidence={"relative error": "0.002", "tolerance": "0.02"}),
    check(
        SECOND, "agreement", "failed", failure="numeric", message="logits | differ\nmore",
        evidence={"relative error": "0.4", "tolerance": "0.3"},
    ),
    check(SECOND, "placement", "passed"),
)  # fmt: skip
SIMULATED = by_key(
    check(FIRST, "dtypes", "passed"),
    check(FIRST, "agreement", "passed", evidence={"relative error": "0.001", "tolerance": "0.02"}),
    check(SECOND, "agreement", "passed", evidence={"relative error": "0.1", "tolerance": "0.3"}),
)


def test_checks_with_another_outcome_are_found() -> None:
    assert card_run.apart(REAL, SIMULATED) == [
        card_run.Apart(SECOND, "agreement", "failed", "passed", "logits | differ")
    ]
    assert card_run.apart(REAL, REAL) == []


def test_errors_are_the_largest_of_each_dtype_and_quantization() -> None:
    assert card_run.errors(REAL, CELLS) == [
        card_run.Error("bfloat16", "nf4", 1, 0.4, 0.3),
        card_run.Error("float16", "none", 1, 0.002, 0.02),
    ]
    assert card_run.errors(REAL, {}) == []


def test_the_page_has_both_tables() -> None:
    errors = card_run.errors(REAL, CELLS), card_run.errors(SIMULATED, CELLS)
    page = card_run.page(["# Some Card"], card_run.apart(REAL, SIMULATED), *errors)
    assert f"| `{SECOND}` | agreement | failed | passed | logits \\| differ |" in page
    assert "| bfloat16 | nf4 | 1 | 0.4 | 0.1 | 0.3 |" in page
    assert "None.\n" in card_run.page([], [], *errors)


def written(path: Path, outcome: Gives | Raises) -> None:
    case = Case("", {"a": "cuda:0 float32 2"}, "a + 1", None, "", values=False)
    path.write_text(rows.written({"torch": "2.13.0"}, [rows.raw("add", case, Executed(outcome))], {}), encoding="utf-8")


def test_what_a_card_said_of_an_executed_case_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed, recorded = tmp_path / "rows.json", tmp_path / "recorded-some-card.json"
    written(executed, Gives(("cuda:0 float32",)))
    ((_, outcome),) = calls(executed)[-1].rows
    assert outcome == Gives(("cuda:0 float32",))
    written(recorded, Raises("RuntimeError", "no"))
    ((_, outcome),) = calls(executed)[-1].rows
    assert outcome == Raises("RuntimeError", "no")
    monkeypatch.setattr(rows, "EXECUTED", executed)
    monkeypatch.setattr(rows.read, "__defaults__", (executed,))
    (line,) = chunks.disagreements(recorded)
    assert line.startswith("add: a + 1 [cuda:0 float32 2]: executed Gives")


def test_a_case_that_breaks_the_context_is_left_out_and_the_next_ones_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [("add", Case(f"{number}", {"a": "cpu float32 2"}, f"a + {number}", None, "")) for number in range(4)]
    monkeypatch.setattr(chunks, "listed", lambda: cases)

    def process(command: list[str], **_: Any) -> Any:
        start = int(command[-1])
        with Path(command[-2]).open("a", encoding="utf-8") as lines:
            for number, (operator, case) in enumerate(cases[start:], start=start):
                if number == 1:
                    return type("Ended", (), {"returncode": 1})
                lines.write(json.dumps(rows.raw(operator, case, Executed(Gives(("cpu float32",))))) + "\n")
        return type("Ended", (), {"returncode": 0})

    monkeypatch.setattr("subprocess.run", process)
    text, count, broken = chunks.recorded({"card": "Some Card"}, tmp_path)
    assert (count, broken) == (3, 1)
    (tmp_path / "out.json").write_text(text, encoding="utf-8")
    header, _, found = rows.read(tmp_path / "out.json")
    assert header["left out"] == {"broke the card's context": 1}
    assert [call.rows[0][0].code for call in found] == ["a + 0", "a + 2", "a + 3"]


def test_beside_a_card_its_own_profile_is_simulated() -> None:
    assert record.profile_of({"card": "Tesla T4", "cards": 2}) == "cuda-t4:2"
    assert record.profile_of({"card": "a card that nobody knows", "cards": 1}) == "cuda:1"

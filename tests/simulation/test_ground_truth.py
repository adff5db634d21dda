"""The simulation against the ground truth: what real CUDA does with operands here and there, replayed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from simulation.ground_truth import record
from simulation.ground_truth.declare import Case, Gives, Raises
from simulation.ground_truth.executed import rows
from simulation.ground_truth.executed.run import Executed
from simulation.ground_truth.observe import Observation, observe, on_cpu
from simulation.ground_truth.table import DOCUMENTED, Row, disagreements, documented, recorded, table

from pytest_llmdevice.simulation import active, simulate

KNOWN_DISAGREEMENTS: dict[str, str] = {
    "read/repr": "on purpose: the text of a simulated tensor says '(simulated)'",
}
"""Case id -> why the simulation does something else, on purpose or not yet."""

ROWS = table()
KNOWN = [row for row in ROWS if row.outcome is not None]
ALONE = [row.case for row in ROWS if row.case.alone and row.case.expected is not None]


def replayed() -> list[Any]:
    params = []
    for row in KNOWN:
        reason = KNOWN_DISAGREEMENTS.get(row.case.id)
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        params.append(pytest.param(row, id=row.case.id, marks=marks))
    return params


def close(left: list[Any], right: list[Any], tolerance: float) -> bool:
    return len(left) == len(right) and all(
        a == b or math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(left, right, strict=True)
    )


def assert_same_values(row: Row, seen: Observation) -> None:
    """Recorded values, within what kernels may differ by (TensorFloat-32 in convolutions), else the CPU's own."""
    if not row.case.values or not isinstance(row.outcome, Gives):
        return
    if row.values:
        expected, tolerance = list(row.values), 2e-2
    elif row.case.alone:
        expected, tolerance = observe(on_cpu(row.case)).values, 1e-6
    else:
        return
    assert len(seen.values) == len(expected)
    for values, others in zip(seen.values, expected, strict=True):
        assert close(values, others, tolerance), f"{values} are not {others}"


@pytest.mark.parametrize("row", replayed())
def test_the_simulation_does_what_cuda_does(row: Row) -> None:

    with simulate("cuda:2"):
        seen = observe(row.case)
    assert seen.outcome == row.outcome
    assert_same_values(row, seen)


def on_the_cpu(leaf: str) -> str:
    return leaf if leaf.startswith("=") else re.sub(r"^cuda:\d", "cpu", leaf)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in ALONE])
def test_on_the_cpu_alone_the_code_works_and_has_the_dtypes(case: Case) -> None:
    """So an error of mixed devices is one of devices and of nothing else in the code."""
    seen = observe(on_cpu(case)).outcome
    assert isinstance(seen, Gives), seen
    if isinstance(case.expected, Gives):
        assert seen.leaves == tuple(on_the_cpu(leaf) for leaf in case.expected.leaves)


def test_there_are_many_cases_and_each_is_one_of_its_kind() -> None:
    ids = [row.case.id for row in ROWS]
    assert len(KNOWN) >= 350
    assert len(set(ids)) == len(ids)


def test_every_row_says_where_it_comes_from() -> None:
    for row in ROWS:
        assert row.origin in {"documented", "executed", "recorded", "open"}
        assert row.case.source
        assert (row.origin == "open") == (row.outcome is None)


def test_known_disagreements_are_of_cases_that_exist() -> None:
    assert set(KNOWN_DISAGREEMENTS) <= {row.case.id for row in KNOWN}


def test_the_committed_table_is_the_declared_one() -> None:
    assert DOCUMENTED.read_text(encoding="utf-8") == documented(), (
        "run: python -m tests.simulation.ground_truth.record --documented"
    )


def test_where_a_card_was_asked_it_said_what_the_sources_promise() -> None:
    """A line here is a declaration to correct: the card is right."""
    assert disagreements() == []


def test_what_a_card_said_wins_over_what_is_documented(tmp_path: Path) -> None:
    first = KNOWN[0].case
    observation = Observation(Raises("RuntimeError", "no"), [[1.0]])
    text = recorded({"card": "Some Card"}, {first.id: observation, KNOWN[1].case.id: "needs 2 cards, here is 1"})
    (tmp_path / "recorded-some.json").write_text(text, encoding="utf-8")
    rows = {row.case.id: row for row in table(tmp_path)}
    assert rows[first.id].origin == "recorded"
    assert rows[first.id].outcome == Raises("RuntimeError", "no")
    assert rows[KNOWN[1].case.id].origin == "documented"
    assert disagreements(tmp_path) == [f"{first.id}: documented {first.expected}, recorded {observation.outcome}"]


def test_what_the_cuda_build_did_wins_over_what_is_documented_and_a_card_over_both(tmp_path: Path) -> None:
    first, second = KNOWN[0].case, KNOWN[1].case
    row = rows.raw("", first, Executed(Raises("RuntimeError", "executed")))
    other = rows.raw("", second, Executed(second.expected))
    (tmp_path / "executed").mkdir()
    (tmp_path / "executed" / "rows.json").write_text(rows.written({"torch": "2"}, [row, other], {}), encoding="utf-8")
    found = {each.case.id: each for each in table(tmp_path)}
    assert (found[first.id].origin, found[first.id].outcome) == ("executed", Raises("RuntimeError", "executed"))
    assert found[second.id].origin == "executed"
    assert len(disagreements(tmp_path)) == 1
    text = recorded({"card": "Some Card"}, {first.id: Observation(Raises("RuntimeError", "recorded"))})
    (tmp_path / "recorded-some.json").write_text(text, encoding="utf-8")
    found = {each.case.id: each for each in table(tmp_path)}
    assert (found[first.id].origin, found[first.id].outcome) == ("recorded", Raises("RuntimeError", "recorded"))
    assert len(disagreements(tmp_path)) == 2


def test_nothing_is_recorded_without_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="No NVIDIA card can be used"):
        record.main([str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


def test_nothing_is_recorded_over_the_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(record, "loaded", lambda: True)
    with pytest.raises(SystemExit, match="stand-in without cards"):
        record.main([str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()


def test_nothing_is_recorded_on_a_simulated_card(tmp_path: Path) -> None:
    with simulate("cuda:2"), pytest.raises(SystemExit, match="The cards here are simulated"):
        record.main([str(tmp_path / "out.json")])
    assert not (tmp_path / "out.json").exists()
    assert active() is None

"""The simulation against what PyTorch's CUDA build did over a stand-in for the CUDA runtime, row by row."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import pytest
import torch
from simulation.ground_truth.declare import Case
from simulation.ground_truth.executed.compare import calls, differences
from simulation.ground_truth.executed.known import KNOWN
from simulation.ground_truth.executed.rows import Call, read
from simulation.ground_truth.executed.used import function_of, rows_of, used
from simulation.ground_truth.table import disagreements, table

HEADER, DECLARED, _ = read()
CALLS = calls()
BY_OPERATOR: dict[str, list[Call]] = {}
for call in CALLS:
    BY_OPERATOR.setdefault(call.operator, []).append(call)

SAME_TORCH = pytest.mark.skipif(
    torch.__version__.partition("+")[0] != HEADER["torch"].partition("+")[0],
    reason=f"the rows are those of PyTorch {HEADER['torch']}, and here is {torch.__version__}",
)


def known(operator: str) -> dict[str, str]:
    """Id of a row -> why the simulation does something else."""
    return {row: reason for reason, rows in KNOWN.get(operator, {}).items() for row in rows}


@SAME_TORCH
@pytest.mark.parametrize("operator", BY_OPERATOR)
def test_the_simulation_does_what_the_cuda_build_does(operator: str) -> None:
    rows = chain.from_iterable(call.rows for call in BY_OPERATOR[operator])
    found = {each.case.id: each for each in differences(rows, operator)}
    reasons = known(operator)
    assert [each for name, each in found.items() if name not in reasons] == []
    assert sorted(set(reasons) - set(found)) == [], "they agree now: take them from the list"


def test_there_are_thousands_of_rows_and_each_is_one_of_its_kind() -> None:
    ids = Counter((call.operator, case.id) for call in CALLS for case, _ in call.rows)
    assert sum(ids.values()) >= 10_000
    assert max(ids.values()) == 1
    assert len(BY_OPERATOR) >= 500


@pytest.mark.parametrize(
    ("asked", "least"),
    [("nn.", 1_800), ("autocast ", 2_400), ("generators", 400)],
    ids=["modules", "autocast", "generators"],
)
def test_of_modules_autocast_and_generators_there_are_hundreds_of_rows(asked: str, least: int) -> None:
    names = [name for name in BY_OPERATOR if name.startswith(asked) and not name.startswith("nn.functional")]
    assert sum(len(call.rows) for name in names for call in BY_OPERATOR[name]) >= least


def test_there_are_a_thousand_rows_about_operands_on_meta() -> None:
    on_meta = [
        case for call in CALLS for case, _ in call.rows if any("meta" in text for text in case.operands.values())
    ]
    assert len(on_meta) >= 1_000


def test_rows_that_differ_are_few_and_each_has_a_reason() -> None:
    total = sum(len(call.rows) for call in CALLS)
    differing = sum(len(rows) for reasons in KNOWN.values() for rows in reasons.values())
    assert differing / total < 0.01
    assert all(reason for reasons in KNOWN.values() for reason in reasons)


def test_of_what_language_models_call_next_to_nothing_differs() -> None:
    total = sum(len(call.rows) for call in BY_OPERATOR["extra"])
    assert len(known("extra")) / total < 0.01


def test_of_what_the_libraries_call_next_to_nothing_differs() -> None:
    rows = rows_of(CALLS, used(), {"extra"})
    differing = [case.id for operator, case, _ in rows if case.id in known(operator)]
    assert len(rows) >= 3_000
    assert len(differing) / len(rows) < 0.01


def test_the_cuda_build_was_asked_about_the_whole_declared_table() -> None:
    left_out = {row.case.id for row in table()} - set(DECLARED)
    # What a library of NVIDIA's or the values say was not to be seen.
    assert len(left_out) < 30
    assert len(DECLARED) >= 890


def test_where_the_cuda_build_says_something_else_than_the_sources_promise_it_is_known() -> None:
    assert disagreements() == []


def test_functions_are_known_by_their_calls() -> None:
    calls = {
        "torch.add(a, b)": "add",
        "F.linear(a, b)": "linear",
        "a.cumsum_(0)": "cumsum_",
        "torch.linalg.norm(a)": "norm",
        "a @ b": "",
        "(a * b).sum()": "",
    }
    assert {code: function_of(Case("", {}, code, None, "")) for code in calls} == calls


def test_the_functions_that_are_used_are_those_of_models() -> None:
    assert {"linear", "matmul", "embedding", "softmax", "scatter_", "gemm_4bit.default", "conv1d"} <= used()

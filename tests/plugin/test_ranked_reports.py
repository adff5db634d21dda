"""What several ranks report of a test, as one."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from pytest_llmdevice.plugin.failures import DETAILS, FINDINGS
from pytest_llmdevice.plugin.ranked_reports import merged

IDS = ("a.cuda0.fp32", "a.cuda1.fp32")

Outcome = Literal["passed", "failed", "skipped"]


def report(outcome: Outcome, text: str | None = None, when: Any = "call", **more: Any) -> pytest.TestReport:
    made = pytest.TestReport("test.py::test", ("test.py", 1, "test"), {}, outcome, text, when, duration=1.0)
    vars(made).update(more)
    return made


def one(first: pytest.TestReport, second: pytest.TestReport) -> pytest.TestReport:
    (found,) = merged({0: [first], 1: [second]}, 2, IDS)
    return found


def test_all_ranks_must_pass_and_have_a_result() -> None:
    good: dict[str, Any] = {DETAILS: {"result": "passed", "called": True, "evidence": {"tensors": 3}}}
    assert vars(one(report("passed", **good), report("passed", **good)))[DETAILS] == {
        "result": "passed",
        "called": True,
        "evidence": {"tensors": 3, "ranks": 2},
    }
    assert vars(one(report("passed", **good), report("passed")))[DETAILS]["result"] == "hollow"
    assert "called" not in vars(one(report("passed", **good), report("passed")))[DETAILS]


@pytest.mark.parametrize("turned", [False, True])
def test_the_worst_rank_counts_and_is_named(turned: bool) -> None:  # a parameter
    good, bad = report("passed"), report("failed", "it is wrong")
    found = one(bad, good) if turned else one(good, bad)
    assert (found.outcome, found.longreprtext) == ("failed", f"on rank {int(not turned)} of 2 alone: it is wrong")


def test_what_both_say_is_said_once_though_their_devices_differ() -> None:
    found = one(report("failed", f"{IDS[0]}: broken"), report("failed", f"{IDS[1]}: broken"))
    assert found.longreprtext == f"{IDS[0]}: broken"
    found = one(report("failed", "this"), report("failed", "that"))
    assert found.longreprtext == "on rank 0 of 2: this\n\non rank 1 of 2: that"


def test_a_finding_says_in_which_rank_it_is_unless_in_all() -> None:
    both, own = ["values", "norm", "1", "2"], ["values", "head", "3", "4"]
    found = one(report("failed", "x", **{FINDINGS: [both]}), report("failed", "x", **{FINDINGS: [both, own]}))
    assert vars(found)[FINDINGS] == [both, ["values", "rank 1 of 2, head", "3", "4"]]


def test_no_call_counts_where_a_rank_was_not_set_up() -> None:
    ends = [report("passed", when="setup"), report("passed"), report("passed", when="teardown")]
    other = [report("failed", "no model", when="setup"), report("passed", when="teardown")]
    made = merged({0: ends, 1: other}, 2, IDS)
    assert [(each.when, each.outcome) for each in made] == [("setup", "failed"), ("teardown", "passed")]


def test_a_call_that_not_all_ranks_came_to_is_no_pass() -> None:
    setup = report("passed", when="setup")
    details: dict[str, Any] = {DETAILS: {"result": "passed", "called": True}}
    good = report("passed", **details)
    call = merged({0: [setup, good], 1: [report("passed", when="setup")]}, 2, IDS)[1]
    assert vars(call)[DETAILS] == {"result": "hollow"}

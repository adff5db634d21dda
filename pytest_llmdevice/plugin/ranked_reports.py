"""Makes one report of what the ranks of a cell say of a test: the worst of them counts, and each is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest

from pytest_llmdevice.plugin.failures import DETAILS, FINDINGS, details_of

PHASES: Final = ("setup", "call", "teardown")

_WORST_FIRST: Final = ("failed", "rerun", "skipped", "passed")
_RESULTS: Final = ("failed", "hollow", "passed")

Reports = Mapping[int, Sequence[pytest.TestReport]]
"""Rank -> its reports of one test, one for each phase that it came to."""


def merged(reports: Reports, size: int, ids: Sequence[str]) -> list[pytest.TestReport]:
    """The reports of a test, one for each phase that any rank came to.

    Args:
        reports: what each rank said.
        size: how many ranks there are.
        ids: the id that each rank has for the cell; they differ by the device.
    """
    made: list[pytest.TestReport] = []
    for phase in PHASES:
        said = {rank: report for rank, each in reports.items() for report in each if report.when == phase}
        # Where a rank was not set up, nobody's call counts.
        if said and not (phase == "call" and made and not made[0].passed):
            made.append(_one(said, size, ids))
    return made


def _one(said: Mapping[int, pytest.TestReport], size: int, ids: Sequence[str]) -> pytest.TestReport:
    outcomes = {rank: _WORST_FIRST.index(str(report.outcome)) for rank, report in said.items()}
    worst = min(outcomes.values())
    ranks = [rank for rank, outcome in sorted(outcomes.items()) if outcome == worst]
    report = said[ranks[0]]
    if worst == _WORST_FIRST.index("failed"):
        texts = {rank: _text(said[rank]).replace(ids[rank], ids[0]) for rank in ranks}
        same = len(set(texts.values())) == 1
        if not same or len(ranks) < size:
            report.longrepr = _told(texts, said, size) if not same else _alone(report, ranks, size)
    findings = _findings({rank: each for rank, each in said.items() if hasattr(each, FINDINGS)}, size)
    if findings:
        vars(report)[FINDINGS] = findings
    details = _details(said, report, size)
    if details:
        vars(report)[DETAILS] = details
    report.duration = max(each.duration for each in said.values())
    return report


def named(ranks: Sequence[int], size: int) -> str:
    """`"rank 1 of 2"`, `"ranks 0 and 1"`."""
    if len(ranks) == 1:
        return f"rank {ranks[0]} of {size}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def _text(report: pytest.TestReport) -> str:
    return "" if report.longrepr is None else report.longreprtext


def _alone(report: pytest.TestReport, ranks: Sequence[int], size: int) -> str:
    return f"on {named(ranks, size)} alone: {_text(report)}"


def _told(texts: Mapping[int, str], said: Mapping[int, pytest.TestReport], size: int) -> str:
    """The text of each rank that failed, under its name; one that says the same as an earlier one is named with it."""
    together: dict[str, list[int]] = {}
    for rank, text in texts.items():
        together.setdefault(text, []).append(rank)
    parts = [f"on {named(ranks, size)}: {text}" for text, ranks in together.items()]
    passed = [rank for rank in said if rank not in texts]
    return "\n\n".join(parts) + (f"\n\n{named(passed, size)}: nothing" if passed else "")


def _findings(said: Mapping[int, pytest.TestReport], size: int) -> list[list[str]]:
    """The findings of all ranks; those that not all have say in which they are."""
    by_finding: dict[tuple[str, ...], list[int]] = {}
    for rank, report in sorted(said.items()):
        for finding in getattr(report, FINDINGS):
            by_finding.setdefault(tuple(finding), []).append(rank)
    found = []
    for (check, where, *rest), ranks in by_finding.items():
        place = where if len(ranks) == size else f"{named(ranks, size)}, {where}"
        found.append([check, place, *rest])
    return found


def _details(said: Mapping[int, pytest.TestReport], report: pytest.TestReport, size: int) -> dict[str, Any]:
    """What a record needs: of the report that counts, but a pass is one of all ranks."""
    details = dict(details_of(report))
    # A rank that did not come to the phase has neither called the test nor a result.
    every = [*(details_of(each) for each in said.values()), *({} for _ in range(size - len(said)))]
    if any("result" in each for each in every):
        # A rank that has none has not passed.
        results = [each.get("result", "hollow") for each in every]
        details["result"] = min(results, key=lambda each: _RESULTS.index(each) if each in _RESULTS else 0)
    for name in ("called", "loaded"):
        if not all(each.get(name) for each in every):
            details.pop(name, None)
    if "evidence" in details:
        details["evidence"] = {**details["evidence"], "ranks": len(said)}
    return details

"""Combines findings that differ only in layer numbers into one finding."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from pytest_llmdevice.diagnosis.finding import Finding

_NUMBER: Final = re.compile(r"(?<=[A-Za-z_\])}]\.)\d+(?!\w)|(?<=\bprompt )\d+|(?<=\blayer )\d+")
"""The number of a layer or an expert in the name of a tensor or module, or the number of a prompt; no quantities."""


def starred(where: str) -> str:
    """`where` with every layer number replaced by a star: `"model.layers.*.mlp.experts.*.up_proj.weight"`."""
    # Twice, because two numbers in a row ("blocks.0.1.weight") have no letter between them.
    return re.sub(r"(?<=\*\.)\d+(?!\w)", "*", _NUMBER.sub("*", where))


def fold_findings(findings: Sequence[Finding]) -> list[tuple[Finding, int]]:
    """Combine findings that differ only in numbers; returns (finding, how many), in order of first appearance.

    `model.layers.0.mlp.up_proj.weight` and the same for layer 1 become `model.layers.{0,1}.mlp.up_proj.weight`.
    """
    rows = [(finding, 1) for finding in findings]
    deepest = max((len(_NUMBER.findall(finding.where)) for finding in findings), default=0)
    for position in reversed(range(deepest)):
        rows = _fold_at(rows, position)
    return rows


def _fold_at(rows: Iterable[tuple[Finding, int]], position: int) -> list[tuple[Finding, int]]:
    """Combine findings that differ only in the number at `position`."""
    kept: dict[object, list[tuple[Finding, int]]] = {}
    for finding, count in rows:
        spans = list(_NUMBER.finditer(finding.where))
        if position < len(spans):
            match = spans[position]
            around = (finding.where[: match.start()], position, finding.where[match.end() :])
        else:
            around = (finding.where, -1, "")
        kept.setdefault((around, finding.expected, finding.actual, finding.hint), []).append((finding, count))
    return [_as_one(same, position) for same in kept.values()]


def _as_one(same: list[tuple[Finding, int]], position: int) -> tuple[Finding, int]:
    first = same[0][0]
    count = sum(folded for _, folded in same)
    numbers = [list(_NUMBER.finditer(finding.where)) for finding, _ in same]
    if len(same) == 1 or position >= len(numbers[0]):
        return first, count
    match = numbers[0][position]
    inside = format_numbers({int(matches[position].group()) for matches in numbers})
    return replace(first, where=first.where[: match.start()] + inside + first.where[match.end() :]), count


def format_numbers(numbers: Iterable[int]) -> str:
    """Write numbers in a shell's brace notation: `"{0,1,4..7}"`; a single number without braces."""
    ordered = sorted(set(numbers))
    if len(ordered) == 1:
        return str(ordered[0])
    runs: list[list[int]] = []
    for number in ordered:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = (f"{run[0]}..{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
    return f"{{{','.join(parts)}}}"

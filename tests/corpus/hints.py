"""Writes docs/hints.md: whether the hints of all bugs of the corpus, and of faults that were planted, are right.

In `tests/`: `python -m corpus.hints`. It runs the buggy half of every case, which takes some minutes, prints each hint
that is wrong, and fails where there is one.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from corpus.catalog import CASES
from corpus.judgement import RIGHT, Verdict, verdict
from corpus.planted import PLANTED
from corpus.table import _quiet
from pytest_llmdevice import Finding, Result

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "hints.md"

Judged = dict[str, list[tuple[Finding, Verdict]]]

_HEAD: Final = """\
# How right the hints are

A hint is given where its condition was seen ([hints](reference/hints.md)), or not at all. Whether it is right is judged
by hand, by the mechanism of each bug ([`judgement.py`](../tests/corpus/judgement.py)): it is right where its text names
the mistake among its causes, or what the mistake directly leads to at that place, and wrong where it names something
that is not there, also where its finding is right. The first finding is the one by which people begin; the others of a
cell mostly follow from it.

The bugs are those of [the corpus](corpus.md), the planted faults one line each in a loader or generator that is right
([`planted.py`](../tests/corpus/planted.py)). This page is written by `python -m corpus.hints` in `tests/`.
"""


def judged_bugs() -> Judged:
    """name of a case -> its findings, each with what its hint is worth."""
    return {
        case.name: [
            (finding, verdict(RIGHT[case.name], finding))
            for _, result in case.failures(case.buggy())
            for finding in result.findings
        ]
        for case in CASES
    }


def judged_faults() -> Judged:
    """name of a planted fault -> the same."""
    return {planted.name: list(_judged(planted.results(), planted.right)) for planted in PLANTED}


def _judged(results: Iterable[Result], right: str) -> Iterator[tuple[Finding, Verdict]]:
    for result in results:
        for finding in result.findings:
            yield finding, verdict(right, finding)


def counts(judged: Judged) -> tuple[Counter[str], Counter[str]]:
    """How often first findings, and all, have a hint that is right, one that is wrong, and none."""
    first = Counter(str(found[0][1]) for found in judged.values() if found)
    return first, Counter(str(worth) for found in judged.values() for _, worth in found)


def document(bugs: Judged, faults: Judged) -> str:
    """The page."""
    rows = ["| | right | wrong | no hint |", "| --- | --- | --- | --- |"]
    for what, judged in (("bugs", bugs), ("planted faults", faults)):
        for which, found in zip(("first findings", "all findings"), counts(judged), strict=True):
            rows.append(f"| {len(judged)} {what}, {which} | {found['right']} | {found['wrong']} | {found['none']} |")
    parts = [_HEAD, "\n".join(rows), ""]
    for what, judged in (("Bugs", bugs), ("Planted faults", faults)):
        parts += [f"## {what}\n", "| name | hint of the first finding | right |", "| --- | --- | --- |"]
        parts += [_line(name, found) for name, found in judged.items()]
        parts.append("")
    return "\n".join(parts)


def _line(name: str, found: list[tuple[Finding, Verdict]]) -> str:
    if not found:
        return f"| `{name}` | nothing was found | |"
    finding, worth = found[0]
    return f"| `{name}` | {f'`{finding.hint.name}`' if finding.hint else 'none'} | {worth if finding.hint else ''} |"


def main() -> int:
    """Run everything, write the page, and say which hints are wrong."""
    _quiet()
    bugs, faults = judged_bugs(), judged_faults()
    for name, found in (*bugs.items(), *faults.items()):
        for finding, worth in found:
            if worth == "wrong":
                print(f"{name}: {finding.hint.name if finding.hint else ''}: {finding.where}: {finding.actual}")
    text = document(bugs, faults)
    DOCUMENT.write_text(text, "utf-8")
    print("\n".join(line for line in text.splitlines() if "findings |" in line))
    return int(any(worth == "wrong" for found in (*bugs.values(), *faults.values()) for _, worth in found))


if __name__ == "__main__":
    sys.exit(main())

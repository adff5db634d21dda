"""Defines `Result`, what a check returns: findings (what is wrong) and evidence (what was examined)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pytest_llmdevice.diagnosis.finding import Finding, Hint
from pytest_llmdevice.diagnosis.folding import fold_findings
from pytest_llmdevice.errors import CARRIED

SHOWN = 12
"""Rows of the table of a failure."""

SHOWN_OF_ONE_CAUSE = 3
"""Rows that each cause has at least."""

WIDEST = 100
"""Characters of a column; the first finding is told in full above the table."""

WIDEST_TABLE = 120
"""Characters of a row; findings that need more are sentences, since a terminal breaks the rows of a wider table."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one check on one loaded cell.

    Attributes:
        check: its name, one of `vocabulary.CHECKS`.
        findings: everything that is wrong; empty when the check passed.
        upstream: what a plain load of the same cell has too, and what is no fault of the code under test.
        source: whose that is: the architecture, and the libraries with their versions.
        inapplicable: what the check is about and the model has not; empty where it was made.
        evidence: what was looked at, as counts and figures by name. A check that looked at nothing is hollow.
        origin: the first module, in the order of execution, that does something else than it should; empty where
            nobody looked.
        details: what helps to understand the findings and is too long for a table: the end of a traceback.
    """

    check: str
    findings: tuple[Finding, ...] = ()
    evidence: Mapping[str, int | float | str] = field(default_factory=dict)
    origin: str = ""
    details: str = ""
    upstream: tuple[Finding, ...] = ()
    source: str = ""
    inapplicable: str = ""

    @property
    def hollow(self) -> bool:
        """Whether the check found nothing because it looked at nothing: no count is above zero.

        Words ("0%", "none") describe what was looked at; they are no sign that there was something.
        """
        counts = (value for value in self.evidence.values() if not isinstance(value, str))
        return not self.findings and not self.upstream and not self.inapplicable and not any(counts)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong and something was looked at."""
        return not self.findings and not self.upstream and not self.inapplicable and not self.hollow

    @property
    def outcome(self) -> Literal["passed", "failed", "hollow", "upstream", "inapplicable"]:
        """What became of the check. `upstream`: a plain load has all that it found. `inapplicable`: it was not made."""
        if self.findings:
            return "failed"
        if self.upstream:
            return "upstream"
        if self.inapplicable:
            return "inapplicable"
        return "hollow" if self.hollow else "passed"

    def message(self, subject: str = "") -> str:
        """Why the check did not pass: a first line with the first finding, then offenders and hints, by cause.

        Repeated layers are one row: `model.layers.{0,1}.mlp.up_proj.weight`.
        """
        of = f" of {subject}" if subject else ""
        if self.hollow:
            return f"{self.check}{of}: hollow: there was nothing to check"
        if self.passed:
            return f"{self.check}{of}: passed"
        if self.outcome == "inapplicable":
            return f"{self.check}{of}: does not apply: {self.inapplicable}"
        if not self.findings:
            first = self.upstream[0]
            said = f"{first.where}: expected {first.expected}, found {first.actual}"
            return f"{self.check}{of}: upstream: {self.source} does so too: {said}"
        return "\n".join(_lines(self, of))

    def require(self, subject: str = "") -> None:
        """Do nothing if the check passed, or found only what a plain load has too.

        Raises:
            AssertionError: something is wrong, or nothing was looked at; see `message`.
        """
        __tracebackhide__ = True
        if self.outcome in {"failed", "hollow", "inapplicable"}:
            error = AssertionError(self.message(subject))
            vars(error)[CARRIED] = self
            raise error


def _lines(result: Result, of: str) -> Iterable[str]:
    findings = result.findings
    first, more = findings[0], len(findings) - 1
    yield (
        f"{result.check}{of}: {first.where}: expected {first.expected}, found {first.actual}"
        + (f" (and {more} more)" if more else "")
    )
    if result.origin:
        yield f"origin: {result.origin}"
    groups = _by_hint(findings)
    if more:
        yield ""
        yield from _table(groups)
    else:
        yield from (f"hint: {hint}" for hint in groups if hint)
    if result.evidence:
        yield "looked at: " + ", ".join(f"{name} {value}" for name, value in result.evidence.items())
    if result.details:
        yield ""
        yield result.details


Row = tuple[Finding, int]


def _by_hint(findings: Sequence[Finding]) -> dict[Hint | None, list[Row]]:
    """Repeated layers as one row each, with the number of findings in it; the rows of one cause together."""
    groups: dict[Hint | None, list[Row]] = {}
    for row in fold_findings(findings):
        groups.setdefault(row[0].hint, []).append(row)
    return groups


def _table(groups: Mapping[Hint | None, Sequence[Row]]) -> Iterable[str]:
    each = max(SHOWN // len(groups), SHOWN_OF_ONE_CAUSE)
    shown = {hint: [_cells(finding) for finding, _ in rows[:each]] for hint, rows in groups.items()}
    head = ("where", "expected", "found")
    widths = [
        max(map(len, column)) for column in zip(head, *(row for rows in shown.values() for row in rows), strict=True)
    ]
    narrow = sum(widths) + 2 * len(widths) <= WIDEST_TABLE
    if narrow:
        yield _line(head, widths)
        yield _line(tuple("-" * width for width in widths), widths)
    for hint, rows in groups.items():
        yield from (_line(row, widths) if narrow else _sentence(row) for row in shown[hint])
        left_out = sum(count for _, count in rows[each:])
        if left_out:
            yield f"  ... and {left_out} more"
        if hint:
            yield f"hint: {hint}"


def _cells(finding: Finding) -> tuple[str, str, str]:
    return _cut(finding.where), _cut(finding.expected), _cut(finding.actual)


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _sentence(row: Sequence[str]) -> str:
    where, expected, actual = row
    return f"  {where}: expected {expected}, found {actual}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

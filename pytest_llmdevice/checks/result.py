"""What a check says: findings (things that are wrong) and evidence (things that were looked at)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SHOWN = 12


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        where: the tensor, module or step.
        expected: what it should have been.
        actual: what it is.
        hint: what usually causes this, in a sentence; may be empty.
    """

    where: str
    expected: str
    actual: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one check on one loaded cell.

    Attributes:
        check: its name, one of `vocabulary.CHECKS`.
        findings: everything that is wrong; empty when the check passed.
        evidence: what was looked at, as counts and figures by name. A check that looked at nothing is hollow.
    """

    check: str
    findings: tuple[Finding, ...] = ()
    evidence: Mapping[str, int | float | str] = field(default_factory=dict)

    @property
    def hollow(self) -> bool:
        """Whether the check found nothing because it looked at nothing: no count is above zero.

        Words ("0%", "none") describe what was looked at; they are no sign that there was something.
        """
        counts = (value for value in self.evidence.values() if not isinstance(value, str))
        return not self.findings and not any(counts)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong and something was looked at."""
        return not self.findings and not self.hollow

    def message(self, subject: str = "") -> str:
        """Why the check did not pass: a first line with the first finding, a table of offenders, hints."""
        of = f" of {subject}" if subject else ""
        if self.hollow:
            return f"{self.check}{of}: hollow: there was nothing to check"
        return "\n".join(_lines(self, of))

    def require(self, subject: str = "") -> None:
        """Do nothing if the check passed.

        Raises:
            AssertionError: something is wrong, or nothing was looked at; see `message`.
        """
        __tracebackhide__ = True
        if not self.passed:
            raise AssertionError(self.message(subject))


def _lines(result: Result, of: str) -> Iterable[str]:
    findings = result.findings
    first, more = findings[0], len(findings) - 1
    yield (
        f"{result.check}{of}: {first.where}: expected {first.expected}, found {first.actual}"
        + (f" (and {more} more)" if more else "")
    )
    if more:
        yield ""
        yield from _table(findings[:SHOWN])
    if len(findings) > SHOWN:
        yield f"  ... and {len(findings) - SHOWN} more"
    for hint in dict.fromkeys(finding.hint for finding in findings if finding.hint):
        yield f"hint: {hint}"
    if result.evidence:
        yield "looked at: " + ", ".join(f"{name} {value}" for name, value in result.evidence.items())


def _table(findings: Sequence[Finding]) -> Iterable[str]:
    rows = [("where", "expected", "found"), *((f.where, f.expected, f.actual) for f in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for number, row in enumerate(rows):
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if number == 0:
            yield "  " + "  ".join("-" * width for width in widths)

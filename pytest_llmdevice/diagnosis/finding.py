"""Defines `Finding`, one thing that is wrong with a model, and `Hint`, a known cause of findings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hint:
    """A known cause of findings.

    Attributes:
        name: the words, joined by hyphens, by which findings of this cause are grouped.
        text: the usual cause and the remedy, in a sentence or two.
        source: the URL of an issue, a pull request or library source that shows it.
    """

    name: str
    text: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.source})" if self.source else self.text


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a model.

    Attributes:
        where: the tensor, module or step.
        expected: what it should be, in words.
        actual: what it is, in words.
        hint: the usual cause; None if unknown.
    """

    where: str
    expected: str
    actual: str
    hint: Hint | None = None

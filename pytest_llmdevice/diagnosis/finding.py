"""Defines `Finding`, one thing that is wrong with a model, and `Hint`, a known cause of findings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from pytest_llmdevice.errors import FailureClass


@dataclass(frozen=True, slots=True)
class Hint:
    """A known cause of findings.

    Attributes:
        name: what findings of this cause are grouped by, in words joined by hyphens.
        text: what usually causes it and what to do, in a sentence or two.
        source: a public page that shows it: an issue, a pull request, or the library's source.
        failure: what kind of thing is wrong; None where that depends on the check.
        patterns: regular expressions, one of which is found in what a library raises in this case.
        when: what must have been seen before this hint is given, in a sentence without a full stop.
        inferred: where it is concluded from what the model says, which has as many causes as a model has parts:
            `"parts"` for one that is only given where nothing is wrong with what the model is made of, `"cell"` for
            one that is only given where no earlier check of the cell has found anything, `"raised"` for one that is
            only given where none has met an exception.
    """

    table: ClassVar[str] = "hint"

    name: str
    text: str
    source: str = ""
    failure: FailureClass | None = field(default=None, compare=False)
    patterns: tuple[str, ...] = field(default=(), compare=False)
    when: str = field(default="", compare=False)
    inferred: Literal["", "parts", "cell", "raised"] = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.text} ({self.source})" if self.source else self.text


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a model.

    Attributes:
        where: the tensor, module or step.
        expected: what it should have been.
        actual: what it is.
        hint: what usually causes this; None where nothing is known.
        kind: `"exception"` where something was raised, `"no model"` where a load gave none, `"answer"` where the
            target's own generation says something else than its model, `"form"` where it returns no lists of token ids;
            empty for all else.
        subject: `where` without a position or row in it; empty where there is none.
        size: how large an error is, in the unit of `actual`; None where it is not a matter of size.
    """

    where: str
    expected: str
    actual: str
    hint: Hint | None = None
    kind: Literal["", "exception", "no model", "answer", "form"] = ""
    subject: str = field(default="", compare=False)
    size: float | None = field(default=None, compare=False)

    @property
    def about(self) -> str:
        """The tensor, module or step without the position or row in it: findings of one mistake have it in common."""
        return self.subject or self.where

"""Defines what a check is: a property of a loaded cell, and what is known of it beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.errors import FailureClass
from pytest_llmdevice.matrix.registry import CHOICES

if TYPE_CHECKING:
    from pytest_llmdevice.checks.examination import Examination

Need = Literal["generation", "second load", "simulated cards"]
"""What a check takes beyond the loaded model: the target's generation, loads of its own, cards to simulate."""


@dataclass(frozen=True)
class Check:
    """One property of a loaded cell, as a registry holds it.

    Attributes:
        name: of the check, of its test (without `test_`) and of its entry in `[[expect]]`.
        run: makes the check; what the model or the target raises in it becomes a finding.
        question: what must hold, a clause that goes on from "of every cell:".
        meaning: what it means for a user when the check finds something, a sentence.
        needs: what it takes beyond the loaded model.
        failure: what kind of thing is wrong when it finds something whose cause is unknown.
        origin: whether its findings may have begun in any module of the model, so that the first one that differs
            from a plain load is looked for.
        behaviour: whether it is about what the model does, so that a plain load may have its findings too; those are
            then the library's, and the outcome is `upstream`.
        after: the check behind which it runs; empty for the end.
    """

    table: ClassVar[str] = "check"

    name: str
    run: Callable[[Examination], Result]
    question: str
    meaning: str
    needs: tuple[Need, ...] = field(default=(), metadata={CHOICES: get_args(Need)})
    failure: FailureClass = field(default="other", metadata={CHOICES: get_args(FailureClass)})
    origin: bool = False
    behaviour: bool = False
    after: str = ""


def needs_cards(check: Check) -> bool:
    """Whether `check` is about cpu cells beside cards, and so needs cards to simulate."""
    return "simulated cards" in check.needs

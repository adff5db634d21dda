"""Examines one loaded cell with the checks of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.check import Check, needs_cards
from pytest_llmdevice.checks.origin import origin_of
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tolerance import tolerance
from pytest_llmdevice.checks.upstream import judged
from pytest_llmdevice.diagnosis import finding_from_exception
from pytest_llmdevice.diagnosis.failure import excerpt
from pytest_llmdevice.diagnosis.grounds import grounded
from pytest_llmdevice.errors import DoesNotApply, message_of, of_target
from pytest_llmdevice.inference.generation_run import GenerationRun, generate_traced
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.stored_packed import stored_method
from pytest_llmdevice.matrix.axes import Strategy
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.registry import current
from pytest_llmdevice.matrix.vocabulary import RandomState
from pytest_llmdevice.model.device_map import restore_offloading
from pytest_llmdevice.monitoring.change import Change
from pytest_llmdevice.oracle.expectations import Expectations, expectations_of
from pytest_llmdevice.oracle.reference import Reference
from pytest_llmdevice.simulation.profiles import Profile

if TYPE_CHECKING:
    from pytest_llmdevice.loading.target import Target

NEW_TOKENS: Final = 8

MADE_OF: Final = ("loads", "meta", "placement", "dtypes", "tied", "quantization", "mode", "values")
"""Checks of what a model is made of. They run nothing, and what they find is a cause of what a model says."""

FEW_TOKENS: Final = 3
"""New tokens where the question is whether anything goes elsewhere, and not what it says."""

Tokens = Sequence[Sequence[int]]


@dataclass
class Examination:
    """A model that `target` loaded for `cell`, to be looked at by checks.

    Attributes:
        target: the code under test.
        checkpoint: the local folder of what the model should be: the one that it was loaded from, unless the target
            expects another.
        cell: what was asked for.
        loaded: what the load yielded: the model, what it changed of the process, what it took.
        prompts: lists of token ids of unequal length.
        reference: what the same model says to them on the cpu in float32.
        tolerance: the largest relative error of the logits, None for the one by dtype and quantization.
        beside: cards to simulate while a cpu cell is loaded once more, None for none.
        others: cells of the same model on the same machine, to be loaded between this one and itself.
        imported: what the import of the target's module changed of the process.
        dense: patterns of the modules that are left unquantized on purpose.
        random_state: `"kept"` if the load and the generation must neither draw nor seed random numbers, `"free"` if
            they may do both.
        source: the local folder that the target loads; empty where it is `checkpoint`.
        ends: the tokens that end a row, the target's own too; None until somebody has looked, see `stops.ends_of`.
    """

    target: Target
    checkpoint: str
    cell: Cell
    loaded: Loaded
    prompts: Tokens
    reference: Reference
    tolerance: float | None = None
    beside: Profile | None = None
    others: tuple[Cell, ...] = ()
    imported: tuple[Change, ...] = field(default=(), repr=False)
    dense: tuple[str, ...] = ()
    random_state: RandomState | None = None
    source: str = ""
    ends: frozenset[int] | None = field(default=None, repr=False)

    @property
    def loaded_from(self) -> str:
        """The local folder that the target loads."""
        return self.source or self.checkpoint

    @property
    def model(self) -> Any:
        """The loaded model."""
        return self.loaded.model

    @cached_property
    def expectations(self) -> Expectations:
        """Where every tensor of the model belongs, and in which dtype."""
        return expectations_of(self.model, self.checkpoint, self.cell, self.dense)

    @cached_property
    def generated(self) -> GenerationRun:
        """What the target generates for the prompts."""
        return generate_traced(self.target, self.model, self.prompts, NEW_TOKENS)

    @property
    def logits_tolerance(self) -> float:
        """The largest relative error of the logits that is still numeric noise."""
        return tolerance(self.cell) if self.tolerance is None else self.tolerance

    def checks(self) -> tuple[str, ...]:
        """The names of the checks that this cell can be put to, in their order."""
        visible = self.beside is not None and self.cell.kind == "cpu"
        return tuple(name for name, check in current().of(Check).items() if visible or not needs_cards(check))

    def check(self, name: str) -> Result:
        """The result of the check `name`. What the model or the target raises in it is its finding.

        Raises:
            KeyError: there is no such check.
        """
        check = current().of(Check)[name]
        self._made.add(name)
        result = self.unjudged(name)
        # Of packed files, a library may leave what is not packed in the dtype that the files have.
        if check.behaviour or stored_method(self.loaded_from):
            result = judged(self, result)
        elif check.failure == "placement" and current().of(Strategy)[self.cell.strategy].automatic:
            # The library's own map may leave a tensor out, or have another device for it than its hooks.
            result = judged(self, result, exactly=True)
        result = self._grounded(result)
        # An exception says itself where it was raised.
        said = any(finding.kind != "exception" for finding in result.findings)
        return replace(result, origin=self.origin) if said and check.origin else result

    def unjudged(self, name: str) -> Result:
        """The same before it is held against a plain load: `upstream` is empty.

        Raises:
            KeyError: there is no such check.
        """
        check = current().of(Check)[name]
        try:
            return check.run(self)
        except DoesNotApply as error:
            return Result(name, inapplicable=message_of(error))
        except of_target() as error:  # the model under test runs in it, and may raise anything
            restore_offloading(self.model)
            return Result(name, (finding_from_exception(error, self.model, doing=name),), details=excerpt(error))

    @cached_property
    def _made(self) -> set[str]:
        """The checks that were made so far."""
        return set()

    @cached_property
    def _found(self) -> set[str]:
        """Those that found something."""
        return set()

    @cached_property
    def _raised(self) -> set[str]:
        """Those that met an exception."""
        return set()

    def _grounded(self, result: Result) -> Result:
        """`result` with the hints that hold after what is known of this cell, see `Hint.inferred`."""
        if result.findings:
            self._found.add(result.check)
        if any(finding.kind == "exception" for finding in result.findings):
            self._raised.add(result.check)
        if not any(finding.hint is not None and finding.hint.inferred for finding in result.findings):
            return result
        self._look_at_parts(result.check)
        others = self._found - {result.check}
        changes = vars(self)["generated"].changes if "generated" in vars(self) else ()
        changed = any(change.kind == "model" for change in changes)
        parts = bool(others & set(MADE_OF))
        raised = bool(self._raised - {result.check})
        findings = grounded(result.findings, parts=parts, cell=bool(others), raised=raised, changed=changed)
        return result if findings == result.findings else replace(result, findings=findings)

    def _look_at_parts(self, check: str) -> None:
        """Make the checks of what the model is made of that nobody has asked for so far."""
        known = current().of(Check)
        for name in MADE_OF:
            if name == check:
                return
            if name in known and name not in self._made:
                self.check(name)

    @cached_property
    def origin(self) -> str:
        """The first module that says something else than in a plain load of the same cell on the cpu, in words."""
        # Not looked for where nothing has been generated yet.
        changes = vars(self)["generated"].changes if "generated" in vars(self) else ()
        changed = next((change for change in changes if change.kind == "model"), None)
        if changed is not None:
            return f"generate, which changed the model: {changed.name} was {changed.before}, and is {changed.after} now"
        return origin_of(self.model, self.checkpoint, self.cell, max(self.prompts, key=len))

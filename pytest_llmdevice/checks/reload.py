"""Checks that repeated loads are independent of each other, and that no model stays in memory after the next load."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.checks.another_checkpoint import offloaded_findings
from pytest_llmdevice.checks.check import Check
from pytest_llmdevice.checks.differences import overall_error
from pytest_llmdevice.checks.examination import Examination
from pytest_llmdevice.checks.lone_load import Problems, lone_problems, problems_of
from pytest_llmdevice.checks.result import Result
from pytest_llmdevice.checks.tensors import tensors
from pytest_llmdevice.checks.tolerance import generation_tolerance
from pytest_llmdevice.diagnosis import Finding
from pytest_llmdevice.diagnosis.errors import hint_of
from pytest_llmdevice.diagnosis.hints.generation import RESPONSES
from pytest_llmdevice.diagnosis.hints.raised import MEMORY
from pytest_llmdevice.diagnosis.hints.state import CACHED, KEPT_ALIVE, OTHER_AGAIN
from pytest_llmdevice.diagnosis.holders import every_object, held_by_frames, holders
from pytest_llmdevice.errors import of_target, target_forgiven
from pytest_llmdevice.inference.generation import generate_with, inputs_for
from pytest_llmdevice.inference.logits import forward_logits
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.matrix.vocabulary import dtype_name
from pytest_llmdevice.model.doors import device_of, dtype_of
from pytest_llmdevice.model.own import own_of
from pytest_llmdevice.model.wrappers import core
from pytest_llmdevice.monitoring.ranks import size_here
from pytest_llmdevice.monitoring.tracing import traced

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pytest_llmdevice.loading.target import Target

Tokens = Sequence[Sequence[int]]

FEW: Final = 2
"""New tokens that each model generates before it must be freed: any number shows what a generation keeps."""


def check_reload(
    target: Target,
    model: nn.Module,
    checkpoint: str,
    cell: Cell,
    others: Sequence[Cell],
    prompts: Tokens,
    *,
    ran: bool = True,
) -> Result:
    """Load other cells and then the cell again; each model must be as requested, and the last one like the first.

    Without other cells, the cell is loaded twice. Each model generates some tokens and is released, and must be freed
    when the next one is loaded; a target may keep its latest model, to generate with it. A target that cannot load
    another cell, or loads it as wrongly when it is the only one, is no finding here: that cell's own tests report it.

    Args:
        target: the code under test.
        model: the model that it returned for `cell`; it must not change.
        checkpoint: the local folder of the model.
        cell: the cell of `model`.
        others: other cells of the same model to load.
        prompts: token ids of each prompt.
        ran: whether the target generated with the model that it returned; if not, the inputs check reports it.
    """
    rounds = _Rounds(target, model, checkpoint, cell, prompts, ran=ran)
    for other in [*others, cell] if others else [cell, cell]:
        rounds.load(other)
    if rounds.last is not None and rounds.last is not model:
        rounds.compare()
    evidence: dict[str, int | float | str] = {"loads": rounds.loads, "models gone": rounds.gone}
    if rounds.skipped:
        evidence["not loaded"] = ", ".join(rounds.skipped)
    if rounds.own_faults:
        evidence["wrong by themselves"] = ", ".join(rounds.own_faults)
    apart, counts = offloaded_findings(target, model, checkpoint, cell)
    rounds.findings += apart
    evidence |= counts
    if rounds.same:
        evidence["returned once more"] = rounds.same
    if rounds.in_frames:
        evidence["held by frames only"] = rounds.in_frames
    return Result("reload", tuple(dict.fromkeys(rounds.findings)), evidence)


class _Rounds:
    """A sequence of loads: checks each model, and whether the previous one was freed."""

    def __init__(
        self, target: Target, model: nn.Module, checkpoint: str, cell: Cell, prompts: Tokens, *, ran: bool
    ) -> None:
        self.target, self.model, self.checkpoint, self.cell, self.prompts = target, model, checkpoint, cell, prompts
        self.findings: list[Finding] = []
        self.skipped: list[str] = []
        self.loads = self.gone = self.same = self.in_frames = 0
        self.last: nn.Module | None = None
        self._before = _state(model)
        self.ran = ran
        self._own = own_of(model)
        self._known = {(finding.where, finding.actual) for _, finding in problems_of(model, self._reference(), cell)}
        self.own_faults: list[str] = []
        self._previous: list[tuple[Cell, weakref.ref[nn.Module]]] = []

    def load(self, cell: Cell) -> None:
        """Load `cell`, check whether the previous model was freed, and check the new one."""
        self.last = self._own = None
        loaded = Loaded.load(self.target, Path(self.checkpoint), cell)
        if loaded.model is None:
            self._missing(cell, loaded)
            return
        self.loads += 1
        self.last, self._own = loaded.model, loaded.own
        # A frame that outlives this call would keep the model alive.
        loaded.model = loaded.own = None
        self._check_previous()
        self._check_model(self.last, cell)
        if self.last is self.model:
            return
        self._generate(self.last, cell)
        modules = {id(module): module for module in (self.last, core(self.last))}.values()
        self._previous = [(cell, weakref.ref(module)) for module in modules]

    def _reference(self) -> str:
        """The folder of what the model that was loaded last should be."""
        return self.checkpoint if self._own is None else self._own.reference

    def _generate(self, model: nn.Module, cell: Cell) -> None:
        """Let the target generate with `model`, and check that it runs that model."""
        output = None
        with traced(model) as trace, target_forgiven():
            # The generation check reports exceptions.
            output = generate_with(self.target, model, [self.prompts[0]], FEW)
        if output is not None and self.ran and not (trace.calls or trace.modules or trace.compiled):
            where = f"generate, for the model loaded as {cell.id}"
            self.findings.append(Finding(where, "a call of that model", "none, and an answer", RESPONSES))

    def _missing(self, cell: Cell, loaded: Loaded) -> None:
        full = loaded.exception is not None and hint_of(loaded.exception) is MEMORY
        if cell != self.cell or loaded.skipped or full:
            self.skipped.append(
                f"{cell.id} ({'no memory for a second model' if full else loaded.cause or loaded.skipped})"
            )
        else:
            self.findings.append(Finding("loaded once more", "a model, as the first time", loaded.cause, OTHER_AGAIN))

    def _check_model(self, model: nn.Module, cell: Cell) -> None:
        where = f"loaded as {cell.id}" if cell != self.cell else "loaded once more"
        if model is self.model:
            self.same += 1
            if cell != self.cell:
                actual = f"the model that was loaded as {self.cell.id}"
                self.findings.append(Finding(where, "a model of its own", actual, CACHED))
            return
        changed = [name for name, value in _state(self.model).items() if self._before.get(name) != value]
        if changed:
            earlier, after = self._before.get(changed[0]), _state(self.model)[changed[0]]
            found = f"{after}, since the model was {where}"
            self.findings.append(Finding(f"{changed[0]} of the first model", str(earlier or "nothing"), found, CACHED))
            self._before = _state(self.model)
        problems = problems_of(model, self._reference(), cell)
        if cell == self.cell:
            new = [each for each in problems if (each[1].where, each[1].actual) not in self._known]
        else:
            new = self._only_here(problems, cell)
        # One finding is enough to show that this load differs from a first one.
        for _, finding in new[:1]:
            self.findings.append(Finding(f"{finding.where}, {where}", finding.expected, finding.actual, OTHER_AGAIN))

    def _only_here(self, problems: Problems, cell: Cell) -> Problems:
        """Those of `problems` that another cell has not when it is loaded by itself; its own are for its own tests."""
        if not problems:
            return []
        lone = lone_problems(self.target, self.checkpoint, cell)
        if lone is None:
            # Unknown: only what is as in the first model is certain to come from that.
            new = [each for each in problems if self._as_first(*each)]
        else:
            new = [each for each in problems if (each[1].where, each[1].actual) not in lone]
        if len(new) < len(problems):
            self.own_faults.append(cell.id)
        return new

    def _as_first(self, check: str, finding: Finding) -> bool:
        """Whether a tensor has the dtype that it has in the first model, and should not have."""
        before = self._before.get(finding.where)
        return check == "dtypes" and before is not None and before.dtype == finding.actual

    def _check_previous(self) -> None:
        previous, self._previous = self._previous, []
        if any(reference() is not None for _, reference in previous):
            # Hooks of offloaded models and leftovers of a generation are reference cycles.
            gc.collect()
        for cell, reference in previous:
            kept = reference()
            if kept is None:
                self.gone += 1
            elif kept is not self.model and kept is not self.last:
                with every_object():
                    by, in_frames = ", ".join(holders(kept)), held_by_frames(kept)
                del kept
                if not by and in_frames:
                    # Of an exception that a library logged, which pytest keeps with the log record.
                    self.in_frames += 1
                    continue
                by = by or "something that Python does not show, as code in C that never lets go of it"
                where = f"the model loaded as {cell.id}"
                self.findings.append(Finding(where, "gone when the next one was loaded", f"held by {by}", KEPT_ALIVE))
                return

    def compare(self) -> None:
        """Compare the logits of the last model with those of the first."""
        longest = max(self.prompts, key=len)
        try:
            first, again = self._logits(self.model, longest), self._logits(self.model, longest)
        except of_target():
            # The forward check reports exceptions.
            return
        if not first.isfinite().all() or not bool((first == again).all()):
            # The first model does not repeat its own logits, which is another finding.
            return
        second = self._logits(self.last, longest)
        if second.shape != first.shape:
            self.findings.append(Finding("logits, loaded once more", str(tuple(first.shape)), str(tuple(second.shape))))
            return
        error, allowed = overall_error([second], [first]), generation_tolerance(self.cell)
        if not error <= allowed:
            wanted = f"those of the first load, relative error at most {allowed:g}"
            self.findings.append(Finding("logits, loaded once more", wanted, f"{error:.3g}", OTHER_AGAIN))

    @staticmethod
    def _logits(model: Any, prompt: Sequence[int]) -> torch.Tensor:
        return forward_logits(model, inputs_for(model, [prompt]))[0].float().cpu()


@dataclass(frozen=True, slots=True)
class _Place:
    """The dtype and device of a tensor, in words."""

    dtype: str
    device: str

    def __str__(self) -> str:
        return f"{self.dtype} on {self.device}"


def _state(model: nn.Module) -> dict[str, _Place]:
    return {name: _Place(dtype_name(dtype_of(tensor)), str(device_of(tensor))) for name, _, tensor in tensors(model)}


def _reload(exam: Examination) -> Result:
    if size_here() > 1:
        return Result("reload", inapplicable="several processes load the cell together, once")
    trace = exam.generated.trace
    ran = bool(trace.calls or trace.modules or trace.compiled)
    return check_reload(exam.target, exam.model, exam.loaded_from, exam.cell, exam.others, exam.prompts, ran=ran)


RELOAD_CHECK: Final = Check(
    "reload",
    _reload,
    (
        "loading another cell and this one again gives each its own model and answers, and nothing keeps"
        " the old ones alive"
    ),
    "A load returns, changes or keeps alive the model of another one.",
    needs=("generation", "second load"),
    failure="loader",
    behaviour=True,
    after="state",
)

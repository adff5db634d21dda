"""Loads one cell with a target: times it, puts the process back as it was, and frees the model afterwards."""

from __future__ import annotations

import gc
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmdevice.errors import DoesNotApply, Unsupported, UnsupportedByLibrary, first_line, message_of, of_target
from pytest_llmdevice.loading.checkpoint_files import Stamp, stamps
from pytest_llmdevice.loading.expected import expected_folder
from pytest_llmdevice.loading.experts import packs_any_experts, refused_experts
from pytest_llmdevice.loading.members import declared_names, model_of
from pytest_llmdevice.loading.pretrained import model_class, skeleton
from pytest_llmdevice.loading.pristine import remember
from pytest_llmdevice.loading.target import CONTRACT, Target, validate
from pytest_llmdevice.matrix.cell import Cell
from pytest_llmdevice.model.own import Own, describe, member
from pytest_llmdevice.monitoring.change import Change
from pytest_llmdevice.monitoring.class_methods import ClassMethods
from pytest_llmdevice.monitoring.library_states import separate_library_states
from pytest_llmdevice.monitoring.pipelines import pipelines_made
from pytest_llmdevice.monitoring.process_state import unchanged_process
from pytest_llmdevice.monitoring.resources import Measures, Meter, summarize_tensors

if TYPE_CHECKING:
    from torch import nn

FRAMES: Final = 8
"""Innermost frames shown of a failed load: the loader's and the library's, not the way to them."""


def _nothing() -> None: ...


class Leftovers:
    """The models of earlier loads, of which some may wait for the garbage collector.

    Offloaded models are part of a cycle through their hooks; all others go by themselves, and a collection with
    transformers in memory costs more than a load. Whoever loads one model after another keeps one of these.
    """

    def __init__(self) -> None:
        self._models: list[weakref.ref[nn.Module]] = []

    def add(self, model: nn.Module) -> None:
        """Remember `model` without keeping it alive."""
        self._models.append(weakref.ref(model))

    def collect(self) -> None:
        """Collect garbage if a model that was added is still there."""
        if any(reference() is not None for reference in self._models):
            gc.collect()
        self._models.clear()


@dataclass
class Loaded:
    """The outcome of one load: a model, an error, or the reason why a library cannot do it.

    Attributes:
        cell: what was asked for.
        model: the loaded model; None when there is none.
        changes: what the load changed of the process, and is put back, and of the checkpoint's files; None for a
            model that no target was asked for.
        measures: what the load took, and where the tensors are; None when there is no model.
        exception: what the target raised, without its traceback; None when it raised nothing.
        trace: the innermost frames of that exception, as Python prints them.
        returned: what the target returned instead of a model, in words; empty when it returned one or raised.
        unsupported: why an installed library cannot do what the cell asks; empty when it can.
        not_offered: why the target does not do it, by its own word; empty where it said nothing.
        own: what the target returned around the model, and says of it.
        piped: whether a pipeline of transformers was made during the load.
        when_released: puts back what the load's libraries share among objects.
    """

    cell: Cell
    model: Any = None
    changes: tuple[Change, ...] | None = None
    measures: Measures | None = None
    exception: BaseException | None = field(default=None, repr=False)
    trace: str = ""
    returned: str = ""
    unsupported: str = ""
    not_offered: str = ""
    own: Own | None = field(default=None, repr=False, compare=False)
    piped: bool = False
    when_released: Callable[[], None] = field(default=_nothing, repr=False, compare=False)

    @classmethod
    def load(cls, target: Target, checkpoint: Path, cell: Cell, leftovers: Leftovers | None = None) -> Loaded:
        """Have `target` load `checkpoint` for `cell`. Never raises for what the target does.

        Args:
            target: the code under test.
            checkpoint: a local folder.
            cell: what to ask for.
            leftovers: the models of earlier loads that should be gone by now; None where one is meant to be there.

        Raises:
            ConfigurationError: `target` is none.
        """
        validate(target, "fixture llm_target")
        if leftovers is not None:
            leftovers.collect()
        remember(target)
        with suppress(Exception):
            # So that its methods are known before somebody replaces them. Of a broken checkpoint, the load says more.
            model_class(str(checkpoint))
            if not packs_any_experts(cell) and (reason := refused_experts(skeleton(str(checkpoint), cell), cell)):
                return cls(cell, unsupported=reason)
        methods, put_states_back = ClassMethods.now(), separate_library_states()

        def put_back() -> None:
            put_states_back()
            methods.put_back()

        try:
            loaded = cls._load(target, checkpoint, cell)
        except BaseException:
            put_back()
            raise
        if loaded.model is None:
            put_back()
            return loaded
        loaded.changes = (*(loaded.changes or ()), *methods.replaced())
        loaded.when_released = put_back
        if leftovers is not None:
            leftovers.add(loaded.model)
        return loaded

    @classmethod
    def _load(cls, target: Target, checkpoint: Path, cell: Cell) -> Loaded:
        before = stamps(checkpoint)
        try:
            with unchanged_process() as changes, pipelines_made() as piped, Meter() as meter:
                returned: object = target.load(str(checkpoint), cell)
                model, why = model_of(target, returned)
        except UnsupportedByLibrary as error:
            return cls(cell, unsupported=message_of(error))
        except (Unsupported, DoesNotApply) as error:
            return cls(cell, not_offered=message_of(error) or "the target does not offer it")
        except of_target() as error:
            trace = "".join(traceback.format_exception(error, limit=-FRAMES))
            _forget_frames(error)
            return cls(cell, exception=error, trace=trace)
        if model is None:
            return cls(cell, returned=why)
        try:
            own = _described(target, returned, model, str(checkpoint), cell)
        except of_target() as error:
            trace = "".join(traceback.format_exception(error, limit=-FRAMES))
            _forget_frames(error)
            return cls(cell, exception=error, trace=trace)
        measures = replace(meter.measures, summary=summarize_tensors(model))
        return cls(cell, model, (*changes, *_written(checkpoint, before)), measures, own=own, piped=bool(piped))

    @property
    def cause(self) -> str:
        """Why there is no model, in a line; empty where there is one, or a library cannot do it."""
        if self.returned:
            return f"load returned {self.returned}"
        if self.exception is None:
            return ""
        line = first_line(self.exception)
        if isinstance(self.exception, SystemExit):
            line += " (the loader ends the process: load must return, not call sys.exit or a command's main)"
        return line

    @property
    def reference(self) -> str:
        """The local folder of what the model should be; empty where nothing was loaded by a target."""
        return "" if self.own is None else self.own.reference

    @property
    def skipped(self) -> str:
        """Why the cell is neither right nor wrong, with the cause in front; empty where it is one of them."""
        if self.unsupported:
            return f"unsupported: {self.unsupported}"
        return f"not offered: {self.not_offered}" if self.not_offered else ""

    @property
    def details(self) -> str:
        """What helps to understand the cause and takes more than a line: the contract, or the traceback."""
        return CONTRACT if self.returned else self.trace.strip()

    @property
    def error(self) -> str:
        """The report of a failed load, its first line with the cell and the cause; empty where none failed."""
        if self.returned:
            return f"{self.cell.id}: {self.cause}\n{self.details}"
        return f"{self.cell.id} did not load: {self.cause}\n\n{self.trace}" if self.exception is not None else ""

    @property
    def seconds(self) -> float:
        """How long the target took; 0 when there is no model."""
        return 0.0 if self.measures is None else self.measures.seconds

    def release(self) -> None:
        """Let go of the model and of what its libraries share, and give cached device memory back."""
        import torch

        self.model = self.own = None
        self.when_released()

        if _card_in_use():
            torch.cuda.empty_cache()


def _described(target: Target, returned: object, model: nn.Module, checkpoint: str, cell: Cell) -> Own:
    """What is known of `model` beyond itself, kept under it."""
    reference, kept = expected_folder(target, checkpoint, cell)
    names = declared_names(target, returned)
    own = Own(returned, checkpoint, reference, member(target, "logits"), names, kept=kept)
    describe(model, own)
    return own


def _written(checkpoint: Path, before: Mapping[str, Stamp]) -> Iterator[Change]:
    """The files of a checkpoint that a load has changed; new ones, as a cache of its own, are no matter."""
    after = stamps(checkpoint)
    for name, stamp in before.items():
        if after.get(name) != stamp:
            became = "written to" if name in after else "removed"
            yield Change("checkpoint", f"{name} of the checkpoint", "left as it was", became)


def _forget_frames(error: BaseException | None) -> None:
    """Let go of the frames of `error` and of what it came from: they keep half-loaded models alive."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _card_in_use() -> bool:
    import torch

    cuda: Any = torch.cuda
    return bool(cuda.is_initialized() and cuda.is_available())

"""Runs a target's generation for a batch and for single prompts, and records what it passes to its model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import of_target
from pytest_llmdevice.inference.generation import generate_one_by_one, generate_with
from pytest_llmdevice.model.device_map import restore_offloading
from pytest_llmdevice.monitoring.change import Change
from pytest_llmdevice.monitoring.graphs import kept_graphs
from pytest_llmdevice.monitoring.model_state import unchanged_model
from pytest_llmdevice.monitoring.process_state import unchanged_process
from pytest_llmdevice.monitoring.random_numbers import generator_states
from pytest_llmdevice.monitoring.resources import Measures, Meter
from pytest_llmdevice.monitoring.trace import Trace
from pytest_llmdevice.monitoring.tracing import traced

if TYPE_CHECKING:
    from torch import nn


@dataclass
class GenerationRun:
    """The outputs of a target's `generate` for a batch, twice, and for each prompt alone; partial if a call raised.

    Attributes:
        first: the output for the batch; None if the call raised.
        second: the output of a second call with the same batch.
        alone: the first row of the output for each prompt alone.
        trace: the tensors that were passed to the model.
        error: the exception that was raised, or None.
        measures: time and memory of the first call; None if it raised.
        changes: what the calls changed in the process, where it is reverted, and in the model.
        first_token: seconds from the first call to the end of its first forward pass; None without one.
        drawn: whether the first two calls drew random numbers from torch's own generators.
        second_starts: the number of recorded calls of the model before the second call; None where there was none.
    """

    first: Any = None
    second: Any = None
    alone: Any = None
    trace: Trace = field(default_factory=Trace)
    error: BaseException | None = None
    measures: Measures | None = None
    changes: Sequence[Change] = ()
    first_token: float | None = None
    drawn: bool = False
    second_starts: int | None = None

    def speed(self) -> dict[str, float]:
        """Flat `llm.*` properties: seconds to the first token, and new tokens per second of the whole call.

        Empty if the call raised; without the second if it returned something else than rows of tokens.
        """
        if self.measures is None or not self.measures.seconds:
            return {}
        speed = {} if self.first_token is None else {"llm.generate_first_token_seconds": round(self.first_token, 5)}
        try:
            tokens = sum(len(row) for row in self.first)
        except TypeError:
            return speed
        return speed | {"llm.generate_tokens_per_second": round(tokens / self.measures.seconds, 2)}


def generate_traced(
    target: Any, model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> GenerationRun:
    """Let `target` generate for `prompts` and record it. Exceptions of the target are in the result's `error`."""
    run = GenerationRun()
    graphs = kept_graphs(model, target)
    with unchanged_process() as process_changes, unchanged_model(model) as model_changes, traced(model) as run.trace:
        try:
            states = generator_states()
            started = time.perf_counter()
            with Meter() as meter:
                run.first = generate_with(target, model, prompts, max_new_tokens)
            run.measures = meter.measures
            if run.trace.first_pass is not None:
                run.first_token = run.trace.first_pass - started
            run.second_starts = len(run.trace.calls)
            run.second = generate_with(target, model, prompts, max_new_tokens)
            run.drawn = generator_states() != states
            run.alone = generate_one_by_one(target, model, prompts, max_new_tokens)
        except of_target() as error:
            run.error = error
            restore_offloading(model)
    run.changes = (*process_changes, *model_changes, *graphs())
    return run

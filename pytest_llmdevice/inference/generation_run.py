"""What a target generates for the prompts, and what it handed to its model meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_llmdevice.errors import of_target
from pytest_llmdevice.inference.generation import generate_one_by_one, generate_with
from pytest_llmdevice.model.device_map import put_back
from pytest_llmdevice.monitoring.change import Change
from pytest_llmdevice.monitoring.model_state import unchanged_model
from pytest_llmdevice.monitoring.process_state import unchanged_process
from pytest_llmdevice.monitoring.resources import Measures, Meter
from pytest_llmdevice.monitoring.trace import Trace
from pytest_llmdevice.monitoring.tracing import traced

if TYPE_CHECKING:
    from torch import nn


@dataclass
class GenerationRun:
    """What `generate` returned for the batch, two times, and for each prompt alone; or how far it came.

    Attributes:
        first: the output for the batch, None when it raised.
        second: the output of the next call with the same batch.
        alone: the first row of the output for each prompt by itself.
        handed: what was handed to the model meanwhile.
        error: what was raised, None when nothing was.
        measures: what the first call took, None when it raised.
        changes: what the calls changed of the process, and is put back, and of the model.
        first_token: seconds from the first call to the end of its first forward pass; None when there was none.
    """

    first: Any = None
    second: Any = None
    alone: Any = None
    trace: Trace = field(default_factory=Trace)
    error: BaseException | None = None
    measures: Measures | None = None
    changes: Sequence[Change] = ()
    first_token: float | None = None

    def speed(self) -> dict[str, float]:
        """Flat `llm.*` properties: seconds to the first token, new tokens per second of the whole call.

        Empty where the call raised, or returned something else than rows of tokens.
        """
        if self.measures is None or not self.measures.seconds:
            return {}
        found = {} if self.first_token is None else {"llm.generate_first_token_seconds": round(self.first_token, 5)}
        try:
            tokens = sum(len(row) for row in self.first)
        except TypeError:
            return found
        return found | {"llm.generate_tokens_per_second": round(tokens / self.measures.seconds, 2)}


def generate_traced(
    target: Any, model: nn.Module, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> GenerationRun:
    """Have `target` generate for `prompts`. Never raises for what the target does."""
    found = GenerationRun()
    with unchanged_process() as process, unchanged_model(model) as own, traced(model) as found.trace:
        try:
            started = time.perf_counter()
            with Meter() as meter:
                found.first = generate_with(target, model, prompts, max_new_tokens)
            found.measures = meter.measures
            if found.trace.first_pass is not None:
                found.first_token = found.trace.first_pass - started
            found.second = generate_with(target, model, prompts, max_new_tokens)
            found.alone = generate_one_by_one(target, model, prompts, max_new_tokens)
        except of_target() as error:
            found.error = error
            put_back(model)
    found.changes = (*process, *own)
    return found

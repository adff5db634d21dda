"""The reload check: each load is one of its own, and no model outlives the next load."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell
from pytest_llmdevice.checks import Result, check_reload
from pytest_llmdevice.diagnosis.hints.generation import RESPONSES
from pytest_llmdevice.diagnosis.hints.state import CACHED, KEPT_ALIVE, OTHER_AGAIN
from pytest_llmdevice.loading.target import BuiltinTarget

Checkpoint = Callable[[str], str]

CELL = Cell("llama", "cpu", "float32")
OTHER = Cell("llama", "cpu", "bfloat16")
PROMPTS = [[5, 6, 7], [9, 10, 11, 12, 13, 14]]

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")


def plain(checkpoint: str, cell: Cell) -> Any:
    return BuiltinTarget().load(checkpoint, cell)


def reloaded(target: Any, folder: str, cell: Cell = CELL, others: Sequence[Cell] = (OTHER,)) -> Result:
    return check_reload(target, target.load(folder, cell), folder, cell, others, PROMPTS)


def loader(load: Callable[[str, Cell], Any]) -> Any:
    return SimpleNamespace(load=load)


@pytest.mark.parametrize(
    ("cell", "others"),
    [
        (CELL, [OTHER]),
        (CELL, []),
        (Cell("mixtral", "cpu", "bfloat16"), [Cell("mixtral", "cpu", "float16")]),
        (Cell("gpt2", "cpu", "float32", strategy="disk-offload"), [Cell("gpt2", "cpu", "float16")]),
        (Cell("t5", "cpu", "float16", strategy="shared-memory"), [Cell("t5", "cpu", "float32")]),
        (Cell("mamba", "cpu", "float16"), [Cell("mamba", "cpu", "float32")]),
        (Cell("llama", "cpu", "bfloat16", "nf4-double"), [Cell("llama", "cpu", "float32", "int8")]),
    ],
)
def test_plain_loads_are_each_their_own(cell: Cell, others: list[Cell], checkpoint: Checkpoint) -> None:
    if cell.quantization != "none":
        pytest.importorskip("bitsandbytes")
    result = reloaded(BuiltinTarget(), checkpoint(cell.model), cell, others)
    assert result.passed, result.message(cell.id)
    assert result.evidence["loads"] == 2
    assert result.evidence["models gone"] == 1


def test_a_target_that_keeps_its_latest_model_only_is_right(checkpoint: Checkpoint) -> None:
    target: Any = SimpleNamespace()

    def load(folder: str, cell: Cell) -> Any:
        target.model = plain(folder, cell)
        return target.model

    target.load = load
    target.generate = lambda _model, prompts, count: BuiltinTarget().generate(target.model, prompts, count)
    assert reloaded(target, checkpoint("llama")).passed


def test_a_cache_whose_key_leaves_out_the_dtype_is_found(checkpoint: Checkpoint) -> None:
    models: dict[str, Any] = {}

    def load(folder: str, cell: Cell) -> Any:
        if folder not in models:
            models[folder] = plain(folder, cell)
        return models[folder]

    result = reloaded(loader(load), checkpoint("llama"))
    (finding,) = result.findings
    assert finding.where == f"loaded as {OTHER.id}"
    assert finding.actual == f"the model that was loaded as {CELL.id}"
    assert finding.hint is CACHED


def test_a_model_that_is_cast_in_place_for_the_next_request_is_found(checkpoint: Checkpoint) -> None:
    models: list[Any] = []

    def load(folder: str, cell: Cell) -> Any:
        if not models:
            models.append(plain(folder, cell))
        wrapper = nn.Module()
        wrapper.inner = models[0].to(cell.torch_dtype)
        return wrapper

    result = reloaded(loader(load), checkpoint("llama"))
    assert any(finding.where.endswith("of the first model") and finding.hint is CACHED for finding in result.findings)


def test_a_dictionary_of_models_is_found_and_named(checkpoint: Checkpoint) -> None:
    target = Hoarder()
    result = reloaded(target, checkpoint("llama"))
    (finding,) = result.findings
    assert finding.where == f"the model loaded as {OTHER.id}"
    assert "models" in finding.actual
    assert finding.hint is KEPT_ALIVE


class Hoarder:
    def __init__(self) -> None:
        self.models: dict[Cell, Any] = {}

    def load(self, folder: str, cell: Cell) -> Any:
        self.models[cell] = plain(folder, cell)
        return self.models[cell]


class _Slots:
    __slots__ = ("model",)

    def __init__(self, model: Any) -> None:
        self.model = model


def _generator(held: Any) -> Iterator[Any]:
    while True:
        yield held


_ABOVE: dict[str, Callable[[Any], object]] = {
    "a list": lambda model: [model],
    "a tuple": lambda model: (model, 1),
    "a queue": lambda model: deque([model]),
    "slots": _Slots,
    "a closure": lambda model: lambda: model,
    "a part of a call": lambda model: partial(print, model),
    "a bound method": lambda model: model.forward,
    "a generator": lambda model: next(made := _generator(model)) and made,
    "an object": lambda model: SimpleNamespace(inner=SimpleNamespace(model=model)),
}


@pytest.mark.parametrize("holder", _ABOVE)
def test_what_keeps_a_model_is_found_also_where_it_was_there_before_cells_ran(
    checkpoint: Checkpoint, holder: str
) -> None:
    """A run of pytest freezes what is in memory before its cells, and frozen objects have no referrers to ask for."""
    kept: list[object] = []

    def load(folder: str, cell: Cell) -> Any:
        model = plain(folder, cell)
        kept.append(_ABOVE[holder](model))
        return model

    target = loader(load)
    gc.freeze()
    try:
        result = reloaded(target, checkpoint("llama"))
    finally:
        gc.unfreeze()
    assert [finding.hint for finding in result.findings] == [KEPT_ALIVE]
    assert "held by frames only" not in result.evidence


def test_a_cached_function_is_found_and_named(checkpoint: Checkpoint) -> None:
    result = reloaded(loader(lru_cache(plain)), checkpoint("llama"))
    (finding,) = result.findings
    assert "the cache of" in finding.actual
    assert "plain" in finding.actual


def test_what_a_generation_keeps_is_found(checkpoint: Checkpoint) -> None:
    used: list[Any] = []

    def generate(model: Any, prompts: Any, count: int) -> Any:
        used.append(model)
        return BuiltinTarget().generate(model, prompts, count)

    result = reloaded(SimpleNamespace(load=plain, generate=generate), checkpoint("llama"))
    assert [finding.hint for finding in result.findings] == [KEPT_ALIVE]


def test_a_setting_kept_from_the_first_call_is_found(checkpoint: Checkpoint) -> None:
    dtypes: list[str] = []

    def load(folder: str, cell: Cell) -> Any:
        dtypes.append(cell.dtype)
        return plain(folder, Cell(cell.model, cell.device, dtypes[0]))

    (finding,) = reloaded(loader(load), checkpoint("llama")).findings
    assert finding.where.endswith(f", loaded as {OTHER.id}")
    assert (finding.expected, finding.actual) == ("bfloat16", "float32")


def test_a_loader_that_works_only_once_is_found(checkpoint: Checkpoint) -> None:
    calls: list[Cell] = []

    def load(folder: str, cell: Cell) -> Any:
        calls.append(cell)
        if len(calls) > 2:
            message = "already initialized"
            raise RuntimeError(message)
        return plain(folder, cell)

    (finding,) = reloaded(loader(load), checkpoint("llama")).findings
    assert finding.where == "loaded once more"
    assert "already initialized" in finding.actual
    assert finding.hint is OTHER_AGAIN


def test_an_other_cell_that_the_target_refuses_is_left_to_that_cells_own_tests(checkpoint: Checkpoint) -> None:
    def load(folder: str, cell: Cell) -> Any:
        if cell.dtype != "float32":
            message = "float32 only"
            raise ValueError(message)
        return plain(folder, cell)

    result = reloaded(loader(load), checkpoint("llama"))
    assert result.passed
    assert "float32 only" in str(result.evidence["not loaded"])


def test_weights_that_are_others_the_second_time_are_found(checkpoint: Checkpoint) -> None:
    calls: list[Cell] = []

    def load(folder: str, cell: Cell) -> Any:
        model = plain(folder, cell)
        calls.append(cell)
        if len(calls) > 2:
            with torch.no_grad():
                model.lm_head.weight.mul_(2)
        return model

    result = reloaded(loader(load), checkpoint("llama"))
    assert {finding.where for finding in result.findings} == {
        "lm_head.weight, loaded once more",
        "logits, loaded once more",
    }


def test_what_is_wrong_with_the_first_load_is_not_said_again(checkpoint: Checkpoint) -> None:
    def load(folder: str, cell: Cell) -> Any:
        model = plain(folder, cell)
        model.lm_head.double()
        return model

    assert reloaded(loader(load), checkpoint("llama"), others=()).findings == ()


def test_what_only_the_frames_of_a_logged_exception_hold_is_no_finding(
    checkpoint: Callable[[str], str], prompts: list[list[int]]
) -> None:
    logged: list[BaseException] = []

    class Logs(BuiltinTarget):
        def generate(self, model: Any, prompts: Any, max_new_tokens: int) -> list[list[int]]:
            try:
                raise ImportError("an optional kernel")
            except ImportError as error:
                logged.append(error)
            return super().generate(model, prompts, max_new_tokens)

    cell = Cell("llama", "cpu", "float32")
    target = Logs()
    model = target.load(checkpoint("llama"), cell)
    result = check_reload(target, model, checkpoint("llama"), cell, (), prompts)
    assert result.passed, result.message()
    assert result.evidence["held by frames only"] == 1


class Remembers(BuiltinTarget):
    """Keeps answers by what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}

    def generate(self, model: Any, prompts: Any, max_new_tokens: int) -> list[list[int]]:
        key = str(prompts)
        if key not in self.answers:
            self.answers[key] = super().generate(model, prompts, max_new_tokens)
        rows: list[list[int]] = self.answers[key]
        return rows


def test_an_answer_that_was_kept_from_another_model_is_found(checkpoint: Checkpoint) -> None:
    (finding,) = reloaded(Remembers(), checkpoint("llama")).findings
    assert finding.where == f"generate, for the model loaded as {CELL.id}"
    assert finding.hint == RESPONSES


def test_a_target_that_never_ran_its_model_is_not_told_so_again(checkpoint: Checkpoint) -> None:
    target, folder = Remembers(), checkpoint("llama")
    assert check_reload(target, target.load(folder, CELL), folder, CELL, (), PROMPTS, ran=False).findings == ()

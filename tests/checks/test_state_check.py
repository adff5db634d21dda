"""The state check: what a load or a generation left changed in the process is found, and put back."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import pytest
import torch
from torch import nn

from pytest_llmdevice import Cell, simulate
from pytest_llmdevice.checks import check_state
from pytest_llmdevice.checks.state import HARMLESS
from pytest_llmdevice.diagnosis import Hint
from pytest_llmdevice.diagnosis.hints import state
from pytest_llmdevice.inference.generation_run import generate_traced
from pytest_llmdevice.loading.load import Loaded
from pytest_llmdevice.loading.target import BuiltinTarget

Checkpoint = Callable[[str], str]

CELL = Cell("llama", "cpu", "float32")

pytestmark = pytest.mark.filterwarnings("ignore:Some parameters are on the meta device")

kept: list[Any] = []


def loaded(do: Callable[[], object]) -> Loaded:
    """A load that does `do`."""

    def load(_checkpoint: str, _cell: Cell) -> nn.Module:
        do()
        return nn.Linear(1, 1)

    return Loaded.load(SimpleNamespace(load=load), Path("somewhere"), CELL)


def entered(context: Any) -> None:
    context.__enter__()
    kept.append(context)


def leaves_functions() -> None:
    torch.nn.init.normal_ = lambda tensor, *_: tensor


PLANTED: dict[str, tuple[Callable[[], object], str, Hint]] = {
    "environment": (
        lambda: os.environ.update(CUDA_VISIBLE_DEVICES="3"),
        "environment variable CUDA_VISIBLE_DEVICES",
        state.ENVIRONMENT,
    ),
    "default dtype": (lambda: torch.set_default_dtype(torch.bfloat16), "default dtype", state.DEFAULT_DTYPE),
    "default device": (lambda: torch.set_default_device("meta"), "default device", state.DEFAULT_DEVICE),
    "device context": (lambda: torch.device("meta").__enter__(), "default device", state.DEFAULT_DEVICE),
    "initialiser": (leaves_functions, "torch.nn.init.normal_", state.PATCHED),
    "layer": (
        lambda: setattr(nn.Linear, "reset_parameters", lambda _: None),
        "torch.nn.Linear.reset_parameters",
        state.PATCHED,
    ),
    "method of tensors": (lambda: setattr(torch.Tensor, "cuda", lambda one: one), "torch.Tensor.cuda", state.PATCHED),
    "availability": (
        lambda: setattr(torch.cuda, "is_available", lambda: True),
        "torch.cuda.is_available",
        state.PATCHED,
    ),
    "empty weights": (
        lambda: entered(accelerate.init_empty_weights()),
        "torch.nn.Module.register_parameter",
        state.PATCHED,
    ),
    "autocast": (lambda: entered(torch.autocast("cpu", torch.bfloat16)), "autocast on cpu", state.AUTOCAST),
    "working folder": (lambda: os.chdir("/"), "working folder", state.FOLDER),
    "collector": (gc.disable, "garbage collection", state.COLLECTOR),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_what_a_load_leaves_behind_is_found_and_put_back(planted: str) -> None:
    do, where, hint = PLANTED[planted]
    found = loaded(do)
    (finding,) = check_state(found.changes, ()).findings
    assert (finding.where, finding.hint) == (where, hint)
    assert finding.actual.endswith(", when load came back")
    # Put back: the next load changes nothing.
    assert check_state(loaded(lambda: None).changes, ()).passed


@pytest.mark.parametrize("planted", PLANTED)
def test_what_a_generation_leaves_behind_is_found(planted: str, checkpoint: Checkpoint) -> None:
    do, where, _ = PLANTED[planted]
    model = nn.Linear(1, 1)
    done: list[int] = []

    def generate(_model: Any, prompts: Any, _count: int) -> list[list[int]]:
        if not done:
            done.append(1)
            do()
        return [[1] for _ in prompts]

    generated = generate_traced(SimpleNamespace(generate=generate), model, [[1]], 1)
    (finding,) = check_state((), generated.changes).findings
    assert finding.where == where
    assert finding.actual.endswith(", when generate came back")


def test_the_current_card_is_found_on_a_simulated_machine() -> None:
    with simulate("cuda:2"):
        found = loaded(lambda: torch.cuda.set_device(1))
        assert torch.cuda.current_device() == 0
    (finding,) = check_state(found.changes, ()).findings
    assert (finding.expected, finding.hint) == ("cuda:0", state.CURRENT_CARD)
    assert finding.actual.startswith("cuda:1")


def test_values_of_variables_that_may_be_secret_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMDEVICE_TEST_PASSWORD", "open sesame")
    found = loaded(lambda: os.environ.update(LLMDEVICE_TEST_PASSWORD="swordfish", LLMDEVICE_TEST_NEW="xyzzy"))
    message = check_state(found.changes, ()).message()
    assert "LLMDEVICE_TEST_PASSWORD" in message
    assert not any(secret in message for secret in ("sesame", "swordfish", "xyzzy"))


def test_device_variables_are_shown_with_their_values() -> None:
    found = loaded(PLANTED["environment"][0])
    (finding,) = check_state(found.changes, ()).findings
    assert "'3'" in finding.actual


@pytest.mark.parametrize("name", [*HARMLESS])
def test_variables_that_decide_nothing_are_no_findings(name: str) -> None:
    found = loaded(lambda: os.environ.update({f"{name}X": "1"}))
    result = check_state(found.changes, ())
    assert result.passed
    assert result.evidence["harmless environment variables"] == 1


def upset_what_loaders_upset() -> None:
    torch.manual_seed(3)
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)


def test_random_states_threads_and_gradients_are_no_findings() -> None:
    assert check_state(loaded(upset_what_loaders_upset).changes, ()).passed


def test_torch_compile_is_no_finding() -> None:
    found = loaded(lambda: torch.compile(nn.Linear(2, 2), backend="eager")(torch.ones(2)))
    assert check_state(found.changes, ()).passed


def test_what_the_compiler_of_torch_wraps_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    # It does so when it is imported, which may be during a load; the wrapper has the module of what it wraps.
    monkeypatch.setattr(torch, "manual_seed", torch.manual_seed)
    disable: Any = vars(torch)["_disable_dynamo"]
    found = loaded(lambda: setattr(torch, "manual_seed", disable(torch.random.manual_seed)))
    assert check_state(found.changes, ()).passed


@pytest.mark.parametrize(
    "cell",
    [
        CELL,
        Cell("llama", "cpu", "bfloat16", strategy="disk-offload"),
        Cell("mixtral", "cpu", "float16", strategy="shared-memory"),
        Cell("t5", "cpu", "bfloat16", "nf4"),
        Cell("gpt2", "cpu", "float16", "int8", "device-map"),
    ],
)
def test_a_plain_load_and_generation_leave_nothing(cell: Cell, checkpoint: Checkpoint) -> None:
    if cell.quantization != "none":
        pytest.importorskip("bitsandbytes")
    found = Loaded.load(BuiltinTarget(), Path(checkpoint(cell.model)), cell)
    generated = generate_traced(BuiltinTarget(), found.model, [[5, 6, 7]], 2)
    result = check_state(found.changes, generated.changes)
    assert result.passed, result.message()


def test_a_plain_load_on_simulated_cards_leaves_nothing(checkpoint: Checkpoint) -> None:
    with simulate("cuda:2"):
        for strategy in ("to", "split", "auto", "cpu-offload"):
            cell = Cell("llama", "cuda:1", "bfloat16", strategy=strategy, simulated=True)
            found = Loaded.load(BuiltinTarget(), Path(checkpoint("llama")), cell)
            generated = generate_traced(BuiltinTarget(), found.model, [[5, 6, 7]], 2)
            result = check_state(found.changes, generated.changes)
            assert result.passed, result.message()


def test_a_model_that_was_handed_over_is_judged_by_its_generation_only() -> None:
    assert Loaded(CELL, nn.Linear(1, 1)).changes is None
    assert check_state(None, ()).passed
    assert check_state(None, None).hollow

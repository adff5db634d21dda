"""What libraries remember of the devices that they have asked for: nothing of it survives a machine."""

from __future__ import annotations

import functools
import gc
import random
from typing import Any

import accelerate
import bitsandbytes  # noqa: F401
import peft  # noqa: F401
import pytest
import torch
import transformers.utils.import_utils  # noqa: F401
from accelerate.state import AcceleratorState, GradientState, PartialState

from pytest_llmdevice import simulate
from pytest_llmdevice.simulation.remembered import PACKAGES, cached_answers, shared_states

MACHINES = ("cpu", "cuda:1", "cuda:2", "xpu", "mps")
_CACHED_FUNCTION = type(functools.cache(lambda: None))


def _all_cached_functions() -> list[Any]:
    """Every cached function of the libraries that can be asked without arguments, wherever it is kept."""
    functions = [
        value
        for value in gc.get_objects()
        if type(value) is _CACHED_FUNCTION and (getattr(value, "__module__", None) or "").split(".")[0] in PACKAGES
    ]
    # A compiler's functions have effects, and take long; PyTorch's own tests measure time.
    others = ("torch._inductor", "torch._dynamo", "torch.testing")
    return [value for value in functions if not value.__module__.startswith(others)]


def _answers(functions: list[Any]) -> list[str]:
    answers = []
    for function in functions:
        try:
            answer = function()
            answers.append(str(len(answer)) if isinstance(answer, set) else repr(answer).partition(" at 0x")[0])
        except Exception as error:  # noqa: BLE001
            answers.append(f"{type(error).__name__}: {error}")
    return answers


def _on(machine: str, ask: Any) -> Any:
    if machine == "cpu":
        return ask()
    with simulate(machine):
        return ask()


@pytest.fixture(scope="module")
def functions() -> list[Any]:
    """All cached functions, after they have been asked once, for asking imports modules."""
    _answers(_all_cached_functions())
    return _all_cached_functions()


@pytest.fixture(scope="module")
def truth(functions: list[Any]) -> dict[str, list[str]]:
    """What each answers on each machine when nothing at all is remembered."""

    def ask() -> list[str]:
        for function in functions:
            function.cache_clear()
        return _answers(functions)

    truth = {machine: _on(machine, ask) for machine in MACHINES}
    for function in functions:
        function.cache_clear()
    return truth


@pytest.mark.parametrize("seed", range(3))
def test_answers_do_not_depend_on_the_order_of_machines(
    functions: list[Any], truth: dict[str, list[str]], seed: int
) -> None:
    order = [*MACHINES, *MACHINES]
    random.Random(seed).shuffle(order)
    for machine in order:
        answers = _on(machine, lambda: _answers(functions))
        wrong = {
            f"{function.__module__}.{function.__qualname__}": (answer, right)
            for function, answer, right in zip(functions, answers, truth[machine], strict=True)
            if answer != right
        }
        assert wrong == {}, f"{machine} after {order}"


def test_most_caches_are_left_alone(functions: list[Any], truth: dict[str, list[str]]) -> None:
    found = {id(function) for function in cached_answers()}
    differing = [
        function for function, *answers in zip(functions, *truth.values(), strict=True) if len(set(answers)) > 1
    ]
    assert len(differing) > 10
    assert {id(function) for function in differing} <= found
    assert "transformers.utils.import_utils.is_torch_available" not in {
        f"{function.__module__}.{function.__qualname__}" for function in cached_answers()
    }


def test_states_that_are_shared_are_found() -> None:
    assert {kind for kind, _ in shared_states()} >= {PartialState, AcceleratorState, GradientState}


@pytest.mark.parametrize("seed", range(3))
def test_an_accelerator_is_that_of_the_machine(seed: int) -> None:
    order = [*MACHINES, *MACHINES]
    random.Random(seed).shuffle(order)
    before = {key: dict(vars(key[0])[key[1]]) for key in shared_states()}
    for machine in order:
        device = _on(machine, lambda: accelerate.Accelerator(cpu=machine == "cpu").device)  # noqa: B023
        assert device.type == machine.partition(":")[0]
        for kind, attribute in shared_states():
            vars(kind)[attribute].clear() if machine == "cpu" else None
    assert {key: dict(vars(key[0])[key[1]]) for key in shared_states()} == {key: {} for key in before}


def test_an_accelerator_of_before_is_there_after() -> None:
    before = accelerate.Accelerator(cpu=True)
    try:
        machine = simulate("cuda:2")
        with machine:
            assert accelerate.Accelerator().device.type == "cuda"
            assert before.device.type == "cpu"
        assert PartialState().device.type == "cpu"
        assert before.state.device.type == "cpu"
        with machine:
            assert PartialState._shared_state["device"].type == "cuda"
    finally:
        for kind, attribute in shared_states():
            vars(kind)[attribute].clear()


def test_the_warning_of_many_cards_is_each_machines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.random, "_fork_rng_warned_already", False)
    for _ in range(2):
        with simulate("cuda:2"), pytest.warns(UserWarning, match="2 available devices"), torch.random.fork_rng():
            pass
